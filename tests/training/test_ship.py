from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import training.ship
from lbkit.models.checkpoint import Checkpoint, checkpoint_state, save_checkpoint, state_sha256
from lbkit.models.registry import bare_contract, build_model
from training.ship import main


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    state = checkpoint_state(build_model("cnn"), half=False)
    contract = bare_contract("cnn", weights_sha256=state_sha256(state), training_data=("toys",))
    save_checkpoint(tmp_path / "run.safetensors", Checkpoint(contract, state))
    return tmp_path / "run.safetensors"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []

    def measure(checkpoint: Checkpoint, *_args: object, **_options: object) -> Checkpoint:
        seen.append(checkpoint.contract.model)
        return checkpoint

    monkeypatch.setattr(training.ship, "measure", measure)
    return seen


def test_a_checkpoint_that_would_be_replaced_is_refused_before_it_is_measured(
    checkpoint: Path, measured: list[str], tmp_path: Path
) -> None:
    target = tmp_path / "shipped" / "cnn.safetensors"
    line = [str(checkpoint), "--coco", str(tmp_path), "--output", str(target.parent)]
    first = CliRunner().invoke(main, line)
    assert first.exit_code == 0, first.output
    assert target.is_file()
    assert measured == ["cnn"]
    again = CliRunner().invoke(main, line)
    assert again.exit_code == 1
    assert again.stderr.startswith(f"error: {target}")
    assert measured == ["cnn"]
    assert CliRunner().invoke(main, [*line, "--force"]).exit_code == 0
    assert measured == ["cnn", "cnn"]


def test_two_checkpoints_of_one_network_cannot_both_be_shipped(
    checkpoint: Path, measured: list[str], tmp_path: Path
) -> None:
    line = [str(checkpoint), str(checkpoint), "--coco", str(tmp_path), "--output", str(tmp_path / "out"), "--force"]
    done = CliRunner().invoke(main, line)
    assert done.exit_code == 1
    assert "2 checkpoints would be written" in done.stderr
    assert measured == []
