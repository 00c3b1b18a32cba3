"""What is told of each squat: depth, tempo, knees, evenness, steadiness, and remarks that limits call for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lbkit.motion.angles import FrameAngles
from lbkit.motion.depth import DepthSignal
from lbkit.motion.limits import FeedbackRule, MeasuringLimits
from lbkit.motion.measures import MEASURES
from lbkit.motion.mending import MendedTrack
from lbkit.motion.phases import CutName, SquatSpan
from lbkit.motion.posture import flexion_of_height
from lbkit.motion.view import View

Doubles = NDArray[np.float64]

_SKEWED_IN_OBLIQUE: Final = frozenset({"depth_deg", "max_knee_flexion_deg", "knee_flexion_difference_deg"})


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a repetition that a limit calls attention to.

    Attributes:
        code: What it is, a name of `limits.toml`.
        measure: What was looked at.
        value: What was measured.
        limit: Where remarks begin.
        source: Where the limit comes from.
        sentence: The remark in words.
    """

    code: str
    measure: str
    value: float
    limit: float
    source: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Repetition:
    """One squat.

    Attributes:
        number: 1 for the first.
        start_s: When the descent starts.
        deepest_s: When it is deepest.
        end_s: When the ascent ends.
        start_frame, deepest_frame, end_frame: The same as numbers of the track's frames.
        cut: Whether the recording cuts off its start or end.
        hip_below_knee: Whether the hips sank below the knees; None where they stayed level with them or were not seen.
        measures: Every name of `MEASURES` with its value, None where it cannot be measured.
        reasons: Why a measure is None.
        remarks: What limits call attention to.
    """

    number: int
    start_s: float
    deepest_s: float
    end_s: float
    start_frame: int
    deepest_frame: int
    end_frame: int
    cut: CutName
    hip_below_knee: bool | None
    measures: dict[str, float | None]
    reasons: dict[str, str]
    remarks: tuple[Remark, ...] = field(default=())


def describe(
    span: SquatSpan,
    number: int,
    *,
    angles: FrameAngles,
    signal: DepthSignal,
    mended: MendedTrack,
    view: View,
    limits: MeasuringLimits,
) -> Repetition:
    """Return what can be told of one squat, without remarks.

    Args:
        span: Its frames.
        number: 1 for the first.
        angles: What was measured in every frame.
        signal: The counting signal.
        mended: The joints.
        view: From where the person is seen.
        limits: What can be measured.
    """
    measured = _Measured()
    bottom = slice(span.bottom_start, span.bottom_end + 1)
    time = signal.time_s
    _tell_depth(measured, span, angles=angles, signal=signal, view=view)
    _tell_tempo(measured, span, time)
    for side in ("left", "right"):
        measured.median(f"{side}_valgus_deg", angles, f"{side}_frontal_plane_projection_angle_deg", bottom)
    measured.median("mean_valgus_deg", angles, "mean_frontal_plane_projection_angle_deg", bottom)
    for name in ("knee_to_ankle_separation_ratio", "knee_flexion_difference_deg"):
        measured.median(name, angles, name, bottom)
    _tell_worst_valgus(measured)
    _tell_pelvis(measured, span, angles=angles, view=view, limits=limits)
    _tell_evenness(measured, span, mended=mended, view=view)
    measured.put("sway_legs", *_sway(mended, span, view))
    above = measured.values["hip_above_knee_legs"]
    return Repetition(
        number=number,
        start_s=float(time[span.start]),
        deepest_s=float(time[span.deepest]),
        end_s=float(time[span.end]),
        start_frame=span.start,
        deepest_frame=span.deepest,
        end_frame=span.end,
        cut=span.cut,
        hip_below_knee=None if above is None or abs(above) < limits.level_legs else above < 0,
        measures={name: measured.values[name] for name in MEASURES},
        reasons=measured.reasons,
    )


def remarks_on(repetition: Repetition, rules: tuple[FeedbackRule, ...], *, view: View) -> tuple[Remark, ...]:
    """Return what the rules have to remark on a repetition.

    What was not measured is not remarked on, nor is the knees' bend in an oblique view, where it looks smaller than it
    is, and in one knee more than in the other.

    Args:
        repetition: What `describe` tells.
        rules: When to remark on what.
        view: From where the person is seen.
    """
    untold = _SKEWED_IN_OBLIQUE if view.name == "oblique" else frozenset()
    remarks = []
    for rule in rules:
        value = repetition.measures[rule.measure]
        if value is None or rule.measure in untold or not rule.applies(value):
            continue
        sentence = rule.sentence.format(value=abs(value), knees=_inward_knees(repetition))
        remarks.append(Remark(rule.code, rule.measure, value, rule.limit, rule.source, sentence))
    return tuple(remarks)


def _inward_knees(repetition: Repetition) -> str:
    """Return which knees the worst valgus is of, as the subject of a sentence."""
    left, right = (repetition.measures[f"{side}_valgus_deg"] for side in ("left", "right"))
    if left is None or right is None:
        return "knees"
    return "left knee" if left > right else "right knee"


class _Measured:
    """Values and reasons being gathered."""

    def __init__(self) -> None:
        self.values: dict[str, float | None] = {}
        self.reasons: dict[str, str] = {}

    def put(self, name: str, value: float | None, reason: str = "") -> None:
        self.values[name] = value
        if value is None:
            self.reasons[name] = reason

    def median(self, name: str, angles: FrameAngles, column: str, frames: slice) -> None:
        """Take the median of a column over frames; where most are missing, the reason that most have."""
        values = angles.column(column)[frames]
        there = values[np.isfinite(values)]
        if 2 * len(there) > len(values):
            self.put(name, float(np.median(there)))
        else:
            self.put(name, None, _usual_reason(angles, column, frames))


