"""What can run a model: lbkit's providers, and PyTorch with the checkpoint that the file was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lbkit.core.backend import Backend, ModelOutput
from lbkit.core.contract import ModelContract
from lbkit.core.threads import checked_threads
from lbkit.errors import MissingDependencyError, ModelError
from lbkit.runtime.agreement import Arithmetic
from lbkit.runtime.backends import load_backend

TorchRunner = Literal["torch", "torch-compile"]
TORCH_RUNNERS: tuple[TorchRunner, ...] = get_args(TorchRunner)


def load_runner(path: Path, runner: str, *, threads: int | None) -> Backend:
    """Load a model.

    Args:
        path: An ONNX file exported by lbkit.
        runner: A provider, or one of `TORCH_RUNNERS`.
        threads: Threads of the model; what CPU affinity and cgroup grant when None.

    Raises:
        LbkitError: It cannot be run so.
    """
    if runner in TORCH_RUNNERS:
        return _load_torch(load_backend(path).contract, path, compiled=runner == "torch-compile", threads=threads)
    return load_backend(path, provider=runner, threads=threads)


def arithmetic_of(contract: ModelContract, runner: str) -> Arithmetic:
    """Return the arithmetic whose tolerance a runner's answers must keep."""
    return "bf16" if runner == "openvino-bf16" and contract.precision != "int8" else contract.precision


def _load_torch(contract: ModelContract, path: Path, *, compiled: bool, threads: int | None) -> Backend:
    try:
        import torch
    except ModuleNotFoundError as error:
        problem = "torch is not installed, and PyTorch should be measured"
        raise MissingDependencyError(problem, remedy='run `pip install "lbkit[export]"`') from error
    from lbkit.models.checkpoint import find_checkpoint, load_checkpoint
    from lbkit.models.torch_backend import TorchBackend

    if contract.precision != "fp32":
        remedy = "measure PyTorch beside the fp32 file"
        raise ModelError(f"is {contract.precision}, and its checkpoint is fp32", where=path, remedy=remedy)
    checkpoint = load_checkpoint(find_checkpoint(contract.model))
    if checkpoint.contract.weights_sha256 != contract.weights_sha256:
        remedy = "export the checkpoint again"
        raise ModelError("was made from another checkpoint than the one found", where=path, remedy=remedy)
    torch.set_num_threads(checked_threads(threads))
    backend = TorchBackend(checkpoint)
    if not compiled:
        return backend
    backend.compile()
    return _Compiled(backend)


class _Compiled:
    """A compiled network, which is compiled by its first runs; what goes wrong there is told as an error of ours."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def contract(self) -> ModelContract:
        return self._backend.contract

    def run(self, crops: NDArray[np.uint8]) -> ModelOutput:
        try:
            return self._backend.run(crops)
        except Exception as error:  # the compilers behind torch.compile have errors of many kinds
            words = " ".join(str(error).split())[:200]
            problem = f"torch.compile fails ({type(error).__name__}: {words})"
            raise ModelError(problem, remedy="install a C++ compiler, or leave out --against torch") from error
