"""Inference, the doctor and help in a fresh interpreter that has none of the training stack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from lbkit.core.geometry import ImageSize

BLOCK = """
import sys

BLOCKED = {"torch", "torchvision", "onnx", "onnxscript", "onnxsim", "pycocotools", "safetensors", "matplotlib"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
INFER = """
import numpy as np, lbkit
image = np.load(sys.argv[2])
poses = lbkit.load_model(sys.argv[1], provider="cpu")(image, np.array([[5, 3, 118, 139]]))
print(poses.to_json())
np.save(sys.argv[2], poses.xy)
"""
COMMAND = """
from lbkit.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCK + script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("package", ["torch", "onnx", "pycocotools"])
def test_the_block_blocks(package: str) -> None:
    done = python(f"import {package}")
    assert done.returncode == 1
    assert f"No module named '{package}'" in done.stderr


def test_a_model_runs(toys: ModuleType, toy_model: Path, tmp_path: Path) -> None:
    spots = np.array([[31, 23], [80, 26], [34, 62], [83, 67], [29, 112], [85, 105]], dtype=np.float64)
    np.save(tmp_path / "image.npy", toys.spotted_image(ImageSize(141, 123), spots, spread_px=3))
    done = python(INFER, toy_model, tmp_path / "image.npy")
    assert done.returncode == 0, done.stderr
    assert np.abs(np.load(tmp_path / "image.npy")[0] - spots).max() < 0.6


@pytest.mark.parametrize(
    "arguments", [("doctor",), ("doctor", "--json"), ("--help",), ("infer", "--help"), ("bench", "--help")]
)
def test_a_command_runs(arguments: tuple[str, ...]) -> None:
    done = python(COMMAND, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_infer_runs_on_a_picture(toys: ModuleType, toy_model: Path, tmp_path: Path) -> None:
    """The picture is 123 wide and 141 high; the joint told by red is the left hip."""
    spots = np.array([[31, 23], [80, 26], [34, 62], [83, 67], [29, 112], [85, 105]], dtype=np.float64)
    image = toys.spotted_image(ImageSize(141, 123), spots, spread_px=3)
    assert cv2.imwrite(str(tmp_path / "spots.png"), image[..., ::-1])
    done = python(COMMAND, "infer", tmp_path / "spots.png", "--model", toy_model, "--boxes", "whole")
    assert done.returncode == 0, done.stderr
    (person,) = json.loads(done.stdout)["people"]
    hip = person["keypoints"]["left_hip"]
    assert (hip["x"], hip["y"]) == pytest.approx((31, 23), abs=0.6)


def test_bench_runs(toy_model: Path) -> None:
    options = ("--batch-size", "1", "--seconds", "0.01", "--no-cold")
    done = python(COMMAND, "bench", toy_model, *options, "-q")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    against = python(COMMAND, "bench", toy_model, *options, "--against=torch")
    assert against.returncode == 1
    assert 'pip install "lbkit[export]"' in against.stderr


def test_a_command_that_needs_the_stack_names_the_extra() -> None:
    done = python(COMMAND, "export", "--model", "fpn")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert 'pip install "lbkit[export]"' in done.stderr
