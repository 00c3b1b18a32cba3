"""Which found person stands for which annotated one, for PCK where people were not looked for in annotated boxes.

Every annotated person takes the best of the image's found people by one rule; several may take the same one. Whoever
has none counts as wrong in every labelled joint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lbkit.evaluation.oks import Detections, similarities
from lbkit.evaluation.truth import People

MatchRule = Literal["annotation id", "box", "similarity"]
MATCH_RULES: tuple[MatchRule, ...] = get_args(MatchRule)
MATCH_TEXTS: dict[MatchRule, str] = {
    "annotation id": "each annotated person is judged by the result that names it",
    "box": "each annotated person is judged by the found box that overlaps its own most, at an IoU of 0.5 or more",
    "similarity": "each annotated person is judged by the most similar of the found people, at an OKS of 0.1 or more; "
    "that flatters, and a file with boxes is judged by them instead",
}

MIN_IOU = 0.5
MIN_SIMILARITY = 0.1


def match_people(
    people: People, detections: Detections, *, rule: MatchRule, ann_ids: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Return (N,) rows of the detections that stand for the people, -1 where none does.

    Args:
        people: The annotated people.
        detections: Those found.
        rule: How they are matched.
        ann_ids: (D,) the annotation that each detection names, for the rule "annotation id".
    """
    if rule == "annotation id":
        assert ann_ids is not None
        row_of = {int(ann_id): row for row, ann_id in enumerate(ann_ids)}
        return np.array([row_of.get(int(ann_id), -1) for ann_id in people.ann_ids], np.int64)
    by_image: dict[int, list[int]] = {}
    for row, image_id in enumerate(detections.image_ids.tolist()):
        by_image.setdefault(image_id, []).append(row)
    choose = _by_box if rule == "box" else _by_similarity
    return np.array([_best(people, person, detections, by_image, choose) for person in range(len(people))], np.int64)


def matched_keypoints(detections: Detections, matches: NDArray[np.int64], *, joints: int) -> NDArray[np.float64]:
    """Return (N, K, 2) found joints of the matched people; infinitely far away where nobody was found."""
    found = np.full((len(matches), joints, 2), np.inf)
    found[matches >= 0] = detections.joints_xy[matches[matches >= 0]]
    return found


def box_ious(boxes_xyxy: NDArray[np.float64], box_xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (D,) intersections over union of (D, 4) boxes with one."""
    sides = np.minimum(boxes_xyxy[:, 2:], box_xyxy[2:]) - np.maximum(boxes_xyxy[:, :2], box_xyxy[:2])
    overlaps = np.clip(sides, 0.0, None).prod(axis=1)
    areas = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1) + (box_xyxy[2:] - box_xyxy[:2]).prod()
    return np.asarray(overlaps / (areas - overlaps))


_Chooser = Callable[[People, int, Detections], tuple[NDArray[np.float64], float]]


def _best(people: People, person: int, detections: Detections, by_image: dict[int, list[int]], choose: _Chooser) -> int:
    rows = by_image.get(int(people.image_ids[person]), [])
    if not rows:
        return -1
    values, least = choose(people, person, detections.take(np.array(rows)))
    best = int(values.argmax())
    return rows[best] if values[best] >= least else -1


def _by_box(people: People, person: int, candidates: Detections) -> tuple[NDArray[np.float64], float]:
    return box_ious(candidates.boxes_xyxy, people.boxes_xyxy[person]), MIN_IOU


def _by_similarity(people: People, person: int, candidates: Detections) -> tuple[NDArray[np.float64], float]:
    values = similarities(
        candidates.joints_xy,
        people.joints_xy[person],
        labelled=people.visibility[person] > 0,
        area=float(people.areas[person]),
    )
    return values, MIN_SIMILARITY
