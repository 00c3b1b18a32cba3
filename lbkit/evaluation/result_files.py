"""COCO result files: boxes from a detector, or keypoints from any program; what is wrong in them is counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit.core.coco import is_finite_number
from lbkit.core.keypoints import COCO_JOINTS, LOWER_BODY_6
from lbkit.core.results import PERSON_CATEGORY_ID
from lbkit.errors import AnnotationError
from lbkit.evaluation.matching import MatchRule
from lbkit.evaluation.oks import MAX_DETECTIONS, Detections
from lbkit.evaluation.truth import Truth

OTHER_IMAGE = "result for another image"
DUPLICATE = "result given twice"
NOT_A_PERSON = "result of another category"
BROKEN = "broken result"
TOO_MANY = f"box beyond the best {MAX_DETECTIONS} of its image"

_LEGS = len(LOWER_BODY_6)
_COCO_RESULTS = "https://cocodataset.org/#format-results"


@dataclass(frozen=True, slots=True, eq=False)
class FoundBoxes:
    """Boxes of a detector on the scored images.

    Attributes:
        image_ids: (D,) COCO image ids.
        boxes_xyxy: (D, 4) edge coordinates.
        scores: (D,).
        skipped: How many entries were left out, by reason.
    """

    image_ids: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float64]
    scores: NDArray[np.float64]
    skipped: Mapping[str, int]

    def on_images(self, image_ids: Collection[int]) -> FoundBoxes:
        """Return the boxes on some of the images."""
        rows = np.isin(self.image_ids, np.array(list(image_ids), np.int64))
        return FoundBoxes(self.image_ids[rows], self.boxes_xyxy[rows], self.scores[rows], self.skipped)


@dataclass(frozen=True, slots=True, eq=False)
class FoundKeypoints:
    """People that another program found on the scored images.

    Attributes:
        detections: The people.
        rule: How they are matched to annotated people, by what the file's entries have in common.
        ann_ids: (D,) the annotations that they name, -1 where none.
        joints: How many joints the file's people have: 17 or 6.
        skipped: How many entries were left out, by reason.
    """

    detections: Detections
    rule: MatchRule
    ann_ids: NDArray[np.int64]
    joints: int
    skipped: Mapping[str, int]


def read_found_boxes(path: Path, truth: Truth) -> FoundBoxes:
    """Read a detector's boxes: a COCO result list with `bbox` and `score`.

    Of an image the best 20 are taken, as COCO counts them.

    Raises:
        AnnotationError: The file cannot be read, is no such list, or has no usable box for the scored images.
    """
    kept, skipped = _usable(_entries(path), truth, _box_problem, lambda entry: tuple(entry["bbox"]))
    kept, too_many = _best_of_images(kept)
    if not kept:
        raise AnnotationError(
            f"has no usable box on the scored images{_reasons(skipped)}",
            where=path,
            remedy=f"give a COCO result list with bbox and score ({_COCO_RESULTS})",
        )
    if too_many:
        skipped[TOO_MANY] = too_many
    return FoundBoxes(
        image_ids=np.array([entry["image_id"] for entry in kept], np.int64),
        boxes_xyxy=np.array([_corners(entry["bbox"]) for entry in kept], np.float64),
        scores=np.array([entry["score"] for entry in kept], np.float64),
        skipped=dict(skipped),
    )


def read_found_keypoints(path: Path, truth: Truth) -> FoundKeypoints:
    """Read people's keypoints: a COCO result list with `keypoints` of 17 joints or of the six of the legs.

    Raises:
        AnnotationError: The file cannot be read, is no such list, has another number of joints, or nobody on the
            scored images.
    """
    entries = _entries(path)
    joints = _joint_count(entries, path)
    kept, skipped = _usable(
        entries,
        truth,
        lambda entry: _keypoints_problem(entry, joints),
        lambda entry: (entry["ann_id"] if _is_id(entry.get("ann_id")) else None, *entry["keypoints"]),
    )
    if not kept:
        raise AnnotationError(
            f"has nobody on the scored images{_reasons(skipped)}", where=path, remedy="check that --coco is its data"
        )
    if all(_is_id(entry.get("ann_id")) for entry in kept):
        kept = _best_by_annotation(kept, skipped)
    rule = _match_rule(kept)
    triples = np.array([entry["keypoints"] for entry in kept], np.float64).reshape(len(kept), joints, 3)
    xy = triples[:, list(LOWER_BODY_6.coco_indices) if joints == COCO_JOINTS else slice(None), :2]
    detections = Detections(
        image_ids=np.array([entry["image_id"] for entry in kept], np.int64),
        joints_xy=xy,
        scores=np.array([entry["score"] for entry in kept], np.float64),
        boxes_xyxy=np.array([_box_of(entry, own) for entry, own in zip(kept, xy, strict=True)], np.float64),
    )
    ann_ids = np.array([entry["ann_id"] if rule == "annotation id" else -1 for entry in kept], np.int64)
    return FoundKeypoints(detections, rule, ann_ids, joints, dict(skipped))


def _entries(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise AnnotationError("no such file", where=path, remedy="check the path") from error
    except OSError as error:
        raise AnnotationError(f"cannot be read ({error.strerror})", where=path, remedy="check the path") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"is not JSON ({error})", where=path, remedy=f"see {_COCO_RESULTS}") from error
    if not isinstance(content, list):
        is_annotations = isinstance(content, dict) and "annotations" in content
        raise AnnotationError(
            "is an annotation file, not a result list" if is_annotations else "is not a COCO result list",
            where=path,
            remedy=f"give a JSON list of results ({_COCO_RESULTS})",
        )
    return content


def _joint_count(entries: list[Any], path: Path) -> int:
    """Return how many joints the people have, by the first entry that has any."""
    lists = [entry["keypoints"] for entry in entries if isinstance(entry, dict) and "keypoints" in entry]
    lengths = {len(values) for values in lists if isinstance(values, list)}
    if not lengths:
        raise AnnotationError(
            "has no keypoints" + ("" if entries else ", and no entry at all"),
            where=path,
            remedy=f"give COCO keypoint results ({_COCO_RESULTS}); a detector's boxes go to --boxes",
        )
    known = [joints for joints in (COCO_JOINTS, _LEGS) if 3 * joints in lengths]
    if len(known) != 1:
        found = ", ".join(str(length) for length in sorted(lengths))
        problem = f"should have 3 numbers for each of {COCO_JOINTS} or {_LEGS} joints, got lists of {found} numbers"
        raise AnnotationError(problem, where=path, remedy="write x, y, score for each joint, in COCO's order")
    return known[0]


def _usable(
    entries: list[Any],
    truth: Truth,
    problem_of: Callable[[dict[str, Any]], str | None],
    content_of: Callable[[dict[str, Any]], tuple[Any, ...]],
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Return the entries of people on scored images without a slip, and how many others there are by reason."""
    scored, known = set(truth.image_ids), set(truth.coco.images)
    kept, skipped = [], Counter[str]()
    seen: set[tuple[Any, ...]] = set()
    for entry in entries:
        problem = _entry_problem(entry, known) or problem_of(entry)
        if problem is None and (key := (entry["image_id"], *content_of(entry))) in seen:
            problem = DUPLICATE
        if problem is not None:
            skipped[problem] += 1
            continue
        seen.add(key)
        # An image that --limit or a missing file takes out is no slip of this file.
        kept += [entry] if entry["image_id"] in scored else []
    return kept, skipped


