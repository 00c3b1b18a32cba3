from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch

from lbkit.cli.main import run
from lbkit.export.options import DEFAULT_OPSET, INPUT_DTYPES, MAX_OPSET, MIN_OPSET
from lbkit.models.checkpoint import Checkpoint, checkpoint_state, save_checkpoint, state_sha256
from lbkit.models.registry import bare_contract, build_model


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    """A folder with a checkpoint of cnn whose weights are random."""
    torch.manual_seed(1)
    module = build_model("cnn")
    state = checkpoint_state(module, half=True)
    contract = bare_contract("cnn", weights_sha256=state_sha256(state), training_data=("nothing",))
    folder = tmp_path_factory.mktemp("checkpoints")
    save_checkpoint(folder / "cnn.safetensors", Checkpoint(contract, state))
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch, tmp_path, checkpoints):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LBKIT_CHECKPOINTS", str(checkpoints))


def test_exports_the_found_checkpoint_and_names_the_next_command(capsys):
    assert run(["export", "--model", "cnn"]) == 0
    out, err = capsys.readouterr()
    path = Path("exported", "cnn.onnx")
    assert path.is_file()
    assert path.with_suffix(".json").is_file()
    assert out.splitlines()[-1] == f"next: lbkit infer IMAGES --model {path}"
    assert "batch 5   heatmaps" in out
    assert "images: uint8 RGB NHWC" in out
    assert err == ""
    assert run(["export", "--model", "cnn"]) == 1
    assert "--force" in capsys.readouterr().err


def test_json_is_all_there_is_on_stdout(capsys, checkpoints):
    arguments = ["--decode", "dark", "--keep-heatmaps", "--input", "float32", "--no-simplify", "--output", "a/b.onnx"]
    assert run(["export", "--model", "cnn", "--json", "--opset", "20", *arguments]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert record["path"] == str(Path("a", "b.onnx"))
    assert record["checkpoint"] == str(checkpoints / "cnn.safetensors")
    assert record["outputs"] == ["keypoints", "heatmaps"]
    assert record["opset"] == 20
    assert list(record["seconds"]) == ["load", "export", "verify"]
    assert [agreement["batch"] for agreement in record["agreement"]] == [1, 2, 5]
    assert err.splitlines() == [f"next: lbkit infer IMAGES --model {Path('a', 'b.onnx')}"]
    sidecar = json.loads(Path("a", "b.json").read_text())
    switches = {"keep_heatmaps": True, "simplify": False, "subpixel": False}
    assert sidecar["options"] == {"input": "float32", "decode": "dark"} | switches


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "cmn"], 1, "did you mean cnn?"),
        (["--model", "fpn"], 1, "looked for"),
        (["--model", "cnn", "--checkpoint", "gone.safetensors"], 1, "gone.safetensors: no such file"),
        (["--model", "cnn", "--opset", "7"], 1, f"{MIN_OPSET}..{MAX_OPSET}, got 7"),
        (["--model", "cnn", "--opset", "10000"], 1, f"{MIN_OPSET}..{MAX_OPSET}, got 10000"),
        (["--model", "cnn", "--opset", "new"], 2, "'new' is not a valid integer"),
        (["--model", "cnn", "--decode", "drak"], 2, "Did you mean 'dark'?"),
        (["--model", "cnn", "--input", "unit8"], 2, "Did you mean 'uint8'?"),
        (["--model", "cnn", "--output", "."], 2, "directory"),
        ([], 2, "--model"),
    ],
)
def test_bad_input_is_one_line_and_no_file(capsys, arguments, code, message):
    assert run(["export", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert code == 2 or len(err.splitlines()) == 1
    assert list(Path().rglob("*.*")) == []


def test_help_tells_the_truth_about_defaults(capsys):
    assert run(["export", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"{MIN_OPSET} to {MAX_OPSET}. [default: {DEFAULT_OPSET}]" in out
    for option in ("--checkpoint", "--decode", "--keep-heatmaps", "--simplify / --no-simplify", "--force", "--json"):
        assert option in out


def test_choices_are_those_of_the_library():
    from lbkit.cli.export import INPUT_CHOICES

    assert INPUT_CHOICES == INPUT_DTYPES


def test_command_is_imported_without_anything_heavy():
    heavy = "{'numpy', 'cv2', 'torch', 'onnx', 'onnxruntime'}"
    code = (
        f"import sys, lbkit.cli.export; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
