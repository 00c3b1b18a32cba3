"""A small dilated network for phones and old processors."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

WIDTH = 64
DILATIONS = (1, 2, 4, 1)


class DilatedBlock(nn.Module):
    """A residual block of two dilated 3x3 convolutions that keeps its input's size (Yu & Koltun, 2016)."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels, dilation=dilation)
        self.second = _convolution(channels, channels, dilation=dilation)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, C, H, W) features of the same shape."""
        return functional.relu(features + self.second(functional.relu(self.first(features))))


class DilatedCnn(nn.Module):
    """A 7x7 stem to stride 4, four dilated residual blocks there, and a 3x3 and 1x1 head; about 0.39 M parameters."""

    def __init__(self, joints: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTH, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(inplace=True),
            _convolution(WIDTH, WIDTH, stride=2),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential(*(DilatedBlock(WIDTH, dilation) for dilation in DILATIONS))
        self.head = nn.Sequential(_convolution(WIDTH, WIDTH), nn.ReLU(inplace=True), nn.Conv2d(WIDTH, joints, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, K, H/4, W/4) heatmaps from (N, 3, H, W) normalised images."""
        return cast(Tensor, self.head(self.blocks(self.stem(images))))


def _convolution(in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(
        in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))
