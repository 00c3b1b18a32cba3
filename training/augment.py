"""How a person becomes a varied training crop: one warp, then colour on the crop."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from lbkit.core.geometry import CropTransform, FloatArray, ImageArray, ImageSize
from training.config import Augmentation

LEGS_MARGIN = (0.02, 0.15)
"""Where a legs-only picture ends above the higher hip, in box heights."""

JPEG_QUALITY = (25, 80)

UPRIGHT = 0.1
"""A person counts as upright when the knees lie this far below the hips, in box heights."""


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """A person to cut out, in one frame of reference.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        box_xyxy: (4,) edge coordinates.
        joints_xy: (K, 2) image pixels.
        labelled: (K,) bool.
    """

    image: ImageArray
    box_xyxy: FloatArray
    joints_xy: FloatArray
    labelled: NDArray[np.bool_]


def vary_framing(person: Person, plan: Augmentation, *, rng: np.random.Generator) -> Person:
    """Return the person framed as people film themselves: now and then the legs alone, or a box about the legs."""
    choice = rng.random()
    if choice < plan.legs_only:
        return _legs_only(person, rng)
    if choice < plan.legs_only + plan.half_body:
        return _half_body(person, rng)
    return person


def varied_transform(
    person: Person, plan: Augmentation, *, size: ImageSize, padding: float, rng: np.random.Generator
) -> tuple[CropTransform, bool]:
    """Return one transform with scale, shift, turn and mirroring in it, and whether it mirrors.

    Args:
        person: The person.
        plan: What may vary and how much.
        size: Input size.
        padding: The contract's crop padding.
        rng: Source of chance.
    """
    left, top, right, bottom = person.box_xyxy
    scale = 1.0 + plan.scale * rng.uniform(-1.0, 1.0)
    extent = max(bottom - top, (right - left) * size.aspect)
    shift = plan.translation * extent * rng.uniform(-1.0, 1.0, size=2)
    turn = float(np.clip(rng.normal(0.0, plan.rotation_deg), -2 * plan.rotation_deg, 2 * plan.rotation_deg))
    turns, flip = rng.random() < plan.rotation, bool(rng.random() < plan.flip)
    transform = CropTransform.from_box(
        person.box_xyxy + np.tile(shift, 2),
        size,
        padding=padding * scale,
        rotation_deg=turn if turns else 0.0,
        flip=flip,
    )
    return transform, flip


class ColorVariation:
    """Colour, blur, JPEG artefacts and cut-out on a crop, through torchvision's transforms where it has them.

    Args:
        plan: Probabilities.
    """

    def __init__(self, plan: Augmentation) -> None:
        jitter = v2.ColorJitter(brightness=0.35, contrast=0.35, saturation=0.35)
        self._jpeg = plan.jpeg
        self._transform = v2.Compose(
            [
                v2.RandomApply([jitter], p=plan.color),
                v2.RandomGrayscale(p=plan.gray),
                v2.RandomApply([v2.GaussianBlur(5, sigma=(0.4, 1.6))], p=plan.blur),
                v2.RandomErasing(p=plan.cutout, scale=(0.01, 0.08), value=[124, 116, 104]),
            ]
        )

    def __call__(self, crop: ImageArray, *, seed: int) -> Tensor:
        """Return a (3, H, W) uint8 tensor from an (H, W, 3) uint8 crop; the seed decides everything."""
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        compressed = _jpeg_artefacts(crop, int(rng.integers(*JPEG_QUALITY))) if rng.random() < self._jpeg else crop
        varied: Tensor = self._transform(torch.from_numpy(compressed).permute(2, 0, 1))
        return varied


def _jpeg_artefacts(crop: ImageArray, quality: int) -> ImageArray:
    # The order of the channels does not matter for a round trip.
    _, encoded = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), dtype=np.uint8)


def _legs_only(person: Person, rng: np.random.Generator) -> Person:
    """Cut everything above the hips out of the picture, where the person is upright enough for that."""
    hips, knees = person.joints_xy[0:2], person.joints_xy[2:4]
    known = person.labelled[:2].all() and person.labelled[2:4].any()
    left, top, right, bottom = person.box_xyxy
    height = bottom - top
    if not known or knees[person.labelled[2:4], 1].mean() - hips[:, 1].mean() < UPRIGHT * height:
        return person
    cut = int(hips[:, 1].min() - rng.uniform(*LEGS_MARGIN) * height)
    if cut <= max(top, 0) or cut >= person.image.shape[0] - 2:
        return person
    return Person(
        image=person.image[cut:],
        box_xyxy=np.array([left, 0.0, right, bottom - cut]),
        joints_xy=person.joints_xy - np.array([0.0, cut]),
        labelled=person.labelled,
    )


def _half_body(person: Person, rng: np.random.Generator) -> Person:
    """Return the same picture with a box about the labelled legs."""
    if person.labelled.sum() < 4:
        return person
    known = person.joints_xy[person.labelled]
    low, high = known.min(axis=0), known.max(axis=0)
    room = rng.uniform(0.1, 0.35) * float((high - low).max()) + 2.0
    box = np.concatenate([low - room, high + room]) + 0.5
    return Person(person.image, box, person.joints_xy, person.labelled)
