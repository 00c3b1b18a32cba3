"""Models judged on a COCO root, several at once, each photograph read once; and result files of other programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lbkit.core.estimator import PoseEstimator
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.errors import AnnotationError
from lbkit.evaluation.matching import MATCH_TEXTS, match_people, matched_keypoints
from lbkit.evaluation.oks import Detections, oks_figures
from lbkit.evaluation.pck import THRESHOLDS, ImageBootstrap, PckNorm
from lbkit.evaluation.result_files import FoundBoxes, read_found_boxes, read_found_keypoints
from lbkit.evaluation.scoring import DataSummary, Evaluation, PeopleScores, Subject
from lbkit.evaluation.slices import LegsOnly, legs_only
from lbkit.evaluation.truth import (
    DEFAULT_ALLOWED_MISSING,
    People,
    Truth,
    check_missing,
    without_missing_images,
)
from lbkit.evaluation.walk import Target, WalkResult, run_targets

ANNOTATED_BOXES = "gt"
OWN_BOX = "each annotated person is judged by what was found in its own box"

_NO_LENGTH = "person without a length for the PCK rule"


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """How models are judged.

    Attributes:
        norm: What distances are measured by.
        boxes: A COCO result list of boxes to look in; the annotated boxes when None.
        allow_missing: Share of the photographs that may be missing or unreadable.
    """

    norm: PckNorm = "box"
    boxes: Path | None = None
    allow_missing: float = DEFAULT_ALLOWED_MISSING


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A loaded model to be judged.

    Attributes:
        name: How tables call it.
        file: Its file.
        backend: "ort" or "torch".
        provider: Where it really runs.
        estimator: The model.
        flip: Whether its backend averages over the mirror image.
    """

    name: str
    file: Path
    backend: str
    provider: str
    estimator: PoseEstimator
    flip: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A model's figures, and the joints they come from.

    Attributes:
        evaluation: The figures.
        people: N annotated people, those that count.
        found_xy: (N, 6, 2) found joints in image pixels, infinite where nobody was found.
    """

    evaluation: Evaluation
    people: People
    found_xy: NDArray[np.float64]


def evaluate_models(
    candidates: Sequence[Candidate],
    truth: Truth,
    *,
    options: EvaluationOptions,
    on_image: Callable[[], object] = lambda: None,
) -> tuple[list[Judged], Truth]:
    """Judge models on a root's people.

    A person's score is the mean of its joints' scores, times the box's own score where boxes come from a detector.

    Args:
        candidates: The models.
        truth: The annotated people.
        options: How they are judged.
        on_image: Called after each photograph.

    Returns:
        The models' figures, and the truth without what could not be used.

    Raises:
        AnnotationError: Too many photographs are missing, or the file of boxes cannot be used.
        ModelError: A model put out something that is not a finite number.
    """
    boxes = None if options.boxes is None else read_found_boxes(options.boxes, truth)
    looked_at = set(truth.people.image_ids.tolist()) | set([] if boxes is None else boxes.image_ids.tolist())
    truth = without_missing_images(truth, looked_at, allowed_share=options.allow_missing)
    boxes = None if boxes is None else boxes.on_images(truth.image_ids)
    legs = legs_only(truth.people)
    targets = _annotated_targets(truth, legs) if boxes is None else _found_targets(boxes)
    walked = run_targets(
        [candidate.estimator for candidate in candidates],
        targets,
        paths={image_id: truth.image_path(image_id) for image_id in truth.image_ids},
        sizes={image_id: truth.coco.images[image_id].size for image_id in truth.image_ids},
        on_image=on_image,
    )
    check_missing(walked.bad_images, looked_at, truth=truth, allowed_share=options.allow_missing)
    if options.boxes is None or boxes is None:
        return _judge_annotated(candidates, truth, walked, legs, norm=options.norm)
    return _judge_found(candidates, truth, walked, boxes, file=options.boxes, norm=options.norm)


def evaluate_results(path: Path, truth: Truth, *, norm: PckNorm = "box") -> tuple[Judged, Truth]:
    """Judge a file of results that any program wrote: COCO keypoint results with 17 joints or the six.

    Args:
        path: The result file.
        truth: The annotated people.
        norm: What distances are measured by.

    Returns:
        Its figures, and the truth with what was left out of the file among the skipped.

    Raises:
        AnnotationError: The file cannot be used.
    """
    found = read_found_keypoints(path, truth)
    truth = replace(truth, skipped=dict(Counter(truth.skipped) + Counter(found.skipped)))
    matches = match_people(truth.people, found.detections, rule=found.rule, ann_ids=found.ann_ids)
    found_xy = matched_keypoints(found.detections, matches, joints=len(LOWER_BODY_6))
    subject = Subject(
        name=path.name,
        file=str(path),
        backend="results",
        provider=None,
        decoder=None,
        is_own_decoder=True,
        precision=None,
        weights_sha256=None,
        flip=False,
        boxes=path.name,
        matching=MATCH_TEXTS[found.rule],
    )
    return _judged(subject, truth, found_xy, found.detections, norm=norm), truth


def _annotated_targets(truth: Truth, legs: LegsOnly) -> list[Target]:
    """Return everybody's own box, and the boxes of the legs alone behind them, ordered by image."""
    people = truth.people
    own = [Target(row, int(people.image_ids[row]), people.boxes_xyxy[row]) for row in range(len(people))]
    return own + legs.targets(people, first_row=len(own))


