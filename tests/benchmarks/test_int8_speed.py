from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from lbkit.core.geometry import ImageSize
from lbkit.synthetic.annotations import write_figures

FOLDER = Path(__file__).parents[2] / "benchmarks"
Run = Callable[..., Any]

ALWAYS = ["PyTorch eager", "plain ONNX Runtime fp32", "lbkit fp32", "lbkit int8"]


@pytest.mark.slow
def test_a_quick_run_agrees_and_says_what_is_missing(run_benchmark: Run, tmp_path: Path) -> None:
    write_figures(tmp_path / "root", count=6, size=ImageSize(240, 320), seed=3)
    output = tmp_path / "speed.json"
    options = ["--quick", "--model", "cnn", "--coco", tmp_path / "root", "--output", output]
    no_compiler = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = run_benchmark("int8_speed.py", *options, **no_compiler)
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_text(encoding="utf-8"))
    assert document["command"] == "python benchmarks/int8_speed.py --model cnn --coco root --quick"
    skipped = "\n".join(document["skipped"])
    assert "cnn, torch.compile (torch.compile fails" in skipped
    assert "cnn, lbkit fp32 --subpixel (the network has no deconvolution" in skipped
    expected = list(ALWAYS)
    if importlib.util.find_spec("openvino") is None:
        assert "cnn, lbkit int8, openvino (openvino is not installed" in skipped
    else:
        expected += ["lbkit fp32, openvino", "lbkit int8, openvino"]
        if importlib.util.find_spec("nncf") is None:
            assert "cnn, NNCF int8, openvino (nncf is not installed" in skipped
        else:
            expected.append("NNCF int8, openvino")
    for batch in (1, 8):
        found = {each["name"] for each in document["figures"] if each["section"] == f"cnn, batch {batch}"}
        assert found >= set(expected)
        assert "| lbkit int8 " in done.stdout
    targets = {(each["section"], each["name"]): each["target"] for each in document["figures"] if each["target"]}
    assert targets["cnn, batch 8", "lbkit int8 over plain ONNX Runtime fp32"] == 2.0
    assert targets["cnn, batch 1", "lbkit int8 over PyTorch eager"] == 2.5
    assert targets["cnn, batch 1", "lbkit fp32 over plain ONNX Runtime fp32"] == 1.0
    assert targets["cnn", "lbkit int8: points of it lost"] == 0.5
    assert str(FOLDER.parent) not in json.dumps(document)
    assert str(tmp_path) not in json.dumps(document | {"skipped": []})


def test_the_readme_takes_whole_runs_alone(run_benchmark: Run) -> None:
    done = run_benchmark("int8_speed.py", "--quick", "--readme")
    assert done.returncode == 2
    assert "--readme needs the whole run" in done.stderr


def test_the_readme_of_the_folder_has_the_marks() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert 0 < text.index("<!-- int8:begin -->") < text.index("<!-- int8:end -->")
