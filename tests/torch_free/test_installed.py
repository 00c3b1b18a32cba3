"""lbkit as `pip install "lbkit[cpu]"` gives it; run by `make wheel-test` in an environment without PyTorch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

TRAINING_STACK = ("torch", "torchvision", "onnx", "onnxscript", "onnxsim", "pycocotools", "safetensors", "matplotlib")


def lbkit(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lbkit", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    result = lbkit("figures", folder / "pictures", "--count", 6, "--seed", 11, folder=folder)
    assert result.returncode == 0, result.stderr
    return folder


def test_help_and_doctor_work(tmp_path: Path) -> None:
    assert "infer" in lbkit("--help", folder=tmp_path).stdout
    result = lbkit("doctor", "--json", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["providers"]["cpu"]["works"] is True


def test_the_shipped_model_finds_the_legs_of_figures(figures: Path, tmp_path: Path) -> None:
    """The model is the wheel's own: the working folder has none."""
    annotations = figures / "pictures" / "annotations.json"
    output = tmp_path / "keypoints.jsonl"
    result = lbkit("infer", figures / "pictures", "--boxes", f"coco:{annotations}", "--output", output, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(lines) == 6
    truth = {entry["image_id"]: entry for entry in json.loads(annotations.read_text())["annotations"]}
    names = {entry["file_name"]: entry["id"] for entry in json.loads(annotations.read_text())["images"]}
    right = total = 0
    for line in lines:
        entry = truth[names[Path(line["path"]).name]]
        height = max(entry["bbox"][3], entry["bbox"][2] * 4 / 3)
        for number, joint in enumerate(line["people"][0]["keypoints"].values(), start=11):
            x, y, visibility = entry["keypoints"][3 * number : 3 * number + 3]
            if visibility:
                total += 1
                right += ((joint["x"] - x) ** 2 + (joint["y"] - y) ** 2) ** 0.5 <= 0.1 * height
    assert total >= 30
    assert right / total >= 0.5


def test_python_in_three_lines(figures: Path) -> None:
    code = (
        "import lbkit, sys\n"
        "model = lbkit.load_model('cnn', provider='cpu')\n"
        "poses = model(lbkit.read_image(sys.argv[1]))\n"
        "assert poses.xy.shape == (1, 6, 2)\n"
        "print(poses.to_json())\n"
    )
    picture = figures / "pictures" / "figure-000.png"
    command = [sys.executable, "-c", code, str(picture)]
    result = subprocess.run(command, cwd=figures, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)[0]["keypoints"]) == 6


def test_what_needs_pytorch_says_which_extra(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch"):
        pytest.skip("PyTorch is installed here; make wheel-test runs this without it")
    result = lbkit("export", "--model", "cnn", folder=tmp_path)
    assert result.returncode == 1
    assert 'pip install "lbkit[export]"' in result.stderr
    assert "Traceback" not in result.stderr


def test_this_environment_is_what_it_claims() -> None:
    if importlib.util.find_spec("torch"):
        pytest.skip("the development environment; make wheel-test runs this in a bare one")
    assert [name for name in TRAINING_STACK if importlib.util.find_spec(name)] == []
    assert importlib.metadata.version("lbkit")
    location = importlib.util.find_spec("lbkit")
    assert location is not None
    assert "site-packages" in str(location.origin)
