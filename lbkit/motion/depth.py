"""How deep a person squats at each moment, as one signal that works from every side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lbkit.core.angles import knee_flexion_deg
from lbkit.motion.limits import SignalLimits, SquatLimits
from lbkit.motion.mending import MendedTrack
from lbkit.motion.posture import STANDING_RATIO, flexion_of_height
from lbkit.motion.smoothing import butterworth_lowpass, fill_gaps, runs, scipy_module
from lbkit.motion.view import frontality, hip_widths, running_percentile

Doubles = NDArray[np.float64]

_RAREST: Final = 0.35
"""Frames rarer than this share of the cut-off's period leave the low-pass nothing to filter."""

_FEWEST_FOR_NOISE: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class DepthSignal:
    """The signal that repetitions are counted on.

    Attributes:
        time_s: (T,) seconds.
        depth_deg: (T,) knee flexion that a symmetric squat of this height and look would have; NaN where unseen.
        height_ratio: (T,) height of the hips over the lower ankle, over the longer shank, over the same in standing:
            1 in standing, less in a squat, and the same at every distance from the camera.
        frontality: (T,) 0 from the side to 1 from the front.
        ankles_legs: (T, 2) place of the left ankle from the right in leg lengths.
        noise: (T,) standard deviation of `height_ratio` that is the network's own, told by its jitter.
        seen: (T,) whether the frame itself showed both hips and a leg, rather than its neighbours.
    """

    time_s: Doubles
    depth_deg: Doubles
    height_ratio: Doubles
    frontality: Doubles
    ankles_legs: Doubles
    noise: Doubles
    seen: NDArray[np.bool_]


def depth_signal(mended: MendedTrack, limits: SquatLimits) -> DepthSignal:
    """Return the counting signal of a track.

    From the side it is mostly the knees' flexion in the picture, the lesser of both legs, because in walking one knee
    bends at a time. From the front, where a bent knee points at the camera, it is the height of the hips.

    Args:
        mended: A track after `mend_track`.
        limits: Among them for how long unseen joints are taken to move straight between where they were seen.
    """
    own = limits.signal
    time_s = mended.track.time_s
    joints, _ = fill_gaps(time_s, mended.track.joints_xy, max_gap_s=limits.counting.max_bridge_s)
    noise_px = _noise(time_s, hip_height_px(joints), cutoff_hz=own.cutoff_hz)
    joints = _steadied(time_s, joints, cutoff_hz=own.cutoff_hz)
    frontal = frontality(time_s, hip_widths(joints, leg_px=mended.leg_px), limits=limits.view)
    shank_px = shank_length_px(time_s, joints, window_s=own.scale_window_s)
    ratio = hip_height_px(joints) / shank_px
    standing = standing_ratio(ratio, own)
    ratio = ratio / standing
    by_height = flexion_of_height(ratio)
    knees = knee_flexion_deg(joints)
    by_knees = np.fmin(knees[:, 0], knees[:, 1])
    weight = np.where(np.isfinite(by_knees), own.knee_weight * (1 - frontal), 0.0)
    depth = (1 - weight) * by_height + weight * np.nan_to_num(by_knees)
    found = mended.track.found
    return DepthSignal(
        time_s=time_s,
        depth_deg=_without_glitches(time_s, depth, glitch_s=own.glitch_s),
        height_ratio=ratio,
        frontality=frontal,
        ankles_legs=(joints[:, 4] - joints[:, 5]) / mended.leg_px,
        noise=noise_px / (standing * shank_px),
        seen=np.asarray(found[:, :2].any(axis=1) & (found[:, 2::2].any(axis=1) | found[:, 3::2].any(axis=1))),
    )


def hip_height_px(joints_xy: Doubles) -> Doubles:
    """Return (T,) heights of the hips above the lower ankle; NaN where a hip or an ankle is missing."""
    hips = joints_xy[:, :2, 1]
    hip = np.where(np.isfinite(hips).all(axis=1), hips.mean(axis=1), np.fmin(hips[:, 0], hips[:, 1]))
    return np.asarray(np.fmax(joints_xy[:, 4, 1], joints_xy[:, 5, 1]) - hip)


