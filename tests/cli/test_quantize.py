from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch

from lbkit.cli import reduction
from lbkit.cli.main import run
from lbkit.models.checkpoint import Checkpoint, checkpoint_state, save_checkpoint, state_sha256
from lbkit.models.registry import bare_contract, build_model
from lbkit.quantization.options import PRECISIONS
from lbkit.quantization.speed import MAX_BATCH
from lbkit.quantization.static import METHODS


@pytest.fixture(autouse=True)
def _no_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LBKIT_COCO", raising=False)


@pytest.fixture
def model(toys: ModuleType, tmp_path: Path) -> Path:
    return toys.save_toy_model(tmp_path / "toy.onnx")


@pytest.fixture
def root(toys: ModuleType, roots: ModuleType, tmp_path: Path) -> Path:
    return roots.write_root(tmp_path / "root", toys, [roots.RootPerson(image_id=number) for number in range(1, 7)])


def test_choices_spelled_out_are_the_librarys() -> None:
    assert reduction.REDUCED_CHOICES == PRECISIONS
    assert list(reduction.METHOD_CHOICES) == ["auto", *METHODS]
    assert reduction.MAX_BATCH == MAX_BATCH


def test_tells_what_was_made_and_measured(model: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--samples", "2", "--method", "minmax", "--time-batch", "1", "--max-drop", "100", "--threads", "1"]
    assert run(["quantize", str(model), "--coco", str(root), *arguments]) == 0
    out, err = capsys.readouterr()
    made = model.with_name("toy-int8.onnx")
    assert made.is_file()
    assert made.with_suffix(".json").is_file()
    assert out.startswith(str(made))
    for words in ("ranges by minmax", "3 of 3 layers in 8 bits", "PCK@0.05  1.0000", "by joint left_hip", "batch 1 "):
        assert words in out
    assert out.splitlines()[-1] == f"next: lbkit eval {model} {made} --coco ROOT"
    assert err == ""


def test_json_is_all_there_is_on_stdout(model: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--samples", "2", "--method", "entropy", "--time-batch", "2", "--max-drop", "100", "-o"]
    output = model.with_name("other.onnx")
    assert run(["quantize", str(model), "--coco", str(root), *arguments, str(output), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["path"] == str(output)
    assert [speed["batch"] for speed in record["reduction"]["speed"]["batches"]] == [2]


def test_a_limit_that_is_not_kept_is_3(model: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--samples", "2", "--method", "minmax", "--time-batch", "1", "--require-speedup", "1e6"]
    assert run(["quantize", str(model), "--coco", str(root), *arguments]) == 3
    assert "times as fast as the fp32 file, and 1e+06 is asked for" in capsys.readouterr().err
    assert not model.with_name("toy-int8.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 1, "give --calibration FOLDER|FILE, or --coco ROOT"),
        (["--calibration", "gone"], 1, "gone: there is no such file"),
        (["--calibration", "empty"], 1, "empty: has no picture in it"),
        (["--coco", "empty"], 1, "has no annotations"),
        (["--precision", "int4"], 2, "Did you mean 'int8'?"),
        (["--method", "minmaxx"], 2, "Did you mean 'minmax'?"),
        (["--samples", "0"], 2, "0 is not in the range"),
        (["--time-batch", "0"], 2, "0 is not in the range"),
        (["--time-batch", "100000"], 2, "100000 is not in the range"),
        (["--threads", "0"], 2, "0 is not in the range"),
        (["--max-drop", "-1"], 2, "-1.0 is not in the range"),
        (["--calibration", "empty", "--max-drop", "nan"], 1, "max_drop should be a number"),
    ],
)
def test_what_cannot_be_done_is_said(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(model.parent)
    Path("empty").mkdir()
    assert run(["quantize", str(model), *arguments]) == code
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in model.parent.iterdir()) == ["empty", "toy.onnx"]


def test_export_gives_fp16_without_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    module = build_model("cnn")
    state = checkpoint_state(module, half=True)
    contract = bare_contract("cnn", weights_sha256=state_sha256(state), training_data=("nothing",))
    save_checkpoint(tmp_path / "cnn.safetensors", Checkpoint(contract, state))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LBKIT_CHECKPOINTS", str(tmp_path))
    arguments = ["export", "--model", "cnn", "--precision", "fp16", "--time-batch", "1"]
    assert run(arguments) == 1  # an untrained network is sure of nothing, so no loss could be told
    assert "scores no joint 0.3 or more" in capsys.readouterr().err
    assert not Path("exported").exists() or not list(Path("exported").iterdir())
    assert run([*arguments, "--max-drop", "100"]) == 0
    made = Path("exported", "cnn-fp16.onnx")
    assert [path.name for path in sorted(made.parent.iterdir())] == ["cnn-fp16.json", "cnn-fp16.onnx"]
    assert json.loads(made.with_suffix(".json").read_text())["contract"]["precision"] == "fp16"
    out = capsys.readouterr().out
    assert "PCK       not measured" in out
    assert "nor agreement PCK" in out
    assert run(["export", "--model", "cnn", "--precision", "fp16"]) == 1
    assert "exists already" in capsys.readouterr().err
