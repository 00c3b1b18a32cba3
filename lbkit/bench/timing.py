"""Repeated timings of one thing: percentiles, and whether they drift."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_RUNS, MOST_RUNS = 5, 2000
WARM_UP_RUNS = 2
STAGES = ("read", "warp", "model", "decode")


@dataclass(frozen=True, slots=True, eq=False)
class StageTimes:
    """What each stage took in each of R runs over one batch, one stage after the other.

    Attributes:
        seconds: (R, 4) float64 in the order of `STAGES`.
        people: People in a batch.
    """

    seconds: NDArray[np.float64]
    people: int

    def __post_init__(self) -> None:
        if self.seconds.ndim != 2 or self.seconds.shape[1] != len(STAGES) or not len(self.seconds):
            raise ValueError(f"seconds should have shape (R, {len(STAGES)}) with R >= 1, got {self.seconds.shape}")

    @property
    def runs(self) -> int:
        """How many runs were timed."""
        return len(self.seconds)

    def of(self, stage: str) -> NDArray[np.float64]:
        """Return (R,) seconds of a stage, or of all together for "total"."""
        return self.seconds.sum(axis=1) if stage == "total" else self.seconds[:, STAGES.index(stage)]

    def percentile_ms(self, stage: str, percent: float) -> float:
        """Return a percentile over the runs in milliseconds a batch."""
        return 1e3 * float(np.percentile(self.of(stage), percent))

    def people_per_second(self, stage: str) -> float:
        """Return the median rate."""
        return self.people / float(np.median(self.of(stage)))

    @property
    def drift(self) -> float:
        """The model's median over the last quarter of the runs against the first quarter's, minus 1.

        Far from 0 the machine was not steady: it heats up, or something else runs.
        """
        model = self.of("model")
        window = max(1, len(model) // 4)
        return float(np.median(model[-window:]) / np.median(model[:window])) - 1.0


@dataclass(frozen=True, slots=True)
class SideBySide:
    """The model alone in several streams.

    Attributes:
        streams: Runs side by side.
        people_per_second: Of all streams together.
    """

    streams: int
    people_per_second: float


def time_side_by_side(run: Callable[[], object], *, streams: int, people: int, seconds: float) -> SideBySide:
    """Run a batch again and again in each of several threads.

    Args:
        run: Runs the model on a batch once; called from `streams` threads.
        streams: Threads.
        people: People in a batch.
        seconds: For about so long, after one run in each thread, and at least once more in each.
    """

    def work(until: float) -> int:
        count = 0
        while count == 0 or time.perf_counter() < until:
            run()
            count += 1
        return count

    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(work, [0.0] * streams))
        started = time.perf_counter()
        runs = sum(pool.map(work, [started + seconds] * streams))
        return SideBySide(streams, people * runs / (time.perf_counter() - started))


def time_stages(run: Callable[[], tuple[float, ...]], *, people: int, seconds: float) -> StageTimes:
    """Run a batch again and again.

    Args:
        run: Runs the stages once and returns what each took, in the order of `STAGES`.
        people: People in a batch.
        seconds: For about so long, after the warm-up, but at least `LEAST_RUNS` times.
    """
    for _ in range(WARM_UP_RUNS):
        run()
    rows: list[tuple[float, ...]] = []
    started = time.perf_counter()
    while len(rows) < LEAST_RUNS or (time.perf_counter() - started < seconds and len(rows) < MOST_RUNS):
        rows.append(run())
    return StageTimes(np.array(rows), people)