def _entry_problem(entry: Any, known_images: set[int]) -> str | None:
    if not isinstance(entry, dict) or not _is_id(entry.get("image_id")) or not is_finite_number(entry.get("score")):
        return BROKEN
    if entry.get("category_id", PERSON_CATEGORY_ID) != PERSON_CATEGORY_ID:
        return NOT_A_PERSON
    return None if entry["image_id"] in known_images else OTHER_IMAGE


def _box_problem(entry: Mapping[str, Any]) -> str | None:
    return None if _is_box(entry.get("bbox")) else BROKEN


def _keypoints_problem(entry: Mapping[str, Any], joints: int) -> str | None:
    values = entry.get("keypoints")
    is_whole = isinstance(values, list) and len(values) == 3 * joints and all(map(is_finite_number, values))
    return None if is_whole else BROKEN


def _best_of_images(entries: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    groups: dict[int, list[dict[str, Any]]] = {}
    for entry in entries:
        groups.setdefault(entry["image_id"], []).append(entry)
    best = [
        entry
        for group in groups.values()
        for entry in sorted(group, key=lambda entry: -float(entry["score"]))[:MAX_DETECTIONS]
    ]
    return best, len(entries) - len(best)


def _best_by_annotation(entries: list[dict[str, Any]], skipped: Counter[str]) -> list[dict[str, Any]]:
    """Keep the first of several results that name one annotation."""
    first: dict[int, dict[str, Any]] = {}
    for entry in entries:
        first.setdefault(entry["ann_id"], entry)
    if len(first) < len(entries):
        skipped[DUPLICATE] += len(entries) - len(first)
    return list(first.values())


def _match_rule(entries: list[dict[str, Any]]) -> MatchRule:
    if all(_is_id(entry.get("ann_id")) for entry in entries):
        return "annotation id"
    return "box" if all(_is_box(entry.get("bbox")) for entry in entries) else "similarity"


def _box_of(entry: Mapping[str, Any], xy: NDArray[np.float64]) -> list[float]:
    if _is_box(entry.get("bbox")):
        return _corners(entry["bbox"])
    return [float(edge) for edge in (*xy.min(axis=0), *xy.max(axis=0))]


def _corners(bbox: list[float]) -> list[float]:
    left, top, width, height = bbox
    return [left, top, left + width, top + height]


def _is_box(bbox: Any) -> bool:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(is_finite_number, bbox)):
        return False
    return bool(bbox[2] > 0 and bbox[3] > 0)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _reasons(skipped: Mapping[str, int]) -> str:
    told = ", ".join(f"{reason}: {count}" for reason, count in skipped.items())
    return f" ({told})" if told else ""
