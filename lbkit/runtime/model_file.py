"""What every runtime checks about a model: its file, the contract in its metadata, what goes in and what comes out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit.core.backend import ModelOutput
from lbkit.core.contract import CONTRACT_KEY, ModelContract
from lbkit.core.preprocess import normalize_crops
from lbkit.errors import ContractError, InputError, ModelError, ModelNotFoundError
from lbkit.runtime.signature import output_shape

EXPORT_AGAIN = "export it again with `lbkit export`"
_GIVE_FILE = "give a file that `lbkit export` made"


def check_file(path: Path) -> None:
    """Raise unless there is a regular file.

    Raises:
        ModelNotFoundError: There is nothing; the message offers a name that is near.
        ModelError: It is a folder, a device or a pipe.
    """
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


def not_onnx(path: Path) -> ModelError:
    """Return the error for a file that no runtime can parse."""
    from_checkpoint = f"make one with `lbkit export --model {path.stem} --checkpoint {path}`"
    remedy = from_checkpoint if path.suffix == ".safetensors" else EXPORT_AGAIN
    return ModelError("is not an ONNX file, or a damaged one", where=path, remedy=remedy)


def contract_of(metadata: Mapping[str, str], *, where: Path) -> ModelContract:
    """Return the contract that a file's metadata carries.

    Raises:
        ContractError: There is none, or it cannot be read.
    """
    if CONTRACT_KEY not in metadata:
        raise ContractError(
            f"carries no lbkit contract (metadata {CONTRACT_KEY})",
            where=where,
            remedy="only files made by `lbkit export` can be run",
        )
    return ModelContract.from_json(metadata[CONTRACT_KEY], where=str(where))


def feed_of(crops: NDArray[Any], contract: ModelContract) -> NDArray[Any]:
    """Return crops as the graph takes them: (N, H, W, 3) uint8, or (N, 3, H, W) float32 normalised.

    Raises:
        InputError: The crops have another shape or dtype than (N, H, W, 3) uint8, N >= 1.
    """
    spec = contract.input
    size = spec.size
    right_shape = crops.ndim == 4 and crops.shape[1:] == (size.height, size.width, 3) and len(crops) > 0
    if crops.dtype != np.uint8 or not right_shape:
        raise InputError(
            f"crops should be uint8 of shape (N, {size.height}, {size.width}, 3) with N >= 1, "
            f"got {crops.dtype} of shape {crops.shape}"
        )
    return np.ascontiguousarray(crops) if spec.dtype == "uint8" else normalize_crops(crops, spec)


def output_of(arrays: list[NDArray[Any]], contract: ModelContract, *, count: int, where: Path) -> ModelOutput:
    """Return what a graph put out, its shapes compared, because a graph may leave its dimensions unnamed.

    Args:
        arrays: The outputs in the contract's order.
        contract: The model's contract.
        count: How many crops went in.
        where: The file, for the message.

    Raises:
        ModelError: A shape is another than promised.
    """
    outputs: dict[str, NDArray[Any]] = dict(zip(contract.outputs, arrays, strict=True))
    for name, array in outputs.items():
        expected = (count, *output_shape(contract, name))
        if array.shape != expected:
            problem = f"output {name} of {count} crops has shape {array.shape}, expected {expected}"
            raise ModelError(problem, where=where, remedy=EXPORT_AGAIN)
    return ModelOutput(heatmaps=outputs.get("heatmaps"), keypoints=outputs.get("keypoints"))
