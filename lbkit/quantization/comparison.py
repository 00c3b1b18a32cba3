"""How far a reduced file is from the fp32 file it was made of: joints, PCK joint by joint, knee angles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lbkit.core.angles import knee_flexion_deg
from lbkit.core.contract import Figure
from lbkit.core.estimator import PoseEstimator
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.evaluation.pck import THRESHOLDS, ImageBootstrap, box_heights_px, relative_distances
from lbkit.evaluation.scoring import MAIN_RULE, MAIN_THRESHOLD, RULES, PeopleScores
from lbkit.quantization.people import Crops, Source

SHIFT_CAP_PX = 10.0
"""A joint that jumps counts as this many input pixels in a mean: the circle of PCK@0.05 on a crop 256 high."""

SURE_SCORE = 0.3
"""The fp32 file is sure of joints that it scores so high. Shipped int8 files lose 0.1 to 0.3 % of those in annotated
boxes, and 0.2 to 0.9 % (1 to 3 joints) in boxes that the fp32 files find; files with ranges by min-max of noise lose
2.1 to 5.4 % (180 photographs of coco-val2017-subset, 2026-11-21). Of all joints the shipped files lose 2.0 to 3.2 %,
because faint maps jump between peaks that are alike."""

CHANCE = 0.05
"""Few joints tell a rate coarsely: more than is allowed is lost only if chance makes so many of it less often."""

_DIGITS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Joints:
    """What a model found on N crops.

    Attributes:
        input_xy: (N, K, 2) in input pixels.
        image_xy: (N, K, 2) in pixels of the photograph.
        scores: (N, K) heights of the peaks.
    """

    input_xy: NDArray[np.float64]
    image_xy: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the joints moved, label or not.

    Attributes:
        median_px: Median distance in input pixels.
        p99_px: Its 99th percentile.
        max_px: The greatest.
        mean_px: The mean, a jump counting `SHIFT_CAP_PX`.
        joints: How many joints were compared.
        knee_median_deg: Median change of knee flexion; None where no leg has an angle.
        knee_p99_deg: Its 99th percentile.
    """

    median_px: float
    p99_px: float
    max_px: float
    mean_px: float
    joints: int
    knee_median_deg: float | None
    knee_p99_deg: float | None


@dataclass(frozen=True, slots=True)
class PckChange:
    """PCK@0.05 over labelled joints before and after, with the 95 % bootstrap interval of the difference over images.

    Attributes:
        before: Of the fp32 file, 0 to 1.
        after: Of the reduced file.
        drop_points: Before less after in percentage points; negative is a gain.
        low: Lower bound of the drop.
        high: Upper bound of the drop.
        joints: How many joints count.
    """

    before: float
    after: float
    drop_points: float
    low: float
    high: float
    joints: int


@dataclass(frozen=True, slots=True)
class AgreementPck:
    """PCK@0.05 with the joints of the fp32 file, where it is sure of them, in place of labels.

    Attributes:
        drop_points: The lost joints in percentage points.
        lost: How many of the joints lie farther than 0.05 of the box's height away.
        joints: How many joints count: those that the fp32 file scores `SURE_SCORE` or more.
    """

    drop_points: float
    lost: int
    joints: int

    def exceeds(self, max_drop: float) -> bool:
        """Tell whether more is lost than `max_drop` points explain, by a one-sided binomial test at `CHANCE`."""
        rate = max_drop / 100
        if self.lost == 0 or rate >= 1:
            return False
        if rate == 0:
            return True
        fewer = sum(self._probability(count, rate) for count in range(self.lost))
        return 1 - fewer < CHANCE

    def _probability(self, count: int, rate: float) -> float:
        rest = self.joints - count
        ways = math.lgamma(self.joints + 1) - math.lgamma(count + 1) - math.lgamma(rest + 1)
        return math.exp(ways + count * math.log(rate) + rest * math.log1p(-rate))


def find_joints(estimator: PoseEstimator, crops: Crops) -> Joints:
    """Run a model on crops."""
    found = estimator.predict_input(list(crops.pixels))
    pairs = zip(found[..., :2], crops.transforms, strict=True)
    return Joints(found[..., :2], np.stack([transform.to_image(joints) for joints, transform in pairs]), found[..., 2])


