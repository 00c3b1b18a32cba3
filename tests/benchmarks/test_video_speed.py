from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av")

Run = Callable[..., Any]


@pytest.mark.slow
def test_a_short_clip(run_benchmark: Run, tmp_path: Path) -> None:
    output = tmp_path / "video.json"
    done = run_benchmark("video_speed.py", "--model", "cnn", "--seconds", "0.2", "--rounds", "1", "--output", output)
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_text(encoding="utf-8"))
    assert document["frames"] == 6
    figures = {each["name"]: each["median"] for each in document["figures"]}
    assert figures["model alone"] > 0
    assert "command / model alone, time" in figures
    assert str(tmp_path) not in output.read_text()
