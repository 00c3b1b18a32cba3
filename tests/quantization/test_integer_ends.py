from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from lbkit.quantization.integer_ends import CENTERED, fold_normalization, nodes_behind, rewrite_head
from lbkit.quantization.static import prepare_graph


@pytest.fixture
def model(small_network: Any) -> onnx.ModelProto:
    return onnx.load(small_network())


@pytest.fixture
def crops(toys: ModuleType, roots: ModuleType) -> np.ndarray:
    image = toys.spotted_image(toys.SIZE, roots.SPOTS * 0.8, spread_px=6, background=90)
    noise = np.random.default_rng(5).integers(0, 256, image.shape, dtype=np.uint8)
    return np.stack([image, noise])


def run(model: onnx.ModelProto, crops: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["heatmaps"], {"images": crops})[0]


def test_folding_changes_nothing_but_the_border(model: onnx.ModelProto, crops: np.ndarray) -> None:
    expected = run(model, crops)
    assert fold_normalization(model) == 114  # the mean colour is 124, 116, 104
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds[:4] == ["Transpose", "Cast", "Add", "Conv"]
    found = run(model, crops)
    inside = (..., slice(6, -6), slice(6, -6))
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-5)
    assert np.abs(found - expected).max() < 12 / 255  # the padding's colour is up to 12 levels off


def test_a_graph_that_begins_otherwise_stays(toys: ModuleType, tmp_path: Path) -> None:
    for dtype in ("float32", "uint8"):  # the toy's bytes are cast before they are transposed
        model = onnx.load(toys.save_toy_model(tmp_path / f"{dtype}.onnx", dtype=dtype))
        before = model.SerializeToString()
        assert fold_normalization(model) is None
        assert [node.op_type for node in model.graph.node] == [
            node.op_type for node in onnx.load_from_string(before).graph.node
        ]


def test_the_head_is_the_same_product(model: onnx.ModelProto, crops: np.ndarray) -> None:
    expected = run(model, crops)
    assert rewrite_head(model)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node][-4:] == ["Transpose", "MatMul", "Add", "Transpose"]
    np.testing.assert_allclose(run(model, crops), expected, atol=1e-6)
    assert not rewrite_head(model)


def test_a_head_that_is_no_plain_convolution_stays(model: onnx.ModelProto) -> None:
    last = next(node for node in model.graph.node if node.name == "last")
    strided = copy.deepcopy(model)
    strided.graph.node[list(model.graph.node).index(last)].attribute.append(helper.make_attribute("strides", [2, 2]))
    assert not rewrite_head(strided)


def test_what_follows_the_last_product_is_not_quantised(small_network: Any) -> None:
    prepared = prepare_graph(onnx.load(small_network(decoded=True)))
    behind = nodes_behind(prepared.model)
    kinds = {node.name: node.op_type for node in prepared.model.graph.node}
    assert {"Add", "Transpose", "Reshape", "ArgMax", "Concat"} <= {kinds[name] for name in behind}
    assert "Conv" not in {kinds[name] for name in behind}
    assert CENTERED not in behind


def test_onnx_runtime_leaves_no_float_island(small_network: Any, people_root: Path, tmp_path: Path) -> None:
    from lbkit.quantization.options import ReductionOptions
    from lbkit.quantization.pipeline import reduce_model

    options = ReductionOptions(coco=people_root, samples=2, batches=(1,), threads=1, method="minmax")
    made = reduce_model(small_network(), options=options, output=tmp_path / "small-int8.onnx")
    session_options = ort.SessionOptions()
    session_options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(made.path), session_options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert not kinds & {"QuantizeLinear", "DequantizeLinear", "Conv", "Cast", "Mul"}
    assert {"QLinearConv", "MatMulIntegerToFloat"} <= kinds
