"""The dynamic batch: what a file makes of 1, 2, 7 and 64 crops at once against the same crops one at a time."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lbkit.core.backend import ModelOutput, RuntimeBackend
from lbkit.core.geometry import ImageArray
from lbkit.evaluation.walk import Cut, crop_key
from lbkit.parity.candidates import CandidateModel
from lbkit.parity.definitions import DYNAMIC_BATCHES, BatchFinding
from lbkit.runtime.backends import load_backend


def batch_findings(
    model: CandidateModel, cuts: Sequence[Cut], *, decided: NDArray[np.bool_], threads: int | None
) -> tuple[BatchFinding, ...]:
    """Run batches of a few crops, repeated as often as needed, in a session of their own that is closed afterwards.

    Args:
        model: The file.
        cuts: N people, at least one.
        decided: (N, K) joints whose map is decided; in keypoints the others are left out, unless none is decided.
        threads: Threads inside an operator.

    Returns:
        One record for each of `DYNAMIC_BATCHES`: the greatest difference of a heatmap's cell, or of a keypoint's
        coordinate where the file puts out no heatmaps.

    Raises:
        ModelError: A batch fails.
    """
    return_freed_memory()
    backend = load_backend(model.path, provider=model.provider, threads=threads)
    crops = np.stack([cut.crops[crop_key(model.contract)][0] for cut in cuts])
    singles = np.concatenate([_output(backend.run(crops[index : index + 1])) for index in range(len(crops))])
    counts_all = "heatmaps" in model.contract.outputs or not decided.any()
    counted = np.ones_like(decided) if counts_all else decided
    return tuple(_finding(backend, crops, singles, counted=counted, batch=batch) for batch in DYNAMIC_BATCHES)


def return_freed_memory() -> None:
    """Give memory that was freed back to the system, where the C library (glibc) keeps it for itself.

    What PyTorch and idle sessions have let go is nearly half of what a check holds by then: with the six shipped files
    a check peaks at 1.8 GB in place of 2.9 GB (AMD EPYC, two cores, 2026-11-21).
    """
    gc.collect()  # sessions that were let go wait for it
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another system, another C library
        ctypes.CDLL(None).malloc_trim(0)


def _finding(
    backend: RuntimeBackend, crops: ImageArray, singles: NDArray[np.float32], *, counted: NDArray[np.bool_], batch: int
) -> BatchFinding:
    order = np.arange(batch) % len(crops)
    differences = np.abs(_output(backend.run(crops[order])) - singles[order])[counted[order]]
    return BatchFinding(batch, float(np.nan_to_num(differences, nan=np.inf).max(initial=0.0)))


def _output(output: ModelOutput) -> NDArray[np.float32]:
    if output.heatmaps is not None:
        return output.heatmaps
    assert output.keypoints is not None  # a model output has one of the two
    return output.keypoints
