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

LOW_RESOLUTION_PX = (56, 128)
"""Heights in pixels that a crop of few pixels is made of, as small people in a photograph are."""

MIN_REMAINDER = 0.3
"""A cut leaves at least this share of the box's height or width."""

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
    """Return the person framed otherwise now and then: legs alone, a box about the legs, or cut off by an edge."""
    choice = rng.random()
    for share, change in ((plan.legs_only, _legs_only), (plan.half_body, _half_body), (plan.cut_off, _cut_off)):
        if choice < share:
            return change(person, rng)
        choice -= share
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
        self._jpeg, self._low_resolution = plan.jpeg, plan.low_resolution
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
        if rng.random() < self._low_resolution:
            crop = _few_pixels(crop, int(rng.integers(*LOW_RESOLUTION_PX)))
        if rng.random() < self._jpeg:
            crop = _jpeg_artefacts(crop, int(rng.integers(*JPEG_QUALITY)))
        varied: Tensor = self._transform(torch.from_numpy(crop).permute(2, 0, 1))
        return varied


def _few_pixels(crop: ImageArray, height: int) -> ImageArray:
    full_height, full_width = crop.shape[:2]
    if height >= full_height:
        return crop
    small = cv2.resize(crop, (max(1, full_width * height // full_height), height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (full_width, full_height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


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


def _cut_off(person: Person, rng: np.random.Generator) -> Person:
    """End the picture across the person, or hide what is below a line, as tables and other people do.

    Joints beyond the line are not labelled any more; a cut that would leave none changes nothing.
    """
    left, top, right, bottom = person.box_xyxy
    kind = rng.choice(["picture ends below", "hidden below", "picture ends at a side"], p=[0.5, 0.2, 0.3])
    if kind == "picture ends at a side":
        return _cut_side(person, rng)
    known = person.joints_xy[person.labelled]
    first = max(known[:, 1].min() if len(known) else bottom, top + MIN_REMAINDER * (bottom - top))
    line = int(rng.uniform(min(first, bottom), bottom)) + 1
    kept = person.labelled & (person.joints_xy[:, 1] < line - 1)
    if line >= min(bottom, person.image.shape[0]) or not kept.any():
        return person
    image = _covered(person.image, line, rng) if kind == "hidden below" else person.image[:line]
    return Person(image, np.array([left, top, right, line]), person.joints_xy, kept)


def _cut_side(person: Person, rng: np.random.Generator) -> Person:
    """End the picture at the right or left of a vertical line through the box."""
    left, top, right, bottom = person.box_xyxy
    width = person.image.shape[1]
    line = int(left + rng.uniform(MIN_REMAINDER, 1.0) * (right - left))
    if not 0 < line < width:
        return person
    if rng.random() < 0.5:
        kept = person.labelled & (person.joints_xy[:, 0] < line - 1)
        image, box, joints = person.image[:, :line], np.array([left, top, line, bottom]), person.joints_xy
    else:
        line = int(right + left) - line
        if not 0 < line < width - 1:
            return person
        kept = person.labelled & (person.joints_xy[:, 0] > line)
        image, box = person.image[:, line:], np.array([0.0, top, right - line, bottom])
        joints = person.joints_xy - np.array([line, 0])
    return Person(image, box, joints, kept) if kept.any() else person


def _covered(image: ImageArray, line: int, rng: np.random.Generator) -> ImageArray:
    """Return a copy whose rows from `line` on show one colour of the picture with a little noise."""
    row, column = rng.integers(image.shape[0]), rng.integers(image.shape[1])
    noise = rng.normal(0.0, rng.uniform(2, 20), size=image[line:].shape)
    covered = image.copy()
    covered[line:] = np.clip(image[row, column] + noise, 0, 255)
    return covered
