from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from lbkit.errors import CheckpointError, ConfigError, ImageReadError, OutputError
from lbkit.models.checkpoint import load_checkpoint, state_sha256
from lbkit.scale.sole_use import sole_use
from training.config import Recipe, read_recipe
from training.ema import MovingAverage
from training.loop import Trainer
from training.precision import choose_precision
from training.train import make_trainer


def trainer_for(recipe: Recipe, data: Path, output: Path) -> Trainer:
    return make_trainer(recipe, data=data, output=output, device="cpu")


def test_a_run_leaves_checkpoints_with_their_story(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    recipe = read_recipe(recipe_path)
    best = trainer_for(recipe, figure_data, tmp_path / "run").run()
    assert best is not None
    checkpoint = load_checkpoint(best)
    assert checkpoint.contract.model == "cnn"
    assert checkpoint.contract.training_data == ("figures",)
    assert checkpoint.training["recipe"]["epochs"] == 2
    assert checkpoint.training["people"]["figures"] + 1 <= 8
    with (tmp_path / "run" / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for name in ("train_loss_fixed", "val_loss_visible", "train_pck@0.05", "val_pck@0.10"):
        assert float(rows[1][name]) >= 0


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    recipe_path: Path, figure_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(recipe_path)
    trainer_for(recipe, figure_data, tmp_path / "whole").run()
    broken = trainer_for(recipe, figure_data, tmp_path / "broken")
    step = broken._step

    def dying(*args: object) -> None:
        if broken.progress.step == 3:
            raise KeyboardInterrupt
        step(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(broken, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        broken.run(save_minutes=0.0)
    again = trainer_for(recipe, figure_data, tmp_path / "broken")
    assert again.progress.step == 3
    again.run()
    whole, resumed = (load_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "broken"))
    assert state_sha256(whole.state) == state_sha256(resumed.state)


def test_curves_have_the_same_columns_and_one_row_an_epoch_after_any_stop(
    recipe_path: Path, figure_data: Path, tmp_path: Path
) -> None:
    recipe = read_recipe(recipe_path)
    trainer_for(recipe, figure_data, tmp_path / "whole").run()
    while trainer_for(recipe, figure_data, tmp_path / "stopped").run(max_minutes=1e-6) is None:
        pass  # one step a start, so that it also stops between the last batch and the end of the epoch
    for _ in range(20):
        trainer = trainer_for(recipe, figure_data, tmp_path / "stopped")
        trainer.run(max_minutes=1e-6)
    assert trainer.progress.epoch == 2
    tables = [_curves(tmp_path / name) for name in ("whole", "stopped")]
    assert [row["epoch"] for row in tables[1]] == ["1", "2"]
    for whole, stopped in zip(*tables, strict=True):
        clock = {"seconds": "", "images_per_s": "", "waiting": ""}
        assert {**whole, **clock} == {**stopped, **clock}
        assert None not in stopped.values()


def _curves(folder: Path) -> list[dict[str, str]]:
    with (folder / "curves.csv").open() as file:
        return list(csv.DictReader(file))


def test_going_on_by_another_recipe_is_refused(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    trainer_for(read_recipe(recipe_path), figure_data, tmp_path / "run").run(max_minutes=1e-6)
    other = read_recipe(recipe_path, settings=["batch_size=3", "seed=9"])
    with pytest.raises(ConfigError, match="differs in batch_size, seed"):
        trainer_for(other, figure_data, tmp_path / "run")
    longer = read_recipe(recipe_path, settings=["epochs=5"])
    assert trainer_for(longer, figure_data, tmp_path / "run").progress.step == 1


def test_going_on_by_another_architecture_is_refused_in_one_line(
    recipe_path: Path, figure_data: Path, tmp_path: Path
) -> None:
    trainer_for(read_recipe(recipe_path), figure_data, tmp_path / "run").run(max_minutes=1e-6)
    other = read_recipe(recipe_path, settings=["model=fpn"])
    with pytest.raises(ConfigError, match="differs in model; give the same recipe"):
        trainer_for(other, figure_data, tmp_path / "run")


def test_going_on_with_other_people_is_refused(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    data, recipe = tmp_path / "data", read_recipe(recipe_path)
    shutil.copytree(figure_data, data)
    trainer_for(recipe, data, tmp_path / "run").run(max_minutes=1e-6)
    content = json.loads((data / "annotations.json").read_text())
    content["annotations"][0]["keypoints"][11 * 3] += 1
    (data / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="was started on other people"):
        trainer_for(recipe, data, tmp_path / "run")


@pytest.mark.parametrize(
    "setting", ["batch_size=100", 'sources=[{name="a", annotations="annotations.json", images=".", repeat=0}]']
)
def test_a_batch_larger_than_the_epoch_is_refused(
    recipe_path: Path, figure_data: Path, tmp_path: Path, setting: str
) -> None:
    with pytest.raises(ConfigError, match=r"a batch of \d+ is more than an epoch's [06] crops; lower batch_size"):
        trainer_for(read_recipe(recipe_path, settings=[setting]), figure_data, tmp_path / "run")


def test_checkpoints_without_their_state_are_not_written_over(
    recipe_path: Path, figure_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "best.safetensors").write_bytes(b"of another run")
    with pytest.raises(OutputError, match=r"best.safetensors: is there, and no state to go on from; move it away"):
        trainer_for(read_recipe(recipe_path), figure_data, tmp_path).run()
    assert (tmp_path / "best.safetensors").read_bytes() == b"of another run"


def test_a_folder_is_for_one_run_at_a_time(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    trainer = trainer_for(read_recipe(recipe_path), figure_data, tmp_path / "run")
    in_use = sole_use(tmp_path / "run", work="training", option="--output")
    with in_use, pytest.raises(OutputError, match="another training is at work there"):
        trainer.run()
    (tmp_path / "run" / ".state-ab12.safetensors").write_bytes(b"half")
    trainer.run(max_minutes=1e-6)
    assert not (tmp_path / "run" / ".state-ab12.safetensors").exists()


def test_a_folder_that_cannot_be_made_is_an_error_at_once(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written to \(.*\); check --output"):
        trainer_for(read_recipe(recipe_path), figure_data, tmp_path / "file" / "run").run()


def test_a_finished_run_says_that_there_is_nothing_to_do(
    recipe_path: Path, figure_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer_for(read_recipe(recipe_path), figure_data, tmp_path).run()
    before = (tmp_path / "state.safetensors").stat().st_mtime_ns
    with caplog.at_level("INFO"):
        again = trainer_for(read_recipe(recipe_path, settings=["epochs=1"]), figure_data, tmp_path).run()
    assert again == tmp_path / "best.safetensors"
    assert "nothing to do: 2 epochs are done, and the recipe asks for 1" in caplog.text
    assert (tmp_path / "state.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_pictures_are_blank_and_counted_and_missing_ones_an_error_in_one_line(
    recipe_path: Path, figure_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    data, settings = tmp_path / "data", [f"workers={workers}", "epochs=1"]
    shutil.copytree(figure_data, data)
    for picture in data.glob("*.png"):
        picture.write_bytes(picture.read_bytes()[:200])
    trainer = trainer_for(read_recipe(recipe_path, settings=settings), data, tmp_path / "run")
    trainer.run()
    assert "6 of 6 crops in training are blank" in caplog.text
    assert "2 of 2 crops in validation are blank" in caplog.text
    assert [float(row["train_loss_fixed"]) for row in _curves(tmp_path / "run")] == [0.0]
    again = trainer_for(read_recipe(recipe_path, settings=[*settings, "epochs=2"]), data, tmp_path / "run")
    for picture in data.glob("*.png"):
        picture.unlink()
    with pytest.raises(ImageReadError, match=r"^\S+\.png: no such file; check the folder of pictures$"):
        again.run()


def test_a_loss_that_is_no_number_ends_the_run(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    trainer = trainer_for(read_recipe(recipe_path, settings=["learning_rate=1e9"]), figure_data, tmp_path)
    with pytest.raises(ConfigError, match=r"not a finite number any more \(epoch \d, batch \d\); start anew with a"):
        trainer.run()
    assert not (tmp_path / "best.safetensors").exists()


def test_a_precision_once_measured_is_kept(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    recipe = read_recipe(recipe_path, settings=["precision=auto"])
    first = trainer_for(recipe, figure_data, tmp_path / "run")
    first.run(max_minutes=1e-6)
    again = trainer_for(recipe, figure_data, tmp_path / "run")
    assert again.learner.precision in ("fp32", "bf16")
    assert again.learner.precision == first.learner.precision


def test_time_that_is_up_stops_the_run_resumably(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    trainer = trainer_for(read_recipe(recipe_path), figure_data, tmp_path / "run")
    assert trainer.run(max_minutes=1e-6) is None
    assert trainer.progress.step == 1
    assert trainer_for(read_recipe(recipe_path), figure_data, tmp_path / "run").progress.step == 1


def test_a_broken_state_says_so(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(CheckpointError, match="cannot be resumed from"):
        trainer_for(read_recipe(recipe_path), figure_data, tmp_path)


def test_a_recipe_for_another_architecture_is_refused(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    best = trainer_for(read_recipe(recipe_path, settings=["epochs=1"]), figure_data, tmp_path / "cnn").run()
    other = read_recipe(recipe_path, settings=["model=fpn", f"init_from={best}"])
    with pytest.raises(ConfigError, match="init_from is a cnn, and the recipe trains a fpn"):
        trainer_for(other, figure_data, tmp_path / "fpn")


def test_a_run_starts_from_a_checkpoint(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    best = trainer_for(read_recipe(recipe_path, settings=["epochs=1"]), figure_data, tmp_path / "one").run()
    assert best is not None
    second = trainer_for(read_recipe(recipe_path, settings=[f"init_from={best}"]), figure_data, tmp_path / "two")
    expected = load_checkpoint(best).to_module().state_dict()
    for name, tensor in second.learner.module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor, expected[name])
    last = second.run()
    assert last is not None
    story = load_checkpoint(last).training
    assert story["started_from"]["recipe"]["epochs"] == 1
    assert story["recipe"]["init_from"] == "best.safetensors"
    assert str(tmp_path) not in str(story)


def test_the_average_follows_by_its_formula() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 0.0)
    average = MovingAverage(module, decay=0.5)
    nn.init.constant_(module.weight, 1.0)
    expected = 0.0
    for step in range(1, 30):
        average.update(module)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay)
        assert float(average.module.weight) == pytest.approx(expected)
    assert expected == pytest.approx(1.0, abs=1e-6)


def test_measuring_the_precision_leaves_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.BatchNorm2d(6))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    images, targets = torch.randn(2, 3, 32, 32), torch.rand(2, 6, 8, 8)
    chosen = choose_precision("auto", module, images=images, targets=targets)
    assert chosen in ("fp32", "bf16")
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, before[name])
    assert choose_precision("fp32", module, images=images, targets=targets) == "fp32"


def test_the_last_good_state_survives_a_full_disk(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    worker, run = Path(__file__).with_name("full_disk_worker.py"), tmp_path / "run"
    command = [sys.executable, str(worker), str(recipe_path), str(figure_data), str(run)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "state.safetensors: cannot be written" in done.stdout
    assert trainer_for(read_recipe(recipe_path), figure_data, run).progress.step == 1
    assert {path.name for path in run.iterdir()} - {".training.lock"} == {"state.safetensors"}


def test_a_run_stops_early_when_validation_does_not_improve(
    recipe_path: Path, figure_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ["epochs=50", "patience=2", "learning_rate=1e-12", "batch_size=4"]
    trainer = trainer_for(read_recipe(recipe_path, settings=settings), figure_data, tmp_path / "run")
    with caplog.at_level("INFO"):
        assert trainer.run() is not None
    assert trainer.is_over
    assert trainer.progress.epoch == trainer.progress.best_epoch + 2 < 50
    assert "stopped early: no better validation for 2 epochs" in caplog.text
    again = trainer_for(read_recipe(recipe_path, settings=settings), figure_data, tmp_path / "run")
    assert again.is_over


def test_half_precision_scales_its_loss_and_resumes_so(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    recipe = read_recipe(recipe_path, settings=["precision=fp16", "clip_norm=100"])
    trainer_for(recipe, figure_data, tmp_path / "whole").run()
    stopped = trainer_for(recipe, figure_data, tmp_path / "stopped")
    stopped.run(max_minutes=1e-6)
    assert stopped.learner.scaler.is_enabled()
    resumed = trainer_for(recipe, figure_data, tmp_path / "stopped")
    assert resumed.learner.precision == "fp16"
    assert resumed.learner.scaler.state_dict() == stopped.learner.scaler.state_dict()
    resumed.run()
    whole, again = (load_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "stopped"))
    assert whole.training["precision"] == "fp16"
    assert all(torch.isfinite(value).all() for value in whole.state.values())
    assert state_sha256(whole.state) == state_sha256(again.state)


def test_tensorboard_and_figures_show_the_run(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    trainer_for(read_recipe(recipe_path), figure_data, run).run()
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    rows = _curves(run)
    for tag, column in {"pck@0.05/val": "val_pck@0.05", "loss_fixed/train": "train_loss_fixed"}.items():
        shown = [(event.step, event.value) for event in events.Scalars(tag)]
        assert [step for step, _ in shown] == [1, 2]
        assert [value for _, value in shown] == pytest.approx([float(row[column]) for row in rows], rel=1e-6)
    for name in ("curves-loss.png", "curves-pck.png"):
        assert (run / name).stat().st_size > 5_000
    assert all(0 <= float(row["waiting"]) <= 1 and float(row["images_per_s"]) > 0 for row in rows)


def test_workers_start_though_opencv_has_threads_at_work(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (0, 0), 5)  # starts OpenCV's threads
        trainer = trainer_for(read_recipe(recipe_path, settings=["workers=1"]), figure_data, tmp_path / "run")
        assert trainer.run() is not None
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(before)
