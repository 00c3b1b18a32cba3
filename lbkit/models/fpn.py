"""ResNet-18 with a feature pyramid summed at stride 8."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from lbkit.models.resnet import ResNetTrunk, initialize_head, upsampling

PYRAMID_CHANNELS = 256


class FeaturePyramid(nn.Module):
    """ResNet-18 whose strides 8, 16 and 32 are projected, summed at stride 8 and upsampled once (Lin et al., 2016)."""

    def __init__(self, joints: int) -> None:
        super().__init__()
        self.backbone = ResNetTrunk()
        self.lateral8, self.lateral16, self.lateral32 = (_lateral(width) for width in ResNetTrunk.channels)
        self.upsample = upsampling(PYRAMID_CHANNELS, PYRAMID_CHANNELS)
        self.output = nn.Conv2d(PYRAMID_CHANNELS, joints, 1)
        initialize_head(self.upsample)
        initialize_head(self.output)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, K, H/4, W/4) heatmaps from (N, 3, H, W) normalised images."""
        stride8, stride16, stride32 = self.backbone(images)
        pyramid = self.lateral8(stride8)
        pyramid = pyramid + functional.interpolate(self.lateral16(stride16), scale_factor=2, mode="nearest")
        pyramid = pyramid + functional.interpolate(self.lateral32(stride32), scale_factor=4, mode="nearest")
        return cast(Tensor, self.output(self.upsample(functional.relu(pyramid))))


def _lateral(in_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, PYRAMID_CHANNELS, 1, bias=False), nn.BatchNorm2d(PYRAMID_CHANNELS))
