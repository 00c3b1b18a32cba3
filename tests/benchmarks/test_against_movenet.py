"""The comparison, with toy models in both places: a MoveNet whose answer is fixed, so that its joints are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Run = Callable[..., Any]


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    """MoveNet's inputs and outputs; it always says the middle of the crop."""
    middle = numpy_helper.from_array(np.full((1, 1, 17, 3), 0.5, np.float32), "middle")
    nodes = [
        helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMin", ["floats"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "zero"], ["nothing"]),
        helper.make_node("Add", ["middle", "nothing"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "peer",
        [helper.make_tensor_value_info("input", TensorProto.INT32, [1, 256, 256, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 17, 3])],
        initializer=[middle, numpy_helper.from_array(np.array(0, np.float32), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "peer.onnx")
    return tmp_path / "peer.onnx"


def test_both_are_measured_on_the_same_people(
    run_benchmark: Run, roots: ModuleType, toys: ModuleType, toy_model: Path, peer: Path, tmp_path: Path
) -> None:
    root = roots.write_root(tmp_path / "root", toys, [roots.RootPerson(1), roots.RootPerson(2), roots.RootPerson(2)])
    output, figure = tmp_path / "out.json", tmp_path / "points.svg"
    options = ["--coco", root, "--peer", peer, "--rounds", "1", "--output", output, "--figure", figure]
    done = run_benchmark("against_movenet.py", f"{toy_model}@cpu", toy_model, *options)
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_text())
    scores = {row["section"]: row["median"] for row in document["figures"] if row["name"].startswith("PCK")}
    assert set(scores) == {"peer", "toy", "toy cpu"}
    assert scores["toy"] == scores["toy cpu"] > 0.9
    assert scores["peer"] < 0.3
    assert document["settings"]["people"] == 3
    assert figure.read_text().startswith("<?xml")


def test_the_readme_takes_whole_runs_alone(run_benchmark: Run, toy_model: Path, peer: Path, tmp_path: Path) -> None:
    options = ["--coco", tmp_path, "--peer", peer, "--limit", "2", "--readme"]
    done = run_benchmark("against_movenet.py", toy_model, *options)
    assert done.returncode == 2
    assert "--readme needs the whole run" in done.stderr
