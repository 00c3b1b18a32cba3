"""Joints that jump from one place in the picture to another and stay there: most likely another person's."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lbkit.core.tracks import PoseTrack
from lbkit.motion.limits import RecordingLimits

_STAY_S: Final = 0.3
_LONGEST_GAP_S: Final = 0.5
_FEWEST_JOINTS: Final = 3


def jump_times(track: PoseTrack, *, leg_px: float, limits: RecordingLimits) -> list[float]:
    """Return the times in seconds at which a person's joints jumped to another place.

    A jump is a step of most joints from one frame that shows the person to the next, longer than anybody moves in that
    time, and the joints do not come back at once as they do from a single frame gone wrong.

    Args:
        track: The joints, before they were mended.
        leg_px: Length of the person's straight leg.
        limits: Among them how far a jump is.
    """
    rows = np.flatnonzero(track.found.sum(axis=1) >= _FEWEST_JOINTS)
    time_s, joints = track.time_s[rows], track.joints_xy[rows]
    if len(rows) < 2:
        return []
    steps_s = np.minimum(np.diff(time_s), _LONGEST_GAP_S)
    allowed = limits.min_jump_legs + limits.max_speed_legs_per_s * steps_s
    moved = np.array([_distance(joints[row], joints[row + 1]) for row in range(len(rows) - 1)])
    return [
        float(time_s[row + 1])
        for row in np.flatnonzero(moved > allowed * leg_px).tolist()
        if _stays(time_s, joints, row + 1)
    ]


def _distance(first_xy: NDArray[np.float64], second_xy: NDArray[np.float64]) -> float:
    """Return the median distance of the joints that both have; 0 where they share too few."""
    steps = np.linalg.norm(second_xy - first_xy, axis=-1)
    steps = steps[np.isfinite(steps)]
    return float(np.median(steps)) if len(steps) >= _FEWEST_JOINTS else 0.0


def _stays(time_s: NDArray[np.float64], joints: NDArray[np.float64], row: int) -> bool:
    """Tell whether the frames right after a jump to a row are nearer to where it led than to where it came from."""
    after = np.flatnonzero((time_s > time_s[row]) & (time_s <= time_s[row] + max(_STAY_S, 1.5 * _step(time_s))))
    back = [_distance(joints[row - 1], joints[other]) < _distance(joints[row], joints[other]) for other in after]
    before = np.flatnonzero(
        (time_s < time_s[row - 1]) & (time_s >= time_s[row - 1] - max(_STAY_S, 1.5 * _step(time_s)))
    )
    was_there = [_distance(joints[row], joints[other]) < _distance(joints[row - 1], joints[other]) for other in before]
    return bool(back) and not any(back) and not any(was_there)


def _step(time_s: NDArray[np.float64]) -> float:
    return float(np.median(np.diff(time_s)))
