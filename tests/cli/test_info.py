from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from lbkit.cli.main import run
from lbkit.core.contract import Figure, ModelContract


def test_plain_lines_hold_the_contract(toy_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(toy_model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"file\tpath\t{toy_model}" in lines
    assert "joints\t0\tleft_hip" in lines
    assert "input\ttensor\timages: uint8 RGB NHWC, 256x192 (height x width), any batch" in lines
    assert "output\tdecoder\tdark, on the host" in lines
    assert lines[-1] == "figures\tnone\t-"


def test_json_holds_the_contract_whole(toys: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = Figure("oks ap", 0.5, "data", 3, "2026-01-01")
    contract = toys.toy_contract().replace(evaluation=(figure,))
    path = toys.save_toy_model(tmp_path / "toy.onnx", contract=contract)
    assert run(["info", str(path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert ModelContract.from_json(json.dumps(record["contract"]), where="x") == contract
    assert record["size_bytes"] == path.stat().st_size


def test_figures_without_an_interval_are_shown(
    toys: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = toys.toy_contract().replace(evaluation=(Figure("oks ap", 0.5, "data", 3, "2026-01-01"),))
    assert run(["info", str(toys.save_toy_model(tmp_path / "toy.onnx", contract=contract))]) == 0
    assert "figures\toks ap\t0.5000, data, 3 people, 2026-01-01" in capsys.readouterr().out


def test_a_checkpoint_tells_its_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from lbkit.models.checkpoint import Checkpoint, checkpoint_state, save_checkpoint, state_sha256
    from lbkit.models.registry import bare_contract, build_model

    state = checkpoint_state(build_model("cnn"), half=True)
    contract = bare_contract("cnn", weights_sha256=state_sha256(state), training_data=("figures",))
    path = tmp_path / "cnn.safetensors"
    save_checkpoint(path, Checkpoint(contract, state, {"seed": 7, "recipe": "r" * 200}))
    assert run(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert "file\tkind\tcheckpoint" in out
    assert "training\tseed\t7" in out
    assert f"training\trecipe\t{'r' * 97}..." in out
    assert "weights\ttrained on\tfigures" in out


@pytest.mark.parametrize("name", ["nobody.onnx", "nobody.safetensors", "nobody"])
def test_no_such_model_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", name]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert len(captured.err.splitlines()) == 1
