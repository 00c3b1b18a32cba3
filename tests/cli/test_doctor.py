from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lbkit.cli.main import run
from lbkit.runtime import doctor as library
from lbkit.runtime.probe import ProviderStatus
from lbkit.runtime.wheels import Obstacle


def test_plain_lines_in_a_pipe(
    toy_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LBKIT_MODELS", str(toy_model.parent))
    assert run(["doctor"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert all(len(row) == 3 for row in rows)
    facts = {(section, name): text for section, name, text in rows}
    assert facts["providers", "cpu"] == "works"
    assert facts["models", "toy"] == str(toy_model)
    assert facts["versions", "python"] == ".".join(map(str, sys.version_info[:3]))
    assert "affinity" in facts["machine", "threads"]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["providers"]["cpu"]["works"] is True
    assert captured.err == ""


def test_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "300")
    assert run(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "\t" not in text
    assert "works" in text


def test_no_provider_is_exit_1_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def dead(name: str) -> ProviderStatus:
        return ProviderStatus(name, works=False, problem=f"no {name} here", remedy=f"buy a {name}")  # type: ignore[arg-type]

    monkeypatch.setattr(library, "probe_provider", dead)
    assert run(["doctor"]) == 1
    assert "providers\tcuda\tdoes not work: no cuda here; buy a cuda" in capsys.readouterr().out


def test_one_working_provider_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_cpu(name: str) -> ProviderStatus:
        return ProviderStatus(name, works=name == "cpu", problem="" if name == "cpu" else "absent")  # type: ignore[arg-type]

    monkeypatch.setattr(library, "probe_provider", only_cpu)
    assert run(["doctor"]) == 0


def test_clash_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(library, "wheel_clash", lambda: Obstacle("two wheels", "take one"))
    assert run(["doctor"]) == 0
    assert "problems\t1\ttwo wheels; take one" in capsys.readouterr().out


def test_no_models_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(library, "list_models", dict)
    monkeypatch.setattr(library, "model_folders", lambda: [tmp_path / "here"])
    assert run(["doctor"]) == 0
    assert f"models\tnone\tlooked in {tmp_path / 'here'}; `lbkit export` makes one" in capsys.readouterr().out
