"""Models run over boxes on many photographs: each is read once for all models, and memory does not grow with them."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Mapping, Sequence
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

CropKey = tuple[ImageSize, CropSpec]
"""What decides how a crop is cut."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A target cut out of its photograph.

    Attributes:
        target: The target.
        crops: Its (H, W, 3) uint8 RGB crop and transform, for every kind of input.
    """

    target: Target
    crops: Mapping[CropKey, tuple[ImageArray, CropTransform]]


@dataclass(slots=True, eq=False)
class Unusable:
    """What was left out on the way.

    Attributes:
        images: Why a photograph was not used, by image id.
        rows: Why a box was not used, by row.
    """

    images: dict[int, str] = field(default_factory=dict)
    rows: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class WalkResult:
    """What models found in N boxes.

    Attributes:
        keypoints: For each model (N, 6, 3) of x, y in image pixels and score; NaN where it was not run.
        seconds: Time inside each model, with decoding.
        unusable: What was left out.
    """

    keypoints: list[NDArray[np.float64]]
    seconds: list[float]
    unusable: Unusable = field(default_factory=Unusable)

    @property
    def bad_images(self) -> dict[int, str]:
        """Why a photograph was not used, by image id."""
        return self.unusable.images

    @property
    def bad_rows(self) -> dict[int, str]:
        """Why a box was not used, by row."""
        return self.unusable.rows


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
    largest = max(estimator.batch_size for estimator in estimators)
    cuts = cut_targets(
        targets,
        [estimator.contract for estimator in estimators],
        read=lambda image_id: read_image(paths[image_id]),
        sizes=sizes,
        unusable=result.unusable,
        on_image=on_image,
    )
    with contextlib.closing(cuts):
        while batch := list(itertools.islice(cuts, largest)):
            for number, estimator in enumerate(estimators):
                started = time.perf_counter()
                _run(estimator, batch, result.keypoints[number])
                result.seconds[number] += time.perf_counter() - started
    return result


def cut_targets(
    targets: Sequence[Target],
    contracts: Sequence[ModelContract],
    *,
    read: Callable[[int], ImageArray],
    sizes: Mapping[int, ImageSize | None],
    unusable: Unusable,
    on_image: Callable[[], object] = lambda: None,
) -> Generator[Cut]:
    """Read photographs and cut boxes out by threads, a few photographs ahead of what is taken.

    Args:
        targets: The boxes, those of one photograph together.
        contracts: The models' contracts, which say how crops are cut.
        read: Gives the photograph of an image id; called once for each, in any thread.
        sizes: What is known of its size beforehand, by image id.
        unusable: Where photographs and boxes that cannot be used are noted down.
        on_image: Called after each photograph.
    """
    groups: dict[int, list[Target]] = {}
    for target in targets:
        groups.setdefault(target.image_id, []).append(target)
    by_key = {crop_key(contract): contract for contract in contracts}
    cutter = _Cutter(by_key, read, sizes, unusable)
    readers = default_readers()
    with single_threaded_opencv(), ThreadPoolExecutor(readers, "lbkit-cut") as pool:
        for group in map_ahead(pool, cutter.cut, groups.items(), ahead=lambda: 2 * readers):
            on_image()
            yield from group


def crop_key(contract: ModelContract) -> CropKey:
    """Return what decides how a model's crops are cut."""
    return contract.input.size, contract.crop


def _run(estimator: PoseEstimator, batch: Sequence[Cut], keypoints: NDArray[np.float64]) -> None:
    key = crop_key(estimator.contract)
    cut = [item.crops[key] for item in batch]
    found = estimator.predict([crop for crop, _ in cut], [transform for _, transform in cut])
    for item, joints in zip(batch, found, strict=True):
        keypoints[item.target.row] = joints
        keypoints[item.target.row, :, 1] += item.target.cut_rows


class _Cutter:
    """Reads a photograph and cuts its boxes out, in the pool's threads."""

    def __init__(
        self,
        contracts: Mapping[CropKey, ModelContract],
        read: Callable[[int], ImageArray],
        sizes: Mapping[int, ImageSize | None],
        unusable: Unusable,
    ) -> None:
        self._contracts = contracts
        self._read = read
        self._sizes = sizes
        self._unusable = unusable

    def cut(self, group: tuple[int, Sequence[Target]]) -> list[Cut]:
        """Return the crops of a photograph's usable boxes, and note down what is not usable."""
        image_id, targets = group
        try:
            image = self._read(image_id)
        except ImageReadError:
            self._unusable.images[image_id] = UNREADABLE
            return []
        if self._sizes[image_id] not in (None, ImageSize.of(image)):
            self._unusable.images[image_id] = OTHER_SIZE
            return []
        cuts = []
        for target in targets:
            part, box = (
                image[target.cut_rows :],
                target.box_xyxy - np.array([0.0, target.cut_rows, 0.0, target.cut_rows]),
            )
            if box_problem(box, ImageSize.of(part)) is not None:
                self._unusable.rows[target.row] = BOX_UNUSABLE
                continue
            cuts.append(Cut(target, self._crops(part, box)))
        return cuts

    def _crops(self, image: ImageArray, box_xyxy: NDArray[Any]) -> dict[CropKey, tuple[ImageArray, CropTransform]]:
        return {key: crop_person(image, box_xyxy, contract=contract) for key, contract in self._contracts.items()}
