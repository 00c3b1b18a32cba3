"""Joints that a heatmap leaves undecided: two cells so nearly equal that rounding chooses between them.

A joint that another runtime finds elsewhere is a difference, with one honest exception: where two cells of its map are
equal to within rounding, either may be called the highest. Such a near tie is recognised by disturbing the map by no
more than the two maps differ, and seeing its decoded joint jump as far; or, where the other joint is known, by how high
the map stands at that place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lbkit.core.codec import decode_heatmaps
from lbkit.core.contract import DecoderName, HeatmapSpec
from lbkit.core.geometry import FloatArray, heatmap_to_input

ROUNDING = 1e-6
"""About eight units in the last place: what float32 sums of other order differ by, relative to the largest value."""

_PROBES = 64  # a flip between two given cells comes up once in four disturbances of random sign


def near_ties(
    distances: FloatArray,
    cells: FloatArray,
    heatmaps: NDArray[np.float32],
    *,
    spec: HeatmapSpec,
    tolerance_px: float,
    decoder: DecoderName | None = None,
) -> NDArray[np.bool_]:
    """Return (N, K) whether a joint beyond the tolerance is explained by its own map being undecided.

    Args:
        distances: (N, K) how far the joints lie apart in input pixels.
        cells: (N, K) how much their maps differ at most.
        heatmaps: (N, K, h, w) the expected maps.
        spec: The contract's heatmap.
        tolerance_px: Joints within it are not looked at.
        decoder: What decoded the maps; the contract's own when None.
    """
    ties = np.zeros(distances.shape, dtype=np.bool_)
    for index in zip(*np.nonzero(distances > tolerance_px), strict=True):
        heatmap = heatmaps[index]
        disturbance = max(float(cells[index]), ROUNDING * float(np.abs(heatmap).max()))
        wandering = wandering_px(heatmap, spec, disturbance=disturbance, decoder=decoder)
        ties[index] = distances[index] <= 2.0 * wandering
    return ties


def wandering_px(
    heatmap: NDArray[np.float32], spec: HeatmapSpec, *, disturbance: float, decoder: DecoderName | None = None
) -> float:
    """Return how far a decoded (h, w) map moves at most when its cells change by `disturbance`, in input pixels."""
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), size=(1, _PROBES, *heatmap.shape))
    disturbed = (heatmap + disturbance * signs).astype(np.float32)
    probes = decode_heatmaps(disturbed, spec=spec, decoder=decoder)[0, :, :2]
    still = decode_heatmaps(heatmap[None, None], spec=spec, decoder=decoder)[0, 0, :2]
    return float(np.linalg.norm(probes - still, axis=1).max())


def peak_margins(heatmaps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (N, K) how far the highest cell of each (h, w) map stands above the second highest; 0 is a tie."""
    flat = heatmaps.reshape(*heatmaps.shape[:2], -1)
    second, first = np.moveaxis(np.partition(flat, -2, axis=-1)[..., -2:], -1, 0)
    return np.asarray(first - second, dtype=np.float32)


def shortfalls(
    joints_xy: FloatArray,
    heatmaps: NDArray[np.float32],
    *,
    spec: HeatmapSpec,
    near_px: float,
    from_xy: FloatArray | None = None,
) -> NDArray[np.float32]:
    """Return how far each map lies below its highest cell where another path put the joint: 0 is at that cell itself.

    Args:
        joints_xy: (N, K, 2) where the other path put the joints, in input pixels.
        heatmaps: (N, K, h, w) the expected maps.
        spec: The contract's heatmap.
        near_px: A joint lies at the cells whose centres are no farther from it than this.
        from_xy: (N, K, 2) the expected joints, of a decoder that averages over cells: its joint lies between two peaks,
            so it belongs to every cell whose line from the expected joint passes so near.

    Returns:
        (N, K); infinite where no cell is near.
    """
    rows, columns = np.divmod(np.arange(spec.size.height * spec.size.width), spec.size.width)
    cells = heatmap_to_input(np.stack([columns, rows], axis=-1), spec.stride)
    away = cells - joints_xy[..., None, :]  # (N, K, h*w, 2) from the joint to each cell
    if from_xy is not None:
        line = cells - from_xy[..., None, :]
        length2 = np.maximum((line**2).sum(axis=-1, keepdims=True), 1e-12)
        along = ((joints_xy - from_xy)[..., None, :] * line).sum(axis=-1, keepdims=True) / length2
        away = away - (1.0 - np.clip(along, 0.0, 1.0)) * line
    flat = heatmaps.reshape(*heatmaps.shape[:2], -1)
    near = np.where((away**2).sum(axis=-1) <= near_px**2, flat, -np.inf)
    return np.asarray(flat.max(axis=-1) - near.max(axis=-1), dtype=np.float32)