def shank_length_px(time_s: Doubles, joints_xy: Doubles, *, window_s: float) -> Doubles:
    """Return (T,) lengths of the longer shank, the upper quartile over a time about each moment.

    That keeps the shank's error and its leaning in a squat out of what is divided by it; somebody who walks toward the
    camera grows in both alike.

    Args:
        time_s: (T,) seconds.
        joints_xy: (T, 6, 2) joints.
        window_s: The time.
    """
    shanks = np.linalg.norm(joints_xy[:, 4:6] - joints_xy[:, 2:4], axis=-1)
    longer = np.fmax(shanks[:, 0], shanks[:, 1])
    lengths = running_percentile(time_s, longer, window_s=window_s, percentile=75)
    return np.where(lengths > 0, lengths, np.nan)


def standing_ratio(ratio: Doubles, limits: SignalLimits) -> float:
    """Return the person's own height of the hips in shanks in standing, or the usual one where that was never seen.

    It is the 85th percentile less the values' own noise, so that standing itself comes out as 1 or more.

    Args:
        ratio: (T,) heights of the hips above the ankles in shanks.
        limits: Among them the heights that standing may have.
    """
    seen = ratio[np.isfinite(ratio)]
    if not len(seen):
        return STANDING_RATIO
    steps = np.diff(seen, n=2) if len(seen) > 2 else np.zeros(1)
    # The second difference of smoothed noise is the noise itself at best; a squat's own curvature adds nothing to it.
    noise = float(np.median(np.abs(steps)))
    own = float(np.percentile(seen, 85)) - noise
    return own if limits.min_standing_ratio <= own <= limits.max_standing_ratio else STANDING_RATIO


def _noise(time_s: Doubles, ratio: Doubles, *, cutoff_hz: float) -> float:
    """Return the standard deviation that white noise of (T,) values keeps after `_steadied`.

    It is told by second differences, in which a squat shows little; the median keeps out what still shows.
    """
    bends = np.abs(np.diff(ratio, n=2))
    bends = bends[np.isfinite(bends)]
    if len(bends) < _FEWEST_FOR_NOISE:
        return 0.0
    raw = float(np.median(bends)) / (0.6745 * 6**0.5)
    kept = min(1.0, 2 * cutoff_hz * float(np.median(np.diff(time_s))))
    return float(raw * kept**0.5)


def _steadied(time_s: Doubles, joints_xy: Doubles, *, cutoff_hz: float) -> Doubles:
    """Return joints without what is faster than a squat; means of three where frames are too rare for a filter."""
    if len(time_s) < 3:
        return joints_xy
    if np.median(np.diff(time_s)) * cutoff_hz < _RAREST:
        return butterworth_lowpass(time_s, joints_xy, cutoff_hz=cutoff_hz)
    kernel = np.array([0.25, 0.5, 0.25])
    around = np.pad(joints_xy, ((1, 1), (0, 0), (0, 0)), constant_values=np.nan)
    stack = np.stack([around[:-2], around[1:-1], around[2:]])
    weights = np.where(np.isfinite(stack), kernel[:, None, None, None], 0.0)
    means = (np.nan_to_num(stack) * weights).sum(axis=0) / np.maximum(weights.sum(axis=0), 0.25)
    return np.where(np.isfinite(joints_xy), means, np.nan)


def _without_glitches(time_s: Doubles, depth_deg: Doubles, *, glitch_s: float) -> Doubles:
    """Return the signal without hollows and bumps too short for a person to get up or down in."""
    smooth = depth_deg.copy()
    step = float(np.median(np.diff(time_s))) if len(time_s) > 1 else glitch_s
    size = 2 * round(glitch_s / step / 2 - 0.25) + 1 if step < glitch_s / 2 else 2
    morphology = scipy_module("ndimage")
    for start, stop in runs(np.isfinite(depth_deg)):
        if stop - start > size:
            filled = morphology.grey_closing(depth_deg[start:stop], size=size, mode="nearest")
            smooth[start:stop] = morphology.grey_opening(filled, size=size, mode="nearest")
    return smooth
