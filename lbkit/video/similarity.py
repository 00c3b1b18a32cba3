"""How alike two skeletons are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lbkit.core.geometry import FloatArray

PERSON_PER_BOX = 0.53
"""COCO's people cover so much of their boxes."""


def person_area_px(box_xyxy: FloatArray) -> float:
    """Return about the area of a person in square pixels from the (4,) box."""
    left, top, right, bottom = box_xyxy
    return max(1.0, PERSON_PER_BOX * float((right - left) * (bottom - top)))


def keypoint_similarity(
    first_xy: FloatArray, second_xy: FloatArray, *, area_px: float, sigmas: NDArray[np.float64]
) -> float:
    """Return the object keypoint similarity of two skeletons, 0 to 1 (COCO keypoint evaluation, 2017).

    Args:
        first_xy: (K, 2) joints in pixels.
        second_xy: (K, 2) joints in pixels.
        area_px: Area of the person in square pixels.
        sigmas: (K,) the joints' constants.
    """
    squared = ((first_xy - second_xy) ** 2).sum(axis=1)
    return float(np.exp(-squared / (2 * area_px * (2 * sigmas) ** 2)).mean())