def _found_targets(boxes: FoundBoxes) -> list[Target]:
    return [
        Target(row, int(image_id), box)
        for row, (image_id, box) in enumerate(zip(boxes.image_ids, boxes.boxes_xyxy, strict=True))
    ]


def _judge_annotated(
    candidates: Sequence[Candidate],
    truth: Truth,
    walked: WalkResult,
    legs: LegsOnly,
    *,
    norm: PckNorm,
) -> tuple[list[Judged], Truth]:
    count = len(truth.people)
    bad_people = {row: reason for row, reason in walked.bad_rows.items() if row < count}
    is_used = _usable_rows(truth.people.image_ids, walked.bad_images, bad_people)
    legs_used = np.array([is_used[row] and count + i not in walked.bad_rows for i, row in enumerate(legs.rows)], bool)
    new_row = np.cumsum(is_used) - 1
    kept_legs = LegsOnly(new_row[legs.rows[legs_used]], legs.cut_rows[legs_used])
    used = truth.without_people(bad_people).without_images(walked.bad_images)
    judged = []
    for candidate, keypoints, seconds in zip(candidates, walked.keypoints, walked.seconds, strict=True):
        own = keypoints[:count][is_used]
        detections = Detections(used.people.image_ids, own[..., :2], own[..., 2].mean(axis=1), used.people.boxes_xyxy)
        legs_xy = keypoints[count:][legs_used][..., :2]
        subject = _subject(candidate, boxes=ANNOTATED_BOXES, matching=OWN_BOX)
        judged.append(
            _judged(
                subject,
                used,
                own[..., :2],
                detections,
                norm=norm,
                legs=(kept_legs, legs_xy),
                walk=(seconds, len(keypoints)),
            )
        )
    return judged, used


def _judge_found(
    candidates: Sequence[Candidate],
    truth: Truth,
    walked: WalkResult,
    boxes: FoundBoxes,
    *,
    file: Path,
    norm: PckNorm,
) -> tuple[list[Judged], Truth]:
    is_used = _usable_rows(boxes.image_ids, walked.bad_images, walked.bad_rows)
    skipped = Counter(truth.skipped) + Counter(boxes.skipped) + Counter(walked.bad_rows.values())
    used = replace(truth, skipped=dict(skipped)).without_images(walked.bad_images)
    judged = []
    for candidate, keypoints, seconds in zip(candidates, walked.keypoints, walked.seconds, strict=True):
        own = keypoints[is_used]
        scores = own[..., 2].mean(axis=1) * boxes.scores[is_used]
        detections = Detections(boxes.image_ids[is_used], own[..., :2], scores, boxes.boxes_xyxy[is_used])
        matches = match_people(used.people, detections, rule="box")
        found_xy = matched_keypoints(detections, matches, joints=len(LOWER_BODY_6))
        subject = _subject(candidate, boxes=file.name, matching=MATCH_TEXTS["box"])
        judged.append(_judged(subject, used, found_xy, detections, norm=norm, walk=(seconds, len(keypoints))))
    return judged, used


def _usable_rows(
    image_ids: NDArray[np.int64], bad_images: Mapping[int, str], bad_rows: Mapping[int, str]
) -> NDArray[np.bool_]:
    is_used = ~np.isin(image_ids, np.array(list(bad_images), np.int64))
    is_used[list(bad_rows)] = False
    return is_used


def _subject(candidate: Candidate, *, boxes: str, matching: str) -> Subject:
    contract = candidate.estimator.contract
    return Subject(
        name=candidate.name,
        file=str(candidate.file),
        backend=candidate.backend,
        provider=candidate.provider,
        decoder=candidate.estimator.decoder,
        is_own_decoder=candidate.estimator.decoder == contract.heatmap.decoder,
        precision=contract.precision,
        weights_sha256=contract.weights_sha256,
        flip=candidate.flip,
        boxes=boxes,
        matching=matching,
    )


def _judged(
    subject: Subject,
    truth: Truth,
    found_xy: NDArray[np.float64],
    detections: Detections,
    *,
    norm: PckNorm,
    legs: tuple[LegsOnly, NDArray[np.float64]] | None = None,
    walk: tuple[float, int] | None = None,
) -> Judged:
    people = truth.people
    if not len(people):
        raise AnnotationError("nobody is left to be scored", where=truth.root.annotations, remedy="check the images")
    scores = PeopleScores(people, norm=norm, bootstrap=ImageBootstrap(people.image_ids))
    framing = [] if legs is None or not len(legs[0].rows) else scores.framing_slices(found_xy, *legs)
    uncounted = {_NO_LENGTH: scores.uncounted()} if scores.uncounted() else {}
    evaluation = Evaluation(
        subject=subject,
        data=DataSummary(
            name=truth.name,
            split=truth.root.split,
            annotations_sha256=truth.annotations_sha256,
            images=len(truth.image_ids),
            persons=len(people),
            skipped=dict(truth.skipped) | uncounted,
        ),
        norm=norm,
        thresholds=THRESHOLDS,
        curve=scores.curve(found_xy),
        joints=scores.by_joint(found_xy),
        knee=scores.knee_error(found_xy),
        oks=oks_figures(truth, detections),
        slices=(*framing, *scores.slices(found_xy)),
        worst=scores.worst(found_xy),
        model_seconds=None if walk is None else walk[0],
        crops=0 if walk is None else walk[1],
    )
    return Judged(evaluation, people, found_xy)
