"""Person detectors of other projects, run by ONNX Runtime: YOLOX and RTMDet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lbkit.core.boxes import MIN_SIDE_PX
from lbkit.core.detections import Detections
from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.errors import ModelError, ModelNotFoundError
from lbkit.runtime.providers import open_session, ort_words

MIN_SCORE = 0.4
"""Detections below this score are left out; RTMDet's authors show theirs from 0.3, YOLOX's from 0.3."""

NMS_IOU = 0.45
"""Of two boxes that overlap by more, YOLOX's less sure one is dropped (Ge et al., 2021, demo settings)."""

MAX_PEOPLE = 32

DEFAULT_SIDE_PX = 416
"""Side of the square that a picture is fitted into where the graph takes any size."""

_BORDER = 114
_PERSON = 0
_YOLOX_STRIDES = (8, 16, 32)
_RTMDET_MEAN_BGR = np.array([103.53, 116.28, 123.675], np.float32)
_RTMDET_STD_BGR = np.array([57.375, 57.12, 58.395], np.float32)

_KINDS = "give YOLOX (one output, N x (5 + classes)) or RTMDet (outputs N x 5 boxes with scores, and N labels)"

FloatBoxes = tuple[NDArray[np.float64], NDArray[np.float64]]
Reader = Callable[[list[NDArray[Any]], ImageSize], FloatBoxes]
"""Turns a graph's outputs into (N, 4) boxes in input pixels and (N,) scores; told the input's size."""


@dataclass(frozen=True, slots=True)
class _Family:
    """How one kind of detector is fed and read."""

    name: str
    normalizes: bool
    read: Reader


class OnnxPersonDetector:
    """A detector's ONNX file in a session; calls may come from several threads.

    YOLOX and RTMDet are told apart by their outputs. The picture is fitted into the input's top left corner.

    Args:
        path: The ONNX file.
        provider: One of `lbkit.runtime.providers.ORT_PROVIDERS`.
        threads: Threads inside an operator; what affinity and cgroup grant when None.
        min_score: Detections below this score are left out.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelError: It is no ONNX file, or no detector of these two kinds.
        ProviderError: The provider cannot run here.
    """

    def __init__(
        self, path: Path, *, provider: str = "cpu", threads: int | None = None, min_score: float = MIN_SCORE
    ) -> None:
        if not path.is_file():
            raise ModelNotFoundError("there is no such file", where=path, remedy="give a detector's ONNX file")
        try:
            self._session = open_session(path, provider=provider, threads=threads).session
        except Exception as error:
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            raise ModelError(
                f"ONNX Runtime cannot load it ({ort_words(error)})", where=path, remedy="give a detector's ONNX file"
            ) from error
        self._path = path
        self._min_score = min_score
        self._family = _family(self._session, path)
        self._input_name = self._session.get_inputs()[0].name
        self._input_size = _input_size(self._session)

    def detect(self, image: ImageArray) -> Detections:
        """Find people, the surest first, at most `MAX_PEOPLE`.

        Args:
            image: (H, W, 3) uint8 RGB.

        Raises:
            ModelError: The graph fails, or puts out other shapes than its kind does.
        """
        size = ImageSize.of(image)
        scale = min(self._input_size.height / size.height, self._input_size.width / size.width)
        feed = {self._input_name: self._input(image, scale)}
        try:
            outputs = self._session.run(None, feed)
            boxes, scores = self._family.read(outputs, self._input_size)
        except Exception as error:
            raise ModelError(f"the detector failed ({ort_words(error)})", where=self._path) from error
        return _within(boxes / scale, scores, size, min_score=self._min_score)

    def _input(self, image: ImageArray, scale: float) -> NDArray[np.float32]:
        """Return (1, 3, H, W) float32 BGR, the picture in the top left corner and grey beside it."""
        height, width = self._input_size.height, self._input_size.width
        fitted = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        canvas = np.full((height, width, 3), _BORDER, np.uint8)
        resized = cv2.resize(image, fitted, interpolation=cv2.INTER_LINEAR)
        canvas[: fitted[1], : fitted[0]] = resized[:height, :width, ::-1]
        pixels = canvas.astype(np.float32)
        if self._family.normalizes:
            pixels = (pixels - _RTMDET_MEAN_BGR) / _RTMDET_STD_BGR
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def _family(session: Any, path: Path) -> _Family:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    ranks = [len(output.shape) for output in outputs]
    is_picture = len(inputs) == 1 and len(inputs[0].shape) == 4 and inputs[0].type == "tensor(float)"
    if is_picture and ranks == [3] and isinstance(outputs[0].shape[2], int) and outputs[0].shape[2] > 5:
        return _Family("yolox", normalizes=False, read=_read_yolox)
    if is_picture and ranks == [3, 2]:
        return _Family("rtmdet", normalizes=True, read=_read_rtmdet)
    shapes = ", ".join(f"{output.name} {output.shape}" for output in outputs)
    raise ModelError(f"is no person detector that is known here: its outputs are {shapes}", where=path, remedy=_KINDS)


