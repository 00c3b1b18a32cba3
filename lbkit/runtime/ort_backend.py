"""An exported model run by ONNX Runtime, checked against the contract that it carries."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit.core.backend import ModelOutput
from lbkit.core.contract import CONTRACT_KEY, ModelContract
from lbkit.core.preprocess import normalize_crops
from lbkit.errors import ContractError, InputError, ModelError, ModelNotFoundError
from lbkit.runtime.providers import ProviderName, open_session, ort_words
from lbkit.runtime.signature import check_signature, output_shape

_EXPORT_AGAIN = "export it again with `lbkit export`"
_GIVE_FILE = "give a file that `lbkit export` made"
_NOT_ONNX = ("INVALID_PROTOBUF", "No graph was found")
_OUT_OF_MEMORY = ("out of memory", "Failed to allocate memory", "bad_alloc", "bad allocation", "BFCArena")


class OrtBackend:
    """A model file in an ONNX Runtime session; calls may come from several threads.

    Args:
        path: An ONNX file exported by lbkit.
        provider: "cpu", "cuda", or "auto" for CUDA where a session really runs on it.
        threads: Threads inside an operator; what CPU affinity and cgroup grant when None.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelError: ONNX Runtime cannot load it.
        ContractError: It carries no contract, one of another version, or one that its graph contradicts.
        ProviderError: The provider is unknown or cannot run here.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(self, path: Path, *, provider: str = "cpu", threads: int | None = None) -> None:
        path = Path(path)
        _check_file(path)
        try:
            opened = open_session(path, provider=provider, threads=threads)
        except Exception as error:
            raise _load_error(error, path) from error
        self._path = path
        self._session = opened.session
        self._provider = opened.provider
        self._contract = _read_contract(opened.session, path)
        check_signature(opened.session, self._contract, where=path)

    @property
    def contract(self) -> ModelContract:
        """The contract that the file carries."""
        return self._contract

    @property
    def provider(self) -> ProviderName:
        """What the session really runs on."""
        return self._provider

    def run(self, crops: NDArray[np.uint8]) -> ModelOutput:
        """Run the model on crops.

        Args:
            crops: (N, H, W, 3) uint8 RGB, N >= 1.

        Raises:
            InputError: The crops have another shape or dtype.
            ModelError: ONNX Runtime fails, out of memory for example, or puts out other shapes than promised.
        """
        return self.run_input(self.input_tensor(crops))

    def input_tensor(self, crops: NDArray[np.uint8]) -> NDArray[Any]:
        """Return crops as the tensor that the file takes: as they are, or normalised (N, 3, H, W) float32.

        Args:
            crops: (N, H, W, 3) uint8 RGB, N >= 1.

        Raises:
            InputError: The crops have another shape or dtype.
        """
        self._check_crops(crops)
        spec = self._contract.input
        return np.ascontiguousarray(crops) if spec.dtype == "uint8" else normalize_crops(crops, spec)

    def run_input(self, tensor: NDArray[Any]) -> ModelOutput:
        """Run the model on a tensor as the file takes it (see `input_tensor`).

        Args:
            tensor: Of the contract's dtype, shape and layout, with N >= 1 crops.

        Raises:
            ModelError: ONNX Runtime fails, out of memory for example, or puts out other shapes than promised.
        """
        try:
            arrays = self._session.run(list(self._contract.outputs), {self._contract.input.name: tensor})
        except Exception as error:
            raise _run_error(error, self._path, count=len(tensor)) from error
        outputs = dict(zip(self._contract.outputs, arrays, strict=True))
        self._check_outputs(outputs, count=len(tensor))
        return ModelOutput(heatmaps=outputs.get("heatmaps"), keypoints=outputs.get("keypoints"))

    def _check_crops(self, crops: NDArray[Any]) -> None:
        size = self._contract.input.size
        right_shape = crops.ndim == 4 and crops.shape[1:] == (size.height, size.width, 3) and len(crops) > 0
        if crops.dtype != np.uint8 or not right_shape:
            raise InputError(
                f"crops should be uint8 of shape (N, {size.height}, {size.width}, 3) with N >= 1, "
                f"got {crops.dtype} of shape {crops.shape}"
            )

    def _check_outputs(self, outputs: dict[Any, NDArray[Any]], *, count: int) -> None:
        """Compare the shapes that came out, because a graph may leave its dimensions unnamed."""
        for name, array in outputs.items():
            expected = (count, *output_shape(self._contract, name))
            if array.shape != expected:
                problem = f"output {name} of {count} crops has shape {array.shape}, expected {expected}"
                raise ModelError(problem, where=self._path, remedy=_EXPORT_AGAIN)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise ModelError("is a folder, and an ONNX file is expected", where=path, remedy=_GIVE_FILE)
    if path.is_file():
        return
    if path.exists():
        raise ModelError("is a device or a pipe, and an ONNX file is expected", where=path, remedy=_GIVE_FILE)
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    remedy = f"did you mean {path.parent / near[0]}?" if near else "make a model with `lbkit export`"
    raise ModelNotFoundError("there is no such file", where=path, remedy=remedy)


def _load_error(error: Exception, path: Path) -> Exception:
    """Return the error to raise for what happened while a session was made."""
    if not _is_ort_error(error):
        return error
    if any(mark in str(error) for mark in _NOT_ONNX):
        from_checkpoint = f"make one with `lbkit export --model {path.stem} --checkpoint {path}`"
        remedy = from_checkpoint if path.suffix == ".safetensors" else _EXPORT_AGAIN
        return ModelError("is not an ONNX file, or a damaged one", where=path, remedy=remedy)
    return ModelError(f"ONNX Runtime cannot load it ({ort_words(error)})", where=path, remedy=_EXPORT_AGAIN)


def _run_error(error: Exception, path: Path, *, count: int) -> Exception:
    if not _is_ort_error(error):
        return error
    words = ort_words(error)
    if any(mark in str(error) for mark in _OUT_OF_MEMORY):
        return ModelError(
            f"out of memory while running {count} crops at once ({words})",
            where=path,
            remedy="give a smaller --batch-size",
        )
    return ModelError(f"running {count} crops failed ({words})", where=path)


def _is_ort_error(error: Exception) -> bool:
    """ONNX Runtime's exceptions have no base class of their own; some arrive as one of Python's."""
    return type(error).__module__.startswith("onnxruntime") or type(error) in (RuntimeError, ValueError, MemoryError)


def _read_contract(session: Any, path: Path) -> ModelContract:
    try:
        metadata = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        problem = f"its metadata is not text in UTF-8 ({error})"
        raise ContractError(problem, where=path, remedy=_EXPORT_AGAIN) from error
    if CONTRACT_KEY not in metadata:
        raise ContractError(
            f"carries no lbkit contract (metadata {CONTRACT_KEY})",
            where=path,
            remedy="only files made by `lbkit export` can be run",
        )
    return ModelContract.from_json(metadata[CONTRACT_KEY], where=str(path))
