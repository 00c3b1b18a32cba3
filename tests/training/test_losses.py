from __future__ import annotations

import pytest
import torch

from training.losses import JointsMSELoss


def by_hand(heatmaps: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, *, visible: bool) -> float:
    """The formula, written out with loops."""
    total = 0.0
    for i in range(len(heatmaps)):
        sample = 0.0
        for j in range(heatmaps.shape[1]):
            sample += float(weights[i, j]) * float(((heatmaps[i, j] - targets[i, j]) ** 2).mean())
        total += sample / (float(weights[i].sum()) if visible else heatmaps.shape[1])
    return total / len(heatmaps)


@pytest.mark.parametrize("reduction", ["fixed", "visible"])
def test_loss_is_the_formula(reduction: str) -> None:
    torch.manual_seed(0)
    heatmaps, targets = torch.rand(3, 6, 8, 5), torch.rand(3, 6, 8, 5)
    weights = torch.tensor([[1, 1, 1, 1, 1, 1.0], [1, 0, 0, 0, 0, 0], [0, 1, 1, 0, 1, 0]])
    loss = JointsMSELoss(reduction=reduction)(heatmaps, targets, weights)  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(by_hand(heatmaps, targets, weights, visible=reduction == "visible"))


def test_unlabelled_joints_make_the_fixed_loss_look_better() -> None:
    heatmaps, targets = torch.zeros(1, 6, 8, 5), torch.ones(1, 6, 8, 5)
    weights = torch.tensor([[1, 1, 0, 0, 0, 0.0]])
    assert float(JointsMSELoss()(heatmaps, targets, weights)) == pytest.approx(2 / 6)
    assert float(JointsMSELoss(reduction="visible")(heatmaps, targets, weights)) == pytest.approx(1.0)


def test_weights_can_be_left_out_and_nobody_labelled_costs_nothing() -> None:
    heatmaps, targets = torch.zeros(2, 6, 8, 5), torch.ones(2, 6, 8, 5)
    nobody = torch.zeros(2, 6)
    assert float(JointsMSELoss(use_target_weight=False)(heatmaps, targets, nobody)) == pytest.approx(1.0)
    for reduction in ("fixed", "visible"):
        assert float(JointsMSELoss(reduction=reduction)(heatmaps, targets, nobody)) == 0.0  # type: ignore[arg-type]


def test_masked_joints_get_no_gradient() -> None:
    heatmaps = torch.zeros(1, 6, 8, 5, requires_grad=True)
    weights = torch.tensor([[1, 0, 1, 1, 1, 1.0]])
    JointsMSELoss()(heatmaps, torch.ones(1, 6, 8, 5), weights).backward()
    assert heatmaps.grad is not None
    assert not heatmaps.grad[0, 1].any()
    assert heatmaps.grad[0, 0].all()
