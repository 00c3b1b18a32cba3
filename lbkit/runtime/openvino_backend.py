"""An exported model run by OpenVINO on the CPU, checked against the contract that it carries.

OpenVINO's own choice of arithmetic on a CPU with bfloat16 is bfloat16, which changes the answers. So the arithmetic is
always asked for, and read back from the compiled model.
"""

from __future__ import annotations

import queue
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lbkit.core.contract import ModelContract
from lbkit.core.threads import checked_threads
from lbkit.errors import ContractError, ModelError
from lbkit.runtime.file_backend import FileBackend
from lbkit.runtime.model_file import EXPORT_AGAIN, check_file, contract_of, not_onnx
from lbkit.runtime.openvino_library import import_openvino
from lbkit.runtime.providers import refusal
from lbkit.runtime.signature import check_signature
from lbkit.runtime.streams import checked_streams
from lbkit.runtime.wheels import Obstacle

OpenVinoName = Literal["openvino", "openvino-bf16"]
PRECISIONS: dict[OpenVinoName, str] = {"openvino": "f32", "openvino-bf16": "bf16"}
"""The arithmetic that each provider asks for, in OpenVINO's words; int8 files compute in int8 under both."""

_DEVICE = "CPU"
_TYPES = {"u8": "tensor(uint8)", "f32": "tensor(float)"}
_METADATA = "framework"


class OpenVinoBackend(FileBackend):
    """A model file compiled by OpenVINO; calls may come from several threads, and as many as there are streams run.

    Args:
        path: An ONNX file exported by lbkit.
        provider: "openvino" computes in fp32, "openvino-bf16" in bfloat16; int8 files compute in int8 where they say.
        threads: Threads of the model; what CPU affinity and cgroup grant when None.
        streams: Runs that go side by side and share the threads; see `checked_streams`.

    Raises:
        ConfigError: The threads or streams are out of range.
        ModelNotFoundError: There is no such file.
        ModelError: OpenVINO cannot load it.
        ContractError: It carries no contract, one of another version, or one that its graph contradicts.
        ProviderError: OpenVINO is broken, or the CPU lacks bfloat16.
        MissingDependencyError: OpenVINO is not installed.
    """

    def __init__(
        self, path: Path, *, provider: OpenVinoName = "openvino", threads: int | None = None, streams: int | None = 1
    ) -> None:
        path = Path(path)
        count = checked_threads(threads)
        side_by_side = checked_streams(streams, provider=provider, threads=count)
        check_file(path)
        core = import_openvino().Core()
        model = _read(core, path)
        contract = _read_contract(model, path)
        check_signature(_Signature(model), contract, where=path)
        super().__init__(path, contract, provider=provider, streams=side_by_side)
        compiled = compile_on_cpu(core, model, provider=provider, threads=count, streams=side_by_side, where=path)
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(side_by_side):
            self._idle.put(compiled.create_infer_request())

    def _compute(self, tensor: NDArray[Any]) -> list[NDArray[Any]]:
        request = self._idle.get()
        try:
            request.infer({0: tensor}, share_inputs=True)
            # Copies, because the next run writes to the same memory.
            count = len(self._contract.outputs)
            return [np.array(request.get_output_tensor(index).data) for index in range(count)]
        finally:
            self._idle.put(request)

    def _words_of(self, error: Exception) -> str | None:
        return _words(error) if isinstance(error, (RuntimeError, MemoryError)) else None


def compile_on_cpu(
    core: Any, model: Any, *, provider: OpenVinoName, threads: int, streams: int = 1, where: Path | None = None
) -> Any:
    """Return a compiled model that really computes as asked.

    Args:
        core: An `openvino.Core`.
        model: What `core.read_model` gave.
        provider: Decides the arithmetic.
        threads: Threads of the model.
        streams: Runs that go side by side and share the threads.
        where: The model's file, for messages.

    Raises:
        ProviderError: The CPU lacks the arithmetic, or OpenVINO compiled for another.
        ModelError: OpenVINO cannot compile the model.
    """
    precision = PRECISIONS[provider]
    if precision == "bf16" and "BF16" not in core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"):
        raise refusal(provider, Obstacle("this CPU has no bfloat16 instructions", "choose `--provider openvino`"))
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        # Pinned threads of two processes would share one CPU while the next is idle.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        compiled = core.compile_model(model, _DEVICE, settings)
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot load it ({_words(error)})", where=where, remedy=EXPORT_AGAIN) from error
    used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if used != precision:
        problem = f"OpenVINO computes in {used}, and {precision} is asked for"
        raise refusal(provider, Obstacle(problem, "choose `--provider cpu`"))
    return compiled


@dataclass(frozen=True, slots=True)
class _Tensor:
    """An input or output as ONNX Runtime describes one."""

    name: str
    type: str
    shape: list[int | None]


class _Signature:
    """The inputs and outputs of an `openvino.Model`, described as ONNX Runtime's sessions describe theirs."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def get_inputs(self) -> list[_Tensor]:
        return [_tensor(port) for port in self._model.inputs]

    def get_outputs(self) -> list[_Tensor]:
        return [_tensor(port) for port in self._model.outputs]


def _tensor(port: Any) -> _Tensor:
    kind = port.get_element_type().get_type_name()
    sizes = [size.get_length() if size.is_static else None for size in port.get_partial_shape()]
    return _Tensor(port.get_any_name(), _TYPES.get(kind, kind), sizes)


def _read(core: Any, path: Path) -> Any:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        source: str | bytes = path.read_bytes()
    else:
        source = str(path)
    try:
        return core.read_model(source)
    except RuntimeError as error:
        raise not_onnx(path) from error


def _read_contract(model: Any, path: Path) -> ModelContract:
    try:
        fields = dict(model.get_rt_info().items()).get(_METADATA, {})
        metadata = {str(key): str(getattr(value, "value", value)) for key, value in fields.items()}
    except UnicodeDecodeError as error:
        raise ContractError(f"its metadata is not text in UTF-8 ({error})", where=path, remedy=EXPORT_AGAIN) from error
    return contract_of(metadata, where=path)


def _words(error: Exception) -> str:
    """Return the last line that is not a source position; OpenVINO's messages begin with those."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (said or lines or [type(error).__name__])[-1][:300]
