"""Trained weights in safetensors, with the contract and the story of their training inside."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lbkit.core.contract import CONTRACT_KEY, ModelContract
from lbkit.core.files import atomic_path
from lbkit.errors import CheckpointError, ContractError, OutputError
from lbkit.models.registry import build_model, find_architecture

TRAINING_KEY = "lbkit_training"

_DTYPES = (torch.float16, torch.float32)
_GIVE_CHECKPOINT = "use a checkpoint that lbkit's training wrote"

CHECKPOINTS_VARIABLE = "LBKIT_CHECKPOINTS"
"""Environment variable with the folders that are searched first, separated as in PATH."""

CHECKPOINTS_FOLDER = Path("training", "checkpoints")
"""Where the repository ships its checkpoints, from the working folder."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A trained network.

    Attributes:
        contract: The contract of the bare network.
        state: Parameters and buffers by name, as stored (half or single precision).
        training: How it came to be: recipe, data counts, seed, git commit, figures; JSON values only.
        path: The file it was read from, for messages.
    """

    contract: ModelContract
    state: Mapping[str, Tensor]
    training: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def to_module(self) -> nn.Module:
        """Return the network in evaluation mode and single precision.

        Raises:
            CheckpointError: The tensors are not those of the contract's architecture.
        """
        module = build_model(self.contract.model)
        state = {name: tensor.float() for name, tensor in self.state.items()}
        own = {name: tensor.shape for name, tensor in module.state_dict().items() if _is_stored(name)}
        wrong = sorted(name for name in own.keys() | state.keys() if own.get(name) != _shape(state.get(name)))
        if wrong:
            raise CheckpointError(
                f"its tensors are not those of {self.contract.model} ({len(wrong)} differ, first {wrong[0]})",
                where=self.path,
                remedy="use the checkpoint of the architecture that its contract names, or train it again",
            )
        module.load_state_dict(state, strict=False)
        return module.eval()


def checkpoint_state(module: nn.Module, *, half: bool) -> dict[str, Tensor]:
    """Return a module's tensors ready to store; with `half`, convolution weights in half precision.

    Batch-norm tensors and biases stay in single precision: they are small, and variances leave half's range.
    """
    state = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items() if _is_stored(name)}
    return {
        name: (tensor.half() if half and tensor.ndim == 4 else tensor.float()).contiguous()
        for name, tensor in state.items()
    }


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the hash of tensors' names, types and bytes, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = np.ascontiguousarray(state[name].numpy())
        digest.update(f"{name}:{array.dtype}:{array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically.

    Raises:
        OutputError: The file cannot be written.
    """
    metadata = {
        CONTRACT_KEY: checkpoint.contract.to_json(),
        TRAINING_KEY: json.dumps(dict(checkpoint.training)),
    }
    save_tensors(path, checkpoint.state, metadata=metadata)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically; what stood there survives a full disk.

    Raises:
        OutputError: The file cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=dict(metadata))
        except SafetensorError as error:  # what its writer makes of an operating system's error
            raise OutputError(f"cannot be written ({error})", where=path, remedy="make room on the disk") from error


def find_checkpoint(name: str) -> Path:
    """Return the file of a network's trained weights, NAME.safetensors.

    The folders of the environment variable LBKIT_CHECKPOINTS are searched first, then `training/checkpoints` of the
    working folder.

    Raises:
        ModelNotFoundError: There is no network of that name.
        CheckpointError: No folder has its weights; the message says where they were looked for.
    """
    find_architecture(name)
    candidates = [folder / f"{name}.safetensors" for folder in checkpoint_folders()]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise CheckpointError(
        f"no checkpoint of {name}; looked for {', '.join(str(candidate) for candidate in candidates)}",
        remedy=f"give one by --checkpoint FILE, or set {CHECKPOINTS_VARIABLE} to the folder that has it",
    )


def checkpoint_folders() -> list[Path]:
    """Return the folders that checkpoints are looked for in: those of LBKIT_CHECKPOINTS, then the repository's."""
    listed = os.environ.get(CHECKPOINTS_VARIABLE, "").split(os.pathsep)
    return [*(Path(folder) for folder in listed if folder), CHECKPOINTS_FOLDER]


def find_checkpoint_of_weights(weights_sha256: str) -> Path | None:
    """Return the first checkpoint in `checkpoint_folders` whose contract names these weights, or None."""
    for folder in checkpoint_folders():
        for path in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    text = (file.metadata() or {}).get(CONTRACT_KEY, "")
                contract = ModelContract.from_json(text, where=str(path))
            except (SafetensorError, OSError, UnicodeDecodeError, ContractError):
                continue  # whoever asks for this file by name is told what is wrong with it
            if contract.weights_sha256 == weights_sha256:
                return path
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and verify its weights against the contract's hash.

    Raises:
        CheckpointError: There is no such file, it is not safetensors, has no contract, or its weights were changed.
        ContractError: Its contract cannot be read.
    """
    if not path.is_file():
        problem = "is not a regular file" if path.exists() else "no such file"
        raise CheckpointError(problem, where=path, remedy=_GIVE_CHECKPOINT)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        problem = f"not a safetensors file, or a damaged one ({error})"
        raise CheckpointError(problem, where=path, remedy=_GIVE_CHECKPOINT) from error
    if CONTRACT_KEY not in metadata:
        raise CheckpointError("carries no lbkit contract", where=path, remedy=_GIVE_CHECKPOINT)
    contract = ModelContract.from_json(metadata[CONTRACT_KEY], where=str(path))
    _check_dtypes(state, path)
    if state_sha256(state) != contract.weights_sha256:
        raise CheckpointError(
            "its weights do not match the hash in its contract", where=path, remedy="get the file again"
        )
    return Checkpoint(contract, state, _training_story(metadata, path), path)


def _check_dtypes(state: Mapping[str, Tensor], path: Path) -> None:
    odd = [f"{name} is {tensor.dtype}" for name, tensor in state.items() if tensor.dtype not in _DTYPES]
    if odd:
        problem = f"its tensors should be float16 or float32, and {odd[0]}"
        raise CheckpointError(problem, where=path, remedy=_GIVE_CHECKPOINT)


def _training_story(metadata: Mapping[str, str], path: Path) -> Mapping[str, Any]:
    try:
        story = json.loads(metadata.get(TRAINING_KEY, "{}"))
    except (ValueError, RecursionError) as error:
        problem = f"its metadata {TRAINING_KEY} is not JSON ({error})"
        raise CheckpointError(problem, where=path, remedy=_GIVE_CHECKPOINT) from error
    if not isinstance(story, dict):
        raise CheckpointError(f"its metadata {TRAINING_KEY} is no table", where=path, remedy=_GIVE_CHECKPOINT)
    return story


def _is_stored(name: str) -> bool:
    return not name.endswith("num_batches_tracked")


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape
