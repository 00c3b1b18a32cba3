"""Stages of a pipeline that run beside each other: bounded queues between threads."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

ItemT = TypeVar("ItemT")

WAKE_S = 0.1
"""How often a waiting stage looks up, so that Ctrl-C and the end are noticed."""


class _End:
    """Ends a queue, with the error that ended it if there was one."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead_in_thread(items: Iterable[ItemT], *, ahead: int) -> Generator[ItemT]:
    """Yield items that a thread draws in advance; the thread ends with the generator.

    Args:
        items: Drawn in the thread only.
        ahead: How many may wait; memory is bounded by these.

    Raises:
        BaseException: Whatever drawing an item raised, in its place.
    """
    waiting: queue.Queue[ItemT | _End] = queue.Queue(ahead)
    should_stop = threading.Event()

    def draw() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not put_until(waiting, item, should_stop):
                    return
        except BaseException as caught:
            error = caught
        put_until(waiting, _End(error), should_stop)

    thread = threading.Thread(target=draw, name="lbkit-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = _get(waiting)
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        should_stop.set()
        thread.join()


def put_until(waiting: queue.Queue[ItemT], item: ItemT, should_stop: threading.Event) -> bool:
    """Put an item into a queue as soon as there is room.

    Args:
        waiting: The queue.
        item: What to put.
        should_stop: Gives up when it is set.

    Returns:
        Whether it was put.
    """
    while not should_stop.is_set():
        with contextlib.suppress(queue.Full):
            waiting.put(item, timeout=WAKE_S)
            return True
    return False


def _get(waiting: queue.Queue[ItemT]) -> ItemT:
    while True:
        with contextlib.suppress(queue.Empty):
            return waiting.get(timeout=WAKE_S)
