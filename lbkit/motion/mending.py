"""What networks do wrong from frame to frame, found and mended: exchanged sides, joints that leap, short gaps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.core.tracks import PoseTrack
from lbkit.motion.smoothing import CUTOFF_HZ, butterworth_track, fill_gaps, scipy_module

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


def mend_track(track: PoseTrack, *, min_score: float = MIN_SCORE) -> MendedTrack:
    """Return the track without low-score joints, with swaps undone, leaps removed and short gaps filled.

    Args:
        track: Joints over time.
        min_score: Joints below it are taken as not seen.
    """
    unsure = track.found & (track.scores < min_score)
    joints = np.where(unsure[..., None], np.nan, track.joints_xy)
    leg_px = leg_length_px(joints)
    joints, swapped = unswapped(track.time_s, joints, leg_px=leg_px)
    scores = _exchanged(track.scores[..., None], swapped)[..., 0]
    leapt = _leaps(track.time_s, joints, leg_px=leg_px)
    joints = np.where(leapt[..., None], np.nan, joints)
    joints, interpolated = fill_gaps(track.time_s, joints)
    scores = np.where(np.isfinite(joints).all(axis=-1), scores, 0.0)
    mended = replace(track, joints_xy=joints, scores=scores)
    return MendedTrack(mended, interpolated[..., 0], swapped, unsure, leapt, leg_px)


def smoothed(mended: MendedTrack, *, cutoff_hz: float = CUTOFF_HZ) -> MendedTrack:
    """Return a mended track whose joints went through the zero-phase low-pass."""
    return replace(mended, track=butterworth_track(mended.track, cutoff_hz=cutoff_hz))


def leg_length_px(joints_xy: Doubles) -> float:
    """Return the length of a straight leg, thigh and shank together; NaN where no leg was seen.

    Args:
        joints_xy: (T, 6, 2) joints.
    """
    thighs = np.linalg.norm(joints_xy[:, 2:4] - joints_xy[:, 0:2], axis=-1)
    shanks = np.linalg.norm(joints_xy[:, 4:6] - joints_xy[:, 2:4], axis=-1)
    legs = (thighs + shanks)[np.isfinite(thighs + shanks)]
    length = float(np.percentile(legs, 80)) if len(legs) else 0.0
    return length if length > 0 else float("nan")


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
    for pair, sides in enumerate(LOWER_BODY_6.flip_pairs):
        swapped[:, pair] = _cheapest_course(joints_xy[:, sides] / leg_px, _SWAPPED_COST_PER_S * steps)
    swapped &= np.isfinite(joints_xy).all(axis=-1).reshape(-1, 3, 2).any(axis=-1)
    return _exchanged(joints_xy, swapped), swapped


_Places = tuple[complex | None, complex | None]


def _cheapest_course(points: Doubles, swapped_costs: Doubles) -> Mask:
    """Return (T,) whether a pair is best taken as exchanged, by dynamic programming over its two states.

    Each state's survivor carries where it last saw either side, so that a joint that was missing for some frames is
    compared with its own last place.

    Args:
        points: (T, 2, 2) left and right, NaN where missing, in leg lengths.
        swapped_costs: (T,) cost of being exchanged in a frame.
    """
    numbers: list[_Places] = [
        tuple(None if x != x else complex(x, y) for x, y in pair)  # type: ignore[misc]
        for pair in points.tolist()
    ]
    costs = [0.0, 0.0]
    places: list[_Places] = [(None, None), (None, None)]
    came_from = np.zeros((len(points), 2), dtype=bool)
    for frame, ((first, second), swapped_cost) in enumerate(zip(numbers, swapped_costs.tolist(), strict=True)):
        new_costs, new_places = [], []
        for state, seen in enumerate(((first, second), (second, first))):
            stay = costs[state] + _moved(seen, places[state])
            toggle = costs[1 - state] + _moved(seen, places[1 - state]) + _TOGGLE_COST
            came_from[frame, state] = bool(state) if stay <= toggle else not state
            before = places[state] if stay <= toggle else places[1 - state]
            new_costs.append(min(stay, toggle) + state * swapped_cost)
            new_places.append((before[0] if seen[0] is None else seen[0], before[1] if seen[1] is None else seen[1]))
        costs, places = new_costs, new_places
    return _traced(came_from, last=costs[1] < costs[0])


def _moved(seen: _Places, before: _Places) -> float:
    """Return the sum of squared steps, each at most `_MOST_STEP`; an unknown one costs nothing."""
    cost = 0.0
    for now, then in zip(seen, before, strict=True):
        if now is not None and then is not None:
            step = now - then
            cost += min(step.real * step.real + step.imag * step.imag, _MOST_STEP)
    return cost


def _traced(came_from: Mask, *, last: bool) -> Mask:
    """Follow (T, 2) predecessors back from the last state: (T,) states."""
    course = np.zeros(len(came_from), dtype=bool)
    state = last
    for frame in range(len(came_from) - 1, -1, -1):
        course[frame] = state
        state = bool(came_from[frame, int(state)])
    return course


def _exchanged(values: Doubles, swapped: Mask) -> Doubles:
    """Return (T, 6, ...) values whose pairs change places where (T, 3) says so."""
    each = np.repeat(swapped, 2, axis=1)[..., None]
    return np.where(each, values[:, list(LOWER_BODY_6.flip_order)], values)


def _leaps(time_s: Doubles, joints_xy: Doubles, *, leg_px: float) -> Mask:
    """Return (T, 6) joints far from their neighbours' median in time; none where frames are too rare to tell."""
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
