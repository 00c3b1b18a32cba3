"""The work of a server, apart from HTTP: pictures and tensors in, joints and tensors out, by one model for all."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lbkit.core.backend import ModelOutput, RuntimeBackend
from lbkit.core.boxes import whole_image_box
from lbkit.core.contract import DecoderName, ModelContract
from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import FloatArray, ImageSize
from lbkit.core.images import checked_header, decode_image
from lbkit.core.pipeline import single_threaded_opencv
from lbkit.core.poses import Poses
from lbkit.core.results import ImageResult, JsonLinesWriter
from lbkit.runtime.model_file import feed_of
from lbkit.serving.batching import DynamicBatcher, Ticket
from lbkit.serving.limits import ServingLimits
from lbkit.serving.memory import MemoryBudget
from lbkit.serving.metrics import ServingMetrics
from lbkit.serving.protocol import encode_answer, parse_request

AnswerT = TypeVar("AnswerT")

BoxChoice = FloatArray | Literal["whole", "auto"]
"""Where people are on a picture: in boxes (N, 4), on the whole of it, or to be looked for."""

WORKERS_PER_BATCH = 2
"""Threads for each place in a batch: one batch's requests wait for the model while the next one's pictures are read."""

IMAGE_BYTES = 3
"""Memory a pixel of a picture that waits for the model: RGB."""

DECODING_BYTES, JPEG_DECODING_BYTES = 26, 7
"""Memory a pixel while a picture is decoded (measured): at worst transparency laid over white; a JPEG has none."""

JSON_FACTOR = 16
"""Memory a byte of JSON numbers while it is parsed: `1.5,` becomes a list's place and a float, 32 bytes."""

JSON_NUMBER_BYTES = 70
"""Memory a number of a tensor while it is written as JSON (measured): 23 characters, three times."""


