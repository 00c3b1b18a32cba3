"""Figures of one model on annotated people: PCK with its curve, joints and slices, knee flexion, the worst people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lbkit.core.angles import knee_flexion_deg
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.core.records import record_to_mapping
from lbkit.evaluation.oks import OksFigures
from lbkit.evaluation.pck import THRESHOLDS, ImageBootstrap, PckNorm, relative_distances
from lbkit.evaluation.slices import LegsOnly, labelled_flexion_deg, people_groups
from lbkit.evaluation.truth import People

Rule = Literal["v>0", "v=2", "all six"]
RULES: tuple[Rule, ...] = get_args(Rule)
RULE_TEXTS: dict[Rule, str] = {
    "v>0": "labelled joints, hidden ones too",
    "v=2": "visible joints",
    "all six": "joints of people all of whose six are labelled",
}
MAIN_RULE: Rule = "v>0"
MAIN_THRESHOLD = 0.05
TABLE_THRESHOLDS = (0.05, 0.10)
"""Joints and slices are shown at these t."""

WORST_PEOPLE = 20
LEGS_ONLY = "framing"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share with its 95 % bootstrap interval over images; None where nothing is counted.

    Attributes:
        value: The share.
        low: Lower bound.
        high: Upper bound.
        joints: How many joints count.
        persons: How many people have such a joint.
    """

    value: float | None
    low: float | None
    high: float | None
    joints: int
    persons: int


@dataclass(frozen=True, slots=True)
class AngleError:
    """How far measured knee flexion is off, over legs with all three joints labelled.

    Attributes:
        median_deg: Median absolute difference; None without such a leg.
        p90_deg: Its 90th percentile.
        legs: How many legs count; one whose person was not found counts as 180 degrees off.
    """

    median_deg: float | None
    p90_deg: float | None
    legs: int


@dataclass(frozen=True, slots=True)
class SliceFigures:
    """One group of people.

    Attributes:
        kind: What people are grouped by.
        name: The group.
        persons: How many people are in it.
        pck: Estimate by t, as text such as "0.05", for joints with v > 0.
        knee: Error of knee flexion.
    """

    kind: str
    name: str
    persons: int
    pck: Mapping[str, Estimate]
    knee: AngleError


@dataclass(frozen=True, slots=True)
class WorstPerson:
    """A person whom a model sees wrongly.

    Attributes:
        row: Row among the scored people.
        ann_id: COCO annotation id.
        image_id: COCO image id.
        mean_distance: Mean relative distance of the labelled joints; None where nobody was found.
    """

    row: int
    ann_id: int
    image_id: int
    mean_distance: float | None


