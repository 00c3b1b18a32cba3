from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from lbkit.export.subpixel import rewrite_deconvolutions

RNG = np.random.default_rng(3)


def deconvolution(size: tuple[int, int], *, kernel: int = 4, relu: bool = False, **attributes: Any) -> onnx.ModelProto:
    """A graph of one ConvTranspose from 5 to 3 channels, with a dynamic batch."""
    weight = RNG.normal(size=(5, 3 // attributes.get("group", 1), kernel, kernel)).astype(np.float32)
    bias = RNG.normal(size=3).astype(np.float32)
    last = "y" if not relu else "before"
    nodes = [helper.make_node("ConvTranspose", ["x", "w", "b"], [last], **attributes)]
    nodes += [helper.make_node("Relu", ["before"], ["y"])] if relu else []
    graph = helper.make_graph(
        nodes,
        "deconvolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 5, *size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 3)])
@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        (4, {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        (4, {"strides": [2, 2], "pads": [0, 0, 0, 0]}),
        (4, {"strides": [2, 2], "pads": [0, 1, 2, 1]}),
        (4, {"strides": [2, 2], "pads": [0, 0, 0, 0], "output_padding": [1, 1]}),
        (3, {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
        (5, {"strides": [3, 2], "pads": [2, 1, 0, 1]}),
        (2, {"strides": [2, 2]}),
    ],
)
def test_equals_the_deconvolution(size: tuple[int, int], kernel: int, attributes: dict[str, Any], relu: bool) -> None:
    model = deconvolution(size, kernel=kernel, relu=relu, **attributes)
    x = RNG.normal(size=(3, 5, *size)).astype(np.float32)
    expected = run(model, x)
    assert rewrite_deconvolutions(model) == 1
    onnx.checker.check_model(model, full_check=True)
    assert "ConvTranspose" not in {node.op_type for node in model.graph.node}
    found = run(model, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(run(model, x[:1]), expected[:1], atol=2e-5)


def test_has_as_many_taps_as_the_deconvolution() -> None:
    model = deconvolution((8, 6), strides=[2, 2], pads=[1, 1, 1, 1])
    rewrite_deconvolutions(model)
    (convolution,) = [node for node in model.graph.node if node.op_type == "Conv"]
    (weight,) = [item for item in model.graph.initializer if item.name == convolution.input[1]]
    assert list(weight.dims) == [4 * 3, 5, 2, 2]


@pytest.mark.parametrize(
    "attributes", [{"dilations": [2, 2]}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, {"output_shape": [16, 12]}]
)
def test_what_cannot_be_rewritten_stays(attributes: dict[str, Any]) -> None:
    model = deconvolution((8, 6), **attributes)
    before = model.SerializeToString()
    assert rewrite_deconvolutions(model) == 0
    assert [node.op_type for node in model.graph.node] == ["ConvTranspose"]
    assert onnx.load_from_string(before).graph.initializer == model.graph.initializer


def test_a_size_that_is_not_fixed_stays() -> None:
    model = deconvolution((8, 6), strides=[2, 2])
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    assert rewrite_deconvolutions(model) == 0
