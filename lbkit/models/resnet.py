"""The ResNet-18 trunk that baseline and fpn share, and where its first weights come from."""

from __future__ import annotations

import logging
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

from lbkit.errors import CheckpointError

log = logging.getLogger(__name__)

TORCHVISION_WEIGHTS = "torchvision"
NO_WEIGHTS = "none"
TRUNK_PREFIX = "backbone."
"""What the trunk's parameters are called inside the networks that have one."""


class ResNetTrunk(nn.Module):
    """ResNet-18 without its head (He et al., 2015): (N, 3, H, W) to features at strides 8, 16 and 32."""

    channels = (128, 256, 512)

    def __init__(self) -> None:
        super().__init__()
        net = resnet18(weights=None)
        self.conv1, self.bn1 = net.conv1, net.bn1
        self.relu, self.maxpool = net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (N, 128, H/8, W/8), (N, 256, H/16, W/16) and (N, 512, H/32, W/32)."""
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        stride8 = self.layer2(self.layer1(stem))
        stride16 = self.layer3(stride8)
        return stride8, stride16, self.layer4(stride16)


def load_backbone(trunk: ResNetTrunk, source: str) -> None:
    """Fill a trunk with ImageNet weights.

    Residual blocks that the file lacks start as identity: the scale of their last batch norm is set to zero
    (Goyal et al., 2017, section 5.1).

    Args:
        trunk: The trunk to fill.
        source: "torchvision" downloads IMAGENET1K_V1; "none" leaves the random start; else a safetensors file with
            torchvision's parameter names, or an lbkit checkpoint with such a trunk.

    Raises:
        CheckpointError: The file is not safetensors, or holds nothing of a ResNet-18, or the download failed.
    """
    if source == NO_WEIGHTS:
        return
    state = _torchvision_state() if source == TORCHVISION_WEIGHTS else _file_state(Path(source))
    own = trunk.state_dict()
    fitting = {name: value.float() for name, value in state.items() if _fits(own, name, value)}
    if not fitting:
        raise CheckpointError("holds no parameter of a ResNet-18 trunk", where=source)
    trunk.load_state_dict(fitting, strict=False)
    absent = [name for name in own if name not in fitting and not name.endswith("num_batches_tracked")]
    for name in absent:
        if name.endswith("bn2.weight"):
            nn.init.zeros_(trunk.get_parameter(name))
    log.info("backbone: %d tensors from %s, %d left at their start", len(fitting), source, len(absent))


def _fits(own: dict[str, Tensor], name: str, value: Tensor) -> bool:
    return name in own and own[name].shape == value.shape


def _torchvision_state() -> dict[str, Tensor]:
    try:
        return dict(ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"torchvision's ImageNet weights cannot be downloaded ({error})",
            remedy="give a file by --backbone-weights FILE, or --backbone-weights none",
        ) from error


def _file_state(path: Path) -> dict[str, Tensor]:
    try:
        return {name.removeprefix(TRUNK_PREFIX): value for name, value in load_file(path).items()}
    except FileNotFoundError as error:
        raise CheckpointError("no such file", where=path) from error
    except Exception as error:  # safetensors raises its own type, not exported under a stable name
        raise CheckpointError(f"not a safetensors file ({error})", where=path) from error


def initialize_head(module: nn.Module) -> None:
    """Start deconvolutions and output convolutions from N(0, 0.001), batch norms from 1 and 0 (Xiao et al., 2018)."""
    for part in module.modules():
        if isinstance(part, nn.ConvTranspose2d | nn.Conv2d):
            nn.init.normal_(part.weight, std=0.001)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def upsampling(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return a 4x4 stride-2 deconvolution with batch norm and ReLU, which doubles height and width."""
    deconvolution = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(deconvolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))
