from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lbkit.core.backend import ModelOutput
from lbkit.errors import ModelError
from lbkit.serving import batching
from lbkit.serving.batching import DynamicBatcher, Ticket
from lbkit.serving.limits import ServingLimits
from lbkit.serving.refusals import RequestRefusedError


def double(tensor: np.ndarray) -> ModelOutput:
    return ModelOutput(heatmaps=2 * tensor.reshape(-1, 1, 1, 1).astype(np.float32), keypoints=None)


def rows(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


class Recorder:
    """A model that notes its batches, and waits before each until it is told to go on."""

    def __init__(self, function: Callable[[np.ndarray], ModelOutput] = double) -> None:
        self.function = function
        self.batches: list[list[float]] = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.is_running = threading.Event()

    def __call__(self, tensor: np.ndarray) -> ModelOutput:
        self.is_running.set()
        assert self.may_run.wait(10)
        self.batches.append(tensor.tolist())
        return self.function(tensor)


def ask(batcher: DynamicBatcher, *values: float) -> list[float]:
    ticket = batcher.admit()
    try:
        return batcher.run(rows(*values), ticket).heatmaps.ravel().tolist()
    finally:
        ticket.release()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_everybody_gets_the_answer_to_their_own_rows() -> None:
    model = Recorder()
    batcher = DynamicBatcher(model, limits=ServingLimits(batch_size=4, max_delay_s=0.005))
    with ThreadPoolExecutor(16) as pool:
        asked = [tuple(range(i, i + 1 + i % 4)) for i in range(200)]
        answers = list(pool.map(lambda values: ask(batcher, *values), asked))
    assert answers == [[2.0 * value for value in values] for values in asked]
    assert max(map(len, model.batches)) <= 4
    assert len(model.batches) < 200  # some ran together
    assert batcher.open_requests == 0
    assert batcher.close(5)


def test_requests_that_come_while_the_model_runs_share_the_next_batch_in_their_order() -> None:
    model = Recorder()
    model.may_run.clear()
    batcher = DynamicBatcher(model, limits=ServingLimits(batch_size=4))
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(ask, batcher, 0)
        assert model.is_running.wait(10)
        later = []
        for start in (1, 3, 5):  # two rows each, so that two requests fill a batch
            later.append(pool.submit(ask, batcher, start, start + 1))
            until(lambda: len(batcher._queue) == len(later))
        model.may_run.set()
        assert first.result(10) == [0]
        assert [future.result(10) for future in later] == [[2, 4], [6, 8], [10, 12]]
    assert model.batches == [[0], [1, 2, 3, 4], [5, 6]]
    batcher.close(5)


def test_batches_run_side_by_side_in_streams() -> None:
    both = threading.Barrier(2, timeout=10)

    def meet(tensor: np.ndarray) -> ModelOutput:
        both.wait()
        return double(tensor)

    batcher = DynamicBatcher(meet, limits=ServingLimits(batch_size=1), streams=2)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda value: ask(batcher, value), range(8))) == [[2.0 * value] for value in range(8)]
    assert batcher.close(5)


def test_a_request_does_not_wait_for_those_that_run() -> None:
    model = Recorder()
    batcher = DynamicBatcher(model, limits=ServingLimits(batch_size=4, max_delay_s=60), streams=2)
    model.may_run.clear()
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(ask, batcher, 0)
        assert model.is_running.wait(10)
        second = pool.submit(ask, batcher, 1)
        until(lambda: batcher._running == 2)
        model.may_run.set()
        assert (running.result(10), second.result(10)) == ([0.0], [2.0])
    assert batcher.close(5)


def test_a_request_alone_does_not_wait_for_others() -> None:
    batcher = DynamicBatcher(double, limits=ServingLimits(batch_size=8, max_delay_s=5))
    start = time.monotonic()
    assert ask(batcher, 1) == [2]
    assert time.monotonic() - start < 2
    batcher.close(5)


def test_a_batch_waits_for_requests_under_way_but_not_longer_than_the_delay() -> None:
    batcher = DynamicBatcher(double, limits=ServingLimits(batch_size=8, max_delay_s=0.2))
    reading = batcher.admit()  # a request that has not come to the model yet
    start = time.monotonic()
    assert ask(batcher, 1) == [2]
    assert 0.19 < time.monotonic() - start < 2
    reading.release()
    batcher.close(5)