def measure_shift(before: Joints, after: Joints) -> Shift:
    """Compare two files' joints on the same crops."""
    distances = np.linalg.norm(after.input_xy - before.input_xy, axis=-1)
    knees = np.abs(knee_flexion_deg(after.image_xy) - knee_flexion_deg(before.image_xy))
    knees = knees[np.isfinite(knees)]
    return Shift(
        median_px=_rounded(np.median(distances)),
        p99_px=_rounded(np.percentile(distances, 99)),
        max_px=_rounded(distances.max()),
        mean_px=_rounded(np.minimum(distances, SHIFT_CAP_PX).mean()),
        joints=int(distances.size),
        knee_median_deg=_rounded(np.median(knees)) if knees.size else None,
        knee_p99_deg=_rounded(np.percentile(knees, 99)) if knees.size else None,
    )


def measure_agreement(before: Joints, after: Joints, *, source: Source) -> AgreementPck | None:
    """Compare two files' joints on the same people by PCK@0.05; None where the first file is sure of no joint.

    Args:
        before: Of the fp32 file.
        after: Of the reduced file.
        source: The people, whose boxes are the measure.
    """
    is_sure = before.scores >= SURE_SCORE
    if not is_sure.any():
        return None
    heights = box_heights_px(source.boxes_xyxy)
    distances = relative_distances(after.image_xy, before.image_xy, heights_px=heights)[is_sure]
    lost = ~(distances <= MAIN_THRESHOLD)  # a joint that is no number is lost
    return AgreementPck(round(100 * float(lost.mean()), 2), lost=int(lost.sum()), joints=int(lost.size))


class Judge:
    """Scores joints on annotated people.

    Args:
        source: Annotated people.
    """

    def __init__(self, source: Source) -> None:
        if source.people is None:
            raise ValueError("a judge needs annotations")
        self._source = source
        self._bootstrap = ImageBootstrap(source.people.image_ids)
        self._scores = PeopleScores(source.people, norm="box", bootstrap=self._bootstrap)
        self._counted = self._scores.counted(MAIN_RULE)

    def area(self, joints: Joints) -> float:
        """Return the mean of PCK over t = 0.01 to 0.20, which chance moves less than PCK at one t."""
        distances = self._scores.distances(joints.image_xy)[self._counted]
        return float(np.mean([(distances <= threshold).mean() for threshold in THRESHOLDS]))

    def change(self, before: Joints, after: Joints) -> PckChange:
        """Return the change over all joints."""
        return self._change(before, after, self._counted)

    def changes_by_joint(self, before: Joints, after: Joints) -> dict[str, PckChange]:
        """Return the change of each joint that is labelled at all."""
        changes = {}
        for joint, name in enumerate(LOWER_BODY_6.names):
            only = np.zeros_like(self._counted)
            only[:, joint] = self._counted[:, joint]
            if only.any():
                changes[name] = self._change(before, after, only)
        return changes

    def figures(self, joints: Joints, *, date: str) -> tuple[Figure, ...]:
        """Return what goes into a contract: PCK at 0.05 and 0.10 by every rule, as `lbkit eval --write-card` has it."""
        curve = self._scores.curve(joints.image_xy)
        figures = []
        for threshold in (MAIN_THRESHOLD, 0.10):
            for rule in RULES:
                estimate = curve[rule][THRESHOLDS.index(threshold)]
                if estimate.value is None or estimate.low is None or estimate.high is None:
                    continue
                figures.append(
                    Figure(
                        metric=f"pck@{threshold:.2f} {rule}",
                        value=round(estimate.value, _DIGITS),
                        data=self._source.name,
                        persons=estimate.persons,
                        date=date,
                        interval=(round(estimate.low, _DIGITS), round(estimate.high, _DIGITS)),
                        data_sha256=self._source.sha256,
                    )
                )
        return tuple(figures)

    def _change(self, before: Joints, after: Joints, counted: NDArray[np.bool_]) -> PckChange:
        right = [
            ((self._scores.distances(joints.image_xy) <= MAIN_THRESHOLD) & counted).sum(axis=1)
            for joints in (before, after)
        ]
        total = int(counted.sum())
        low, high = self._bootstrap.intervals((right[0] - right[1])[:, None], counted.sum(axis=1)[:, None])[0]
        shares = [int(each.sum()) / total for each in right]
        return PckChange(
            before=round(shares[0], _DIGITS),
            after=round(shares[1], _DIGITS),
            drop_points=round(100 * (shares[0] - shares[1]), 2),
            low=round(100 * float(low), 2),
            high=round(100 * float(high), 2),
            joints=total,
        )


def changes_text(changes: Mapping[str, PckChange]) -> str:
    """Return drops joint by joint in one line."""
    return ", ".join(f"{name} {change.drop_points:+.2f}" for name, change in changes.items())


def _rounded(value: float | np.floating) -> float:
    return round(float(value), 3)
