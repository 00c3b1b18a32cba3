"""What inference gives for one picture, and the three ways to write it: JSON lines, a table, COCO results."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO, get_args

import numpy as np
from numpy.typing import NDArray

from lbkit.core.files import atomic_path, refuse_overwrite
from lbkit.core.geometry import ImageArray
from lbkit.core.keypoints import COCO_JOINTS, KeypointSchema
from lbkit.core.poses import Poses
from lbkit.errors import LbkitError

ResultFormat = Literal["jsonl", "csv", "coco"]
RESULT_FORMATS: tuple[ResultFormat, ...] = get_args(ResultFormat)

PERSON_CATEGORY_ID = 1


@dataclass(frozen=True, slots=True, eq=False)
class PersonView:
    """What the network saw of one person and answered.

    Attributes:
        crop: (H, W, 3) uint8 RGB input.
        heatmaps: (K, h, w) float32.
    """

    crop: ImageArray
    heatmaps: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ImageResult:
    """What became of one input.

    Attributes:
        path: The picture, or None where a source led to no picture.
        poses: Its people, possibly none; None where it could not be read.
        person_ids: The box file's id of each person, None where it has none.
        image_id: COCO's id of the picture, or None.
        problems: Everything that went wrong with it.
        is_in_box_file: False where a box file was given and does not name the picture.
        image: (H, W, 3) uint8 RGB, if asked to be kept.
        views: Each person's crop and heatmaps, if asked to be kept.
    """

    path: Path | None
    poses: Poses | None
    person_ids: tuple[int | str | None, ...] = ()
    image_id: int | None = None
    problems: tuple[LbkitError, ...] = ()
    is_in_box_file: bool = True
    image: ImageArray | None = None
    views: tuple[PersonView, ...] = ()

    def __post_init__(self) -> None:
        people = 0 if self.poses is None else len(self.poses)
        if len(self.person_ids) != people:
            raise ValueError(f"{people} people need as many person_ids, got {len(self.person_ids)}")


class ResultWriter(Protocol):
    """Turns results into text, piece by piece."""

    def begin(self) -> str:
        """Return what stands before the first result."""
        ...

    def rows(self, result: ImageResult) -> str:
        """Return the text of one result, empty where it has nothing to say."""
        ...

    def end(self) -> str:
        """Return what stands after the last result."""
        ...


class JsonLinesWriter:
    """One JSON object a line and picture: path, width, height, people (see `Poses.to_dicts`), and ids if there are any.

    Args:
        keypoints: The joints, in the model's order.
    """

    def __init__(self, keypoints: KeypointSchema) -> None:
        self._keypoints = keypoints

    def begin(self) -> str:
        """Return nothing."""
        return ""

    def rows(self, result: ImageResult) -> str:
        """Return the picture's line."""
        if result.poses is None:
            return ""
        size = result.poses.image_size
        record: dict[str, Any] = {"path": str(result.path), "width": size.width, "height": size.height}
        if result.image_id is not None:
            record["image_id"] = result.image_id
        record["people"] = result.poses.to_dicts()
        for person, person_id in zip(record["people"], result.person_ids, strict=True):
            if person_id is not None:
                person["ann_id"] = person_id
        return json.dumps(record) + "\n"

    def end(self) -> str:
        """Return nothing."""
        return ""


class CsvWriter:
    """One row a person, so that a picture without people has none.

    The columns: path, width, height, the person's number on the picture from 1, ann_id, left, top, right, bottom,
    score, and for each joint x, y and score.

    Args:
        keypoints: The joints, in the model's order.
    """

    def __init__(self, keypoints: KeypointSchema) -> None:
        self._keypoints = keypoints

    def begin(self) -> str:
        """Return the header."""
        joints = [f"{name}_{field}" for name in self._keypoints.names for field in ("x", "y", "score")]
        fixed = ["path", "width", "height", "person", "ann_id", "left", "top", "right", "bottom", "score"]
        return _csv_line(fixed + joints)

    def rows(self, result: ImageResult) -> str:
        """Return the picture's rows."""
        if result.poses is None:
            return ""
        size = result.poses.image_size
        people = zip(result.poses.to_dicts(), result.person_ids, strict=True)
        return "".join(
            _csv_line([result.path, size.width, size.height, number, "" if ann_id is None else ann_id, *_flat(person)])
            for number, (person, ann_id) in enumerate(people, start=1)
        )

    def end(self) -> str:
        """Return nothing."""
        return ""


class CocoWriter:
    """A COCO results list, one row a box, as pycocotools' `loadRes` takes it.

    A row has image_id, ann_id, category_id 1, bbox (left, top, width, height), keypoints (17 times x, y, score; zeros
    for joints that the model does not know) and score. Pictures without a COCO id have no rows.

    Args:
        keypoints: The joints, in the model's order.
    """

    def __init__(self, keypoints: KeypointSchema) -> None:
        self._places = list(keypoints.coco_indices)
        self._separator = "\n"

    def begin(self) -> str:
        """Open the list."""
        return "["

    def rows(self, result: ImageResult) -> str:
        """Return the picture's rows."""
        if result.poses is None or result.image_id is None:
            return ""
        text = ""
        for index, ann_id in enumerate(result.person_ids):
            row = {"image_id": result.image_id, "ann_id": ann_id, **self._person(result.poses, index)}
            text += self._separator + json.dumps(row)
            self._separator = ",\n"
        return text

    def end(self) -> str:
        """Close the list."""
        return "\n]\n"

    def _person(self, poses: Poses, index: int) -> dict[str, Any]:
        joints = np.zeros((COCO_JOINTS, 3))
        joints[self._places, :2] = poses.xy[index]
        joints[self._places, 2] = poses.scores[index]
        left, top, right, bottom = (float(edge) for edge in poses.boxes_xyxy[index])
        return {
            "category_id": PERSON_CATEGORY_ID,
            "bbox": [round(side, 3) for side in (left, top, right - left, bottom - top)],
            "keypoints": [round(float(value), 4) for value in joints.ravel()],
            "score": round(float(poses.person_scores[index]), 5),
        }


_WRITERS: dict[ResultFormat, Callable[[KeypointSchema], ResultWriter]] = {
    "jsonl": JsonLinesWriter,
    "csv": CsvWriter,
    "coco": CocoWriter,
}


def result_writer(name: ResultFormat, keypoints: KeypointSchema) -> ResultWriter:
    """Return the writer of a format.

    Args:
        name: One of `RESULT_FORMATS`.
        keypoints: The joints, in the model's order.
    """
    return _WRITERS[name](keypoints)


@contextmanager
def result_file(path: Path, *, force: bool) -> Iterator[TextIO]:
    """Open a text file that appears under its name only when the block ends without an error.

    Args:
        path: Where to.
        force: Replace what is there.

    Raises:
        OutputError: It exists already, or cannot be written.
    """
    refuse_overwrite(path, force=force)
    # surrogateescape gives a file name that is not UTF-8 back byte by byte.
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        yield stream


def _flat(person: dict[str, Any]) -> list[float]:
    joints = [joint[field] for joint in person["keypoints"].values() for field in ("x", "y", "score")]
    return [*person["box_xyxy"], person["score"], *joints]


def _csv_line(cells: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
