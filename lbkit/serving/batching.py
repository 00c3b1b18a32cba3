"""Dynamic batching: requests' crops gathered into batches that the model's own threads run."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit.core.backend import ModelOutput
from lbkit.serving.limits import ServingLimits
from lbkit.serving.refusals import RequestRefusedError, unavailable

logger = logging.getLogger(__name__)

HANG_GRACE_S = 5.0
"""How much longer than its request's time a batch under way is waited for, before the model counts as stuck."""

RunModel = Callable[[NDArray[Any]], ModelOutput]


class Ticket:
    """An admitted request: how long it may take, and whether anybody still waits for it.

    Args:
        batcher: Where it was admitted.
        seconds: How long it may take from now on.
    """

    def __init__(self, batcher: DynamicBatcher, seconds: float) -> None:
        self._batcher = batcher
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._is_cancelled = False

    @property
    def remaining_s(self) -> float:
        """Seconds left, 0 when its time is up."""
        return max(0.0, self._end - time.monotonic())

    @property
    def refusal(self) -> RequestRefusedError | None:
        """Why it need not be worked on any more, or None if it should be."""
        if self._is_cancelled:
            return unavailable("the client has gone")
        return None if self.remaining_s else unavailable(f"not answered within {self._seconds:g} s")

    def check(self) -> None:
        """Raise `refusal` if there is one."""
        if self.refusal is not None:
            raise self.refusal

    def cancel(self) -> None:
        """Say that nobody waits for it any more; what it still has in the queue is dropped."""
        self._is_cancelled = True

    def release(self) -> None:
        """Give its place in the queue back; to be called once."""
        self._batcher.release()


@dataclass(slots=True, eq=False)
class _Item:
    """Rows of one request that wait for the model."""

    tensor: NDArray[Any]
    ticket: Ticket
    arrived: float = field(default_factory=time.monotonic)
    answer: Future[ModelOutput] = field(default_factory=Future)


class DynamicBatcher:
    """Runs a model on the rows of many requests at once; answers are those of the rows alone.

    A batch runs as soon as it is full, as every admitted request waits for it, or as its oldest rows have waited
    `max_delay_s`; rows are taken in the order in which they came, and a request's rows stay together.

    Args:
        run: The model, from (N, ...) rows to N outputs; called from `streams` threads.
        limits: Batch size, delay and length of the queue.
        streams: Batches that run side by side.
        on_batch: Told the rows and seconds of each run.
    """

    def __init__(
        self,
        run: RunModel,
        *,
        limits: ServingLimits,
        streams: int = 1,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self._run = run
        self._limits = limits
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._queue: deque[_Item] = deque()
        self._open = 0
        self._running = 0
        self._is_closed = False
        self._threads = [threading.Thread(target=self._work, name="lbkit-model", daemon=True) for _ in range(streams)]
        for thread in self._threads:
            thread.start()

    @property
    def open_requests(self) -> int:
        """How many requests are admitted and not yet released."""
        return self._open

    @property
    def is_ready(self) -> bool:
        """Whether requests are admitted and the model's threads live."""
        return not self._is_closed and all(thread.is_alive() for thread in self._threads)

    @property
    def is_full(self) -> bool:
        """Whether one more request would be refused."""
        return self._open >= self._limits.max_queue

    def admit(self) -> Ticket:
        """Take a request in.

        Raises:
            RequestRefusedError: The queue is full, or the server is ending.
        """
        with self._changed:
            if not self.is_ready:
                raise unavailable("the server is ending")
            if self.is_full:
                raise unavailable(f"{self._open} requests are waiting already, and no more are taken")
            self._open += 1
        return Ticket(self, self._limits.work_timeout_s)

    def release(self) -> None:
        """Take note that a request is done with."""
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def run(self, tensor: NDArray[Any], ticket: Ticket) -> ModelOutput:
        """Run a request's rows, together with those of others, and wait for their outputs.

        Args:
            tensor: (N, ...) rows as the model takes them, N from 1 to the batch size.
            ticket: The request's.

        Raises:
            RequestRefusedError: The request's time is up, or its client has gone.
            LbkitError: The model failed on these rows.
        """
        item = _Item(tensor, ticket)
        with self._changed:
            self._queue.append(item)
            self._changed.notify_all()
        try:
            return item.answer.result(ticket.remaining_s + HANG_GRACE_S)
        except TimeoutError as error:
            raise unavailable("the model does not answer") from error

    def refuse_new(self) -> None:
        """Admit no more requests; those admitted go on. Safe to call from a signal handler."""
        self._is_closed = True

    def close(self, timeout_s: float) -> bool:
        """Admit no more, let what is admitted finish, and end the threads.

        Returns:
            Whether everything was finished in time.
        """
        self.refuse_new()
        with self._changed:
            self._changed.notify_all()
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while batch := self._next_batch():
            try:
                self._answer(batch)
            except BaseException as error:  # the thread must outlive any fault, or nobody is answered any more
                logger.exception("a batch failed")
                _fail(batch, error)
            with self._changed:
                self._running -= len(batch)

    def _next_batch(self) -> list[_Item]:
        """Wait for a batch; an empty one is the end."""
        with self._changed:
            while True:
                while not self._queue and not (self._is_closed and self._open == 0):
                    self._changed.wait()
                if not self._queue:
                    return []
                self._wait_for_more()
                if batch := self._take():
                    return batch

    def _wait_for_more(self) -> None:
        while self._queue and not self._is_complete():  # another stream may take what was waited for
            left = self._queue[0].arrived + self._limits.max_delay_s - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _is_complete(self) -> bool:
        """Whether waiting longer brings nothing: the batch is full, or the rows of every request are here or run."""
        rows = sum(len(item.tensor) for item in self._queue)
        return rows >= self._limits.batch_size or len(self._queue) + self._running >= self._open

    def _take(self) -> list[_Item]:
        """Take from the queue what one batch holds; what nobody waits for any more is dropped."""
        batch: list[_Item] = []
        rows = 0
        while self._queue and rows + len(self._queue[0].tensor) <= self._limits.batch_size:
            item = self._queue.popleft()
            if (refusal := item.ticket.refusal) is not None:
                item.answer.set_exception(refusal)
                continue
            batch.append(item)
            rows += len(item.tensor)
        self._running += len(batch)
        return batch

    def _answer(self, batch: Sequence[_Item]) -> None:
        """Run a batch; where it fails, each request alone, so that one cannot spoil the others' answers."""
        try:
            output = self._timed_run(batch)
        except Exception as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            for item in batch:
                self._answer([item])
            return
        start = 0
        for item in batch:
            stop = start + len(item.tensor)
            item.answer.set_result(_rows(output, start, stop))
            start = stop

    def _timed_run(self, batch: Sequence[_Item]) -> ModelOutput:
        tensors = [item.tensor for item in batch]
        tensor = tensors[0] if len(tensors) == 1 else np.concatenate(tensors)
        start = time.perf_counter()
        output = self._run(tensor)
        if self._on_batch is not None:
            self._on_batch(len(tensor), time.perf_counter() - start)
        return output


def _fail(batch: Sequence[_Item], error: BaseException) -> None:
    for item in batch:
        if not item.answer.done():
            item.answer.set_exception(error)


def _rows(output: ModelOutput, start: int, stop: int) -> ModelOutput:
    return ModelOutput(
        heatmaps=None if output.heatmaps is None else output.heatmaps[start:stop],
        keypoints=None if output.keypoints is None else output.keypoints[start:stop],
    )
