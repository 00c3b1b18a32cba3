from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from lbkit.core.geometry import ImageSize

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "large_runs.py"


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    root = str(SCRIPT.parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=240)


@pytest.mark.slow
def test_a_quick_run(toys, toy_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    spots = np.array([[60, 50], [110, 60], [65, 110], [105, 120], [55, 170], [115, 180]])
    (tmp_path / "photos").mkdir()
    for index in range(3):
        image = toys.spotted_image(ImageSize(240, 170 + 10 * index), spots, spread_px=4.0)
        assert cv2.imwrite(str(tmp_path / "photos" / f"{index}.png"), image[..., ::-1])
    output = tmp_path / "runs.json"
    done = run_script("--quick", "--model", toy_model, "--photos", tmp_path / "photos", "--output", output)
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_text())
    assert [figure["section"] for figure in document["figures"]] == ["one machine"] * 3 + ["Ray"] * 3 + ["cost"] * 2
    assert str(tmp_path) not in output.read_text()


def test_the_readme_takes_whole_runs_alone() -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    done = run_script("--quick", "--readme")
    assert done.returncode == 2
    assert "--readme needs the whole run" in done.stderr


def test_the_readme_of_the_folder_has_the_marks() -> None:
    text = SCRIPT.with_name("README.md").read_text(encoding="utf-8")
    assert text.count("<!-- large_runs:begin -->") == text.count("<!-- large_runs:end -->") == 1
