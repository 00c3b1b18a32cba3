from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "benchmarks" / "README.md"
Run = Callable[..., Any]


@pytest.mark.slow
def test_a_quick_run(run_benchmark: Run, photos: Path, toy_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    output = tmp_path / "runs.json"
    done = run_benchmark("large_runs.py", "--quick", "--model", toy_model, "--photos", photos, "--output", output)
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_text())
    assert [figure["section"] for figure in document["figures"]] == ["one machine"] * 3 + ["Ray"] * 3 + ["cost"] * 2
    assert str(tmp_path) not in output.read_text()


def test_the_readme_takes_whole_runs_alone(run_benchmark: Run) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    done = run_benchmark("large_runs.py", "--quick", "--readme")
    assert done.returncode == 2
    assert "--readme needs the whole run" in done.stderr


def test_the_readme_of_the_folder_has_the_marks() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.count("<!-- large_runs:begin -->") == text.count("<!-- large_runs:end -->") == 1
