"""Person detectors as ONNX graphs that answer known boxes, as sure of them as one pixel of the input is red."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 64
"""Side of the input."""

PIXEL_YX = (3, 5)
"""The pixel of the input whose red, by 255, is the score of every box."""

CLASSES = 80
STRIDES = (8, 16, 32)
MEAN_BGR = (103.53, 116.28, 123.675)
STD_BGR = (57.375, 57.12, 58.395)


def save_yolox(path: Path, boxes_xyxy: Sequence[Sequence[float]], *, person: bool = True) -> Path:
    """Write a YOLOX that answers boxes in input pixels, one a cell of stride 8 from the first on.

    Args:
        path: Where to.
        boxes_xyxy: The boxes.
        person: Whether they are people's, or the next class's.
    """
    rows = sum((SIDE // stride) ** 2 for stride in STRIDES)
    answer, sure = np.zeros((1, rows, 5 + CLASSES), np.float32), np.zeros((1, rows, 5 + CLASSES), np.float32)
    for row, (left, top, right, bottom) in enumerate(boxes_xyxy):
        cell = np.array([row % (SIDE // 8), row // (SIDE // 8)])
        answer[0, row, :2] = np.array([(left + right) / 2, (top + bottom) / 2]) / 8 - cell
        answer[0, row, 2:4] = np.log(np.array([right - left, bottom - top]) / 8)
        answer[0, row, 5 + (not person)] = 1.0
        sure[0, row, 4] = 1.0
    nodes = [*_red_nodes(), *_answer_nodes("output")]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, list(answer.shape))]
    constants = {"answer": answer, "sure": sure, "scale": np.array(1 / 255), "offset": np.array(0.0)}
    return _save(path, nodes, outputs, constants)


def save_rtmdet(path: Path, boxes_xyxy: Sequence[Sequence[float]], *, labels: Sequence[int] = ()) -> Path:
    """Write an RTMDet that answers boxes in input pixels.

    Args:
        path: Where to.
        boxes_xyxy: The boxes.
        labels: Their classes; people's when empty.
    """
    answer, sure = np.zeros((1, len(boxes_xyxy), 5), np.float32), np.zeros((1, len(boxes_xyxy), 5), np.float32)
    answer[0, :, :4] = boxes_xyxy
    sure[0, :, 4] = 1.0
    classes = np.array([labels or [0] * len(boxes_xyxy)], np.int64)
    nodes = [*_red_nodes(), *_answer_nodes("dets"), helper.make_node("Identity", ["classes"], ["labels"])]
    outputs = [
        helper.make_tensor_value_info("dets", TensorProto.FLOAT, list(answer.shape)),
        helper.make_tensor_value_info("labels", TensorProto.INT64, list(classes.shape)),
    ]
    scale, offset = np.array(STD_BGR[2] / 255), np.array(MEAN_BGR[2] / 255)
    constants = {"answer": answer, "sure": sure, "scale": scale, "offset": offset}
    return _save(path, nodes, outputs, constants, integers={"classes": classes})


def _red_nodes() -> list[onnx.NodeProto]:
    """Take one pixel's third channel, which is red where the input is BGR."""
    return [
        helper.make_node("Slice", ["images", "start", "end"], ["pixel"]),
        helper.make_node("Mul", ["pixel", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["red"]),
        helper.make_node("Reshape", ["red", "one"], ["score"]),
    ]


def _answer_nodes(name: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Mul", ["sure", "score"], ["scores"]),
        helper.make_node("Add", ["answer", "scores"], [name]),
    ]


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    outputs: list[onnx.ValueInfoProto],
    floats: dict[str, np.ndarray],
    *,
    integers: dict[str, np.ndarray] | None = None,
) -> Path:
    y, x = PIXEL_YX
    whole = {"start": np.array([0, 2, y, x]), "end": np.array([1, 3, y + 1, x + 1]), "one": np.array([1])}
    whole |= integers or {}
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in floats.items()]
    constants += [numpy_helper.from_array(array.astype(np.int64), name) for name, array in whole.items()]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    graph = helper.make_graph(nodes, "detector", [images], outputs, initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path
