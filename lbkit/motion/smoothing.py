"""Filters over uneven time stamps: One-Euro for live pictures, a zero-phase Butterworth for recorded ones."""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lbkit.core.tracks import PoseTrack
from lbkit.errors import MissingDependencyError

Doubles = NDArray[np.float64]

CUTOFF_HZ: Final = 6.0
"""Low-pass for joints of people who exercise (Winter, 2009, chapter 3)."""

MAX_GAP_S: Final = 0.2
"""Gaps shorter than this are interpolated."""

# Two passes of a second-order Butterworth lower the cut-off; the tangent of its angle is divided by
# (2^(1/2) - 1)^(1/4) to make up for it (Winter, 2009, section 3.4.4.2).
_TWO_PASSES: Final = (2**0.5 - 1) ** 0.25
_NYQUIST_SHARE: Final = 0.9
_FEWEST_SAMPLES: Final = 4


class OneEuroFilter:
    """Smooths positions as they come: much when they rest, little when they move (Casiez, Roussel and Vogel, 2012).

    Args:
        min_cutoff_hz: Cut-off at rest; lower is steadier.
        speed_coefficient: How fast the cut-off rises with speed (the paper's beta), per unit of the values.
        speed_cutoff_hz: Cut-off of the speed itself.
        forget_s: A value unseen for longer starts anew.
    """

    def __init__(
        self,
        *,
        min_cutoff_hz: float = 1.0,
        speed_coefficient: float = 0.01,
        speed_cutoff_hz: float = 1.0,
        forget_s: float = 0.5,
    ) -> None:
        if min(min_cutoff_hz, speed_cutoff_hz, forget_s) <= 0 or speed_coefficient < 0:
            raise ValueError("cut-offs and forget_s must be positive, speed_coefficient not negative")
        self._min_cutoff_hz, self._coefficient = min_cutoff_hz, speed_coefficient
        self._speed_cutoff_hz, self._forget_s = speed_cutoff_hz, forget_s
        self._values: Doubles | None = None
        self._speeds = self._seen_s = np.zeros(0)

    def __call__(self, time_s: float, values: ArrayLike) -> Doubles:
        """Return the smoothed values at a time; what is NaN stays NaN and is picked up again when it comes back.

        Args:
            time_s: Seconds; each call's later than the one before.
            values: Any shape, the same in every call.

        Raises:
            ValueError: Time does not move on.
        """
        now = np.asarray(values, dtype=np.float64)
        if self._values is None:
            self._values = np.full(now.shape, np.nan)
            self._speeds, self._seen_s = np.zeros(now.shape), np.full(now.shape, -np.inf)
        elapsed = time_s - self._seen_s
        if (elapsed <= 0).any():
            raise ValueError(f"time must move on, got {time_s} s again or a time before it")
        is_new = np.isnan(self._values) | (elapsed > self._forget_s)
        before = np.where(is_new, now, self._values)
        step = np.where(is_new, 1.0, elapsed)
        speed = np.where(is_new, 0.0, _blend(self._speeds, (now - before) / step, _weight(self._speed_cutoff_hz, step)))
        cutoff = self._min_cutoff_hz + self._coefficient * np.abs(speed)
        smooth = np.where(is_new, now, _blend(before, now, _weight(cutoff, step)))
        seen = np.isfinite(now)
        self._values = np.where(seen, smooth, self._values)
        self._speeds = np.where(seen, speed, self._speeds)
        self._seen_s = np.where(seen, time_s, self._seen_s)
        return np.where(seen, smooth, np.nan)


def one_euro_track(track: PoseTrack, **settings: float) -> PoseTrack:
    """Return a track smoothed frame by frame, each from the frames before it alone.

    Args:
        track: Joints over time.
        **settings: As of `OneEuroFilter`.
    """
    smooth = OneEuroFilter(**settings)
    frames = [smooth(time, joints) for time, joints in zip(track.time_s, track.joints_xy, strict=True)]
    return replace(track, joints_xy=np.stack(frames) if frames else track.joints_xy)


def butterworth_track(track: PoseTrack, *, cutoff_hz: float = CUTOFF_HZ) -> PoseTrack:
    """Return a track whose joints went through `butterworth_lowpass`."""
    return replace(track, joints_xy=butterworth_lowpass(track.time_s, track.joints_xy, cutoff_hz=cutoff_hz))