@dataclass(frozen=True, slots=True)
class DataSummary:
    """What a model was judged on.

    Attributes:
        name: Name of the data.
        split: The split.
        annotations_sha256: Hash of the annotation file.
        images: Photographs scored.
        persons: People scored by PCK.
        skipped: What was left out, by reason.
    """

    name: str
    split: str
    annotations_sha256: str
    images: int
    persons: int
    skipped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is judged.

    Attributes:
        name: How tables call it.
        file: The model's or result's file.
        backend: "ort", "torch" or "results".
        provider: Where it ran; None for a result file.
        decoder: How heatmaps became joints; None for a result file.
        is_own_decoder: Whether that is the contract's way.
        precision: The contract's; None for a result file.
        weights_sha256: The contract's; None for a result file.
        flip: Whether it averaged over the mirror image.
        boxes: "gt", or the name of the file of boxes, or of results.
        matching: How found people were matched to annotated ones for PCK.
    """

    name: str
    file: str
    backend: str
    provider: str | None
    decoder: str | None
    is_own_decoder: bool
    precision: str | None
    weights_sha256: str | None
    flip: bool
    boxes: str
    matching: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything measured of one model.

    Attributes:
        subject: What was judged.
        data: On what.
        norm: What t is multiplied with (see `NORM_TEXTS`).
        thresholds: The T values of t.
        curve: T estimates by rule.
        joints: Estimate by joint and by t, for joints with v > 0.
        knee: Error of knee flexion.
        oks: COCO's keypoint figures over the six joints.
        slices: Groups of people.
        worst: The worst people, worst first.
        model_seconds: Time inside the model, with decoding; None for a result file.
        crops: How many crops that time was for.
    """

    subject: Subject
    data: DataSummary
    norm: PckNorm
    thresholds: tuple[float, ...]
    curve: Mapping[str, tuple[Estimate, ...]]
    joints: Mapping[str, Mapping[str, Estimate]]
    knee: AngleError
    oks: OksFigures
    slices: tuple[SliceFigures, ...]
    worst: tuple[WorstPerson, ...]
    model_seconds: float | None
    crops: int

    def pck(self, threshold: float = MAIN_THRESHOLD, *, rule: Rule = MAIN_RULE) -> Estimate:
        """Return PCK at one of the thresholds."""
        return self.curve[rule][self.thresholds.index(threshold)]

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as JSON values."""
        return record_to_mapping(self)


class PeopleScores:
    """Counts joints of annotated people against found ones; all figures share one bootstrap.

    Args:
        people: N annotated people.
        norm: What distances are measured by.
        bootstrap: The draws over these people's images.
    """

    def __init__(self, people: People, *, norm: PckNorm, bootstrap: ImageBootstrap) -> None:
        self._people = people
        self._lengths = people.lengths_px(norm)
        self._bootstrap = bootstrap
        self._true_flexion = labelled_flexion_deg(people)

    def uncounted(self) -> int:
        """Return how many people have no length to measure by."""
        return int(np.isnan(self._lengths).sum())

    def counted(self, rule: Rule) -> NDArray[np.bool_]:
        """Return (N, 6) which joints count."""
        visibility = self._people.visibility
        chosen = visibility == 2 if rule == "v=2" else visibility > 0
        if rule == "all six":
            chosen = chosen & chosen.all(axis=1, keepdims=True)
        return chosen & ~np.isnan(self._lengths)[:, None]

    def distances(self, found_xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N, 6) relative distances."""
        return relative_distances(found_xy, self._people.joints_xy, heights_px=self._lengths)

    def estimates(
        self, distances: NDArray[np.float64], counted: NDArray[np.bool_], thresholds: Sequence[float]
    ) -> tuple[Estimate, ...]:
        """Return PCK at each threshold.

        Args:
            distances: (N, 6) relative distances.
            counted: (N, 6) which joints count.
            thresholds: T values of t.
        """
        right = np.stack([((distances <= t) & counted).sum(axis=1) for t in thresholds], axis=1)
        totals = np.repeat(counted.sum(axis=1)[:, None], len(thresholds), axis=1)
        bounds = self._bootstrap.intervals(right, totals)
        joints, persons = int(counted.sum()), int(counted.any(axis=1).sum())
        if not joints:
            return (Estimate(None, None, None, 0, 0),) * len(thresholds)
        return tuple(
            Estimate(float(hits) / joints, float(low), float(high), joints, persons)
            for hits, (low, high) in zip(right.sum(axis=0), bounds, strict=True)
        )

    def curve(self, found_xy: NDArray[np.float64]) -> dict[str, tuple[Estimate, ...]]:
        """Return PCK over all thresholds by rule."""
        distances = self.distances(found_xy)
        return {rule: self.estimates(distances, self.counted(rule), THRESHOLDS) for rule in RULES}

    def by_joint(self, found_xy: NDArray[np.float64]) -> dict[str, dict[str, Estimate]]:
        """Return PCK by joint and threshold."""
        distances, counted = self.distances(found_xy), self.counted(MAIN_RULE)
        figures = {}
        for joint, name in enumerate(LOWER_BODY_6.names):
            only = np.zeros_like(counted)
            only[:, joint] = counted[:, joint]
            figures[name] = _by_threshold(self.estimates(distances, only, TABLE_THRESHOLDS))
        return figures

    def slice_figures(
        self, found_xy: NDArray[np.float64], members: NDArray[np.bool_], *, kind: str, name: str
    ) -> SliceFigures:
        """Return one group's figures."""
        counted = self.counted(MAIN_RULE) & members[:, None]
        pck = _by_threshold(self.estimates(self.distances(found_xy), counted, TABLE_THRESHOLDS))
        return SliceFigures(kind, name, int(members.sum()), pck, self.knee_error(found_xy, members))

    def slices(self, found_xy: NDArray[np.float64]) -> list[SliceFigures]:
        """Return the figures of all groups of people."""
        groups = people_groups(self._people)
        return [self.slice_figures(found_xy, group.members, kind=group.kind, name=group.name) for group in groups]

    def framing_slices(
        self, found_xy: NDArray[np.float64], legs: LegsOnly, legs_xy: NDArray[np.float64]
    ) -> list[SliceFigures]:
        """Return the same people's figures on whole photographs and on those cut at the hips.

        Lengths are those of the whole person in both, so that t means the same number of pixels.

        Args:
            found_xy: (N, 6, 2) found on the whole photographs.
            legs: Who was cut.
            legs_xy: (M, 6, 2) found on the cut ones, in pixels of the whole.
        """
        members = np.zeros(len(self._people), bool)
        members[legs.rows] = True
        replaced = found_xy.copy()
        replaced[legs.rows] = legs_xy
        return [
            self.slice_figures(found_xy, members, kind=LEGS_ONLY, name="whole photograph, same people"),
            self.slice_figures(replaced, members, kind=LEGS_ONLY, name="legs only"),
        ]

    def knee_error(self, found_xy: NDArray[np.float64], members: NDArray[np.bool_] | None = None) -> AngleError:
        """Return how far knee flexion is off, over all people or some."""
        is_found = np.isfinite(found_xy)
        found = knee_flexion_deg(np.where(is_found, found_xy, 0.0))
        errors = np.nan_to_num(np.abs(found - self._true_flexion), nan=180.0)
        counted = ~np.isnan(self._true_flexion) & (True if members is None else members[:, None])
        if not counted.any():
            return AngleError(None, None, 0)
        median, p90 = np.percentile(errors[counted], (50, 90))
        return AngleError(float(median), float(p90), int(counted.sum()))

    def worst(self, found_xy: NDArray[np.float64]) -> tuple[WorstPerson, ...]:
        """Return the people with the largest mean distance over labelled joints, those not found first."""
        distances, counted = self.distances(found_xy), self.counted(MAIN_RULE)
        totals = counted.sum(axis=1)
        sums = np.where(counted, distances, 0.0).sum(axis=1)
        means = np.divide(sums, totals, out=np.full(len(totals), -1.0), where=totals > 0)
        rows = np.argsort(-means, kind="stable")[:WORST_PEOPLE]
        return tuple(self._worst_person(int(row), float(means[row])) for row in rows if means[row] >= 0)

    def _worst_person(self, row: int, mean: float) -> WorstPerson:
        ann_id, image_id = int(self._people.ann_ids[row]), int(self._people.image_ids[row])
        return WorstPerson(row, ann_id, image_id, mean if np.isfinite(mean) else None)


def _by_threshold(estimates: Sequence[Estimate]) -> dict[str, Estimate]:
    return {f"{t:.2f}": estimate for t, estimate in zip(TABLE_THRESHOLDS, estimates, strict=True)}
