"""ONNX Runtime sessions that run where they were asked to, or say why not.

ONNX Runtime drops a provider that does not start and goes on on the CPU, with a line on its log at most, and
`get_available_providers` names what the wheel was built with. So a session is made first and looked at afterwards.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lbkit.core.threads import checked_threads
from lbkit.errors import LbkitError, ProviderError
from lbkit.runtime.cuda import CUDA_PROVIDER, concerns_cuda, explain_cuda_failure, read_gpu_name
from lbkit.runtime.engine_cache import engine_options
from lbkit.runtime.probe_graph import PROBE_MODEL
from lbkit.runtime.wheels import Obstacle, import_onnxruntime, installed_ort_wheels, reinstall_command

logger = logging.getLogger(__name__)

OrtProviderName = Literal["cpu", "cuda", "tensorrt", "coreml", "directml"]
ProviderName = Literal["cpu", "cuda", "tensorrt", "openvino", "openvino-bf16", "coreml", "directml"]
ProviderChoice = Literal["cpu", "cuda", "tensorrt", "openvino", "openvino-bf16", "coreml", "directml", "auto"]
ORT_PROVIDERS: tuple[OrtProviderName, ...] = get_args(OrtProviderName)
PROVIDERS: tuple[ProviderName, ...] = get_args(ProviderName)
PROVIDER_CHOICES: tuple[ProviderChoice, ...] = get_args(ProviderChoice)

TENSORRT_PROVIDER = "TensorrtExecutionProvider"
CPU_EXECUTION = "CPUExecutionProvider"
EXECUTION: dict[OrtProviderName, str] = {
    "cpu": CPU_EXECUTION,
    "cuda": CUDA_PROVIDER,
    "tensorrt": TENSORRT_PROVIDER,
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
}
"""ONNX Runtime's names of the providers."""

_CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
"""The default search, EXHAUSTIVE, times every algorithm again for every new batch size; and by default fp32 files are
computed in TF32, with 10 bits of fraction in place of 23, which changes the answers."""

_HOMES = {"coreml": ("darwin", "macOS", "onnxruntime"), "directml": ("win32", "Windows", "onnxruntime-directml")}
"""The system that a provider exists on, and the wheel that brings it."""

# ONNX Runtime's severities: 2 warning (its default), 3 error, 4 fatal.
_ORT_DEFAULT, _ORT_ERROR, _ORT_FATAL = 2, 3, 4


@dataclass(frozen=True, slots=True, eq=False)
class OpenSession:
    """An ONNX Runtime session and where it really runs.

    Attributes:
        session: The `onnxruntime.InferenceSession`.
        provider: Where it runs, found by asking the session.
        replays_graphs: Whether it was made to record and replay CUDA graphs, which takes bound buffers.
    """

    session: Any
    provider: OrtProviderName
    replays_graphs: bool = False


def open_session(
    model: Path | bytes,
    *,
    provider: str = "cpu",
    threads: int | None = None,
    graphs: bool = False,
) -> OpenSession:
    """Make a session that runs on the provider asked for.

    Args:
        model: An ONNX file or its bytes.
        provider: One of `ORT_PROVIDERS`.
        threads: Threads inside an operator; what affinity and cgroup grant when None.
        graphs: Let cuda record CUDA graphs where the model's every node runs there.

    Raises:
        ProviderError: The provider is unknown or cannot run here; the message says what is missing.
        MissingDependencyError: ONNX Runtime is not installed.
        Exception: Whatever ONNX Runtime raises at a model that it cannot load.
    """
    name = _checked_ort_provider(provider)
    count = checked_threads(threads)
    onnxruntime = import_onnxruntime()
    if name == "cpu":
        return OpenSession(_make_session(onnxruntime, model, [CPU_EXECUTION], threads=count), "cpu")
    if name in ("coreml", "directml"):
        return OpenSession(_open_on_its_system(onnxruntime, model, name, threads=count), name)
    if name == "tensorrt":
        return OpenSession(_open_tensorrt(onnxruntime, model, threads=count), name)
    return _open_cuda(onnxruntime, model, threads=count, graphs=graphs)


def checked_provider(name: str) -> ProviderChoice:
    """Return a provider's name if it is known.

    Raises:
        ProviderError: It is not; the message offers the nearest.
    """
    for choice in PROVIDER_CHOICES:
        if choice == name:
            return choice
    near = difflib.get_close_matches(name.lower(), PROVIDER_CHOICES, n=1, cutoff=0.7)  # "gpu" is not "cpu"
    remedy = f"did you mean {near[0]}?" if near else None
    raise ProviderError(f"no provider {name!r}; there are {', '.join(PROVIDER_CHOICES)}", remedy=remedy)


def refusal(name: str, obstacle: Obstacle) -> ProviderError:
    """Return the error that a provider which cannot run here is answered with."""
    return ProviderError(f"{name} cannot run here: {obstacle.problem}", remedy=obstacle.remedy)


