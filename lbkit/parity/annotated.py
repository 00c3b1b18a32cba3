"""What a candidate's differences cost in accuracy, where people are annotated."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from lbkit.evaluation.oks import Detections, oks_figures
from lbkit.evaluation.pck import box_heights_px, pck, relative_distances
from lbkit.evaluation.scoring import MAIN_THRESHOLD
from lbkit.evaluation.truth import People, Truth
from lbkit.evaluation.walk import Unusable
from lbkit.parity.samples import Samples
from lbkit.parity.tally import Answers

log = logging.getLogger(__name__)


def accuracy_changes(samples: Samples, answers: Answers, unusable: Unusable) -> tuple[float | None, float | None]:
    """Return by how much PCK@0.05 over labelled joints and six-joint OKS AP change from reference to candidate.

    Args:
        samples: The people; without annotations both are None.
        answers: Where both paths put their joints.
        unusable: Who was left out.

    Returns:
        The changes of PCK and of AP; AP is None where pycocotools is not installed.
    """
    if samples.truth is None:
        return None, None
    truth = samples.truth.without_people(unusable.rows).without_images(unusable.images)
    pair = [np.nan_to_num(xy, nan=-1e6) for xy in (answers.found, answers.reference)]
    changes = [_pck(truth.people, xy) for xy in pair]
    return changes[0] - changes[1], _ap_change(truth, pair[0], pair[1])


def _pck(people: People, keypoints: NDArray[np.float64]) -> float:
    heights = box_heights_px(people.boxes_xyxy)
    distances = relative_distances(keypoints[..., :2], people.joints_xy, heights_px=heights)
    return pck(distances, people.visibility > 0, threshold=MAIN_THRESHOLD)


def _ap_change(truth: Truth, found: NDArray[np.float64], reference: NDArray[np.float64]) -> float | None:
    try:
        found_ap, reference_ap = (_ap(truth, keypoints) for keypoints in (found, reference))
    except ModuleNotFoundError as error:
        log.warning('the change of OKS AP is not measured: %s is not installed (pip install "lbkit[eval]")', error.name)
        return None
    return None if found_ap is None or reference_ap is None else found_ap - reference_ap


def _ap(truth: Truth, keypoints: NDArray[np.float64]) -> float | None:
    people = truth.people
    scores = keypoints[..., 2].mean(axis=1)
    return oks_figures(truth, Detections(people.image_ids, keypoints[..., :2], scores, people.boxes_xyxy)).ap
