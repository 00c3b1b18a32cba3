"""A run's whole state in one safetensors file, so that a killed run goes on as if nothing had happened."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from lbkit.core.files import atomic_path
from lbkit.errors import CheckpointError

PROGRESS_KEY = "lbkit_progress"


@dataclass(slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        epoch: The epoch in progress, from 0.
        batch: Batches of it that are done.
        step: Optimizer steps in all.
        seen: Crops trained on in all.
        best_pck: Best validation PCK@0.05 so far.
        seconds: Time spent training.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seen: int = 0
    best_pck: float = -1.0
    seconds: float = 0.0


def save_state(path: Path, module: nn.Module, average: nn.Module, *, optimizer: Optimizer, progress: Progress) -> None:
    """Write network, average, optimizer and progress atomically; the last good file survives a full disk.

    Raises:
        OutputError: The file cannot be written.
    """
    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    tensors |= _optimizer_tensors(optimizer)
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata={PROGRESS_KEY: json.dumps(asdict(progress))})


def load_state(path: Path, module: nn.Module, average: nn.Module, *, optimizer: Optimizer) -> Progress:
    """Restore what `save_state` wrote, in place, and return the progress.

    Raises:
        CheckpointError: The file is broken or of another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        module.load_state_dict(_under("model.", tensors))
        average.load_state_dict(_under("average.", tensors))
        _restore_optimizer(optimizer, _under("optimizer.", tensors))
        return Progress(**json.loads(metadata[PROGRESS_KEY]))
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"cannot be resumed from ({error})", where=path, remedy="start anew with another --output"
        ) from error


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{index}.{key}": value for index, slots in state.items() for key, value in slots.items()}


def _restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    whole: dict[str, Any] = optimizer.state_dict()
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        slots.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": slots, "param_groups": whole["param_groups"]})