class KeypointService:
    """A model shared by concurrent requests; a context manager that finishes what is admitted.

    Args:
        backend: The model; as many batches run side by side as it has streams.
        name: What the model is called in addresses.
        decoder: Decodes heatmaps on the host; the contract's decoder when None.
        limits: What is taken at most.

    Raises:
        ModelError: The model does not run, or another decoder is asked for than the one in its graph.
    """

    def __init__(
        self,
        backend: RuntimeBackend,
        *,
        name: str,
        decoder: DecoderName | None = None,
        limits: ServingLimits | None = None,
    ) -> None:
        self.name = name
        self.limits = limits or ServingLimits()
        self._backend = backend
        self._decoder = PoseEstimator(backend, decoder=decoder).decoder
        self._warm_up()
        self.metrics = ServingMetrics(lambda: self.batcher.open_requests)
        self.batcher = DynamicBatcher(
            backend.run_input, limits=self.limits, streams=backend.streams, on_batch=self.metrics.count_batch
        )
        self._pictures = MemoryBudget(self.limits.max_held_bytes)
        self._scratch = MemoryBudget(self.limits.max_held_bytes)
        places = self.limits.batch_size * backend.streams
        self._pool = ThreadPoolExecutor(WORKERS_PER_BATCH * places, "lbkit-request")
        self._opencv = single_threaded_opencv()

    def __enter__(self) -> Self:
        self._opencv.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._opencv.__exit__(kind, error, trace)

    @property
    def contract(self) -> ModelContract:
        """The model's contract."""
        return self._backend.contract

    def close(self) -> bool:
        """Finish what is admitted, as far as the time to end allows, and take no more.

        Returns:
            Whether everything was finished.
        """
        is_finished = self.batcher.close(self.limits.shutdown_timeout_s)
        self._pool.shutdown(wait=is_finished, cancel_futures=True)
        return is_finished

    def submit(self, work: Callable[[Ticket], AnswerT]) -> tuple[Ticket, Future[AnswerT]]:
        """Admit a request and have a thread work on it; its place in the queue is given back when the thread is done.

        Args:
            work: What to do with the request's ticket.

        Raises:
            RequestRefusedError: The queue is full, or the server is ending.
        """
        ticket = self.batcher.admit()
        try:
            future = self._pool.submit(work, ticket)
        except BaseException:
            ticket.release()
            raise
        future.add_done_callback(lambda _: ticket.release())
        return ticket, future

    def find_keypoints(self, data: bytes, ticket: Ticket, *, name: str, boxes: BoxChoice = "auto") -> str:
        """Find the joints of the people on a picture.

        Args:
            data: The picture file.
            ticket: The request's.
            name: The picture's name, put out as its path.
            boxes: (N, 4) boxes in edge coordinates; "whole" is one about it all; "auto" looks for one person.

        Returns:
            The JSON line that `lbkit infer` writes.

        Raises:
            InputError: The picture or a box cannot be used.
            RequestRefusedError: The request's time is up, or its client has gone.
        """
        ticket.check()
        header = checked_header(data, where=name, max_pixels=self.limits.max_pixels)
        pixels = header.height * header.width
        decoding_bytes = JPEG_DECODING_BYTES if header.format == "JPEG" else DECODING_BYTES
        with self._pictures.hold(pixels * IMAGE_BYTES, ticket):
            with self._scratch.hold(pixels * decoding_bytes, ticket):
                image = decode_image(data, where=name, max_pixels=self.limits.max_pixels)
            poses = self._estimator(ticket)(image, _boxes_xyxy(boxes, ImageSize.of(image)))
        return _json_line(poses, name)

    def infer(self, body: bytes, ticket: Ticket, *, header_length: int | None) -> tuple[bytes, int | None]:
        """Answer an inference request of the Open Inference Protocol.

        Args:
            body: The request's body.
            ticket: The request's.
            header_length: Length of the JSON in front of binary tensors, None where there are none.

        Returns:
            The answer's body, and the length of the JSON in it where binary tensors follow.

        Raises:
            RequestRefusedError: The request is malformed, or its time is up.
        """
        ticket.check()
        json_bytes = min(len(body), len(body) if header_length is None else header_length)
        with self._scratch.hold(json_bytes * JSON_FACTOR, ticket):
            request = parse_request(body, self.contract, header_length=header_length, max_rows=self.limits.max_people)
        outputs = self._run_rows(request.tensor, ticket)
        numbers = sum(outputs[wanted.name].size for wanted in request.outputs if not wanted.is_binary)
        with self._scratch.hold(numbers * JSON_NUMBER_BYTES, ticket):
            return encode_answer(request, outputs, model_name=self.name)

    def _estimator(self, ticket: Ticket) -> PoseEstimator:
        queued = _QueuedBackend(self._backend, self.batcher, ticket)
        return PoseEstimator(queued, decoder=self._decoder, batch_size=self.limits.batch_size)

    def _run_rows(self, tensor: NDArray[Any], ticket: Ticket) -> dict[str, NDArray[np.float32]]:
        """Run any number of rows, a batch at a time, and return the outputs by name."""
        step = self.limits.batch_size
        parts = [self.batcher.run(tensor[start : start + step], ticket) for start in range(0, len(tensor), step)]
        return {name: np.concatenate([getattr(part, name) for part in parts]) for name in self.contract.outputs}

    def _warm_up(self) -> None:
        """Run the smallest and the largest batch, so that a model that cannot run is found out at the start."""
        size = self.contract.input.size
        for rows in sorted({1, self.limits.batch_size}):
            crops = np.full((rows, size.height, size.width, 3), 127, dtype=np.uint8)
            self._backend.run_input(feed_of(crops, self.contract))


class _QueuedBackend:
    """The shared model as one request sees it."""

    def __init__(self, backend: RuntimeBackend, batcher: DynamicBatcher, ticket: Ticket) -> None:
        self._backend = backend
        self._batcher = batcher
        self._ticket = ticket

    @property
    def contract(self) -> ModelContract:
        return self._backend.contract

    def run(self, crops: NDArray[np.uint8]) -> ModelOutput:
        return self._batcher.run(feed_of(crops, self.contract), self._ticket)


def _boxes_xyxy(boxes: BoxChoice, size: ImageSize) -> FloatArray | None:
    if not isinstance(boxes, str):
        return boxes
    return whole_image_box(size)[None] if boxes == "whole" else None


def _json_line(poses: Poses, name: str) -> str:
    result = ImageResult(path=Path(name), poses=poses, person_ids=(None,) * len(poses))
    return JsonLinesWriter(poses.keypoints).rows(result)
