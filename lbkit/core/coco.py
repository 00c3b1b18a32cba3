"""COCO keypoint JSON (Lin et al., 2014): read strictly, bad entries counted by reason."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit.core.geometry import ImageSize
from lbkit.core.keypoints import COCO_JOINTS, LOWER_BODY_6, KeypointSchema
from lbkit.errors import AnnotationError

_NOT_A_PERSON = "not a person"
_GIVE_COCO = "give a file like person_keypoints_val2017.json"


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image entry.

    Attributes:
        image_id: COCO's id.
        file_name: Path relative to the image folder.
        size: The picture's size, where the file tells it.
    """

    image_id: int
    file_name: str
    size: ImageSize | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CocoPerson:
    """One annotated person.

    Attributes:
        ann_id: COCO's id of the annotation.
        image_id: The image the person is on.
        box_xyxy: (4,) float64 box in edge coordinates.
        joints_xy: (K, 2) float64 image pixels; (0, 0) where not labelled.
        visibility: (K,) int64, COCO's v: 0 not labelled, 1 labelled but hidden, 2 visible.
        area: Area of the segment in square pixels, or of the box where the file has none.
        is_crowd: Whether the annotation stands for a crowd.
    """

    ann_id: int
    image_id: int
    box_xyxy: NDArray[np.float64]
    joints_xy: NDArray[np.float64]
    visibility: NDArray[np.int64]
    area: float
    is_crowd: bool

    @property
    def labelled_joints(self) -> int:
        """How many of the K joints are labelled."""
        return int((self.visibility > 0).sum())


@dataclass(frozen=True, slots=True)
class RejectedAnnotation:
    """An annotation of a known image that cannot be used.

    Attributes:
        ann_id: COCO's id of the annotation, None where it has none.
        image_id: The image it is on.
        reason: Why it was left out.
    """

    ann_id: int | None
    image_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class CocoFile:
    """An annotation file.

    Attributes:
        path: Where it was read from.
        images: Image entries by id.
        persons: Usable annotations in the file's order.
        skipped: How many annotations were left out, by reason.
        rejected: Those of them that are broken and whose image is known, in the file's order.
    """

    path: Path
    images: Mapping[int, CocoImage]
    persons: Sequence[CocoPerson]
    skipped: Mapping[str, int] = field(default_factory=dict)
    rejected: Sequence[RejectedAnnotation] = ()

    def persons_by_image(self) -> dict[int, list[CocoPerson]]:
        """Return the persons grouped by image id, in the file's order."""
        groups: dict[int, list[CocoPerson]] = {image_id: [] for image_id in self.images}
        for person in self.persons:
            groups[person.image_id].append(person)
        return groups


def read_coco(path: Path, *, keypoints: KeypointSchema = LOWER_BODY_6) -> CocoFile:
    """Read an annotation file of persons with 17 COCO joints or with boxes alone.

    Annotations that cannot be used (no finite box with an area, an unknown image, a second use of an id, broken
    keypoints) are left out and counted; a broken file is an error.

    Args:
        path: The JSON file.
        keypoints: Which of COCO's joints are wanted.

    Raises:
        AnnotationError: It cannot be read, is not JSON or not COCO, or two images share an id.
    """
    content = load_coco_json(path)
    images = image_entries(content, path)
    persons: list[CocoPerson] = []
    skipped: Counter[str] = Counter()
    rejected: list[RejectedAnnotation] = []
    seen: set[int] = set()
    for entry in content["annotations"]:
        problem = annotation_problem(entry, images, seen)
        if problem:
            skipped[problem] += 1
            rejected += _rejected(entry, images, problem)
            continue
        seen.add(entry["id"])
        persons.append(_person(entry, keypoints))
    return CocoFile(path, images, persons, dict(skipped), rejected)


