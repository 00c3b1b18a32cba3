"""An exported model run by ONNX Runtime, checked against the contract that it carries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit.core.backend import ModelOutput
from lbkit.core.contract import ModelContract
from lbkit.core.threads import checked_threads
from lbkit.errors import ContractError, ModelError
from lbkit.runtime.cuda_graphs import GraphRunner
from lbkit.runtime.model_file import EXPORT_AGAIN, check_file, contract_of, feed_of, not_onnx, output_of, run_error
from lbkit.runtime.providers import OpenSession, OrtProviderName, open_session, ort_words
from lbkit.runtime.signature import check_signature, output_shape
from lbkit.runtime.streams import checked_streams

_NOT_ONNX = ("INVALID_PROTOBUF", "No graph was found")

_Run = Callable[[NDArray[Any]], list[NDArray[Any]]]


class OrtBackend:
    """A model file in an ONNX Runtime session; calls may come from several threads.

    Args:
        path: An ONNX file exported by lbkit.
        provider: One of `lbkit.runtime.providers.ORT_PROVIDERS`.
        threads: Threads of the model; what CPU affinity and cgroup grant when None.
        streams: Runs that go side by side and share the threads; see `checked_streams`.

    Raises:
        ConfigError: The threads or streams are out of range.
        ModelNotFoundError: There is no such file.
        ModelError: ONNX Runtime cannot load it.
        ContractError: It carries no contract, one of another version, or one that its graph contradicts.
        ProviderError: The provider is unknown or cannot run here.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(
        self, path: Path, *, provider: str = "cpu", threads: int | None = None, streams: int | None = 1
    ) -> None:
        path = Path(path)
        count = checked_threads(threads)
        self._streams = checked_streams(streams, provider=provider, threads=count)
        check_file(path)
        try:
            # A session's threads are shared by all runs, and each run computes in its caller's thread besides: of `n`
            # inside an operator, `n - 1` are the session's. Not yet timed where there are more threads than streams.
            opened = open_session(path, provider=provider, threads=count - self._streams + 1, graphs=True)
        except Exception as error:
            if not _is_ort_error(error):
                raise
            raise _load_error(error, path) from error
        self._path = path
        self._session = opened.session
        self._provider = opened.provider
        self._contract = _read_contract(opened.session, path)
        check_signature(opened.session, self._contract, where=path)
        self._run_session = self._runner(opened)

    @property
    def contract(self) -> ModelContract:
        """The contract that the file carries."""
        return self._contract

    @property
    def provider(self) -> OrtProviderName:
        """What the session really runs on."""
        return self._provider

    @property
    def streams(self) -> int:
        """Runs that go side by side."""
        return self._streams

    def run(self, crops: NDArray[np.uint8]) -> ModelOutput:
        """Run the model on crops.

        Args:
            crops: (N, H, W, 3) uint8 RGB, N >= 1.

        Raises:
            InputError: The crops have another shape or dtype.
            ModelMemoryError: The memory does not hold so many at once.
            ModelError: ONNX Runtime fails, or puts out other shapes than promised.
        """
        return self.run_input(feed_of(crops, self._contract))

    def run_input(self, tensor: NDArray[Any]) -> ModelOutput:
        """Run the model on a tensor as the file takes it.

        Args:
            tensor: Of the contract's dtype, shape and layout, with N >= 1 crops (see `feed_of`).

        Raises:
            ModelMemoryError: The memory does not hold so many at once.
            ModelError: ONNX Runtime fails, or puts out other shapes than promised.
        """
        try:
            arrays = self._run_session(tensor)
        except Exception as error:
            if not _is_ort_error(error):
                raise
            raise run_error(error, self._path, words=ort_words(error), count=len(tensor)) from error
        return output_of(arrays, self._contract, count=len(tensor), where=self._path)

    def _runner(self, opened: OpenSession) -> _Run:
        if not opened.replays_graphs:
            return self._run_plainly
        shapes: dict[str, tuple[int, ...]] = {
            name: output_shape(self._contract, name) for name in self._contract.outputs
        }
        return GraphRunner(opened.session, input_name=self._contract.input.name, output_shapes=shapes).run

    def _run_plainly(self, feed: NDArray[Any]) -> list[NDArray[Any]]:
        arrays: list[NDArray[Any]] = self._session.run(list(self._contract.outputs), {self._contract.input.name: feed})
        return arrays


def _load_error(error: Exception, path: Path) -> Exception:
    """Return the error to raise for what ONNX Runtime said while a session was made."""
    if any(mark in str(error) for mark in _NOT_ONNX):
        return not_onnx(path)
    return ModelError(f"ONNX Runtime cannot load it ({ort_words(error)})", where=path, remedy=EXPORT_AGAIN)


def _is_ort_error(error: Exception) -> bool:
    """ONNX Runtime's exceptions have no base class of their own; some arrive as one of Python's."""
    return type(error).__module__.startswith("onnxruntime") or type(error) in (RuntimeError, ValueError, MemoryError)


def _read_contract(session: Any, path: Path) -> ModelContract:
    try:
        metadata = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        problem = f"its metadata is not text in UTF-8 ({error})"
        raise ContractError(problem, where=path, remedy=EXPORT_AGAIN) from error
    return contract_of(metadata, where=path)
