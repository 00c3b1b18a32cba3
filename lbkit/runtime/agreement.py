"""Whether two runtimes give one answer: the same crops through both, compared within what the precision allows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lbkit.core.backend import ModelOutput
from lbkit.core.codec import decode_heatmaps
from lbkit.core.contract import ModelContract, Precision

HEATMAP_TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "fp16": 1e-2, "int8": 6e-2}
"""Most that a heatmap cell or score may differ. An int8 step rounds to other neighbours in another runtime: cells
0.06 apart were seen between CPUs, of peaks near 1."""

MIN_PEAK = 0.1
"""Maps with a lower peak have none to place."""

JOINT_TOLERANCE_PX: dict[Precision, float] = {"fp32": 0.1, "fp16": 1.0, "int8": 4.0}
"""Most that the median joint may move, in input pixels; single joints jump between two equally high cells."""


def sample_crops(contract: ModelContract, count: int) -> NDArray[np.uint8]:
    """Return (N, H, W, 3) uint8 crops, the same each time: smooth blots of colour, each crop another."""
    size = contract.input.size
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (count, size.height // 16 + 1, size.width // 16 + 1, 3))
    tall = np.repeat(np.repeat(coarse, 16, axis=1), 16, axis=2)[:, : size.height, : size.width]
    return np.asarray(np.clip(tall + rng.normal(0, 12, tall.shape), 0, 255), dtype=np.uint8)


def disagreement(
    output: ModelOutput, expected: ModelOutput, *, contract: ModelContract, precision: Precision | None = None
) -> str | None:
    """Say in words how an output differs from the expected one beyond tolerance, or None if it does not.

    Args:
        output: What one runtime put out.
        expected: What the reference put out for the same crops.
        contract: The model's contract.
        precision: Sets the tolerance; the contract's when None.
    """
    precision = precision or contract.precision
    for array in (output.heatmaps, output.keypoints):
        if array is not None and not np.isfinite(array).all():
            return "it puts out numbers that are not finite"
    if output.heatmaps is not None and expected.heatmaps is not None:
        worst = float(np.abs(output.heatmaps - expected.heatmaps).max())
        limit = HEATMAP_TOLERANCE[precision] * max(1.0, float(np.abs(expected.heatmaps).max()))
        if worst > limit:
            return f"its heatmaps differ by {worst:.2g} from the cpu's, and {limit:.2g} is allowed"
    moved = _median_move(_joints(output, contract), _joints(expected, contract))
    limit = JOINT_TOLERANCE_PX[precision]
    if moved > limit:
        return f"its joints lie {moved:.2g} px from the cpu's, and {limit:g} is allowed"
    return None


def _joints(output: ModelOutput, contract: ModelContract) -> NDArray[np.float32]:
    if output.keypoints is not None:
        return output.keypoints
    assert output.heatmaps is not None  # ModelOutput has the one or the other
    return decode_heatmaps(output.heatmaps, spec=contract.heatmap)


def _median_move(joints: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    has_peak = expected[..., 2] >= MIN_PEAK
    if not has_peak.any():
        return 0.0
    return float(np.median(np.linalg.norm(joints[..., :2] - expected[..., :2], axis=-1)[has_peak]))
