"""Sessions that run where they were asked to, or say why not.

ONNX Runtime drops a provider that does not start and goes on on the CPU, with a line on its log at most, and
`get_available_providers` names what the wheel was built with. So a session is made first and looked at afterwards.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lbkit.core.threads import checked_threads
from lbkit.errors import ProviderError
from lbkit.runtime.cuda import CUDA_PROVIDER, concerns_cuda, explain_cuda_failure, find_cuda_obstacle
from lbkit.runtime.probe_graph import PROBE_MODEL
from lbkit.runtime.wheels import import_onnxruntime

logger = logging.getLogger(__name__)

ProviderName = Literal["cpu", "cuda"]
ProviderChoice = Literal["cpu", "cuda", "auto"]
PROVIDERS: tuple[ProviderName, ...] = get_args(ProviderName)
PROVIDER_CHOICES: tuple[ProviderChoice, ...] = get_args(ProviderChoice)

CUDA_REFUSAL = "cuda cannot run here: "
_CPU = "CPUExecutionProvider"
_CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC"}
"""The default, EXHAUSTIVE, times every algorithm again for every new batch size."""

# ONNX Runtime's severities: 2 warning (its default), 3 error, 4 fatal.
_ORT_DEFAULT, _ORT_ERROR, _ORT_FATAL = 2, 3, 4


@dataclass(frozen=True, slots=True, eq=False)
class OpenSession:
    """An ONNX Runtime session and where it really runs.

    Attributes:
        session: The `onnxruntime.InferenceSession`.
        provider: Where it runs, found by asking the session.
    """

    session: Any
    provider: ProviderName


def open_session(
    model: Path | bytes, *, provider: str = "cpu", threads: int | None = None, exact: bool = False
) -> OpenSession:
    """Make a session that runs on the provider asked for.

    Args:
        model: An ONNX file or its bytes.
        provider: "cpu", "cuda", or "auto" for CUDA where a session really runs on it and the CPU elsewhere.
        threads: Threads inside an operator; what affinity and cgroup grant when None.
        exact: Keep CUDA from rounding products to TF32's ten bits, as a comparison needs.

    Raises:
        ProviderError: The provider is unknown or cannot run here; the message says what is missing.
        MissingDependencyError: ONNX Runtime is not installed.
        Exception: Whatever ONNX Runtime raises at a model that it cannot load.
    """
    checked_provider(provider)
    count = checked_threads(threads)
    onnxruntime = import_onnxruntime()
    if provider == "auto":
        return _open_auto(onnxruntime, model, count, exact=exact)
    if provider == "cuda":
        return OpenSession(_open_cuda(onnxruntime, model, count, exact=exact), "cuda")
    return OpenSession(_make_session(onnxruntime, model, [_CPU], threads=count), "cpu")


def checked_provider(name: str) -> None:
    """Raise unless a provider of that name is known.

    Raises:
        ProviderError: It is not; the message offers the nearest.
    """
    if name in PROVIDER_CHOICES:
        return
    near = difflib.get_close_matches(name.lower(), PROVIDER_CHOICES, n=1, cutoff=0.7)  # "gpu" is not "cpu"
    remedy = f"did you mean {near[0]}?" if near else None
    raise ProviderError(f"no provider {name!r}; there are {', '.join(PROVIDER_CHOICES)}", remedy=remedy)


def _open_auto(onnxruntime: Any, model: Path | bytes, threads: int, *, exact: bool) -> OpenSession:
    obstacle = find_cuda_obstacle(onnxruntime)
    if obstacle is None:
        try:
            opened = OpenSession(_open_cuda(onnxruntime, model, threads, exact=exact), "cuda")
        except ProviderError as error:
            logger.warning("provider auto: cpu, because %s", error)
        else:
            logger.info("provider auto: cuda")
            return opened
    else:
        logger.info("provider auto: cpu, because %s", obstacle.problem)
    return OpenSession(_make_session(onnxruntime, model, [_CPU], threads=threads), "cpu")


def _open_cuda(onnxruntime: Any, model: Path | bytes, threads: int, *, exact: bool) -> Any:
    """Return a session that runs on CUDA, or raise ProviderError."""
    _preload_libraries(onnxruntime)
    options = _CUDA_OPTIONS | ({"use_tf32": "0"} if exact else {})
    wanted = [(CUDA_PROVIDER, options), _CPU] if _built_in(onnxruntime) else [_CPU]
    try:
        session = _make_session(onnxruntime, model, wanted, threads=threads)
    except Exception as error:
        if not concerns_cuda(str(error)):
            raise
        raise _cuda_error(onnxruntime, ort_words(error)) from error
    if CUDA_PROVIDER not in session.get_providers():
        raise _cuda_error(onnxruntime, _words_of_failed_start(onnxruntime))
    return session


def _cuda_error(onnxruntime: Any, words: str) -> ProviderError:
    obstacle = explain_cuda_failure(onnxruntime, words)
    return ProviderError(f"{CUDA_REFUSAL}{obstacle.problem}", remedy=obstacle.remedy)


def _built_in(onnxruntime: Any) -> bool:
    return CUDA_PROVIDER in onnxruntime.get_available_providers()


def _preload_libraries(onnxruntime: Any) -> None:
    """Load CUDA and cuDNN from NVIDIA's wheels, which no linker path leads to."""
    preload = getattr(onnxruntime, "preload_dlls", None)  # since 1.21
    if preload is None:
        return
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints what it misses
        preload()
    logger.debug("preloading CUDA libraries: %s", said.getvalue().strip() or "done")


