from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.mark.slow
def test_a_quick_run(run_benchmark: Run, toy_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "growth.json"
    sections = ["--section=batch", "--section=threads", "--section=pictures"]  # the fourth imports torch
    done = run_benchmark("growth.py", "--quick", *sections, "--model", toy_model, "--output", output)
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in json.loads(output.read_text())["figures"]}
    assert figures["1 people, ms a person"]["median"] > 0
    assert figures["work a picture, 6 against 3"]["target"] == 1.1
    assert figures["6: peak memory"]["median"] > 30
    assert str(tmp_path) not in output.read_text()


def test_the_readme_takes_whole_runs_alone(run_benchmark: Run, toy_model: Path) -> None:
    done = run_benchmark("growth.py", "--readme", "--section", "batch", "--model", toy_model)
    assert done.returncode == 2
    assert "--readme needs the whole run" in done.stderr


def test_the_page_has_the_marks() -> None:
    page = (Path(__file__).parents[2] / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for name in ("growth", "movenet"):
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        assert page.count(begin) == page.count(end) == 1
        assert page.index(begin) < page.index(end)
