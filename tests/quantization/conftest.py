"""A small network with known arithmetic in the shape of the real ones: normalisation, deconvolution, 1x1 head.

Heatmap k = 2 (weights_k . rgb) smoothed by a Gaussian at stride 8, enlarged twofold by a bilinear deconvolution; a toy
person's peaks are near 0.6. `fragile` puts two layers between that carry a channel of 10,000 which nothing needs: in
8 bits its neighbours drown in it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from lbkit.core.contract import CONTRACT_KEY  # noqa: E402
from lbkit.core.preprocess import normalization_coefficients  # noqa: E402

SmallNetwork = Callable[..., Path]
LOUD = 10_000.0


@pytest.fixture(scope="session")
def small_network(toys: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> SmallNetwork:
    """Give a function that writes the network to a file and returns the path."""
    folder = tmp_path_factory.mktemp("small")

    def make(*, fragile: bool = False, decoded: bool = False) -> Path:
        path = folder / f"small{'-fragile' * fragile}{'-decoded' * decoded}.onnx"
        outputs = ("keypoints", "heatmaps") if decoded else ("heatmaps",)
        contract = toys.toy_contract(outputs=outputs, decoder="argmax" if decoded else "dark")
        model = _model(toys, fragile=fragile, decoded=decoded)
        model.metadata_props.add(key=CONTRACT_KEY, value=contract.to_json())
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return path

    return make


@pytest.fixture(scope="session")
def people_root(toys: ModuleType, roots: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO root of twelve photographs with a toy person each."""
    persons = [roots.RootPerson(image_id=number) for number in range(1, 13)]
    root: Path = roots.write_root(tmp_path_factory.mktemp("root"), toys, persons)
    return root


def _model(toys: ModuleType, *, fragile: bool, decoded: bool) -> onnx.ModelProto:
    steady = "steady" if fragile else "smooth"
    nodes = [
        helper.make_node("Transpose", ["images"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["normal"]),
        helper.make_node(
            "Conv", ["normal", "answer_weight", "grey"], ["answers"], name="first", strides=[8, 8], pads=[12] * 4
        ),
        helper.make_node("Relu", ["answers"], ["smooth"]),
        *(_fragile_nodes() if fragile else []),
        helper.make_node(
            "ConvTranspose",
            [steady, "doubling", "zeros"],
            ["double"],
            name="deconvolution",
            strides=[2, 2],
            pads=[1] * 4,
        ),
        helper.make_node("Relu", ["double"], ["positive"]),
        helper.make_node("Conv", ["positive", "twice", "zeros"], ["heatmaps"], name="last"),
        *(toys._argmax_nodes() if decoded else []),
    ]
    shapes = {"keypoints": ["N", 6, 3], "heatmaps": ["N", 6, toys.CELLS.height, toys.CELLS.width]}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", toys.SIZE.height, toys.SIZE.width, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name])
            for name in (("keypoints", "heatmaps") if decoded else ("heatmaps",))
        ],
        initializer=[*_weights(toys), *(toys._constants() if decoded else [])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _fragile_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Conv", ["smooth", "widen", "loud"], ["wide"], name="fragile_a"),
        helper.make_node("Conv", ["wide", "narrow"], ["steady"], name="fragile_b"),
    ]


def _weights(toys: ModuleType) -> list[onnx.TensorProto]:
    contract = toys.toy_contract()
    scale, offset = normalization_coefficients(contract.input)
    mean, std = np.array(contract.input.mean), np.array(contract.input.std)
    colors = np.array(toys.COLOR_WEIGHTS)
    reach = np.exp(-0.5 * ((np.arange(32) - 15.5) / 5) ** 2)
    gaussian = np.outer(reach, reach) / np.outer(reach, reach).sum()
    hat = np.array([0.25, 0.75, 0.75, 0.25])
    diagonal = np.eye(6)[:, :, None, None]
    arrays = {
        "scale": scale.reshape(1, 3, 1, 1),
        "offset": offset.reshape(1, 3, 1, 1),
        "answer_weight": (colors * std)[:, :, None, None] * gaussian,
        "grey": colors @ mean,
        "doubling": diagonal * np.outer(hat, hat),
        "zeros": np.zeros(6),
        "twice": 2 * diagonal,
        "widen": np.concatenate([diagonal, np.zeros((1, 6, 1, 1))]),
        "loud": np.array([0.0] * 6 + [LOUD]),
        "narrow": np.concatenate([diagonal, np.zeros((6, 1, 1, 1))], axis=1),
    }
    return [numpy_helper.from_array(np.ascontiguousarray(a, dtype=np.float32), n) for n, a in arrays.items()]
