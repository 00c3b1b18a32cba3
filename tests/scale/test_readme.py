"""The commands of the README's section on large runs, run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lbkit.core.geometry import ImageSize
from lbkit.core.images import write_image

ROOT = Path(__file__).parents[2]
SECTION = "## When one machine is not enough"


def commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8").split(SECTION)[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line.split(" #")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("lbkit ")]


@pytest.mark.slow
def test_the_section_s_commands_run(
    toys: ModuleType, toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (tmp_path / "photos").mkdir()
    (tmp_path / "models").mkdir()
    rng = np.random.default_rng(2)
    for number in range(5):
        image = toys.spotted_image(ImageSize(90, 70), rng.uniform(15, 55, size=(6, 2)), spread_px=3, background=60)
        write_image(tmp_path / "photos" / f"{number}.png", image)
    shutil.copy(toy_model, tmp_path / "models" / "cnn.onnx")
    monkeypatch.setenv("LBKIT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    lines = commands()
    assert len(lines) >= 4
    for line in lines:
        command = [sys.executable, "-m", "lbkit", *shlex.split(line)[1:]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    for name in ("run", "rows", "many"):
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        assert (manifest["complete"], manifest["pictures"], manifest["failures"]) == (True, 5, 0), name
    one, many = ((tmp_path / name / "part-00000.jsonl").read_text() for name in ("run", "many"))
    assert one == many
