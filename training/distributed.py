"""One process or several under torchrun: who this process is, and what the processes tell one another."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from lbkit.errors import ConfigError

_TORCHRUN_VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_START_ANEW = "start with torchrun, or unset WORLD_SIZE for one process"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of the run; alone by default.

    Attributes:
        rank: 0 for the one that writes files.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def share_of(self, items: Sequence[T]) -> Sequence[T]:
        """Return every count-th item, from this process's rank on."""
        return items[self.rank :: self.count]

    def told_by_first(self, value: int) -> int:
        """Return the first process's value on every process."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def gathered(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        if self.count == 1:
            return [value]
        values: list[T | None] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def parallel(self, module: nn.Module) -> nn.Module:
        """Return the module as PyTorch's DDP runs it: gradients are means over all processes."""
        if self.count == 1:
            return module
        # Statistics of batch normalisation are already those of the whole batch: see `synchronized`.
        return DistributedDataParallel(module, broadcast_buffers=False)


ALONE = Processes()


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """Join torchrun's process group, if there is one, and leave it at the end.

    Args:
        device: "cpu" or "cuda"; under torchrun each process takes the GPU of its local rank.

    Yields:
        This process among the others, and its device.

    Raises:
        ConfigError: The device cannot be used, or the variables that torchrun sets are not whole.
    """
    count = _world_size()
    if count > 1 and device.startswith("cuda"):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    _refuse_unusable(device)
    if count == 1 or not distributed.is_available():
        yield Processes(), device
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size()), device
    finally:
        distributed.destroy_process_group()


def _world_size() -> int:
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"WORLD_SIZE is {text!r}, no number of processes", remedy=_START_ANEW)
    missing = [name for name in _TORCHRUN_VARIABLES if name not in os.environ]
    if int(text) > 1 and missing:
        raise ConfigError(f"WORLD_SIZE is {text}, but {', '.join(missing)} is not set", remedy=_START_ANEW)
    return int(text)


def _refuse_unusable(device: str) -> None:
    try:
        torch.ones(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # by kind of device and build of PyTorch
        words = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"device {device!r} cannot be used: {words}", remedy="give --device cpu") from error


class WholeBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all processes' samples, on any device (Ioffe & Szegedy, 2015).

    PyTorch's own SyncBatchNorm runs on GPUs alone.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, C, H, W) normalised features of the same shape and type."""
        if not self.training:
            return super().forward(features)
        values = features if features.dtype == torch.float64 else features.float()
        moments = torch.stack([values.mean(dim=(0, 2, 3)), values.square().mean(dim=(0, 2, 3))])
        mean, square = all_reduce(moments) / distributed.get_world_size()  # type: ignore[no-untyped-call]
        variance = square - mean.square()
        self._track(mean.detach(), variance.detach(), samples=values.numel() // values.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        offset = self.bias - mean * scale
        normalized: Tensor = values * scale[:, None, None] + offset[:, None, None]
        return normalized.to(features.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, *, samples: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        count = samples * distributed.get_world_size()
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum or 0.1)
        self.running_var.lerp_(variance * count / max(1, count - 1), self.momentum or 0.1)


def synchronized(module: nn.Module, processes: Processes, *, device: torch.device) -> nn.Module:
    """Return the module with batch normalisation over all processes, so that their number does not change a step.

    Args:
        module: The network; its parameters and buffers are used, not copied.
        processes: The processes.
        device: Where the network runs.
    """
    if processes.count == 1:
        return module
    if device.type == "cuda":
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return synced
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = WholeBatchNorm2d
    return module
