"""Two processes on this machine's CPU take the very step of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lbkit.errors import ConfigError
from training.config import read_recipe
from training.distributed import Processes, joined
from training.train import make_trainer

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("gradient_worker.py")


def torchrun(*arguments: str | Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment, timeout=240
    )


@pytest.mark.slow
@pytest.mark.train_smoke
def test_two_processes_take_the_step_of_one(tmp_path: Path) -> None:
    for count in (1, 2):
        done = torchrun(WORKER, tmp_path / f"{count}.safetensors", "cnn", processes=count)
        assert done.returncode == 0, done.stderr
    alone, together = (load_file(tmp_path / f"{count}.safetensors") for count in (1, 2))
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        largest = float(value.abs().max())
        assert largest > 0, name
        torch.testing.assert_close(together[name], value, rtol=0, atol=1e-6 * largest, msg=name)


def test_a_batch_that_cannot_be_shared_is_refused(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    recipe = read_recipe(recipe_path, settings=["batch_size=7"])
    with pytest.raises(ConfigError, match=r"a batch of 7 cannot be shared equally by 2 .*--set batch_size=8"):
        make_trainer(recipe, data=figure_data, output=tmp_path, device="cpu", processes=Processes(0, 2))


def test_shares_are_disjoint_and_whole() -> None:
    items = list(range(10))
    shares = [Processes(rank, 3).share_of(items) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == items


@pytest.mark.parametrize(
    ("device", "environment", "message"),
    [
        ("gpu", {}, r"device 'gpu' cannot be used: .*give --device cpu"),
        ("meta", {}, r"device 'meta' cannot be used"),
        ("cuda:99", {}, r"device 'cuda:99' cannot be used"),
        ("cpu", {"WORLD_SIZE": "two"}, r"WORLD_SIZE is 'two', no number of processes; start with torchrun"),
        ("cpu", {"WORLD_SIZE": "0"}, r"WORLD_SIZE is '0'"),
        ("cpu", {"WORLD_SIZE": "2", "RANK": "0"}, r"LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"),
    ],
)
def test_what_cannot_be_joined_is_said(
    monkeypatch: pytest.MonkeyPatch, device: str, environment: dict[str, str], message: str
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message), joined(device):
        pass


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as (processes, device):
        assert (processes.count, device) == (1, "cpu")