def butterworth_lowpass(time_s: Doubles, values: Doubles, *, cutoff_hz: float = CUTOFF_HZ) -> Doubles:
    """Return values after a second-order Butterworth low-pass run forth and back: fourth order, no lag (Winter, 2009).

    Uneven times are brought to an even grid by cubic splines and back. Runs between NaN are filtered apart. Values that
    come too rarely for the cut-off (at 5 frames/s nothing above 2.5 Hz is in them anyway) are returned as they are.

    Args:
        time_s: (T,) strictly increasing seconds.
        values: (T, ...) values with NaN where there are none.
        cutoff_hz: Frequency passed at 1/sqrt(2) by both passes together.

    Raises:
        ValueError: The cut-off is not positive.
        MissingDependencyError: SciPy is not installed.
    """
    if cutoff_hz <= 0:
        raise ValueError(f"cutoff_hz must be positive, got {cutoff_hz}")
    flat = values.reshape(len(time_s), int(np.prod(values.shape[1:])))
    smooth = flat.copy()
    masks, kinds = np.unique(np.isfinite(flat), axis=1, return_inverse=True)
    for kind in range(masks.shape[1]):
        columns = np.flatnonzero(kinds.ravel() == kind)
        for start, stop in runs(masks[:, kind]):
            smooth[start:stop, columns] = _lowpass_run(time_s[start:stop], flat[start:stop, columns], cutoff_hz)
    return smooth.reshape(values.shape)


def fill_gaps(time_s: Doubles, values: Doubles, *, max_gap_s: float = MAX_GAP_S) -> tuple[Doubles, NDArray[np.bool_]]:
    """Return values with short gaps interpolated linearly, and which were.

    A gap lasts from its first missing frame to the frame that has a value again; what is missing before the first
    value and after the last stays missing.

    Args:
        time_s: (T,) strictly increasing seconds.
        values: (T, ...) values; NaN is missing.
        max_gap_s: Gaps shorter than this are filled.

    Returns:
        The values and a mask of the same shape.
    """
    flat = values.reshape(len(time_s), int(np.prod(values.shape[1:])))
    filled, mask = flat.copy(), np.zeros(flat.shape, dtype=bool)
    for column in range(flat.shape[1]):
        seen = np.isfinite(flat[:, column])
        if not seen.any():
            continue
        for start, stop in runs(~seen):
            inside = start > 0 and stop < len(time_s)
            mask[start:stop, column] = inside and time_s[min(stop, len(time_s) - 1)] - time_s[start] < max_gap_s - 1e-9
        gone = mask[:, column]
        filled[gone, column] = np.interp(time_s[gone], time_s[seen], flat[seen, column])
    return filled.reshape(values.shape), mask.reshape(values.shape)


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return (start, stop) of each run of True in (T,) booleans."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def scipy_module(name: str) -> Any:
    """Import a part of SciPy, such as "signal".

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        return importlib.import_module(f"scipy.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "scipy":
            raise
        raise MissingDependencyError(
            "smoothing and counting need scipy, which is not installed", remedy='run `pip install "lbkit[motion]"`'
        ) from error


def _blend(before: Doubles, now: Doubles, weight: Doubles) -> Doubles:
    return before + weight * (now - before)


def _weight(cutoff_hz: Doubles | float, step_s: Doubles) -> Doubles:
    """Return the weight of the new value in an exponential filter of a cut-off."""
    turn = 2 * np.pi * cutoff_hz * step_s
    return np.asarray(turn / (turn + 1.0), dtype=np.float64)


def _lowpass_run(time_s: Doubles, values: Doubles, cutoff_hz: float) -> Doubles:
    """Filter (T, N) values without gaps."""
    if len(values) < _FEWEST_SAMPLES:
        return values
    step = float(np.median(np.diff(time_s)))
    corrected = np.arctan(np.tan(np.pi * min(cutoff_hz * step, 0.499)) / _TWO_PASSES) / np.pi
    if corrected >= 0.5 * _NYQUIST_SHARE:
        return values
    sos = _sections(round(2 * corrected, 6))
    is_even = np.allclose(np.diff(time_s), step, rtol=0.02)
    count = len(time_s) if is_even else max(round(float(np.ptp(time_s)) / step) + 1, _FEWEST_SAMPLES)
    grid = np.linspace(time_s[0], time_s[-1], count)
    even = values if is_even else _spline(time_s, values, grid)
    padding = min(count - 1, round(1.0 / (cutoff_hz * step)))
    smooth = scipy_module("signal").sosfiltfilt(sos, even, axis=0, padtype="even", padlen=padding)
    return np.asarray(smooth if is_even else _spline(grid, smooth, time_s), dtype=np.float64)


@cache
def _sections(share_of_nyquist: float) -> Doubles:
    return np.asarray(scipy_module("signal").butter(2, share_of_nyquist, output="sos"), dtype=np.float64)


def _spline(time_s: Doubles, values: Doubles, places_s: Doubles) -> Doubles:
    return np.asarray(scipy_module("interpolate").CubicSpline(time_s, values, axis=0)(places_s), dtype=np.float64)
