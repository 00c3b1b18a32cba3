from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lbkit.core.geometry import ImageSize

pytest.importorskip("av")

FOLDER = Path(__file__).parents[2] / "benchmarks"
Run = Callable[..., subprocess.CompletedProcess[str]]
SIZE = ImageSize(180, 320)


def test_a_quick_run_has_every_figure_and_flat_memory(run_benchmark: Run, tmp_path: Path) -> None:
    done = run_benchmark("squat_speed.py", "--quick", "--model", "cnn-int8", "--output", tmp_path / "speed.json")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert document["command"] == "python benchmarks/squat_speed.py --quick --model cnn-int8"
    figures = {(each["section"], each["name"]): each for each in document["figures"]}
    targets = {key: each["target"] for key, each in figures.items() if each["target"] is not None}
    assert targets == {
        ("cnn-int8", "lbkit squat"): 3.0,
        ("memory", "growth an hour"): 150.0,
    }
    assert all(each["median"] > 0 for key, each in figures.items() if key[0] != "memory")
    held = [each["median"] for key, each in figures.items() if key[1].startswith("most held")]
    pictures_mb = 7 * document["frames"] * SIZE.height * SIZE.width * 3 / 1e6  # what the longer clip has more
    assert held[1] - held[0] < 0.25 * pictures_mb


def test_the_readme_takes_the_rendered_clip_alone(run_benchmark: Run) -> None:
    done = run_benchmark("squat_speed.py", "--quick", "--readme")
    assert done.returncode == 2
    assert "--readme needs the whole run" in done.stderr


def test_the_readme_of_the_folder_has_the_marks() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert 0 < text.index("<!-- squat:begin -->") < text.index("<!-- squat:end -->")
