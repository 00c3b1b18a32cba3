from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from lbkit.bench.timing import LEAST_RUNS, MOST_RUNS, WARM_UP_RUNS, StageTimes, time_side_by_side, time_stages


def times(model: list[float], *, people: int = 4) -> StageTimes:
    rows = np.array([[0.001, 0.002, value, 0.004] for value in model])
    return StageTimes(rows, people)


def test_percentiles_and_rates() -> None:
    found = times([0.01 * number for number in range(1, 102)])
    assert found.percentile_ms("model", 50) == pytest.approx(510)
    assert found.percentile_ms("model", 95) == pytest.approx(960)
    assert found.percentile_ms("read", 99) == pytest.approx(1)
    assert found.percentile_ms("total", 50) == pytest.approx(517)
    assert found.people_per_second("model") == pytest.approx(4 / 0.51)
    assert found.people_per_second("total") == pytest.approx(4 / 0.517)


def test_drift_compares_the_last_quarter_with_the_first() -> None:
    assert times([0.1] * 8).drift == 0
    assert times([0.1, 0.1, 0.1, 0.5, 0.5, 0.1, 0.15, 0.15]).drift == pytest.approx(0.5)
    assert times([0.2]).drift == 0


@pytest.mark.parametrize("shape", [(0, 4), (3, 3), (4,)])
def test_wrong_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="seconds should have shape"):
        StageTimes(np.zeros(shape), 1)


def test_side_by_side_counts_the_runs_of_all_threads() -> None:
    both, calls = threading.Barrier(2, timeout=10), list[int]()

    def run() -> None:
        both.wait()
        calls.append(1)
        time.sleep(0.01)

    started = time.perf_counter()
    found = time_side_by_side(run, streams=2, people=3, seconds=0.001)
    assert found.streams == 2
    assert len(calls) == 4, "one run to warm up and one that counts in each thread"
    assert 3 * 2 / (time.perf_counter() - started) < found.people_per_second <= 3 * 2 / 0.01


def test_at_least_so_many_runs_after_the_warm_up() -> None:
    calls: list[int] = []

    def run() -> tuple[float, ...]:
        calls.append(len(calls))
        return (float(len(calls)), 0.0, 0.0, 0.0)

    found = time_stages(run, people=1, seconds=1e-9)
    assert found.runs == LEAST_RUNS
    assert found.of("read")[0] == WARM_UP_RUNS + 1
    assert time_stages(run, people=1, seconds=60).runs == MOST_RUNS