def is_outside(joints_xy: NDArray[np.float64], sizes_xy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which (…, 2) joints lie off their image, which reaches from (-0.5, -0.5) to (W - 0.5, H - 0.5).

    Args:
        joints_xy: (…, 2) image pixels.
        sizes_xy: (…, 2) width and height; NaN where they are not known, which puts no joint outside.
    """
    return np.asarray(((joints_xy < -0.5) & ~np.isnan(sizes_xy) | (joints_xy > sizes_xy - 0.5)).any(axis=-1))


def load_coco_json(path: Path) -> dict[str, Any]:
    """Return the content of an annotation file that has its two lists, `images` and `annotations`.

    Raises:
        AnnotationError: It cannot be read, is not JSON or not COCO.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise AnnotationError("no such file", where=path, remedy="check the path") from error
    except OSError as error:
        raise AnnotationError(f"cannot be read ({error.strerror})", where=path, remedy="check the path") from error
    except (ValueError, RecursionError) as error:  # ValueError: bad syntax, not text, or a number of 4,300 digits
        raise AnnotationError(f"is not JSON ({error})", where=path, remedy=_GIVE_COCO) from error
    for name in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise AnnotationError(
                f"is not a COCO annotation file: it has no list {name!r}", where=path, remedy=_GIVE_COCO
            )
    return dict(content)


def image_entries(content: Mapping[str, Any], path: Path) -> dict[int, CocoImage]:
    """Return the image entries of a file's content by id.

    Raises:
        AnnotationError: An entry lacks an id or a name, or two share an id.
    """
    images: dict[int, CocoImage] = {}
    for index, entry in enumerate(content["images"]):
        is_table = isinstance(entry, dict)
        if not is_table or not _is_id(entry.get("id")) or not isinstance(entry.get("file_name"), str):
            raise AnnotationError(
                f"images[{index}] lacks an integer id or a file_name", where=path, remedy="mend the file"
            )
        if entry["id"] in images:
            raise AnnotationError(f"two images have the id {entry['id']}", where=path, remedy="mend the file")
        images[entry["id"]] = CocoImage(entry["id"], entry["file_name"], _size(entry))
    return images


def _size(entry: Mapping[str, Any]) -> ImageSize | None:
    height, width = entry.get("height"), entry.get("width")
    if not isinstance(height, int) or not isinstance(width, int) or min(height, width) < 1:
        return None
    return ImageSize(height, width)


def annotation_problem(entry: Any, images: Mapping[int, CocoImage], seen: set[int]) -> str | None:
    """Return why an annotation cannot be used, or None; `seen` holds the ids used before."""
    if not isinstance(entry, dict) or not _is_id(entry.get("id")):
        return "no integer id"
    if entry["id"] in seen:
        return "id used twice"
    if entry.get("category_id", 1) != 1:
        return _NOT_A_PERSON
    if not _is_of_a_known_image(entry, images):
        return "image not in the file"
    if not _is_box(entry.get("bbox")):
        return "no box with an area"
    if not _has_usable_keypoints(entry):
        return "broken keypoints"
    return None


def _rejected(entry: Any, images: Mapping[int, CocoImage], reason: str) -> list[RejectedAnnotation]:
    if reason == _NOT_A_PERSON or not isinstance(entry, dict) or not _is_of_a_known_image(entry, images):
        return []
    ann_id = entry.get("id")
    return [RejectedAnnotation(ann_id if _is_id(ann_id) else None, entry["image_id"], reason)]


def _is_of_a_known_image(entry: Mapping[str, Any], images: Mapping[int, CocoImage]) -> bool:
    image_id = entry.get("image_id")
    return isinstance(image_id, int | float) and image_id in images  # what is no number may have no hash


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite_number(value: Any) -> bool:
    """Tell a finite number that a float holds from anything else; a truth value is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond what a float holds
        return False


def _is_box(bbox: Any) -> bool:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(is_finite_number(value) for value in bbox):
        return False
    return bool(bbox[2] > 0 and bbox[3] > 0)


def _has_usable_keypoints(entry: Mapping[str, Any]) -> bool:
    values = entry.get("keypoints")
    if values is None:
        return True
    if not isinstance(values, list) or len(values) != COCO_JOINTS * 3:
        return False
    return all(is_finite_number(value) for value in values) and all(v in (0, 1, 2) for v in values[2::3])


def _person(entry: Mapping[str, Any], keypoints: KeypointSchema) -> CocoPerson:
    left, top, width, height = (float(value) for value in entry["bbox"])
    flat = entry.get("keypoints") or [0] * (COCO_JOINTS * 3)
    triples = np.asarray(flat, dtype=np.float64).reshape(COCO_JOINTS, 3)[list(keypoints.coco_indices)]
    area = entry.get("area")
    has_area = is_finite_number(area) and float(area or 0) > 0
    return CocoPerson(
        ann_id=entry["id"],
        image_id=entry["image_id"],
        box_xyxy=np.array([left, top, left + width, top + height]),
        joints_xy=triples[:, :2],
        visibility=triples[:, 2].astype(np.int64),
        area=float(area or 0) if has_area else width * height,
        is_crowd=bool(entry.get("iscrowd", 0)),
    )
