"""Percentage of correct keypoints, as every part of lbkit counts it.

A joint is right when its distance in image pixels is at most t times the height of the person's box made 4:3 without
padding. With crops of 256 x 192 that is the rule "t times the image size" on an unpadded crop, whatever padding a
model uses.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lbkit.core.geometry import FloatArray, fit_box

PCK_ASPECT = 4.0 / 3.0
"""Height to width of the box that distances are measured by."""


def box_heights_px(boxes_xyxy: FloatArray) -> NDArray[np.float64]:
    """Return (N,) heights in pixels of (N, 4) boxes made 4:3 without padding."""
    fitted = [fit_box(box, aspect=PCK_ASPECT) for box in np.asarray(boxes_xyxy).reshape(-1, 4)]
    return np.array([box[3] - box[1] for box in fitted], dtype=np.float64)


def relative_distances(found_xy: FloatArray, true_xy: FloatArray, *, heights_px: FloatArray) -> NDArray[np.float64]:
    """Return joint errors as fractions of the persons' box heights.

    Args:
        found_xy: (N, K, 2) joints in any frame in which the boxes are upright and undistorted.
        true_xy: (N, K, 2) annotated joints in the same frame.
        heights_px: (N,) heights of the 4:3 boxes in the same frame.

    Returns:
        (N, K) distances.
    """
    distances = np.linalg.norm(np.asarray(found_xy, np.float64) - np.asarray(true_xy, np.float64), axis=-1)
    return np.asarray(distances / np.asarray(heights_px, np.float64)[:, None])


def pck(distances: FloatArray, counted: NDArray[np.bool_], *, threshold: float) -> float:
    """Return the share of counted joints within the threshold; NaN when none is counted.

    Args:
        distances: (N, K) relative distances.
        counted: (N, K) which joints count, for example those with v > 0.
        threshold: t, for example 0.05.
    """
    return float((distances <= threshold)[counted].mean()) if counted.any() else float("nan")
