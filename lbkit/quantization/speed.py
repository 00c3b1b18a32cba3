"""The reduced file against the fp32 file on this machine, in turns, so that what else runs slows both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lbkit.core.geometry import ImageArray
from lbkit.core.threads import checked_threads
from lbkit.errors import ConfigError
from lbkit.runtime.cpu import read_cpu_facts
from lbkit.runtime.ort_backend import OrtBackend
from lbkit.runtime.wheels import import_onnxruntime

MAX_BATCH = 1024
SPEED_BATCHES = (1, 8)
SECONDS = 4.0
MIN_ROUNDS, MAX_ROUNDS = 5, 40


@dataclass(frozen=True, slots=True)
class BatchSpeed:
    """Times at one batch size.

    Attributes:
        batch: People at once.
        before_ms: Median of the fp32 file.
        after_ms: Median of the reduced file.
        ratio: Median over the rounds of before / after in the same round.
        rounds: How often both ran.
    """

    batch: int
    before_ms: float
    after_ms: float
    ratio: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Speed:
    """Times on one machine.

    Attributes:
        batches: One record a batch size.
        cpu: The processor.
        instruction_sets: Those that decide how fast 8 bits are, as far as this processor has them.
        threads: Threads inside the model.
        onnxruntime: Its version.
    """

    batches: tuple[BatchSpeed, ...]
    cpu: str
    instruction_sets: tuple[str, ...]
    threads: int
    onnxruntime: str

    @property
    def least(self) -> float:
        """The smallest gain over the batch sizes."""
        return min(speed.ratio for speed in self.batches)


def checked_batches(batches: Sequence[int]) -> tuple[int, ...]:
    """Return batch sizes to time.

    Raises:
        ConfigError: There is none, or one is below 1 or above `MAX_BATCH`.
    """
    if not batches or not all(1 <= batch <= MAX_BATCH for batch in batches):
        raise ConfigError(f"batch sizes should lie in 1..{MAX_BATCH}, got {list(batches)}", remedy="1 and 8 are usual")
    return tuple(batches)


def measure_speed(
    before: Path, after: Path, *, pixels: ImageArray, batches: Sequence[int] = SPEED_BATCHES, threads: int | None = None
) -> Speed:
    """Run two files in turns, the order turning round after each round, and return medians.

    Args:
        before: The fp32 file.
        after: The reduced file.
        pixels: (N, H, W, 3) uint8 RGB crops; repeated to fill a batch.
        batches: People at once.
        threads: Threads inside the model; what affinity and cgroup grant when None.

    Raises:
        ConfigError: A batch size or the number of threads is out of range.
    """
    batches, count = checked_batches(batches), checked_threads(threads)
    backends = [OrtBackend(path, threads=count) for path in (before, after)]
    facts = read_cpu_facts()
    sets = facts.instruction_sets or {}
    return Speed(
        batches=tuple(_batch_speed(backends, np.resize(pixels, (batch, *pixels.shape[1:]))) for batch in batches),
        cpu=facts.model,
        instruction_sets=tuple(name for name, there in sets.items() if there),
        threads=count,
        onnxruntime=import_onnxruntime().__version__,
    )


def _batch_speed(backends: Sequence[OrtBackend], crops: ImageArray) -> BatchSpeed:
    for backend in backends:
        backend.run(crops)  # the first run allocates
    seconds: list[list[float]] = [[], []]
    started = time.perf_counter()
    while len(seconds[0]) < MIN_ROUNDS or (len(seconds[0]) < MAX_ROUNDS and time.perf_counter() - started < SECONDS):
        order = (0, 1) if len(seconds[0]) % 2 == 0 else (1, 0)
        for index in order:
            begin = time.perf_counter()
            backends[index].run(crops)
            seconds[index].append(time.perf_counter() - begin)
    return BatchSpeed(
        batch=len(crops),
        before_ms=round(1e3 * statistics.median(seconds[0]), 2),
        after_ms=round(1e3 * statistics.median(seconds[1]), 2),
        ratio=round(statistics.median(a / b for a, b in zip(*seconds, strict=True)), 2),
        rounds=len(seconds[0]),
    )
