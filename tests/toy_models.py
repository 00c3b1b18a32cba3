"""Toy ONNX models with known arithmetic and a valid contract: joint k lies where its own colour is brightest.

Heatmap k = (weights_k . rgb) convolved with a Gaussian, sampled at the cells' centres. So the joints' order, the
channels' order and layout, the pixel convention and the crop all show in where a coloured spot comes back. Every
colour's weights sum to zero: grey of any brightness leaves all maps flat. A spot with the
Gaussian's own spread scores 0.5, wider ones up to 1, a single pixel 0.01.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lbkit.core.contract import (
    CONTRACT_KEY,
    CONTRACT_VERSION,
    CropSpec,
    HeatmapSpec,
    InputSpec,
    ModelContract,
)
from lbkit.core.geometry import ImageSize
from lbkit.core.keypoints import LOWER_BODY_6

SIZE = ImageSize(256, 192)
CELLS = ImageSize(64, 48)
STRIDE = 4
SPREAD_CELLS = 1.0
JOINT_COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255))
"""Colour of joint k, RGB: its own weights answer 1, those of the other joints at most 0.5."""

COLOR_WEIGHTS = (
    (1.0, -0.5, -0.5),
    (-0.5, 1.0, -0.5),
    (-0.5, -0.5, 1.0),
    (0.5, 0.5, -1.0),
    (-1.0, 0.5, 0.5),
    (0.5, -1.0, 0.5),
)
_REACH_PX = 16
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def toy_contract(
    *, dtype: str = "uint8", outputs: tuple[str, ...] = ("heatmaps",), decoder: str = "dark"
) -> ModelContract:
    """Return the contract of a toy model."""
    return ModelContract(
        contract_version=CONTRACT_VERSION,
        model="toy",
        keypoints=LOWER_BODY_6,
        input=InputSpec(
            name="images",
            size=SIZE,
            dtype=dtype,
            layout="NHWC" if dtype == "uint8" else "NCHW",
            color_order="RGB",
            mean=_MEAN,
            std=_STD,
        ),
        crop=CropSpec(padding=1.25, resampling="bilinear", border_value=(114, 114, 114), pixel_convention="center"),
        heatmap=HeatmapSpec(
            size=CELLS,
            stride=STRIDE,
            sigma=SPREAD_CELLS,
            decoder=decoder,
            decoded_in_graph="keypoints" in outputs,
        ),
        outputs=outputs,
        precision="fp32",
        weights_sha256="0" * 64,
        training_data=(),
        evaluation=(),
    )


def save_toy_model(
    path: Path,
    *,
    dtype: str = "uint8",
    outputs: tuple[str, ...] = ("heatmaps",),
    decoder: str = "dark",
    contract: ModelContract | str | None = None,
    batch: str | int = "N",
) -> Path:
    """Write a toy model.

    Args:
        path: Where to; its folder must exist.
        dtype: "uint8" takes (N, 256, 192, 3) pixels, "float32" takes (N, 3, 256, 192) normalised.
        outputs: "heatmaps" (N, 6, 64, 48), "keypoints" (N, 6, 3) decoded by argmax in the graph, or both.
        decoder: The contract's decoder; a graph that puts out keypoints always has "argmax".
        contract: Carried instead of the right one; as it stands if it is text, and none if it is empty.
        batch: Name of the dynamic batch axis, or a fixed batch.
    """
    decoder = "argmax" if "keypoints" in outputs else decoder
    right = toy_contract(dtype=dtype, outputs=outputs, decoder=decoder)
    carried = right if contract is None else contract
    model = _model(dtype, outputs, batch)
    if carried != "":
        text = carried if isinstance(carried, str) else carried.to_json()
        model.metadata_props.add(key=CONTRACT_KEY, value=text)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def spotted_image(
    size: ImageSize, spots_xy: NDArray[np.float64], *, spread_px: float, background: int = 0
) -> NDArray[np.uint8]:
    """Return an (H, W, 3) uint8 RGB image with one Gaussian spot of its colour for each joint.

    Args:
        size: Size of the image.
        spots_xy: (6, 2) centres in image pixels, not near each other.
        spread_px: Standard deviation of a spot; 0 is a single pixel at the rounded centre.
        background: Grey behind the spots.
    """
    image = np.full((size.height, size.width, 3), float(background))
    y, x = np.mgrid[: size.height, : size.width]
    for (spot_x, spot_y), color in zip(spots_xy, JOINT_COLORS, strict=True):
        if spread_px:
            weight = np.exp(-((x - spot_x) ** 2 + (y - spot_y) ** 2) / (2 * spread_px**2))
        else:
            weight = ((x == round(spot_x)) & (y == round(spot_y))).astype(float)
        image += weight[..., None] * (np.array(color) - image)
    return np.round(image).astype(np.uint8)


def _model(dtype: str, outputs: tuple[str, ...], batch: str | int) -> Any:
    front = _pixels_nodes() if dtype == "uint8" else _denormalize_nodes()
    nodes = [*front, *_heatmap_nodes(), *(_argmax_nodes() if "keypoints" in outputs else [])]
    shape = [batch, SIZE.height, SIZE.width, 3] if dtype == "uint8" else [batch, 3, SIZE.height, SIZE.width]
    kind = TensorProto.UINT8 if dtype == "uint8" else TensorProto.FLOAT
    shapes = {"heatmaps": [batch, 6, CELLS.height, CELLS.width], "keypoints": [batch, 6, 3]}
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs],
        initializer=_constants(),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _pixels_nodes() -> list[Any]:
    return [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["pixels"], perm=[0, 3, 1, 2]),
    ]


def _denormalize_nodes() -> list[Any]:
    return [
        helper.make_node("Mul", ["images", "std_255"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean_255"], ["pixels"]),
    ]


def _heatmap_nodes() -> list[Any]:
    """Colour, then the Gaussian along y and along x; with an even kernel a cell's centre lies between two pixels."""
    pad = _REACH_PX - STRIDE // 2
    return [
        helper.make_node("Conv", ["pixels", "colors"], ["answers"]),
        helper.make_node("Conv", ["answers", "along_y"], ["rows"], group=6, strides=[STRIDE, 1], pads=[pad, 0, pad, 0]),
        helper.make_node(
            "Conv", ["rows", "along_x"], ["heatmaps"], group=6, strides=[1, STRIDE], pads=[0, pad, 0, pad]
        ),
    ]


