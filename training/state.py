"""A run's whole state in one safetensors file, so that a killed run goes on as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from lbkit.errors import CheckpointError
from lbkit.models.checkpoint import save_tensors

PROGRESS_KEY = "lbkit_progress"
SETTINGS_KEY = "lbkit_settings"


@dataclass(slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        epoch: The epoch in progress, from 0.
        batch: Batches of it that are done.
        step: Optimizer steps in all.
        seen: Crops trained on in all.
        best_pck: Best validation PCK@0.05 so far.
        best_epoch: When it was reached.
        seconds: Time spent training.
        epoch_seconds: That of the epoch in progress.
        epoch_waited: The part of it spent waiting for data.
        epoch_images: Crops trained on in the epoch in progress.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seen: int = 0
    best_pck: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    epoch_waited: float = 0.0
    epoch_images: int = 0

    def count(self, *, seconds: float, waited: float, images: int) -> None:
        """Count one step."""
        self.batch += 1
        self.step += 1
        self.seen += images
        self.epoch_images += images
        self.seconds += seconds
        self.epoch_seconds += seconds
        self.epoch_waited += waited

    def start_epoch(self) -> None:
        """Forget what was counted for the last epoch alone."""
        self.epoch_seconds, self.epoch_waited, self.epoch_images = 0.0, 0.0, 0


@dataclass(frozen=True, slots=True, eq=False)
class RunState:
    """All that a run resumes from.

    Attributes:
        module: The network in training.
        average: Its moving average.
        optimizer: Its optimizer.
        progress: Where the run stands.
        tally: Losses and distances of the epoch in progress, as arrays by name.
        settings: What must not change between the parts of a run: its recipe, its people and its precision.
    """

    module: nn.Module
    average: nn.Module
    optimizer: Optimizer
    progress: Progress
    tally: dict[str, NDArray[Any]]
    settings: dict[str, Any]


def save_state(path: Path, state: RunState) -> None:
    """Write a run's state atomically; the last good file survives a full disk.

    Raises:
        OutputError: The file cannot be written.
    """
    tensors = {f"model.{name}": value for name, value in state.module.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in state.average.state_dict().items()}
    tensors |= {f"tally.{name}": torch.from_numpy(value) for name, value in state.tally.items()}
    tensors |= _optimizer_tensors(state.optimizer)
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    metadata = {PROGRESS_KEY: json.dumps(asdict(state.progress)), SETTINGS_KEY: json.dumps(state.settings)}
    save_tensors(path, plain, metadata=metadata)


def read_settings(path: Path) -> dict[str, Any]:
    """Return a state's settings alone.

    Raises:
        CheckpointError: The file is broken.
    """
    with _broken_named(path), safe_open(path, framework="pt") as file:
        settings: dict[str, Any] = json.loads((file.metadata() or {})[SETTINGS_KEY])
        return settings


def load_state(path: Path, module: nn.Module, *, average: nn.Module, optimizer: Optimizer) -> RunState:
    """Restore network, average and optimizer in place from what `save_state` wrote, and return the whole state.

    Raises:
        CheckpointError: The file is broken or of another network.
    """
    with _broken_named(path):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        module.load_state_dict(_under("model.", tensors))
        average.load_state_dict(_under("average.", tensors))
        _restore_optimizer(optimizer, _under("optimizer.", tensors))
        progress = Progress(**json.loads(metadata[PROGRESS_KEY]))
        settings = json.loads(metadata[SETTINGS_KEY])
    tally = {name: value.numpy() for name, value in _under("tally.", tensors).items()}
    return RunState(module, average, optimizer, progress, tally, settings)


@contextmanager
def _broken_named(path: Path) -> Iterator[None]:
    """Say in one line why a state cannot be resumed from."""
    try:
        yield
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]  # PyTorch lists every tensor that differs
        raise CheckpointError(
            f"cannot be resumed from ({problem})", where=path, remedy="start anew with another --output"
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
