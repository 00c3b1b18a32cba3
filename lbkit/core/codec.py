"""Joints to heatmaps and back: the Gaussian targets and the four decoders.

`lbkit.export.graph` holds the same decoders as graph operations; a test keeps the two equal.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from lbkit.core.contract import DecoderName, HeatmapSpec
from lbkit.core.geometry import FloatArray, heatmap_to_input, input_to_heatmap

SOFT_ARGMAX_BETA = 100.0
"""Sharpness of the soft-argmax; at 100 only cells within about a tenth of the peak's height count."""

DARK_FLOOR = 1e-10
"""Heatmap values below this are raised to it before the logarithm (Zhang et al., 2020, reference settings)."""

Decoder = Callable[[NDArray[np.float32], float], NDArray[np.float32]]


def encode_heatmaps(
    joints_xy: FloatArray, labelled: NDArray[np.bool_], *, spec: HeatmapSpec
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return Gaussian targets centred exactly on the joints, without rounding to a cell.

    Args:
        joints_xy: (..., K, 2) joints in input pixels.
        labelled: (..., K) whether the joint is known.
        spec: The contract's heatmap.

    Returns:
        Targets (..., K, h, w) with peak 1, and weights (..., K): 1 where the joint is labelled and inside the input,
        else 0 with an empty map.
    """
    height, width = spec.size.height, spec.size.width
    cells_xy = input_to_heatmap(np.asarray(joints_xy, dtype=np.float64), spec.stride)
    inside = np.all((cells_xy >= -0.5) & (cells_xy <= np.array([width, height]) - 0.5), axis=-1)
    weights = (labelled & inside).astype(np.float32)
    cells_xy = np.where(weights[..., None] > 0, cells_xy, 0.0)
    factor = -0.5 / spec.sigma**2
    along_x = np.exp(factor * (np.arange(width) - cells_xy[..., 0, None]) ** 2)
    along_y = np.exp(factor * (np.arange(height) - cells_xy[..., 1, None]) ** 2)
    targets = along_y[..., :, None] * along_x[..., None, :] * weights[..., None, None]
    return targets.astype(np.float32), weights


def decode_heatmaps(
    heatmaps: NDArray[np.float32], *, spec: HeatmapSpec, decoder: DecoderName | None = None
) -> NDArray[np.float32]:
    """Return the joints that heatmaps stand for.

    Args:
        heatmaps: (N, K, h, w) float32.
        spec: The contract's heatmap.
        decoder: One of `DECODERS`; the contract's own when None.

    Returns:
        (N, K, 3) float32: x, y in input pixels, and the score, which is the map's highest value.
    """
    heatmaps = np.asarray(heatmaps, dtype=np.float32)
    cells_xy = _DECODERS[decoder or spec.decoder](heatmaps, spec.sigma)
    scores = heatmaps.max(axis=(2, 3))
    return np.concatenate([heatmap_to_input(cells_xy, spec.stride), scores[..., None]], axis=-1, dtype=np.float32)


def _argmax(heatmaps: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:  # noqa: ARG001
    """The highest cell, the first in row order when several are equal."""
    y, x = _peak_cells(heatmaps)
    return np.stack([x, y], axis=-1).astype(np.float32)


def _soft_argmax(heatmaps: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:  # noqa: ARG001
    """The mean position under softmax(beta * h) over all cells (Sun et al., 2018, integral regression)."""
    sharpened = SOFT_ARGMAX_BETA * (heatmaps - heatmaps.max(axis=(2, 3), keepdims=True))
    weights: NDArray[np.float32] = np.exp(sharpened)
    total = weights.sum(axis=(2, 3))
    x = (weights.sum(axis=2) * np.arange(heatmaps.shape[3], dtype=np.float32)).sum(axis=2) / total
    y = (weights.sum(axis=3) * np.arange(heatmaps.shape[2], dtype=np.float32)).sum(axis=2) / total
    return np.stack([x, y], axis=-1).astype(np.float32)


def _quarter(heatmaps: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:  # noqa: ARG001
    """A quarter cell from the highest cell towards the higher neighbour (Newell et al., 2016); none at the border."""
    y, x = _peak_cells(heatmaps)
    left, right, above, below, inside_x, inside_y = _peak_cross(heatmaps, y, x)
    shift_x = np.float32(0.25) * np.sign(right - left) * inside_x
    shift_y = np.float32(0.25) * np.sign(below - above) * inside_y
    return np.stack([x + shift_x, y + shift_y], axis=-1).astype(np.float32)


def _dark(heatmaps: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """One Newton step on the logarithm of the smoothed map (Zhang et al., 2020, eq. 4 to 9).

    The maps are smoothed by a Gaussian of the targets' own sigma, so that the logarithm has one maximum. Smoothing
    pulls a peak inwards where the kernel leaves the map (by up to 0.8 cell at the border, for ideal Gaussians), so
    within its reach of the border the map is taken as it is. Where the curvature is not that of a maximum, or in the
    border cells themselves, the highest cell stands. A step is at most one cell.
    """
    y, x = _peak_cells(heatmaps)
    reach = smoothing_radius(sigma)
    height, width = heatmaps.shape[2:]
    inner = (x >= reach) & (x < width - reach) & (y >= reach) & (y < height - reach)
    maps = np.where(inner[..., None, None], _smooth(heatmaps, sigma), heatmaps)
    step_x, step_y = _newton_step(np.log(np.maximum(maps, np.float32(DARK_FLOOR))), y, x)
    return np.stack([x + step_x, y + step_y], axis=-1).astype(np.float32)


_DECODERS: dict[DecoderName, Decoder] = {
    "argmax": _argmax,
    "soft-argmax": _soft_argmax,
    "quarter": _quarter,
    "dark": _dark,
}


def smoothing_radius(sigma: float) -> int:
    """Return how many cells to either side DARK's smoothing reaches."""
    return int(np.ceil(2.5 * sigma))


def smoothing_kernel(sigma: float) -> NDArray[np.float32]:
    """Return the 1-D Gaussian that DARK smooths with: (2 * radius + 1,) float32, summing to 1."""
    radius = smoothing_radius(sigma)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _smooth(heatmaps: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    kernel = smoothing_kernel(sigma)
    count = heatmaps.shape[0] * heatmaps.shape[1]
    planes = heatmaps.reshape(count, *heatmaps.shape[2:])
    smoothed = [cv2.sepFilter2D(plane, -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT) for plane in planes]
    return np.asarray(smoothed, dtype=np.float32).reshape(heatmaps.shape)


def _peak_cells(heatmaps: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    flat = heatmaps.reshape(*heatmaps.shape[:2], -1).argmax(axis=2)
    return flat // heatmaps.shape[3], flat % heatmaps.shape[3]


def _take(maps: NDArray[np.float32], y: NDArray[np.intp], x: NDArray[np.intp]) -> NDArray[np.float32]:
    """Read one value a map; indices beyond the border read the border cell."""
    height, width = maps.shape[2:]
    index = np.clip(y, 0, height - 1) * width + np.clip(x, 0, width - 1)
    values = np.take_along_axis(maps.reshape(*maps.shape[:2], -1), index[..., None], axis=2)
    return np.asarray(values[..., 0], dtype=np.float32)


def _peak_cross(maps: NDArray[np.float32], y: NDArray[np.intp], x: NDArray[np.intp]) -> tuple[NDArray[np.float32], ...]:
    """Return the values left, right, above and below the peak, and masks of peaks inside along x and y."""
    inside_x = ((x > 0) & (x < maps.shape[3] - 1)).astype(np.float32)
    inside_y = ((y > 0) & (y < maps.shape[2] - 1)).astype(np.float32)
    cross = (_take(maps, y, x - 1), _take(maps, y, x + 1), _take(maps, y - 1, x), _take(maps, y + 1, x))
    return (*cross, inside_x, inside_y)


def _newton_step(
    logs: NDArray[np.float32], y: NDArray[np.intp], x: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return minus the inverse Hessian times the gradient at the peak, zero where there is no maximum."""
    left, right, above, below, inside_x, inside_y = _peak_cross(logs, y, x)
    center = _take(logs, y, x)
    half, quarter = np.float32(0.5), np.float32(0.25)
    dx, dy = half * (right - left), half * (below - above)
    dxx, dyy = right - 2 * center + left, below - 2 * center + above
    corners = _take(logs, y + 1, x + 1) - _take(logs, y - 1, x + 1)
    corners = corners - _take(logs, y + 1, x - 1) + _take(logs, y - 1, x - 1)
    dxy = quarter * corners
    determinant = dxx * dyy - dxy * dxy
    valid = (determinant > 0) & (dxx < 0) & (inside_x > 0) & (inside_y > 0)
    safe = np.where(valid, determinant, np.float32(1))
    step_x = np.clip((dxy * dy - dyy * dx) / safe, -1, 1) * valid
    step_y = np.clip((dxy * dx - dxx * dy) / safe, -1, 1) * valid
    return step_x.astype(np.float32), step_y.astype(np.float32)
