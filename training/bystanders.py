"""Other people beside, behind and in front of a training person, taken from other training pictures.

Most pictures of the training sets show one person. In a crowd the network then answers for whoever is nearest; pasting
others in teaches it whom the box means, much as copy-paste augmentation does for instance segmentation (Ghiasi et al.,
2021), here without masks: the edge of a soft superellipse in the other person's box stands for an outline.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lbkit.core.geometry import FloatArray, ImageArray
from training.augment import Person

RELATIVE_HEIGHT = (0.7, 1.25)
"""Heights of a bystander in heights of the person."""

DISTANCE = (0.3, 0.9)
"""Distance of the two boxes' middles across, in their mean widths: 1 is side by side."""

SHIFT_DOWN = (-0.15, 0.15)
"""How much lower the bystander's feet are, in heights of the person."""

BEHIND = 0.6
"""Share of bystanders that stand behind, where the person's own outline hides them."""

MAX_ENLARGEMENT = 2.5
"""A bystander of fewer pixels is not taken: it would be a blur."""

_MARGIN = 0.06
_EXPONENT, _SOFTNESS = 2.6, 0.12


def add_bystander(person: Person, other: Person, *, rng: np.random.Generator) -> Person:
    """Return the person with another one pasted beside, behind or in front.

    Labels stay as they are: a joint that is covered is hidden, and COCO's annotators label hidden joints too. Where the
    bystander would not be in the picture, or is too small to be enlarged, nothing changes.

    Args:
        person: Whom the crop is about.
        other: Somebody of another picture.
        rng: Source of chance.
    """
    patch = _cut_out(other, height=_height(person.box_xyxy) * rng.uniform(*RELATIVE_HEIGHT))
    side, distance, down = rng.choice([-1.0, 1.0]), rng.uniform(*DISTANCE), rng.uniform(*SHIFT_DOWN)
    behind, mirrored = rng.random() < BEHIND, rng.random() < 0.5
    if patch is None:
        return person
    if mirrored:
        patch = np.ascontiguousarray(patch[:, ::-1])
    left, _, right, bottom = person.box_xyxy
    height, width = patch.shape[:2]
    middle = (left + right) / 2 + side * distance * ((right - left) + width) / 2
    top_left = np.array([middle - width / 2, bottom + down * (bottom - person.box_xyxy[1]) - height])
    image = _pasted(person.image, patch, top_left, spared=person.box_xyxy if behind else None)
    return replace(person, image=image)


def _height(box_xyxy: FloatArray) -> float:
    return float(box_xyxy[3] - box_xyxy[1])


def _cut_out(other: Person, *, height: float) -> ImageArray | None:
    """Return the other person's box with a margin, scaled to a height in pixels, or None where that is no use."""
    left, top, right, bottom = other.box_xyxy
    margin = _MARGIN * (bottom - top)
    rows, columns = other.image.shape[:2]
    x0, x1 = max(0, int(left - margin)), min(columns, int(right + margin) + 1)
    y0, y1 = max(0, int(top - margin)), min(rows, int(bottom + margin) + 1)
    scale = height / max(bottom - top, 1.0)
    size = (round((x1 - x0) * scale), round((y1 - y0) * scale))
    if x1 - x0 < 4 or y1 - y0 < 4 or min(size) < 4 or scale > MAX_ENLARGEMENT:
        return None
    resample = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(other.image[y0:y1, x0:x1], size, interpolation=resample), dtype=np.uint8)


def _pasted(image: ImageArray, patch: ImageArray, top_left: FloatArray, *, spared: FloatArray | None) -> ImageArray:
    """Return a copy of an image with a patch blended in, its outline soft; `spared` is a box whose inside stays."""
    rows, columns = image.shape[:2]
    x, y = (int(value) for value in np.floor(top_left))
    height, width = patch.shape[:2]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, columns), min(y + height, rows)
    if x1 <= x0 or y1 <= y0:
        return image
    box = np.array([x, y, x + width, y + height], dtype=np.float64)
    opaque = _outline(box, x0, y0, x1, y1)
    if spared is not None:
        opaque = opaque * (1.0 - _outline(spared, x0, y0, x1, y1))
    pasted = image.copy()
    below = pasted[y0:y1, x0:x1].astype(np.float32)
    above = patch[y0 - y : y1 - y, x0 - x : x1 - x].astype(np.float32)
    pasted[y0:y1, x0:x1] = np.rint(below + (above - below) * opaque[..., np.newaxis]).astype(np.uint8)
    return pasted


def _outline(box_xyxy: FloatArray, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.float32]:
    """Return how opaque a superellipse in a box is at the pixels of a window, 0 outside to 1 inside."""
    left, top, right, bottom = box_xyxy
    across = (np.arange(x0, x1) + 0.5 - (left + right) / 2) / max((right - left) / 2, 1e-6)
    down = (np.arange(y0, y1) + 0.5 - (top + bottom) / 2) / max((bottom - top) / 2, 1e-6)
    power = np.abs(across)[np.newaxis, :] ** _EXPONENT + np.abs(down)[:, np.newaxis] ** _EXPONENT
    radius = power ** (1.0 / _EXPONENT)
    return np.asarray(np.clip((1.0 - radius) / _SOFTNESS, 0.0, 1.0), dtype=np.float32)
