"""The people that a reduced file is calibrated on, chosen by, and measured on: never the same photograph twice.

Photographs are drawn in an order that depends on their number alone. Of one source, the first third at most is for
calibration, the next for choosing (method, layers), and the rest for measuring.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lbkit.core.box_files import read_csv_boxes
from lbkit.core.boxes import box_problem
from lbkit.core.contract import ModelContract
from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import CropTransform, ImageArray, ImageSize
from lbkit.core.images import read_image
from lbkit.core.preprocess import crop_person
from lbkit.core.sources import find_pictures
from lbkit.errors import AnnotationError, ImageReadError, InputError
from lbkit.evaluation.persons import CocoRoot
from lbkit.evaluation.truth import People, read_truth

log = logging.getLogger(__name__)

MIN_SCORE = 0.1
"""Mean joint score above which a picture without a box has a person; noise scores 0.05 to 0.1, a grey area less."""

SEED = 0
_GIVE = "give a COCO annotation file, a CSV of boxes, or a folder of photographs with people"


@dataclass(frozen=True, slots=True)
class AnnotationFile(CocoRoot):
    """A COCO annotation file whose photographs lie in `images/` beside it, or beside it.

    Attributes:
        file: Name of the annotation file in the folder.
    """

    file: str = "annotations.json"

    @property
    def annotations(self) -> Path:
        """The annotation file."""
        return self.folder / self.file

    @property
    def images(self) -> Path:
        """The folder of pictures."""
        beside = self.folder / "images"
        return beside if beside.is_dir() else self.folder


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """People on photographs, in order; of several on one photograph all are there.

    Attributes:
        name: What figures call the data.
        paths: N picture files.
        boxes_xyxy: (N, 4) boxes in edge coordinates.
        people: The N annotated people, None without annotations.
        sha256: Hash of the annotation file, None without one.
    """

    name: str
    paths: tuple[Path, ...]
    boxes_xyxy: NDArray[np.float64]
    people: People | None
    sha256: str | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def photographs(self) -> int:
        """How many photographs there are."""
        return len(set(self.paths))

    def take(self, rows: Sequence[int]) -> Source:
        """Return some of the people."""
        index = np.array(rows, np.int64)
        people = None if self.people is None else self.people.take(index)
        return Source(self.name, tuple(self.paths[row] for row in rows), self.boxes_xyxy[index], people, self.sha256)


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """People as the network sees them.

    Attributes:
        source: The N people.
        pixels: (N, H, W, 3) uint8 RGB.
        transforms: N transforms between photograph and crop.
    """

    source: Source
    pixels: ImageArray
    transforms: tuple[CropTransform, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def first(self, count: int) -> Crops:
        """Return the first `count` people."""
        rows = range(min(count, len(self)))
        return Crops(self.source.take(rows), self.pixels[: len(rows)], self.transforms[: len(rows)])


def read_source(path: Path, *, split: str | None = None, finder: PoseEstimator | None = None) -> Source:
    """Read the people of a COCO root, a COCO or CSV file of boxes, or a folder of pictures.

    Args:
        path: A folder in COCO's layout, a folder with `annotations.json`, a COCO `.json`, a `.csv` of boxes, or a
            folder of pictures, in which the model looks for one person each.
        split: Which part of a folder in COCO's layout; the first by name when None.
        finder: Looks for people in pictures without boxes.

    Raises:
        InputError: There is nothing usable, or nobody is on the pictures.
        AnnotationError: The annotations cannot be read, or nobody in them has a labelled joint.
    """
    root = _annotated_root(path, split)
    if root is not None:
        return _annotated(root, path)
    if path.is_file() and path.suffix.lower() == ".csv":
        return _boxed(path)
    if not path.is_dir():
        problem = "is neither a folder, a COCO JSON nor a CSV of boxes" if path.exists() else "there is no such file"
        raise InputError(problem, where=path, remedy=_GIVE)
    if finder is None:
        raise InputError("has no annotations, which this needs", where=path, remedy="give a folder in COCO's layout")
    return _searched(path, finder)


def split_source(source: Source, *counts: int) -> list[Source]:
    """Return parts of a source that share no photograph, and what is left as the last part.

    Args:
        source: The people.
        counts: How many people each part should have; it gets a third of the photographs at most.
    """
    photographs = list(dict.fromkeys(source.paths))
    order = [photographs[index] for index in np.random.default_rng(SEED).permutation(len(photographs))]
    rows: dict[Path, list[int]] = {path: [] for path in order}
    for row, path in enumerate(source.paths):
        rows[path].append(row)
    most = -(-len(order) // (len(counts) + 1))
    parts, start = [], 0
    for count in counts:
        chosen: list[int] = []
        stop = start
        while stop < min(start + most, len(order)) and len(chosen) < count:
            chosen += rows[order[stop]]
            stop += 1
        parts.append(source.take(chosen[:count]))
        start = stop
    return [*parts, source.take([row for path in order[start:] for row in rows[path]])]


def cut_crops(source: Source, contract: ModelContract) -> Crops:
    """Cut people out of their photographs as the contract says; unusable photographs and boxes are left out.

    Raises:
        InputError: Nobody is left.
    """
    rows, pixels, transforms = [], [], []
    for row, image in _with_images(source):
        if box_problem(source.boxes_xyxy[row], ImageSize.of(image)) is not None:
            log.warning("%s: a box cannot be used", source.paths[row])
            continue
        crop, transform = crop_person(image, source.boxes_xyxy[row], contract=contract)
        rows.append(row)
        pixels.append(crop)
        transforms.append(transform)
    if not rows:
        raise InputError(f"nobody of {source.name} can be cut out of the photographs", remedy=_GIVE)
    return Crops(source.take(rows), np.stack(pixels), tuple(transforms))


def _with_images(source: Source) -> Iterator[tuple[int, ImageArray]]:
    """Yield each row with its photograph; neighbours share the reading."""
    path, image = None, None
    for row, wanted in enumerate(source.paths):
        if wanted != path:
            path = wanted
            try:
                image = read_image(wanted)
            except ImageReadError as error:
                log.warning("%s", error)
                image = None
        if image is not None:
            yield row, image


def _annotated_root(path: Path, split: str | None) -> CocoRoot | None:
    if path.is_file() and path.suffix.lower() == ".json":
        return AnnotationFile(path.parent, file=path.name)
    if (path / "annotations.json").is_file():
        return AnnotationFile(path)
    prefix = "person_keypoints_"
    found = sorted(file.stem.removeprefix(prefix) for file in (path / "annotations").glob(f"{prefix}*.json"))
    if split is not None:
        return CocoRoot(path, split)
    return CocoRoot(path, found[0]) if found else None


def _annotated(root: CocoRoot, path: Path) -> Source:
    truth = read_truth(root)
    paths = tuple(truth.image_path(int(image_id)) for image_id in truth.people.image_ids)
    if not any(file.is_file() for file in set(paths)):
        raise AnnotationError("none of its photographs is there", where=root.images, remedy="check the folder")
    is_named_file = isinstance(root, AnnotationFile) and path.is_file()
    name = path.stem if is_named_file and path.stem != "annotations" else truth.name
    return Source(name, paths, truth.people.boxes_xyxy, truth.people, truth.annotations_sha256)


def _boxed(path: Path) -> Source:
    table = read_csv_boxes(path)
    for problem in table.problems:
        log.warning("%s", problem)
    paths: list[Path] = []
    boxes: list[tuple[float, ...]] = []
    for picture in find_pictures([str(path.parent)], recursive=True):
        entry = None if isinstance(picture, InputError) else table.find(picture)
        if entry is not None and isinstance(picture, Path):
            paths += [picture] * len(entry.boxes)
            boxes += [box.xyxy for box in entry.boxes]
    if not paths:
        raise InputError("names no box on a picture beside it", where=path, remedy="keep the pictures in its folder")
    return Source(path.stem, tuple(paths), np.array(boxes, np.float64), None)


def _searched(path: Path, finder: PoseEstimator) -> Source:
    paths, boxes, seen = [], [], 0
    for picture in find_pictures([str(path)], recursive=True):
        if isinstance(picture, InputError):
            raise InputError("has no picture in it", where=path, remedy=_GIVE) from picture
        seen += 1
        try:
            poses = finder.find_person(read_image(picture))
        except ImageReadError as error:
            log.warning("%s", error)
            continue
        if float(poses.scores.mean()) >= MIN_SCORE:
            paths.append(picture)
            boxes.append(poses.boxes_xyxy[0])
    if not paths:
        raise InputError(f"no person was found on its {seen} pictures", where=path, remedy=_GIVE)
    log.info("%s: a person on %d of %d pictures", path, len(paths), seen)
    return Source(path.resolve().name, tuple(paths), np.array(boxes, np.float64), None)
