"""Two processes on this machine's CPU: the same step, the same run, and one writer."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lbkit.errors import ConfigError
from lbkit.models.checkpoint import load_checkpoint
from training.config import read_recipe
from training.distributed import Processes
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
@pytest.mark.parametrize("model", ["cnn"])
def test_two_processes_take_the_step_of_one(tmp_path: Path, model: str) -> None:
    for count in (1, 2):
        done = torchrun(WORKER, tmp_path / f"{count}.safetensors", model, processes=count)
        assert done.returncode == 0, done.stderr
    alone, together = (load_file(tmp_path / f"{count}.safetensors") for count in (1, 2))
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        largest = float(value.abs().max())
        assert largest > 0, name
        torch.testing.assert_close(together[name], value, rtol=0, atol=1e-6 * largest, msg=name)


@pytest.mark.slow
def test_two_processes_train_as_one_and_a_stopped_run_goes_on_with_another_number(
    recipe_path: Path, figure_data: Path, tmp_path: Path
) -> None:
    settings = ["--set", "learning_rate=0.0001"]
    line = ["-m", "training.train", recipe_path, "--data", figure_data, "--device", "cpu", *settings]
    for count in (1, 2):
        done = torchrun(*line, "--output", tmp_path / str(count), processes=count)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("next: lbkit export") == 1
    stopped = torchrun(*line, "--output", tmp_path / "mixed", "--max-minutes", "0.01", processes=2)
    assert stopped.returncode == 0, stopped.stderr
    assert "run the same line again" in stopped.stdout
    resumed = torchrun(*line, "--output", tmp_path / "mixed", processes=1)
    assert resumed.returncode == 0, resumed.stderr
    first, *others = (_rows(tmp_path / name) for name in ("1", "2", "mixed"))
    for rows in others:
        assert [row["seen"] for row in rows] == [row["seen"] for row in first]
        for name in ("train_loss_fixed", "val_loss_visible", "train_pck@0.05", "val_pck@0.10"):
            found, expected = ([float(row[name]) for row in table] for table in (rows, first))
            assert found == pytest.approx(expected, rel=0.02, abs=1e-3)
    assert load_checkpoint(tmp_path / "2" / "last.safetensors").training["processes"] == 2


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "curves.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_batch_that_cannot_be_shared_is_refused(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    recipe = read_recipe(recipe_path, settings=["batch_size=7"])
    with pytest.raises(ConfigError, match=r"a batch of 7 cannot be shared equally by 2 .*--set batch_size=8"):
        make_trainer(recipe, data=figure_data, output=tmp_path, device="cpu", processes=Processes(0, 2))


def test_shares_are_disjoint_and_whole() -> None:
    items = list(range(10))
    shares = [Processes(rank, 3).share_of(items) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == items
