from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPT = FOLDER / "int8_speed.py"


@pytest.mark.slow
def test_a_quick_run_agrees_and_has_every_ratio(tmp_path: Path) -> None:
    output = tmp_path / "speed.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--model", "cnn", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER.parent)
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_text(encoding="utf-8"))
    assert document["command"] == "python benchmarks/int8_speed.py --model cnn --quick"
    targets = {
        (each["section"], each["name"]): each["target"] for each in document["figures"] if each["unit"] == "times"
    }
    assert targets == {
        (f"cnn, batch {batch}", f"int8 over {way}"): target
        for batch in (1, 8)
        for way, target in (("PyTorch eager", 2.5), ("ONNX Runtime fp32", 2.0))
    }
    assert str(FOLDER.parent) not in json.dumps(document)


def test_the_readme_takes_whole_runs_alone() -> None:
    command = [sys.executable, str(SCRIPT), "--quick", "--readme"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER.parent)
    assert done.returncode == 2
    assert "--readme needs the whole run" in done.stderr


def test_the_readme_of_the_folder_has_the_marks() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert 0 < text.index("<!-- int8:begin -->") < text.index("<!-- int8:end -->")