def _usual_reason(angles: FrameAngles, column: str, frames: slice) -> str:
    reasons = [reason for reason in angles.reason(column)[frames] if reason]
    return max(set(reasons), key=reasons.count)


def _tell_depth(measured: _Measured, span: SquatSpan, *, angles: FrameAngles, signal: DepthSignal, view: View) -> None:
    bottom = slice(span.bottom_start, span.bottom_end + 1)
    sides = np.stack([angles.column(f"{side}_knee_flexion_deg")[bottom] for side in ("left", "right")])
    there = np.isfinite(sides)
    if view.name == "frontal":
        measured.put("max_knee_flexion_deg", None, "view")
    elif 2 * there.any(axis=0).sum() > there.shape[1]:
        means = np.nansum(sides, axis=0)[there.any(axis=0)] / there.sum(axis=0)[there.any(axis=0)]
        measured.put("max_knee_flexion_deg", float(means.max()))
    else:
        measured.put("max_knee_flexion_deg", None, _usual_reason(angles, "left_knee_flexion_deg", bottom))
    measured.put("estimated_flexion_deg", float(signal.depth_deg[span.deepest]))
    flexion = measured.values["max_knee_flexion_deg"]
    measured.put("depth_deg", measured.values["estimated_flexion_deg"] if flexion is None else flexion)
    measured.put("hip_drop_legs", float(1 - np.nanmedian(signal.height_ratio[bottom])))
    heights = np.stack([angles.column(f"{side}_hip_above_knee_legs")[bottom] for side in ("left", "right")])
    heights = heights[np.isfinite(heights)]
    reason = "" if len(heights) else _usual_reason(angles, "left_hip_above_knee_legs", bottom)
    measured.put("hip_above_knee_legs", float(np.median(heights)) if len(heights) else None, reason)


def _tell_tempo(measured: _Measured, span: SquatSpan, time_s: Doubles) -> None:
    starts, ends = span.cut not in ("start", "both"), span.cut not in ("end", "both")
    measured.put("descent_s", float(time_s[span.bottom_start] - time_s[span.start]) if starts else None, "cut_off")
    measured.put("bottom_s", float(time_s[span.bottom_end] - time_s[span.bottom_start]))
    measured.put("ascent_s", float(time_s[span.end] - time_s[span.bottom_end]) if ends else None, "cut_off")


def _tell_worst_valgus(measured: _Measured) -> None:
    both = [measured.values[f"{side}_valgus_deg"] for side in ("left", "right")]
    there = [value for value in both if value is not None]
    worst = max(there) if there else measured.values["mean_valgus_deg"]
    measured.put("max_valgus_deg", worst, measured.reasons.get("mean_valgus_deg", ""))


def _tell_pelvis(
    measured: _Measured, span: SquatSpan, *, angles: FrameAngles, view: View, limits: MeasuringLimits
) -> None:
    """Compare the pelvis at the bottom with the same in standing, which takes a tilted camera out.

    What it does not take out is perspective: of hips turned from the camera, the nearer sinks more in the picture.
    """
    azimuth_deg = view.azimuth_deg
    if view.name != "frontal" or azimuth_deg is None or azimuth_deg > limits.max_pelvis_azimuth_deg:
        measured.put("pelvic_obliquity_change_deg", None, "view")
        return
    tilts = angles.column("pelvic_obliquity_deg")
    low, high = _median(tilts[_bottom(span)]), _median(tilts[_upright(span, len(tilts))])
    reason = "not_found"
    if np.isnan(low):
        reason = _usual_reason(angles, "pelvic_obliquity_deg", slice(span.bottom_start, span.bottom_end + 1))
    measured.put("pelvic_obliquity_change_deg", low - high if np.isfinite(low - high) else None, reason)


def _tell_evenness(measured: _Measured, span: SquatSpan, *, mended: MendedTrack, view: View) -> None:
    """Compare the knees' bends that each hip's loss of height over its own ankle calls for."""
    if view.name != "frontal":
        measured.put("estimated_flexion_difference_deg", None, "view")
        return
    joints = mended.track.joints_xy
    heights = joints[:, 4:, 1] - joints[:, :2, 1]
    low, high = (
        np.array([_median(side) for side in heights[rows].T]) for rows in (_bottom(span), _upright(span, len(joints)))
    )
    left, right = flexion_of_height(low / high).tolist()
    difference = left - right
    measured.put("estimated_flexion_difference_deg", difference if np.isfinite(difference) else None, "not_found")


def _bottom(span: SquatSpan) -> NDArray[np.int64]:
    return np.arange(span.bottom_start, span.bottom_end + 1)


def _upright(span: SquatSpan, frames: int) -> NDArray[np.int64]:
    """Return the frames of standing right before a squat and right after."""
    return np.concatenate(
        [np.arange(max(span.start - 5, 0), span.start + 1), np.arange(span.end, min(span.end + 6, frames))]
    )


def _median(values: Doubles) -> float:
    """Return the median of what is there; NaN if nothing is."""
    there = values[np.isfinite(values)]
    return float(np.median(there)) if len(there) else float("nan")


def _sway(mended: MendedTrack, span: SquatSpan, view: View) -> tuple[float | None, str]:
    """Return how far the middle of the hips moved sideways over the feet, which only the front shows."""
    if view.name != "frontal":
        return None, "view"
    joints = mended.track.joints_xy[span.start : span.end + 1]
    across = joints[:, :2, 0].mean(axis=1) - joints[:, 4:, 0].mean(axis=1)
    across = across[np.isfinite(across)]
    if len(across) < 3:
        return None, "not_found"
    low, high = np.percentile(across, (5, 95))
    return float((high - low) / mended.leg_px), ""
