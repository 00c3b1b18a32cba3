"""What networks do wrong from frame to frame, found and mended: sides that change places, joints that leap, short gaps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.core.tracks import PoseTrack
from lbkit.motion.smoothing import butterworth_lowpass, fill_gaps, scipy_module

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

MIN_SCORE: Final = 0.25
"""A joint below this score is taken as not seen."""

# Costs of the most probable course of exchanges, in squared leg lengths: one exchange, and each second spent exchanged,
# so that what lasts is taken for the truth. Frontal hips lie 0.23 leg lengths apart: a swap costs 0.1 at either end.
_TOGGLE_COST: Final = 0.012
_SWAPPED_COST_PER_S: Final = 0.05
_MOST_STEP: Final = 0.25

_LEAP_WINDOW_S: Final = 0.3
_LEAP_LEGS: Final = 0.22
_LEAP_FEWEST_FPS: Final = 12.0


@dataclass(frozen=True, slots=True, eq=False)
class MendedTrack:
    """A track after mending, and what was done to it.

    Attributes:
        track: The mended joints; NaN where nothing trustworthy is.
        interpolated: (T, 6) joints that were filled in over a short gap.
        swapped: (T, 3) pairs (hips, knees, ankles) whose left and right were exchanged back.
        unsure: (T, 6) joints left out because their score was too low.
        leapt: (T, 6) joints left out because they lay far from where they were just before and after.
        leg_px: Length of the straight leg, the person's own.
    """

    track: PoseTrack
    interpolated: Mask
    swapped: Mask
    unsure: Mask
    leapt: Mask
    leg_px: float


def mend_track(track: PoseTrack, *, min_score: float = MIN_SCORE, cutoff_hz: float | None = 6.0) -> MendedTrack:
    """Return the track without low-score joints, with swaps undone, leaps removed, short gaps filled, and smoothed.

    Args:
        track: Joints over time.
        min_score: Joints below it are taken as not seen.
        cutoff_hz: Cut-off of the zero-phase low-pass; None leaves the joints as they are.
    """
    unsure = track.found & (track.scores < min_score)
    joints = np.where(unsure[..., None], np.nan, track.joints_xy)
    leg_px = leg_length_px(joints)
    joints, swapped = unswapped(track.time_s, joints, leg_px=leg_px)
    scores = _exchanged(track.scores[..., None], swapped)[..., 0]
    leapt = _leaps(track.time_s, joints, leg_px=leg_px)
    joints = np.where(leapt[..., None], np.nan, joints)
    joints, interpolated = fill_gaps(track.time_s, joints)
    if cutoff_hz is not None:
        joints = butterworth_lowpass(track.time_s, joints, cutoff_hz=cutoff_hz)
    scores = np.where(np.isfinite(joints).all(axis=-1), scores, 0.0)
    mended = replace(track, joints_xy=joints, scores=scores)
    return MendedTrack(mended, interpolated[..., 0], swapped, unsure, leapt, leg_px)


def leg_length_px(joints_xy: Doubles) -> float:
    """Return the length of a straight leg, thigh and shank together; NaN where no leg was seen.

    Args:
        joints_xy: (T, 6, 2) joints.
    """
    thighs = np.linalg.norm(joints_xy[:, 2:4] - joints_xy[:, 0:2], axis=-1)
    shanks = np.linalg.norm(joints_xy[:, 4:6] - joints_xy[:, 2:4], axis=-1)
    legs = (thighs + shanks)[np.isfinite(thighs + shanks)]
    return float(np.percentile(legs, 80)) if len(legs) else float("nan")


def unswapped(time_s: Doubles, joints_xy: Doubles, *, leg_px: float) -> tuple[Doubles, Mask]:
    """Return joints whose left and right keep to their side, and (T, 3) which pairs were exchanged for it.

    For hips, knees and ankles each, the course of exchanges that costs least is looked for (Viterbi): joints should
    move little, exchanges should be few and short. Sides that stay exchanged for seconds are taken as they are.

    Args:
        time_s: (T,) seconds.
        joints_xy: (T, 6, 2) joints, NaN where missing.
        leg_px: Length of a straight leg.
    """
    swapped = np.zeros((len(time_s), 3), dtype=bool)
    if len(time_s) < 2 or not np.isfinite(leg_px):
        return joints_xy, swapped
    steps = np.minimum(np.diff(time_s, prepend=time_s[0]), 0.2)
    for pair, (left, right) in enumerate(LOWER_BODY_6.flip_pairs):
        points = _carried(joints_xy[:, [left, right]]) / leg_px
        stay = _step_cost(points[1:], points[:-1])
        cross = _step_cost(points[1:, ::-1], points[:-1])
        swapped[:, pair] = _cheapest_course(stay, cross, _SWAPPED_COST_PER_S * steps)
    swapped &= np.isfinite(joints_xy).all(axis=-1).reshape(-1, 3, 2).any(axis=-1)
    return _exchanged(joints_xy, swapped), swapped


def _carried(points_xy: Doubles) -> Doubles:
    """Return (T, 2, 2) points with the last seen place where there is none."""
    seen = np.isfinite(points_xy).all(axis=-1)
    last = np.maximum.accumulate(np.where(seen, np.arange(len(seen))[:, None], -1), axis=0)
    carried = np.take_along_axis(points_xy, np.maximum(last, 0)[..., None], axis=0)
    return np.where((last >= 0)[..., None], carried, np.nan)


def _step_cost(now_xy: Doubles, before_xy: Doubles) -> Doubles:
    """Return (T-1,) squared steps of a pair in leg lengths, each at most `_MOST_STEP`; unknown ones cost nothing."""
    squares = ((now_xy - before_xy) ** 2).sum(axis=-1)
    return np.asarray(np.minimum(np.nan_to_num(squares), _MOST_STEP).sum(axis=-1))


def _cheapest_course(stay: Doubles, cross: Doubles, swapped_cost: Doubles) -> Mask:
    """Return (T,) the cheaper of being as given (False) or exchanged (True), by dynamic programming over two states."""
    frames = len(stay) + 1
    came_from = np.zeros((frames, 2), dtype=bool)
    plain, turned = 0.0, float(swapped_cost[0])
    toggles = (cross + _TOGGLE_COST).tolist()
    for frame, (keep, toggle, cost) in enumerate(zip(stay.tolist(), toggles, swapped_cost[1:].tolist(), strict=True), 1):
        to_plain = (plain + keep, turned + toggle)
        to_turned = (plain + toggle, turned + keep)
        came_from[frame] = to_plain[1] < to_plain[0], to_turned[1] < to_turned[0]
        plain, turned = min(to_plain), min(to_turned) + cost
    course = np.zeros(frames, dtype=bool)
    state = turned < plain
    for frame in range(frames - 1, -1, -1):
        course[frame] = state
        state = bool(came_from[frame, int(state)])
    return course


def _exchanged(values: Doubles, swapped: Mask) -> Doubles:
    """Return (T, 6, ...) values whose pairs change places where (T, 3) says so."""
    each = np.repeat(swapped, 2, axis=1)[..., None]
    return np.where(each, values[:, list(LOWER_BODY_6.flip_order)], values)


def _leaps(time_s: Doubles, joints_xy: Doubles, *, leg_px: float) -> Mask:
    """Return (T, 6) joints far from the median of their neighbours in time; never, where frames are too rare to tell."""
    leapt = np.zeros(joints_xy.shape[:2], dtype=bool)
    if len(time_s) < 5 or not np.isfinite(leg_px):
        return leapt
    step = float(np.median(np.diff(time_s)))
    if step > 1.0 / _LEAP_FEWEST_FPS:
        return leapt
    window = 2 * max(1, round(_LEAP_WINDOW_S / step / 2)) + 1
    for joint in range(joints_xy.shape[1]):
        leapt[:, joint] = _far_from_median(joints_xy[:, joint], window) > _LEAP_LEGS * leg_px
    return leapt


def _far_from_median(points_xy: Doubles, window: int) -> Doubles:
    """Return (T,) distances from the running median of the points that are there; 0 where there is none."""
    seen = np.isfinite(points_xy).all(axis=-1)
    far = np.zeros(len(points_xy))
    if seen.sum() < window:
        return far
    medians = scipy_module("ndimage").median_filter(points_xy[seen], size=(window, 1), mode="nearest")
    far[seen] = np.linalg.norm(points_xy[seen] - medians, axis=-1)
    return far
