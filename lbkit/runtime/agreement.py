"""Whether two runtimes give one answer: the same people through both, compared within what the arithmetic allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lbkit.core.backend import ModelOutput
from lbkit.core.codec import decode_heatmaps
from lbkit.core.contract import ModelContract
from lbkit.core.geometry import ImageSize
from lbkit.core.preprocess import crop_person

Arithmetic = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a runtime may differ by from the cpu's answers.

    Attributes:
        cells: Greatest difference of a heatmap's cell or a joint's score, as a share of the highest of all.
        joints_px: How far nine joints of ten may lie apart at most, in input pixels.
    """

    cells: float
    joints_px: float


TOLERANCES: Mapping[Arithmetic, Tolerance] = {
    "fp32": Tolerance(cells=1e-4, joints_px=0.01),
    "fp16": Tolerance(cells=5e-3, joints_px=0.25),
    "bf16": Tolerance(cells=0.05, joints_px=0.25),
    "int8": Tolerance(cells=0.15, joints_px=1.0),
}
"""Between `cpu` and OpenVINO 2026.4 at most these were measured, of cnn, fpn and baseline, on eight rendered people and
106 of coco-val2017-subset (AMD EPYC with AVX-512 BF16 and VNNI, 2026-11-21): fp32 3.2e-6 and 1.7e-5 px; bf16 0.027 and
0.093 px; int8 files 0.053 and 0.61 px. Files in fp16 lie 0.0013 and, at the 99th percentile, 0.055 px from fp32
(`lbkit/parity/limits/fp16.toml`), which is no fp32."""

MIN_PEAK = 0.3
"""Maps with a lower peak have none to place; on the first four people 23 of cnn's 24 joints and all of fpn's and
baseline's are above."""

_MOST_JOINTS = 90.0
"""The percentile: single joints jump between two equally high cells, and a channel that is wrong is one of six."""

_PEOPLE = 8
_PICTURE = ImageSize(256, 192)


def person_crops(contract: ModelContract, count: int) -> NDArray[np.uint8]:
    """Return (N, H, W, 3) uint8 crops of rendered people, the same each time; the first come again after `_PEOPLE`.

    A trained network has clear peaks on them, without which neither cells nor joints say much. One takes about 35 ms.
    """
    from lbkit.synthetic.figures import random_figure

    seeds = ([0, number] for number in range(min(count, _PEOPLE)))
    figures = [random_figure(np.random.default_rng(seed), _PICTURE, cropped_share=0.0) for seed in seeds]
    crops = [crop_person(figure.image, figure.box_xyxy, contract=contract)[0] for figure in figures]
    return np.stack([crops[number % _PEOPLE] for number in range(count)])


def sample_crops(contract: ModelContract, count: int) -> NDArray[np.uint8]:
    """Return (N, H, W, 3) uint8 crops to take times with, the same each time: smooth blots of colour, made at once."""
    size = contract.input.size
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (count, size.height // 16 + 1, size.width // 16 + 1, 3))
    tall = np.repeat(np.repeat(coarse, 16, axis=1), 16, axis=2)[:, : size.height, : size.width]
    return np.asarray(np.clip(tall + rng.normal(0, 12, tall.shape), 0, 255), dtype=np.uint8)


def disagreement(
    output: ModelOutput, expected: ModelOutput, *, contract: ModelContract, arithmetic: Arithmetic | None = None
) -> str | None:
    """Say in words how an output differs from the expected one beyond tolerance, or None if it does not.

    Args:
        output: What one runtime put out.
        expected: What the reference put out for the same crops.
        contract: The model's contract.
        arithmetic: Sets the tolerance; the contract's precision when None.
    """
    tolerance = TOLERANCES[arithmetic or contract.precision]
    for array in (output.heatmaps, output.keypoints):
        if array is not None and not np.isfinite(array).all():
            return "it puts out numbers that are not finite"
    found, wanted = _joints(output, contract), _joints(expected, contract)
    what, pair = "scores", (found[..., 2], wanted[..., 2])
    if output.heatmaps is not None and expected.heatmaps is not None:
        what, pair = "heatmaps", (output.heatmaps, expected.heatmaps)
    worst, limit = float(np.abs(pair[0] - pair[1]).max()), tolerance.cells * float(np.abs(pair[1]).max())
    if worst > limit:
        return f"its {what} differ by {worst:.2g} from the cpu's, and {limit:.2g} is allowed"
    moved = _most_move(found, wanted)
    if moved > tolerance.joints_px:
        return f"one joint of ten lies {moved:.2g} px or more from the cpu's, and {tolerance.joints_px:g} is allowed"
    return None


def _joints(output: ModelOutput, contract: ModelContract) -> NDArray[np.float32]:
    if output.keypoints is not None:
        return output.keypoints
    assert output.heatmaps is not None  # ModelOutput has the one or the other
    return decode_heatmaps(output.heatmaps, spec=contract.heatmap)


def _most_move(joints: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    has_peak = expected[..., 2] >= MIN_PEAK
    if not has_peak.any():
        return 0.0
    moves = np.linalg.norm(joints[..., :2] - expected[..., :2], axis=-1)[has_peak]
    return float(np.percentile(moves, _MOST_JOINTS))
