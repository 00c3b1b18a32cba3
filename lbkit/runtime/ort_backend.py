"""An exported model run by ONNX Runtime, checked against the contract that it carries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lbkit.core.contract import ModelContract
from lbkit.core.threads import checked_threads
from lbkit.errors import ContractError, ModelError
from lbkit.runtime.cuda_graphs import GraphRunner
from lbkit.runtime.file_backend import FileBackend
from lbkit.runtime.model_file import EXPORT_AGAIN, check_file, contract_of, not_onnx
from lbkit.runtime.providers import OpenSession, open_session, ort_words
from lbkit.runtime.signature import check_signature, output_shape
from lbkit.runtime.streams import checked_streams

_NOT_ONNX = ("INVALID_PROTOBUF", "No graph was found")

_Run = Callable[[NDArray[Any]], list[NDArray[Any]]]


class OrtBackend(FileBackend):
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
        side_by_side = checked_streams(streams, provider=provider, threads=count)
        check_file(path)
        try:
            # A session's threads are shared by all runs, and each run computes in its caller's thread besides: of `n`
            # inside an operator, `n - 1` are the session's. Not yet timed where there are more threads than streams.
            opened = open_session(path, provider=provider, threads=count - side_by_side + 1, graphs=True)
        except Exception as error:
            if not _is_ort_error(error):
                raise
            raise _load_error(error, path) from error
        contract = _read_contract(opened.session, path)
        check_signature(opened.session, contract, where=path)
        super().__init__(path, contract, provider=opened.provider, streams=side_by_side)
        self._session = opened.session
        self._run_session = self._runner(opened)

    def _compute(self, tensor: NDArray[Any]) -> list[NDArray[Any]]:
        return self._run_session(tensor)

    def _words_of(self, error: Exception) -> str | None:
        return ort_words(error) if _is_ort_error(error) else None

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
