from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

README = Path(__file__).parents[2] / "benchmarks" / "README.md"
Run = Callable[..., Any]


@pytest.mark.slow
def test_a_quick_run(run_benchmark: Run, photos: Path, toy_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "load.json"
    done = run_benchmark("serve_load.py", "--quick", "--model", toy_model, "--photos", photos, "--output", output)
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_text())
    sections = [figure["section"] for figure in document["figures"]]
    assert sections == ["library"] * 2 + ["1 client"] * 5 + ["8 clients"] * 5 + ["32 clients"] * 5
    assert all(figure["least"] > 0 for figure in document["figures"])
    assert str(tmp_path) not in output.read_text()
    assert "| 32 clients" in done.stdout


def test_the_readme_takes_whole_runs_alone(run_benchmark: Run) -> None:
    done = run_benchmark("serve_load.py", "--quick", "--readme")
    assert done.returncode == 2
    assert "--readme needs the whole run" in done.stderr


def test_the_readme_of_the_folder_has_the_marks() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.count("<!-- serve_load:begin -->") == text.count("<!-- serve_load:end -->") == 1