def _argmax_nodes() -> list[Any]:
    return [
        helper.make_node("Reshape", ["heatmaps", "flat_shape"], ["flat"]),
        helper.make_node("ArgMax", ["flat"], ["peak_int"], axis=2, keepdims=1),
        helper.make_node("Cast", ["peak_int"], ["peak"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["peak", "width"], ["row"]),
        helper.make_node("Floor", ["row"], ["cell_y"]),
        helper.make_node("Mul", ["cell_y", "width"], ["row_start"]),
        helper.make_node("Sub", ["peak", "row_start"], ["cell_x"]),
        helper.make_node("Concat", ["cell_x", "cell_y"], ["cell_xy"], axis=2),
        helper.make_node("Mul", ["cell_xy", "stride"], ["corner_xy"]),
        helper.make_node("Add", ["corner_xy", "half_cell"], ["xy"]),
        helper.make_node("ReduceMax", ["flat"], ["score"], axes=[2], keepdims=1),
        helper.make_node("Concat", ["xy", "score"], ["keypoints"], axis=2),
    ]


def _constants() -> list[Any]:
    offsets = np.arange(2 * _REACH_PX) - (_REACH_PX - 0.5)
    gaussian = np.exp(-0.5 * (offsets / (SPREAD_CELLS * STRIDE)) ** 2)
    gaussian /= gaussian.sum()
    arrays = {
        "colors": np.array(COLOR_WEIGHTS).reshape(6, 3, 1, 1) / 255,
        "along_y": np.tile(gaussian.reshape(1, 1, -1, 1), (6, 1, 1, 1)),
        "along_x": np.tile(gaussian.reshape(1, 1, 1, -1), (6, 1, 1, 1)),
        "std_255": 255 * np.array(_STD).reshape(1, 3, 1, 1),
        "mean_255": 255 * np.array(_MEAN).reshape(1, 3, 1, 1),
        "width": np.array(CELLS.width),
        "stride": np.array(STRIDE),
        "half_cell": np.array(STRIDE / 2 - 0.5),
    }
    floats = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    return [*floats, numpy_helper.from_array(np.array([0, 6, -1], dtype=np.int64), "flat_shape")]
