"""Inference in one process: reading, warping and the model each by itself, and `run_inference` as a whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lbkit.core.backend import Backend, ModelOutput
from lbkit.core.boxes import whole_image_box
from lbkit.core.contract import ModelContract
from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import CropTransform, ImageArray
from lbkit.core.images import Picture, read_picture
from lbkit.core.pipeline import BoxPlan, default_readers, largest_reduction, run_inference, single_threaded_opencv
from lbkit.core.preprocess import crop_person
from lbkit.core.results import ImageResult

Cut = tuple[ImageArray, CropTransform]

HELD_PICTURES = 64
"""So many decoded pictures are held while their warping is measured; holding them all would need gigabytes."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Time that something took.

    Attributes:
        wall: Seconds on the clock.
        processor: Seconds of work, of all threads together.
    """

    wall: float
    processor: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall + other.wall, self.processor + other.processor)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.wall - other.wall, self.processor - other.processor)

    def __mul__(self, times: float) -> Spent:
        return Spent(self.wall * times, self.processor * times)

    def __truediv__(self, other: Spent) -> Spent:
        return Spent(self.wall / other.wall, self.processor / other.processor)


@dataclass(frozen=True, slots=True, eq=False)
class Apart:
    """What the parts cost, measured one after the other over the same pictures.

    Attributes:
        reading: To read all files, by as many threads as `run_inference` uses.
        warping: To cut every picture's one crop, by the same threads.
        model: To run all batches, as many side by side as the model has streams.
        decoding: From heatmaps to joints in the picture; no part of the sum.
        joints: (N, K, 3) float64 x, y in image pixels and score.
    """

    reading: Spent
    warping: Spent
    model: Spent
    decoding: Spent
    joints: NDArray[np.float64]

    @property
    def sum(self) -> Spent:
        """Reading, warping and model."""
        return self.reading + self.warping + self.model


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """What `run_inference` cost.

    Attributes:
        spent: From the first picture to the last result.
        looks: Crops that went through the model; more than one a picture where the person is searched for.
        results: One a picture.
    """

    spent: Spent
    looks: int
    results: tuple[ImageResult, ...]


class _Stopwatch:
    """Adds up the time spent in blocks."""

    def __init__(self) -> None:
        self.spent = Spent(0.0, 0.0)

    @contextmanager
    def running(self) -> Iterator[None]:
        before = Spent(time.perf_counter(), time.process_time())
        yield
        self.spent += Spent(time.perf_counter(), time.process_time()) - before


class _CountingBackend:
    """A model that counts the crops it is given."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self.crops = 0

    @property
    def contract(self) -> ModelContract:
        return self._backend.contract

    def run(self, crops: NDArray[np.uint8]) -> ModelOutput:
        with self._lock:
            self.crops += len(crops)
        return self._backend.run(crops)


def warm_up(estimator: PoseEstimator) -> None:
    """Run a full batch twice in every stream, because the first one also allocates memory."""
    size = estimator.contract.input.size
    crops = [np.zeros((size.height, size.width, 3), np.uint8)] * estimator.batch_size
    with ThreadPoolExecutor(estimator.streams) as pool:
        list(pool.map(estimator.predict_input, [crops] * 2 * estimator.streams))


def measure_apart(paths: Sequence[Path], estimator: PoseEstimator) -> Apart:
    """Measure the parts, with the threads and the batch size of `run_inference`.

    Args:
        paths: The pictures; the one person's box is the whole picture.
        estimator: The model.
    """
    with single_threaded_opencv(), ThreadPoolExecutor(default_readers()) as pool:
        reading = _measure_reading(paths, estimator.contract, pool)
        warping, cuts = _measure_warping(paths, estimator.contract, pool)
    model, outputs = _measure_model(cuts, estimator)
    decoding, joints = _measure_decoding(cuts, outputs, estimator)
    return Apart(reading, warping, model, decoding, joints)


def measure_whole(paths: Sequence[Path], estimator: PoseEstimator, *, boxes: BoxPlan) -> Whole:
    """Measure `run_inference` over pictures.

    Args:
        paths: The pictures.
        estimator: The model.
        boxes: Where people are looked for.
    """
    backend = _CountingBackend(estimator.backend)
    counting = PoseEstimator(
        backend, decoder=estimator.decoder, batch_size=estimator.batch_size, streams=estimator.streams
    )
    watch = _Stopwatch()
    with watch.running():
        results = tuple(run_inference(paths, counting, boxes=boxes))
    return Whole(watch.spent, backend.crops, results)


def _measure_reading(paths: Sequence[Path], contract: ModelContract, pool: ThreadPoolExecutor) -> Spent:
    watch = _Stopwatch()
    with watch.running():
        sum(pool.map(lambda path: _read(path, contract).reduction, paths))
    return watch.spent


def _read(path: Path, contract: ModelContract) -> Picture:
    return read_picture(path, wanted_reduction=lambda size: largest_reduction([whole_image_box(size)], contract))


def _measure_warping(
    paths: Sequence[Path], contract: ModelContract, pool: ThreadPoolExecutor
) -> tuple[Spent, list[Cut]]:
    """Return the time and the crops; the reading in between is not counted."""

    def cut(picture: Picture) -> Cut:
        box = whole_image_box(picture.size)
        return crop_person(picture.pixels, box, contract=contract, reduction=picture.reduction)

    watch, cuts = _Stopwatch(), list[Cut]()
    for start in range(0, len(paths), HELD_PICTURES):
        pictures = list(pool.map(lambda path: _read(path, contract), paths[start : start + HELD_PICTURES]))
        with watch.running():
            cuts.extend(pool.map(cut, pictures))
    return watch.spent, cuts


def _measure_model(cuts: Sequence[Cut], estimator: PoseEstimator) -> tuple[Spent, list[ModelOutput]]:
    crops, size = [crop for crop, _ in cuts], estimator.batch_size
    watch = _Stopwatch()
    with watch.running(), ThreadPoolExecutor(estimator.streams) as pool:
        starts = range(0, len(crops), size)
        outputs = list(pool.map(lambda start: estimator.backend.run(np.stack(crops[start : start + size])), starts))
    return watch.spent, outputs


def _measure_decoding(
    cuts: Sequence[Cut], outputs: Sequence[ModelOutput], estimator: PoseEstimator
) -> tuple[Spent, NDArray[np.float64]]:
    watch = _Stopwatch()
    with watch.running():
        joints = np.concatenate([estimator.decode(output) for output in outputs]).astype(np.float64)
        for person, (_, transform) in zip(joints, cuts, strict=True):
            person[:, :2] = transform.to_image(person[:, :2])
    return watch.spent, joints
