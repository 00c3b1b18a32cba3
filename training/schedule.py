"""How the learning rate goes: a pure function of the step, so that a resumed run needs no state for it."""

from __future__ import annotations

import math

from training.config import Recipe

COSINE_END = 0.01
"""The cosine ends at this share of the highest rate."""

ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4
"""Shares of the highest rate at the ends of the cycle, those of torch.optim.lr_scheduler.OneCycleLR."""


def learning_rate(recipe: Recipe, step: int, *, steps: int) -> float:
    """Return the rate of a step.

    "constant" and "cosine" rise linearly during the warm-up; then the one stays and the other follows a half cosine to
    a hundredth. "one-cycle" follows a half cosine up from a 25th and another down to nearly 0 (Smith & Topin, 2018).

    Args:
        recipe: The recipe.
        step: From 0.
        steps: Of the whole run.
    """
    rise = max(1, int(steps * recipe.warmup))
    share = min(1.0, (step - rise) / max(1, steps - rise))
    if recipe.schedule == "one-cycle":
        factor = (
            _half_cosine(ONE_CYCLE_START, 1.0, step / rise) if step < rise else _half_cosine(1.0, ONE_CYCLE_END, share)
        )
    elif step < rise:
        factor = (step + 1) / rise
    else:
        factor = 1.0 if recipe.schedule == "constant" else _half_cosine(1.0, COSINE_END, share)
    return recipe.learning_rate * factor


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
