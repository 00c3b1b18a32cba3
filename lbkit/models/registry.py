"""The networks by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from lbkit.core.contract import (
    CONTRACT_VERSION,
    CropSpec,
    HeatmapSpec,
    InputSpec,
    ModelContract,
)
from lbkit.core.geometry import ImageSize
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.errors import ModelNotFoundError
from lbkit.models.baseline import Baseline
from lbkit.models.cnn import DilatedCnn
from lbkit.models.fpn import FeaturePyramid

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MEAN_COLOR = (124, 116, 104)
"""ImageNet's mean in 8 bits: outside the image the normalised input is about zero."""

INPUT_SIZE = ImageSize(256, 192)
STRIDE = 4


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network that can be built by name.

    Attributes:
        name: Name in the registry.
        build: Makes the module for K joints.
        description: One line for people.
        has_backbone: Whether it starts from ImageNet weights.
    """

    name: str
    build: Callable[[int], nn.Module]
    description: str
    has_backbone: bool


ARCHITECTURES = {
    entry.name: entry
    for entry in (
        Architecture("baseline", Baseline, "ResNet-18 and three deconvolutions (Xiao et al., 2018)", has_backbone=True),
        Architecture("fpn", FeaturePyramid, "ResNet-18 and a feature pyramid (Lin et al., 2016)", has_backbone=True),
        Architecture("cnn", DilatedCnn, "small dilated network (Yu & Koltun, 2016)", has_backbone=False),
    )
}


def find_architecture(name: str) -> Architecture:
    """Return the architecture of that name.

    Raises:
        ModelNotFoundError: There is none; the message offers the nearest.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    near = difflib.get_close_matches(name.lower(), ARCHITECTURES, n=1, cutoff=0.4)
    remedy = f"did you mean {near[0]}?" if near else None
    raise ModelNotFoundError(f"no model {name!r}; there are {', '.join(ARCHITECTURES)}", remedy=remedy)


def build_model(name: str) -> nn.Module:
    """Return the named network for the six lower-body joints, with random weights.

    Raises:
        ModelNotFoundError: There is no such network.
    """
    return find_architecture(name).build(len(LOWER_BODY_6))


def bare_contract(name: str, *, weights_sha256: str, training_data: tuple[str, ...]) -> ModelContract:
    """Return the contract of a network as it is trained: float32 in, heatmaps out, nothing measured yet."""
    cells = ImageSize(INPUT_SIZE.height // STRIDE, INPUT_SIZE.width // STRIDE)
    return ModelContract(
        contract_version=CONTRACT_VERSION,
        model=name,
        keypoints=LOWER_BODY_6,
        input=InputSpec(
            name="images",
            size=INPUT_SIZE,
            dtype="float32",
            layout="NCHW",
            color_order="RGB",
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        ),
        crop=CropSpec(padding=1.25, resampling="bilinear", border_value=MEAN_COLOR, pixel_convention="center"),
        heatmap=HeatmapSpec(size=cells, stride=STRIDE, sigma=2.0, decoder="dark", decoded_in_graph=False),
        outputs=("heatmaps",),
        precision="fp32",
        weights_sha256=weights_sha256,
        training_data=training_data,
        evaluation=(),
    )
