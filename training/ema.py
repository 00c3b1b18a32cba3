"""An exponential moving average of a network's weights, the network that is evaluated and shipped."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class MovingAverage:
    """Weights averaged over steps: a' = d a + (1 - d) w, with d rising from 2/11 to `decay` over the first steps.

    Batch-norm statistics are averaged like weights.

    Args:
        module: The network in training.
        decay: d; 0 follows the network exactly.
    """

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(requires_grad=False)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take one step towards the network's present weights."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        averaged, current = _floats(self.module), _floats(module)
        torch._foreach_lerp_(averaged, current, 1.0 - decay)


def _floats(module: nn.Module) -> list[Tensor]:
    return [value for value in module.state_dict().values() if value.is_floating_point()]
