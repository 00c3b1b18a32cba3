from __future__ import annotations

import sys

import onnx
import onnxsim
import pytest

from lbkit.errors import ExportError, MissingDependencyError
from lbkit.export.simplify import interface, simplify_graph


def small_model(batch: str | int = "batch") -> onnx.ModelProto:
    """x * (2 + 3) with the sum left to be folded, and an identity left to be removed."""
    make, kind = onnx.helper.make_node, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [make("Add", ["two", "three"], ["five"]), make("Mul", ["x", "five"], ["m"]), make("Identity", ["m"], ["y"])],
        "small",
        [onnx.helper.make_tensor_value_info("x", kind, [batch, 3])],
        [onnx.helper.make_tensor_value_info("y", kind, [batch, 3])],
        [onnx.helper.make_tensor(name, kind, [1], [value]) for name, value in (("two", 2.0), ("three", 3.0))],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 9
    return model


def test_folds_constants_and_keeps_the_interface():
    simplified = simplify_graph(small_model())
    assert [node.op_type for node in simplified.graph.node] == ["Mul"]
    assert interface(simplified) == {"x": ("FLOAT", ("batch", 3)), "y": ("FLOAT", ("batch", 3))}
    assert simplified.ir_version == 9


def test_file_format_stays_as_old_as_it_was(monkeypatch):
    newer = small_model()
    newer.ir_version = 99
    monkeypatch.setattr(onnxsim, "simplify", lambda _: (newer, True))
    assert simplify_graph(small_model()).ir_version == 9


def test_frozen_batch_is_an_error(monkeypatch):
    monkeypatch.setattr(onnxsim, "simplify", lambda _: (small_model(2), True))
    with pytest.raises(ExportError, match=r"changed the graph's inputs or outputs.*--no-simplify"):
        simplify_graph(small_model())


def test_reported_difference_is_an_error(monkeypatch):
    monkeypatch.setattr(onnxsim, "simplify", lambda model: (model, False))
    with pytest.raises(ExportError, match=r"differs.*--no-simplify"):
        simplify_graph(small_model())


def test_failure_is_an_error_with_a_way_out(monkeypatch):
    def fail(model):
        raise RuntimeError("inside the core")

    monkeypatch.setattr(onnxsim, "simplify", fail)
    with pytest.raises(ExportError, match=r"inside the core.*--no-simplify"):
        simplify_graph(small_model())


def test_missing_onnxsim_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxsim", None)
    with pytest.raises(MissingDependencyError, match=r"lbkit\[export\].*--no-simplify"):
        simplify_graph(small_model())