def _make_session(onnxruntime: Any, model: Path | bytes, providers: list[Any], *, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ORT_FATAL  # every error is raised too, and told in one line of ours
    source = model if isinstance(model, bytes) else _session_source(model)
    # A provider that does not start is told on the default logger, before the session's own severity counts.
    onnxruntime.set_default_logger_severity(_ORT_FATAL)
    try:
        return onnxruntime.InferenceSession(source, options, providers=providers, enable_fallback=0)
    finally:
        onnxruntime.set_default_logger_severity(_ORT_DEFAULT)


def _session_source(path: Path) -> str | bytes:
    """Return a path as ONNX Runtime takes it, or the file's content where the path is not UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.read_bytes()
    return str(path)


def _words_of_failed_start(onnxruntime: Any) -> str:
    """Start CUDA once more, on a tiny model, and return what ONNX Runtime writes about it to the process's stderr."""
    options = onnxruntime.SessionOptions()
    with _captured_stderr() as said:
        onnxruntime.set_default_logger_severity(_ORT_ERROR)
        try:
            onnxruntime.InferenceSession(PROBE_MODEL, options, providers=[CUDA_PROVIDER], enable_fallback=0)
        except Exception as error:
            return ort_words(error)
        finally:
            onnxruntime.set_default_logger_severity(_ORT_DEFAULT)
    return ort_words("".join(said))


@contextlib.contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """Give a list that holds, after the block, what went to file descriptor 2; ONNX Runtime logs from C++."""
    said: list[str] = []
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said.append(file.read().decode(errors="replace"))


def ort_words(error: Exception | str) -> str:
    """Return what ONNX Runtime says in one line, without its prefixes, colours and source positions."""
    text = str(error)
    tail = text.rsplit("[ONNXRuntimeError] : ", 1)[-1]
    if tail.count(" : ") >= 2 and tail.split(" : ", 1)[0].isdigit():
        tail = tail.split(" : ", 2)[2]  # number : NAME : words
    printable = "".join(char for char in tail.replace("\x1b[m", "") if char.isprintable() or char.isspace())
    lines = [line.strip() for line in printable.splitlines() if line.strip()]
    return lines[0][:300] if lines else ""
