from __future__ import annotations

import pytest
import torch

from training.config import Recipe, Source
from training.schedule import learning_rate

SOURCES = (Source("a", annotations="a", images="a"),)


def rates(schedule: str, *, warmup: float, steps: int = 200) -> list[float]:
    recipe = Recipe("cnn", SOURCES, schedule=schedule, warmup=warmup, learning_rate=2e-3)  # type: ignore[arg-type]
    return [learning_rate(recipe, step, steps=steps) for step in range(steps)]


def test_one_cycle_is_pytorchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    # Two-phase cosine; PyTorch counts its phases to the last step, so a longer run's share of 1 / steps is allowed for.
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=2000, pct_start=0.3)
    expected = []
    for _ in range(2000):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates("one-cycle", warmup=0.3, steps=2000) == pytest.approx(expected, abs=2e-3 / 300)


def test_a_cosine_rises_and_ends_at_a_hundredth() -> None:
    found = rates("cosine", warmup=0.1)
    assert found[0] == pytest.approx(1e-4)
    assert max(found) == found[19] == pytest.approx(2e-3)
    assert found[110] == pytest.approx(2e-3 * (0.01 + 0.99 * 0.5), rel=0.02)
    assert found[-1] == pytest.approx(2e-5, rel=0.05)
    assert found[19:] == sorted(found[19:], reverse=True)


def test_a_constant_stays() -> None:
    assert set(rates("constant", warmup=0.1)[20:]) == {2e-3}
