"""Models run over boxes on many photographs: each is read once for all models, and memory does not grow with them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit.core.boxes import box_problem
from lbkit.core.contract import CropSpec, ModelContract
from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import CropTransform, ImageArray, ImageSize
from lbkit.core.images import read_image
from lbkit.core.pipeline import default_readers, map_ahead, single_threaded_opencv
from lbkit.core.preprocess import crop_person
from lbkit.errors import ImageReadError

UNREADABLE = "image cannot be read"
OTHER_SIZE = "image of another size than the annotation file says"
BOX_UNUSABLE = "box cannot be used on its image"

_CropKey = tuple[ImageSize, CropSpec]
_Cut = tuple[int, int, dict[_CropKey, tuple[ImageArray, CropTransform]]]
"""A target's row, how many pixel rows were cut from its image, and its crop for every kind of input."""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A box to run models on.

    Attributes:
        row: Where its joints go in the result.
        image_id: COCO's id of the photograph.
        box_xyxy: (4,) box in edge coordinates of the whole photograph.
        cut_rows: So many pixel rows are taken from the photograph's top first.
    """

    row: int
    image_id: int
    box_xyxy: NDArray[np.float64]
    cut_rows: int = 0


@dataclass(slots=True, eq=False)
class WalkResult:
    """What models found in N boxes.

    Attributes:
        keypoints: For each model (N, 6, 3) of x, y in image pixels and score; NaN where it was not run.
        seconds: Time inside each model, with decoding.
        bad_images: Why a photograph was not used, by image id.
        bad_rows: Why a box was not used, by row.
    """

    keypoints: list[NDArray[np.float64]]
    seconds: list[float]
    bad_images: dict[int, str] = field(default_factory=dict)
    bad_rows: dict[int, str] = field(default_factory=dict)


def run_targets(
    estimators: Sequence[PoseEstimator],
    targets: Sequence[Target],
    *,
    paths: Mapping[int, Path],
    sizes: Mapping[int, ImageSize | None],
    on_image: Callable[[], object] = lambda: None,
) -> WalkResult:
    """Run models on boxes; photographs are read and crops are cut by threads.

    Args:
        estimators: The models.
        targets: The boxes, with rows from 0 to N - 1.
        paths: File of each photograph by image id.
        sizes: What the annotation file says of its size, by image id.
        on_image: Called after each photograph.

    Raises:
        ModelError: A model put out something that is not a finite number.
    """
    joints = len(estimators[0].contract.keypoints)
    result = WalkResult([np.full((len(targets), joints, 3), np.nan) for _ in estimators], [0.0] * len(estimators))
    groups: dict[int, list[Target]] = {}
    for target in targets:
        groups.setdefault(target.image_id, []).append(target)
    cutter = _Cutter(_crop_contracts(estimators), paths, sizes, result)
    readers = default_readers()
    largest = max(estimator.batch_size for estimator in estimators)
    with single_threaded_opencv(), ThreadPoolExecutor(readers, "lbkit-eval") as pool:
        cuts = _flat(map_ahead(pool, cutter.cut, groups.items(), ahead=lambda: 2 * readers), on_image)
        while batch := list(itertools.islice(cuts, largest)):
            for number, estimator in enumerate(estimators):
                started = time.perf_counter()
                _run(estimator, batch, result.keypoints[number])
                result.seconds[number] += time.perf_counter() - started
    return result


def _flat(cuts: Iterable[list[_Cut]], on_image: Callable[[], object]) -> Iterator[_Cut]:
    for group in cuts:
        on_image()
        yield from group


def _run(estimator: PoseEstimator, batch: Sequence[_Cut], keypoints: NDArray[np.float64]) -> None:
    key = _crop_key(estimator.contract)
    found = estimator.predict([crops[key][0] for _, _, crops in batch], [crops[key][1] for _, _, crops in batch])
    for (row, cut_rows, _), joints in zip(batch, found, strict=True):
        keypoints[row] = joints
        keypoints[row, :, 1] += cut_rows


def _crop_key(contract: ModelContract) -> _CropKey:
    return contract.input.size, contract.crop


def _crop_contracts(estimators: Sequence[PoseEstimator]) -> dict[_CropKey, ModelContract]:
    return {_crop_key(estimator.contract): estimator.contract for estimator in estimators}


class _Cutter:
    """Reads a photograph and cuts its boxes out, in the pool's threads."""

    def __init__(
        self,
        contracts: Mapping[_CropKey, ModelContract],
        paths: Mapping[int, Path],
        sizes: Mapping[int, ImageSize | None],
        result: WalkResult,
    ) -> None:
        self._contracts = contracts
        self._paths = paths
        self._sizes = sizes
        self._result = result

    def cut(self, group: tuple[int, Sequence[Target]]) -> list[_Cut]:
        """Return the crops of a photograph's usable boxes, and note down what is not usable."""
        image_id, targets = group
        try:
            image = read_image(self._paths[image_id])
        except ImageReadError:
            self._result.bad_images[image_id] = UNREADABLE
            return []
        if self._sizes[image_id] not in (None, ImageSize.of(image)):
            self._result.bad_images[image_id] = OTHER_SIZE
            return []
        cuts = []
        for target in targets:
            part, box = (
                image[target.cut_rows :],
                target.box_xyxy - np.array([0.0, target.cut_rows, 0.0, target.cut_rows]),
            )
            if box_problem(box, ImageSize.of(part)) is not None:
                self._result.bad_rows[target.row] = BOX_UNUSABLE
                continue
            cuts.append((target.row, target.cut_rows, self._crops(part, box)))
        return cuts

    def _crops(self, image: ImageArray, box_xyxy: NDArray[Any]) -> dict[_CropKey, tuple[ImageArray, CropTransform]]:
        return {key: crop_person(image, box_xyxy, contract=contract) for key, contract in self._contracts.items()}