def test_a_full_queue_refuses() -> None:
    batcher = DynamicBatcher(double, limits=ServingLimits(max_queue=2))
    tickets = [batcher.admit(), batcher.admit()]
    assert batcher.is_full
    with pytest.raises(RequestRefusedError, match="2 requests are waiting already") as caught:
        batcher.admit()
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "1"})
    tickets.pop().release()
    tickets.append(batcher.admit())
    for ticket in tickets:
        ticket.release()
    assert batcher.close(5)


def test_one_request_cannot_spoil_the_answers_of_others() -> None:
    def picky(tensor: np.ndarray) -> ModelOutput:
        if (tensor < 0).any():
            raise ModelError("negative")
        return double(tensor)

    model = Recorder(picky)
    model.may_run.clear()
    batcher = DynamicBatcher(model, limits=ServingLimits(batch_size=4))
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(ask, batcher, 0)
        assert model.is_running.wait(10)
        others = [pool.submit(ask, batcher, value) for value in (1, -1, 3)]
        until(lambda: len(batcher._queue) == 3)
        model.may_run.set()
        first.result(10)
        with pytest.raises(ModelError, match="negative"):
            others[1].result(10)
        assert [others[0].result(10), others[2].result(10)] == [[2], [6]]
    assert batcher.is_ready
    batcher.close(5)


def test_the_thread_outlives_a_fault() -> None:
    calls = iter([KeyError("fault"), None])

    def faulty(tensor: np.ndarray) -> ModelOutput:
        error = next(calls)
        if error is not None:
            raise error
        return double(tensor)

    batcher = DynamicBatcher(faulty, limits=ServingLimits())
    with pytest.raises(KeyError):
        ask(batcher, 1)
    assert ask(batcher, 1) == [2]
    batcher.close(5)


def test_what_nobody_waits_for_is_not_run() -> None:
    model = Recorder()
    model.may_run.clear()
    batcher = DynamicBatcher(model, limits=ServingLimits(batch_size=1))
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, batcher, 0)
        assert model.is_running.wait(10)
        ticket = batcher.admit()
        gone = pool.submit(batcher.run, rows(1), ticket)
        until(lambda: len(batcher._queue) == 1)
        ticket.cancel()
        late = Ticket(batcher, 0.01)
        expired = pool.submit(batcher.run, rows(2), late)
        until(lambda: len(batcher._queue) == 2)
        time.sleep(0.02)
        model.may_run.set()
        assert first.result(10) == [0]
        with pytest.raises(RequestRefusedError, match="the client has gone"):
            gone.result(10)
        with pytest.raises(RequestRefusedError, match=r"not answered within 0\.01 s"):
            expired.result(10)
    ticket.release()
    assert model.batches == [[0]]
    batcher.close(5)


def test_a_model_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "HANG_GRACE_S", 0.05)
    model = Recorder()
    model.may_run.clear()
    batcher = DynamicBatcher(model, limits=ServingLimits(work_timeout_s=0.05))
    with pytest.raises(RequestRefusedError, match="the model does not answer"):
        ask(batcher, 1)
    assert not batcher.close(0.05)
    model.may_run.set()
    assert batcher.close(5)


def test_closing_finishes_what_is_admitted_and_refuses_the_rest() -> None:
    model = Recorder()
    model.may_run.clear()
    batcher = DynamicBatcher(model, limits=ServingLimits(batch_size=1))
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, batcher, value) for value in (1, 2)]
        until(lambda: batcher.open_requests == 2)
        reading = batcher.admit()
        batcher.refuse_new()
        assert not batcher.is_ready
        with pytest.raises(RequestRefusedError, match="the server is ending"):
            batcher.admit()
        model.may_run.set()
        assert sorted(future.result(10) for future in asked) == [[2], [4]]
        assert not batcher.close(0.1)  # one admitted request has not come yet
        assert batcher.run(rows(7), reading).heatmaps.item() == 14
        reading.release()
    assert batcher.close(5)
