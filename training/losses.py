"""The loss of heatmap regression."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn


class JointsMSELoss(nn.Module):
    """Mean squared error of heatmaps, weighted joint by joint (Xiao et al., 2018).

    With l_ij the mean over cells of (H'_ij - H_ij)^2 and weights w_ij, a sample's loss is the sum over j of w_ij l_ij
    divided by K ("fixed") or by the sum of its weights ("visible"); the batch's loss is the mean over samples. With
    "fixed", samples with few labelled joints look better than they are.

    Args:
        use_target_weight: Whether weights count; otherwise every joint weighs 1.
        reduction: "fixed" or "visible".
    """

    def __init__(self, *, use_target_weight: bool = True, reduction: Literal["fixed", "visible"] = "fixed") -> None:
        super().__init__()
        self.use_target_weight = use_target_weight
        self.reduction = reduction

    def forward(self, heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Return the scalar loss.

        Args:
            heatmaps: (N, K, h, w) predictions.
            targets: (N, K, h, w).
            weights: (N, K), 0 where a joint is not labelled.
        """
        per_joint = (heatmaps - targets).square().mean(dim=(2, 3))
        if self.use_target_weight:
            per_joint = per_joint * weights
        if self.reduction == "fixed" or not self.use_target_weight:
            return per_joint.mean(dim=1).mean()
        return (per_joint.sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)).mean()
