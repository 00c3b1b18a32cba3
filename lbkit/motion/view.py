"""From which side the camera sees a person, told by how far apart the hips appear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from lbkit.motion.limits import ViewLimits, default_limits
from lbkit.motion.smoothing import scipy_module

Doubles = NDArray[np.float64]
ViewName = Literal["frontal", "oblique", "side", "unknown"]

# Joint centres of the hips lie 0.112 of stature apart, thigh and shank are 0.491 of it (Winter, 2009, figure 4.1).
HIP_WIDTH_LEGS: Final = 0.112 / 0.491


@dataclass(frozen=True, slots=True)
class View:
    """Where the camera stood.

    Attributes:
        name: frontal (from the front or from behind), oblique, side, or unknown where the hips were never seen.
        hip_width_legs: Median distance of the hips across the picture in leg lengths, signed: positive where the person
            faces the camera. 0.23 is frontal, 0 is from the side; NaN where unknown.
    """

    name: ViewName
    hip_width_legs: float

    @property
    def faces_camera(self) -> bool | None:
        """Whether the person faces the camera; None from the side, where the hips do not tell."""
        return None if self.name in ("side", "unknown") else self.hip_width_legs > 0

    @property
    def azimuth_deg(self) -> float | None:
        """The camera's angle from the person's front or back, 0 to 90, as far as the hips' width tells it."""
        if self.name == "unknown":
            return None
        return float(np.degrees(np.arccos(min(abs(self.hip_width_legs) / HIP_WIDTH_LEGS, 1.0))))


def hip_widths(joints_xy: Doubles, *, leg_px: float) -> Doubles:
    """Return (T,) how far the left hip is right of the right hip in the picture, in leg lengths."""
    return (joints_xy[:, 0, 0] - joints_xy[:, 1, 0]) / leg_px


def estimate_view(widths_legs: Doubles, limits: ViewLimits | None = None) -> View:
    """Return the view that the hips' widths speak for; the median makes light of frames gone wrong.

    Args:
        widths_legs: (T,) as of `hip_widths`.
        limits: What is a side view and what a frontal one; lbkit's own when None.
    """
    limits = limits or default_limits().view
    widths = widths_legs[np.isfinite(widths_legs)]
    if not len(widths):
        return View("unknown", float("nan"))
    width = float(np.median(widths))
    if abs(width) < limits.side_legs:
        return View("side", width)
    return View("oblique" if abs(width) < limits.frontal_legs else "frontal", width)


def frontality(time_s: Doubles, widths_legs: Doubles, *, limits: ViewLimits) -> Doubles:
    """Return (T,) how frontal the view is about each moment: 0 from the side, 1 from the front or behind.

    Args:
        time_s: (T,) seconds.
        widths_legs: (T,) as of `hip_widths`.
        limits: What is a side view and what a frontal one.
    """
    local = np.nan_to_num(np.abs(running_percentile(time_s, widths_legs, window_s=limits.window_s)))
    return np.clip((local - limits.side_legs) / (limits.frontal_legs - limits.side_legs), 0.0, 1.0)


def running_percentile(time_s: Doubles, values: Doubles, *, window_s: float, percentile: float = 50.0) -> Doubles:
    """Return (T,) percentiles over a time about each moment, what is NaN filled in between; all NaN if all are.

    Args:
        time_s: (T,) seconds.
        values: (T,) values, NaN where missing.
        window_s: Width of the window.
        percentile: 50 is the median.
    """
    seen = np.isfinite(values)
    if not seen.any():
        return values.copy()
    even = np.interp(time_s, time_s[seen], values[seen])
    step = float(np.median(np.diff(time_s))) if len(time_s) > 1 else window_s
    # A percentile over all 60 frames of a second tells no more than one over every sixth.
    stride = max(1, round(0.1 / step))
    window = 2 * max(1, round(window_s / (step * stride) / 2)) + 1
    ranked = scipy_module("ndimage").percentile_filter(even[::stride], percentile, size=window, mode="nearest")
    return np.asarray(np.interp(time_s, time_s[::stride], ranked), dtype=np.float64)
