"""A bound on what lies in memory at once, over all requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lbkit.serving.batching import Ticket


class MemoryBudget:
    """Lets threads hold large things one after the other where they would not fit side by side.

    Args:
        limit_bytes: What may be held together; a single thing may be larger.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size_bytes: int, ticket: Ticket) -> Iterator[None]:
        """Wait until there is room, and hold it for the block.

        Args:
            size_bytes: How much is about to be held.
            ticket: The request's; waiting ends with its time.

        Raises:
            RequestRefusedError: The request's time is up.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(size_bytes), timeout=ticket.remaining_s)
            ticket.check()
            self._held_bytes += size_bytes
        try:
            yield
        finally:
            with self._changed:
                self._held_bytes -= size_bytes
                self._changed.notify_all()

    def _has_room(self, size_bytes: int) -> bool:
        return not self._held_bytes or self._held_bytes + size_bytes <= self._limit_bytes
