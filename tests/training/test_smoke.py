"""What `make train-smoke` shows: eight people learnt by heart, a run killed and resumed, two processes."""

from __future__ import annotations

import csv
import dataclasses
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from lbkit.models.checkpoint import load_checkpoint, state_sha256
from training.config import Augmentation, read_recipe
from training.train import make_trainer

ROOT = Path(__file__).parents[2]
KILLS = 3

pytestmark = [pytest.mark.slow, pytest.mark.train_smoke]


def train(*arguments: str | Path, processes: int = 1) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "training.train", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finished(process: subprocess.Popen[str]) -> str:
    """Wait for a run that should end well and return what it printed."""
    output, problems = process.communicate(timeout=240)
    assert process.returncode == 0, problems
    return output


def curves(folder: Path) -> list[dict[str, str]]:
    with (folder / "curves.csv").open() as file:
        return list(csv.DictReader(file))


def test_eight_people_are_learnt_by_heart(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    items = [field.name for field in dataclasses.fields(Augmentation)]
    quiet = "{" + ", ".join(f"{item}=0" for item in items) + "}"
    settings = [
        "epochs=10",
        "batch_size=8",
        "input_height=128",
        "input_width=96",
        "learning_rate=0.003",
        "ema_decay=0.9",
        f"augmentation={quiet}",
    ]
    settings.append('sources=[{name="figures", annotations="annotations.json", images=".", repeat=24}]')
    recipe = read_recipe(recipe_path, settings=settings)
    trainer = make_trainer(recipe, data=figure_data, output=tmp_path / "run", device="cpu")
    trainer.run()
    trainer.validation = trainer.training  # nothing varies, so these are the plain crops
    assert trainer.validate()["val_pck@0.05"] == 1.0


def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(
    recipe_path: Path, figure_data: Path, tmp_path: Path
) -> None:
    changes = ["--set", 'sources=[{name="figures", annotations="annotations.json", images=".", repeat=6}]']
    line: Sequence[str | Path] = [recipe_path, "--data", figure_data, "--device", "cpu", *changes]
    finished(train(*line, "--output", tmp_path / "whole"))
    chance, killed = random.Random(4), 0
    broken = [*line, "--output", tmp_path / "killed", "--save-minutes", "0.01"]
    for _ in range(KILLS):
        process = train(*broken)
        state, before = tmp_path / "killed" / "state.safetensors", time.time()
        while process.poll() is None and not (state.exists() and state.stat().st_mtime > before):
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.4))
        process.kill()  # SIGKILL: nothing is tidied up
        process.communicate()
        killed += process.returncode != 0
    assert killed >= 1
    finished(train(*broken))
    whole, resumed = (load_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "killed"))
    assert state_sha256(whole.state) == state_sha256(resumed.state)
    clock = dict.fromkeys(("seconds", "images_per_s", "waiting"), "")
    assert [row | clock for row in curves(tmp_path / "whole")] == [row | clock for row in curves(tmp_path / "killed")]
    leftovers = {path.name for path in (tmp_path / "killed").iterdir()}
    assert {"best.safetensors", "last.safetensors", "state.safetensors", "curves.csv"} <= leftovers


def test_two_processes_train_as_one_and_a_stopped_run_goes_on_with_another_number(
    recipe_path: Path, figure_data: Path, tmp_path: Path
) -> None:
    line: Sequence[str | Path] = [
        *(recipe_path, "--data", figure_data, "--device", "cpu", "--set", "learning_rate=0.0001"),
        *("--set", 'sources=[{name="figures", annotations="annotations.json", images=".", validation=0.3, repeat=4}]'),
    ]
    for count in (1, 2):
        output = finished(train(*line, "--output", tmp_path / str(count), processes=count))
        assert output.count("next: lbkit export") == 1
    stopped = finished(train(*line, "--output", tmp_path / "mixed", "--max-minutes", "0.001", processes=2))
    assert "stopped after 0 of 2 epochs; run the same line again" in stopped
    finished(train(*line, "--output", tmp_path / "mixed", processes=1))
    alone = curves(tmp_path / "1")
    for rows in (curves(tmp_path / "2"), curves(tmp_path / "mixed")):
        assert [row["seen"] for row in rows] == [row["seen"] for row in alone]
        for name in ("train_loss_fixed", "val_loss_visible", "train_pck@0.05", "val_pck@0.10"):
            found, expected = ([float(row[name]) for row in table] for table in (rows, alone))
            assert found == pytest.approx(expected, rel=0.02, abs=1e-3)
    assert load_checkpoint(tmp_path / "2" / "last.safetensors").training["processes"] == 2