def refusal_reason(error: LbkitError, name: str) -> str:
    """Return what `refusal` was given as the problem."""
    return error.problem.removeprefix(f"{name} cannot run here: ")


def _checked_ort_provider(name: str) -> OrtProviderName:
    checked_provider(name)
    for provider in ORT_PROVIDERS:
        if provider == name:
            return provider
    raise ProviderError(
        f"{name} is not run by a session of ONNX Runtime", remedy="load the model with `lbkit.load_model`"
    )


def _open_cuda(onnxruntime: Any, model: Path | bytes, *, threads: int, graphs: bool) -> OpenSession:
    """Return a session that runs on CUDA, with graphs if they are wanted and the model allows them."""
    preload_libraries(onnxruntime)
    if graphs and CUDA_PROVIDER in onnxruntime.get_available_providers():
        wanted = [(CUDA_PROVIDER, _CUDA_OPTIONS | {"enable_cuda_graph": "1"}), CPU_EXECUTION]
        try:
            session = _make_session(onnxruntime, model, wanted, threads=threads)
        except Exception as error:  # a node that only the CPU has, for example
            logger.info("cuda: no CUDA graph for this model (%s)", ort_words(error))
        else:
            if CUDA_PROVIDER in session.get_providers():
                return OpenSession(session, "cuda", replays_graphs=True)
    wanted = [(CUDA_PROVIDER, _CUDA_OPTIONS)]
    return OpenSession(_open_on_nvidia(onnxruntime, model, "cuda", wanted, threads=threads), "cuda")


def _open_tensorrt(onnxruntime: Any, model: Path | bytes, *, threads: int) -> Any:
    preload_libraries(onnxruntime)
    options = engine_options(model, gpu=read_gpu_name(), version=onnxruntime.__version__)
    wanted = [(TENSORRT_PROVIDER, options), (CUDA_PROVIDER, _CUDA_OPTIONS)]
    return _open_on_nvidia(onnxruntime, model, "tensorrt", wanted, threads=threads)


def _open_on_nvidia(
    onnxruntime: Any, model: Path | bytes, name: Literal["cuda", "tensorrt"], wanted: list[Any], *, threads: int
) -> Any:
    """Return a session that runs on an NVIDIA provider, or raise ProviderError."""
    built_in = onnxruntime.get_available_providers()
    there = [entry for entry in wanted if entry[0] in built_in]
    try:
        session = _make_session(onnxruntime, model, [*there, CPU_EXECUTION], threads=threads)
    except Exception as error:
        if not concerns_cuda(str(error)):
            raise
        raise refusal(name, explain_cuda_failure(onnxruntime, ort_words(error), provider=EXECUTION[name])) from error
    if EXECUTION[name] not in session.get_providers():
        words = _words_of_failed_start(onnxruntime, EXECUTION[name]) if EXECUTION[name] in built_in else ""
        raise refusal(name, explain_cuda_failure(onnxruntime, words, provider=EXECUTION[name]))
    return session


def _open_on_its_system(
    onnxruntime: Any, model: Path | bytes, name: Literal["coreml", "directml"], *, threads: int
) -> Any:
    execution = EXECUTION[name]
    if execution not in onnxruntime.get_available_providers():
        raise refusal(name, _foreign_system(name))
    session = _make_session(onnxruntime, model, [execution, CPU_EXECUTION], threads=threads)
    if execution not in session.get_providers():
        words = _words_of_failed_start(onnxruntime, execution) or "ONNX Runtime does not say why"
        raise refusal(name, Obstacle(f"a session asked for it does not run on it; {words}", "or give --provider cpu"))
    return session


def _foreign_system(name: Literal["coreml", "directml"]) -> Obstacle:
    platform, system, wheel = _HOMES[name]
    if sys.platform != platform:
        return Obstacle(f"it exists on {system} alone", "choose `--provider cpu`")
    wheels = installed_ort_wheels()
    names = ", ".join(f"{found} {version}" for found, version in wheels.items()) or "this onnxruntime"
    return Obstacle(f"{names} is built without it", f"run {reinstall_command(wheels, wanted=wheel)}")


def preload_libraries(onnxruntime: Any) -> None:
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
    if providers[0] == EXECUTION["directml"]:
        options.enable_mem_pattern = False  # DirectML refuses it (ONNX Runtime's page on the provider)
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


def _words_of_failed_start(onnxruntime: Any, execution: str) -> str:
    """Start a provider once more, on a tiny model, and return what ONNX Runtime writes about it to stderr."""
    options = onnxruntime.SessionOptions()
    with _captured_stderr() as said:
        onnxruntime.set_default_logger_severity(_ORT_ERROR)
        try:
            onnxruntime.InferenceSession(PROBE_MODEL, options, providers=[execution], enable_fallback=0)
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