def _input_size(session: Any) -> ImageSize:
    sides = [side if isinstance(side, int) else DEFAULT_SIDE_PX for side in session.get_inputs()[0].shape[2:]]
    return ImageSize(*sides)


def _read_yolox(outputs: list[NDArray[Any]], size: ImageSize) -> FloatBoxes:
    """Decode grids of strides 8, 16, 32 and drop what overlaps (Ge et al., 2021)."""
    answers = np.asarray(outputs[0][0], dtype=np.float64)
    centers, strides = _yolox_grid(size)
    if len(answers) != len(centers):
        raise ValueError(f"{len(answers)} rows, expected {len(centers)} for an input of {size}")
    scores = answers[:, 4] * answers[:, 5 + _PERSON]
    kept = scores > 0.05  # exp() of the thousands of others is not worth its time
    center = (answers[kept, :2] + centers[kept]) * strides[kept, None]
    half = np.exp(np.minimum(answers[kept, 2:4], 20.0)) * strides[kept, None] / 2
    boxes, scores = np.concatenate([center - half, center + half], axis=1), scores[kept]
    left_top_sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    chosen = np.asarray(cv2.dnn.NMSBoxes(left_top_sides.tolist(), scores.tolist(), 0.05, NMS_IOU), dtype=np.intp)
    return boxes[chosen.ravel()], scores[chosen.ravel()]


def _yolox_grid(size: ImageSize) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each row's (x, y) cell and its stride."""
    cells, strides = [], []
    for stride in _YOLOX_STRIDES:
        y, x = np.mgrid[: size.height // stride, : size.width // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64))
        strides.append(np.full(x.size, float(stride)))
    return np.concatenate(cells), np.concatenate(strides)


def _read_rtmdet(outputs: list[NDArray[Any]], size: ImageSize) -> FloatBoxes:  # noqa: ARG001
    """Take boxes whose overlaps were dropped in the graph, of people only."""
    found, labels = np.asarray(outputs[0][0], dtype=np.float64), np.asarray(outputs[1][0])
    people = found[labels == _PERSON]
    return people[:, :4], people[:, 4]


def _within(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], size: ImageSize, *, min_score: float
) -> Detections:
    """Clip boxes to the image and keep the sure ones that have an area, the surest first."""
    clipped = np.clip(boxes, 0.0, np.array([size.width, size.height] * 2, dtype=np.float64))
    has_area = (clipped[:, 2:] - clipped[:, :2] > MIN_SIDE_PX).all(axis=1)
    usable = np.flatnonzero(has_area & (scores >= min_score))
    order = usable[np.argsort(-scores[usable], kind="stable")][:MAX_PEOPLE]
    return Detections(clipped[order], scores[order])
