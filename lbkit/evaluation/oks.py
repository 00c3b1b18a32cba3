"""Average precision and recall by object keypoint similarity of the leg joints, counted by pycocotools.

The ground truth is rebuilt with the K joints alone. `num_keypoints` is counted over them, so that people without a
labelled leg are ignored rather than missed, and every annotated image is scored, with somebody found on it or not.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit.core.coco import CocoPerson
from lbkit.core.keypoints import LOWER_BODY_6, KeypointSchema
from lbkit.core.results import PERSON_CATEGORY_ID
from lbkit.evaluation.truth import Truth

MAX_DETECTIONS = 20
"""COCO counts the best so many people of an image."""

_STATS = ("ap", "ap50", "ap75", "ap_medium", "ap_large", "ar", "ar50", "ar75", "ar_medium", "ar_large")
"""The order of pycocotools' `stats`."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """D people that a model found, on any of the scored images.

    Attributes:
        image_ids: (D,) COCO image ids.
        joints_xy: (D, K, 2) image pixels.
        scores: (D,) the people's scores; the highest are counted first.
        boxes_xyxy: (D, 4) boxes that they were looked for in, or that hold their joints.
    """

    image_ids: NDArray[np.int64]
    joints_xy: NDArray[np.float64]
    scores: NDArray[np.float64]
    boxes_xyxy: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.image_ids)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Detections:
        """Return some of them."""
        return Detections(self.image_ids[rows], self.joints_xy[rows], self.scores[rows], self.boxes_xyxy[rows])


@dataclass(frozen=True, slots=True)
class OksFigures:
    """COCO's keypoint figures over the leg joints; None where there is nobody to count.

    Attributes:
        ap: Mean average precision over similarities 0.50 to 0.95.
        ap50: Average precision at similarity 0.50.
        ap75: Average precision at 0.75.
        ap_medium: `ap` of people of 32² to 96² square pixels.
        ap_large: `ap` of larger people.
        ar: Mean recall over similarities 0.50 to 0.95.
        ar50: Recall at 0.50.
        ar75: Recall at 0.75.
        ar_medium: `ar` of people of 32² to 96² square pixels.
        ar_large: `ar` of larger people.
        persons: People with a labelled leg joint, who are to be found.
        ignored: People without one and crowds, who are neither right nor wrong to find.
        images: Images scored.
        detections: People found.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_medium: float | None
    ap_large: float | None
    ar: float | None
    ar50: float | None
    ar75: float | None
    ar_medium: float | None
    ar_large: float | None
    persons: int
    ignored: int
    images: int
    detections: int


def oks_figures(truth: Truth, detections: Detections, *, keypoints: KeypointSchema = LOWER_BODY_6) -> OksFigures:
    """Return COCO's keypoint figures of people found on a root's images.

    Args:
        truth: The annotated people.
        detections: Those found; on other images than the truth's nobody may be.
        keypoints: The K joints and their constants.

    Raises:
        ModuleNotFoundError: pycocotools is not installed.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations = _annotations(truth, keypoints)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        expected = _loaded(COCO(), truth, annotations)
        found = _loaded(COCO(), truth, _results(detections))
        counting = COCOeval(expected, found, "keypoints")
        counting.params.kpt_oks_sigmas = np.array(keypoints.oks_sigmas)
        counting.params.imgIds = sorted(truth.image_ids)
        counting.params.catIds = [PERSON_CATEGORY_ID]
        counting.params.maxDets = [MAX_DETECTIONS]
        counting.evaluate()
        counting.accumulate()
        counting.summarize()
    figures = (None if value < 0 else float(value) for value in counting.stats)
    to_find = sum(annotation["num_keypoints"] > 0 for annotation in annotations)
    return OksFigures(
        **dict(zip(_STATS, figures, strict=True)),
        persons=to_find,
        ignored=len(annotations) - to_find,
        images=len(truth.image_ids),
        detections=len(detections),
    )


def similarities(
    joints_xy: NDArray[np.float64],
    true_xy: NDArray[np.float64],
    *,
    labelled: NDArray[np.bool_],
    area: float,
    keypoints: KeypointSchema = LOWER_BODY_6,
) -> NDArray[np.float64]:
    """Return the (D,) object keypoint similarities of found people with one annotated person.

    Args:
        joints_xy: (D, K, 2) found joints in image pixels.
        true_xy: (K, 2) annotated joints.
        labelled: (K,) which of them count, at least one.
        area: The annotated person's, in square pixels.
        keypoints: The K joints' constants.
    """
    variances = (2 * np.array(keypoints.oks_sigmas)) ** 2
    squares = ((joints_xy - true_xy) ** 2).sum(axis=-1)
    exponents = squares / variances / (area + np.spacing(1)) / 2
    return np.asarray(np.exp(-exponents)[:, labelled].mean(axis=1))


def _annotations(truth: Truth, keypoints: KeypointSchema) -> list[dict[str, Any]]:
    """Return every usable annotation of the scored images with the K joints alone."""
    images, scored = set(truth.image_ids), set(truth.people.ann_ids.tolist())
    persons = [person for person in truth.coco.persons if person.image_id in images]
    return [
        _annotation(number, person, joints=len(keypoints), is_scored=person.ann_id in scored)
        for number, person in enumerate(persons, 1)
    ]


def _annotation(number: int, person: CocoPerson, *, joints: int, is_scored: bool) -> dict[str, Any]:
    visibility = person.visibility[:joints]
    flat = np.concatenate([person.joints_xy[:joints], visibility[:, None]], axis=1).ravel()
    return {
        # Numbered from 1: in pycocotools an id of 0 reads as "matched nobody".
        "id": number,
        "image_id": person.image_id,
        "category_id": PERSON_CATEGORY_ID,
        "keypoints": flat.tolist(),
        "num_keypoints": int((visibility > 0).sum()) if is_scored else 0,
        "area": person.area,
        "bbox": _bbox(person.box_xyxy),
        "iscrowd": int(person.is_crowd),
    }


def _results(detections: Detections) -> list[dict[str, Any]]:
    return [
        {
            "id": number + 1,
            "image_id": int(detections.image_ids[number]),
            "category_id": PERSON_CATEGORY_ID,
            "keypoints": np.concatenate([joints, np.ones((len(joints), 1))], axis=1).ravel().tolist(),
            "score": float(detections.scores[number]),
            "bbox": _bbox(box),
            # COCO sorts found people into sizes by the extent of their joints.
            "area": float(np.ptp(joints, axis=0).prod()),
            "iscrowd": 0,
        }
        for number, (joints, box) in enumerate(zip(detections.joints_xy, detections.boxes_xyxy, strict=True))
    ]


def _loaded(coco: Any, truth: Truth, annotations: list[dict[str, Any]]) -> Any:
    coco.dataset = {
        "images": [{"id": image_id} for image_id in truth.image_ids],
        "annotations": annotations,
        "categories": [{"id": PERSON_CATEGORY_ID, "name": "person"}],
    }
    coco.createIndex()
    return coco


def _bbox(box_xyxy: NDArray[np.float64]) -> list[float]:
    left, top, right, bottom = (float(edge) for edge in box_xyxy)
    return [left, top, right - left, bottom - top]
