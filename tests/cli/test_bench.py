from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lbkit.bench import run as library
from lbkit.bench.run import BenchPlan, BenchRow
from lbkit.cli.bench import COLUMNS
from lbkit.cli.main import run

QUICK = ["--batch-size", "1,2", "--seconds", "0.01", "--no-cold"]


def test_lines_in_a_pipe(toy_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", str(toy_model), *QUICK]) == 0
    captured = capsys.readouterr()
    header, *rows = [line.split("\t") for line in captured.out.splitlines()]
    assert tuple(header) == COLUMNS
    assert [row[:4] for row in rows] == [[str(toy_model), "fp32", "cpu", batch] for batch in ("1", "2")]
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert captured.err.count("people/s") == 2


def test_json(toy_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", str(toy_model), *QUICK, "--json", "-q"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert captured.err == ""
    assert document["machine"]["versions"]["lbkit"]
    assert [row["batch"] for row in document["rows"]] == [1, 2]
    assert document["rows"][0]["cold"] is None


def test_table_on_a_terminal(
    toy_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "300")
    assert run(["bench", str(toy_model), *QUICK, "-q"]) == 0
    text = capsys.readouterr().out
    assert "\t" not in text
    assert "model p50" in text


def test_a_provider_that_cannot_run_is_exit_1_and_the_others_are_measured(
    toy_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(
            [
                "bench",
                str(toy_model),
                *QUICK,
                "--provider",
                "coreml,cpu" if sys.platform != "darwin" else "directml,cpu",
            ]
        )
        == 1
    )
    captured = capsys.readouterr()
    assert "cannot run here" in captured.err
    assert len(captured.out.splitlines()) == 1 + 3


def test_wrong_answers_are_exit_3(monkeypatch: pytest.MonkeyPatch, toy_model: Path) -> None:
    row = BenchRow("m", "fp32", "cpu", 0, None, problem="its heatmaps differ", is_wrong=True)
    monkeypatch.setattr(library, "run_bench", lambda _: iter([row]))
    assert run(["bench", str(toy_model)]) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch-size", "0"], "0 is not in the range"),
        (["--batch-size", "8,1000000000"], "1000000000 is not in the range"),
        (["--batch-size", "1,,2"], "is not a valid integer range"),
        (["--seconds", "0"], "0.0 is not in the range"),
        (["--threads", "0"], "0 is not in the range"),
        (["--provider", "cdua"], "Did you mean 'cuda'?"),
        (["--against", "tensorflow"], "is not one of 'torch', 'openvino'"),
    ],
)
def test_usage(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "cnn", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_what_is_measured(monkeypatch: pytest.MonkeyPatch, toy_model: Path) -> None:
    plans: list[BenchPlan] = []
    monkeypatch.setattr(library, "run_bench", lambda plan: plans.append(plan) or iter(()))
    monkeypatch.setenv("LBKIT_MODELS", str(toy_model.parent))
    assert run(["bench", "--provider", "cpu,openvino,cpu", "--against", "torch,openvino", "--threads", "1"]) == 0
    (plan,) = plans
    assert "toy" in plan.models
    assert plan.runners == ("cpu", "openvino", "torch", "torch-compile")
    assert plan.batches == (1, 8, 32)
    assert plan.threads == 1
    assert plan.cold
