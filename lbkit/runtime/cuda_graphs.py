"""CUDA graphs of a few batch sizes: buffers bound once, recorded by the first runs, replayed by the others.

A graph is recorded for one batch size, so batches are padded to the next of `BATCH_BUCKETS`. A replay launches all
kernels at once, where a small network otherwise waits for their launches one by one (ONNX Runtime, CUDA provider,
`enable_cuda_graph` and the run option `gpu_graph_id`). Not yet run on a GPU: tests use a stand-in session.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit.runtime.cuda import DRIVER_LIBRARY, LoadLibrary
from lbkit.runtime.wheels import import_onnxruntime

logger = logging.getLogger(__name__)

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
"""Batch sizes that graphs are recorded for."""


def bucket_of(count: int) -> int:
    """Return the smallest of `BATCH_BUCKETS` that holds so many crops, the largest if none does."""
    return next((bucket for bucket in BATCH_BUCKETS if bucket >= count), BATCH_BUCKETS[-1])


@dataclass(frozen=True, slots=True, eq=False)
class _Bucket:
    """The bound buffers of one batch size; their addresses must not change once the graph is recorded.

    Attributes:
        staging: Host buffer that crops are gathered in, page-locked where the driver allows it.
        device_input: The graph's input on the GPU.
        device_outputs: Its outputs on the GPU, in order.
        binding: Ties them to the session.
        options: Names the graph.
    """

    staging: NDArray[Any]
    device_input: Any
    device_outputs: tuple[Any, ...]
    binding: Any
    options: Any


class GraphRunner:
    """Runs a session through CUDA graphs; calls may come from several threads and take turns in one of its own.

    ONNX Runtime keeps its recordings thread by thread, and callers' threads come and go.

    Args:
        session: An `onnxruntime.InferenceSession` made with `enable_cuda_graph`.
        input_name: Name of its one input.
        output_shapes: Its float32 outputs in order, with their shapes without the batch axis.
        load: Loads a shared library by its name.
    """

    def __init__(
        self,
        session: Any,
        *,
        input_name: str,
        output_shapes: Mapping[str, tuple[int, ...]],
        load: LoadLibrary = ctypes.CDLL,
    ) -> None:
        self._onnxruntime = import_onnxruntime()
        self._session = session
        self._input_name = input_name
        self._output_shapes = dict(output_shapes)
        self._load = load
        self._buckets: dict[int, _Bucket] = {}
        self._thread = ThreadPoolExecutor(1, "lbkit-cuda-graphs")

    def run(self, feed: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the outputs, in order, for an input of any batch size; more than the largest bucket runs in parts."""
        return self._thread.submit(self._run, feed).result()

    def _run(self, feed: NDArray[Any]) -> list[NDArray[Any]]:
        largest = BATCH_BUCKETS[-1]
        parts = [self._run_part(feed[start : start + largest]) for start in range(0, len(feed), largest)]
        if len(parts) == 1:
            return parts[0]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _run_part(self, feed: NDArray[Any]) -> list[NDArray[Any]]:
        size = bucket_of(len(feed))
        if size not in self._buckets:
            self._buckets[size] = self._make_bucket(size, feed)
        bucket = self._buckets[size]
        bucket.staging[: len(feed)] = feed  # the rows behind keep older crops: what comes of them is cut off
        bucket.device_input.update_inplace(bucket.staging)
        self._session.run_with_iobinding(bucket.binding, bucket.options)
        return [value.numpy()[: len(feed)] for value in bucket.device_outputs]

    def _make_bucket(self, size: int, feed: NDArray[Any]) -> _Bucket:
        make = self._onnxruntime.OrtValue.ortvalue_from_shape_and_type
        shape = [size, *feed.shape[1:]]
        staging = np.zeros(shape, feed.dtype)
        if not _page_lock(staging, self._load):
            logger.debug("cuda: the host buffer for %d crops is not page-locked", size)
        device_input = make(shape, feed.dtype.type, "cuda", 0)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input_name, device_input)
        outputs = []
        for name, rest in self._output_shapes.items():
            outputs.append(make([size, *rest], np.float32, "cuda", 0))
            binding.bind_ortvalue_output(name, outputs[-1])
        options = self._onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(size))
        return _Bucket(staging, device_input, tuple(outputs), binding, options)


def _page_lock(array: NDArray[Any], load: LoadLibrary) -> bool:
    """Let the GPU copy straight from a host buffer; it stays locked as long as the process lives."""
    try:
        driver = load(DRIVER_LIBRARY)
    except OSError:
        return False
    address, length = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
    return int(driver.cuMemHostRegister_v2(address, length, 0)) == 0
