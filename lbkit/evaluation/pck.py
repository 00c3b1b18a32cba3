"""Percentage of correct keypoints, as every part of lbkit counts it.

A joint is right when its distance in image pixels is at most t times the height of the person's box made 4:3 without
padding. With crops of 256 x 192 that is the rule "t times the image size" on an unpadded crop, whatever padding a
model uses. Other lengths that literature measures by can be asked for by name (see `norm_lengths_px`).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lbkit.core.geometry import FloatArray, fit_box

PCK_ASPECT = 4.0 / 3.0
"""Height to width of the box that distances are measured by."""

PckNorm = Literal["box", "torso", "diagonal", "image"]
PCK_NORMS: tuple[PckNorm, ...] = get_args(PckNorm)
NORM_TEXTS: dict[PckNorm, str] = {
    "box": "the height of the annotated box made 4:3 without padding",
    "torso": "the distance from the left hip to the right shoulder; people without both labelled do not count",
    "diagonal": "the diagonal of the annotated box",
    "image": "the longer side of the picture",
}
"""What t is multiplied with, in words."""

THRESHOLDS: tuple[float, ...] = tuple(round(0.01 * step, 2) for step in range(1, 21))
"""The t of the curve."""

RESAMPLES = 1000
INTERVAL_PERCENT = (2.5, 97.5)

_MIN_TORSO_PX = 1.0
"""A torso seen end on has no length to measure by."""


def box_heights_px(boxes_xyxy: FloatArray) -> NDArray[np.float64]:
    """Return (N,) heights in pixels of (N, 4) boxes made 4:3 without padding."""
    fitted = [fit_box(box, aspect=PCK_ASPECT) for box in np.asarray(boxes_xyxy).reshape(-1, 4)]
    return np.array([box[3] - box[1] for box in fitted], dtype=np.float64)


def box_diagonals_px(boxes_xyxy: FloatArray) -> NDArray[np.float64]:
    """Return (N,) diagonals in pixels of (N, 4) boxes."""
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    return np.asarray(np.hypot(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]))


def torso_lengths_px(hips_xy: FloatArray, shoulders_xy: FloatArray) -> NDArray[np.float64]:
    """Return (N,) distances from left hip to right shoulder (Sapp and Taskar, 2013); NaN where one is not labelled.

    Args:
        hips_xy: (N, 2) left hips, NaN where not labelled.
        shoulders_xy: (N, 2) right shoulders, NaN where not labelled.
    """
    lengths = np.linalg.norm(np.asarray(shoulders_xy, np.float64) - np.asarray(hips_xy, np.float64), axis=-1)
    return np.where(lengths >= _MIN_TORSO_PX, lengths, np.nan)


def relative_distances(found_xy: FloatArray, true_xy: FloatArray, *, heights_px: FloatArray) -> NDArray[np.float64]:
    """Return joint errors as fractions of the persons' box heights.

    Args:
        found_xy: (N, K, 2) joints in any frame in which the boxes are upright and undistorted.
        true_xy: (N, K, 2) annotated joints in the same frame.
        heights_px: (N,) heights of the 4:3 boxes in the same frame, or other lengths to measure by.

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


class ImageBootstrap:
    """Intervals of shares by drawing images, not people, with replacement (Efron and Tibshirani, 1993).

    People on one photograph are alike, so drawing people would make intervals too narrow. The same draws serve every
    figure and every model.

    Args:
        image_ids: (N,) the image of each person.
        resamples: How often all images are drawn.
        seed: Decides the draws.
    """

    def __init__(self, image_ids: NDArray[np.int64], *, resamples: int = RESAMPLES, seed: int = 0) -> None:
        images, self._image_of = np.unique(image_ids, return_inverse=True)
        self._images = len(images)
        shares = np.full(self._images, 1.0 / max(self._images, 1))
        rng = np.random.default_rng(seed)
        self._draws = rng.multinomial(self._images, shares, size=resamples).astype(np.float32)

    def intervals(self, right: NDArray[np.number], counted: NDArray[np.number]) -> NDArray[np.float64]:
        """Return (M, 2) bounds that hold 95 % of the draws; NaN where nothing is counted.

        Args:
            right: (N, M) how many joints of each person are right, for each of M figures.
            counted: (N, M) how many count.
        """
        hits, totals = self._draws @ self._by_image(right), self._draws @ self._by_image(counted)
        shares = np.divide(hits, totals, out=np.full(hits.shape, np.nan, hits.dtype), where=totals > 0)
        bounds = np.full((shares.shape[1], 2), np.nan)
        told = ~np.isnan(shares).all(axis=0)
        if told.any():
            bounds[told] = np.nanpercentile(shares[:, told].astype(np.float64), INTERVAL_PERCENT, axis=0).T
        return bounds

    def _by_image(self, per_person: NDArray[np.number]) -> NDArray[np.float32]:
        sums = np.zeros((self._images, per_person.shape[1]), np.float32)
        np.add.at(sums, self._image_of, per_person.astype(np.float32))
        return sums
