"""The simple baseline: ResNet-18 and three deconvolutions."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from lbkit.models.resnet import ResNetTrunk, initialize_head, upsampling


class Baseline(nn.Module):
    """ResNet-18, three deconvolutions of 256 channels and a 1x1 convolution (Xiao et al., 2018)."""

    def __init__(self, joints: int) -> None:
        super().__init__()
        self.backbone = ResNetTrunk()
        self.head = nn.Sequential(
            upsampling(ResNetTrunk.channels[2], 256),
            upsampling(256, 256),
            upsampling(256, 256),
            nn.Conv2d(256, joints, 1),
        )
        initialize_head(self.head)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, K, H/4, W/4) heatmaps from (N, 3, H, W) normalised images."""
        return cast(Tensor, self.head(self.backbone(images)[2]))
