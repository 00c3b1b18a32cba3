from __future__ import annotations

import threading
import time

import pytest

from lbkit.serving.batching import DynamicBatcher
from lbkit.serving.limits import ServingLimits
from lbkit.serving.memory import MemoryBudget
from lbkit.serving.refusals import RequestRefusedError


@pytest.fixture
def batcher():
    made = DynamicBatcher(lambda tensor: tensor, limits=ServingLimits(work_timeout_s=0.2))
    yield made
    made.close(5)


def test_large_things_come_one_after_the_other(batcher: DynamicBatcher) -> None:
    budget = MemoryBudget(100)
    held, most = [0], [0]
    lock = threading.Lock()

    def work() -> None:
        ticket = batcher.admit()
        with budget.hold(40, ticket):
            with lock:
                held[0] += 1
                most[0] = max(most[0], held[0])
            time.sleep(0.005)
            with lock:
                held[0] -= 1
        ticket.release()

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == [2]


def test_one_thing_beyond_the_limit_is_held_alone_and_others_wait_no_longer_than_their_time(
    batcher: DynamicBatcher,
) -> None:
    budget = MemoryBudget(100)
    first, second = batcher.admit(), batcher.admit()
    with (
        budget.hold(1000, first),
        pytest.raises(RequestRefusedError, match=r"not answered within 0\.2 s"),
        budget.hold(1, second),
    ):
        pass
    third = batcher.admit()
    with budget.hold(1, third):
        pass
    for ticket in (first, second, third):
        ticket.release()
