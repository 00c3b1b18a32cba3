"""Squats found in the depth signal: where each starts, is deepest and ends, and what only looks like one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from lbkit.motion.depth import DepthSignal
from lbkit.motion.limits import CountingLimits
from lbkit.motion.posture import height_of_flexion
from lbkit.motion.smoothing import runs, scipy_module

Doubles = NDArray[np.float64]
PhaseName = Literal["unknown", "standing", "descent", "bottom", "ascent"]
PHASES: Final[tuple[PhaseName, ...]] = ("unknown", "standing", "descent", "bottom", "ascent")
CutName = Literal["no", "start", "end", "both"]


@dataclass(frozen=True, slots=True)
class SquatSpan:
    """The frames of one squat.

    Attributes:
        start: First frame of the descent.
        bottom_start: First frame of the bottom.
        deepest: Deepest frame.
        bottom_end: Last frame of the bottom.
        end: Last frame of the ascent.
        cut: Whether the recording (or a time in which the person was not seen) cuts off its start or end.
        amplitude_deg: Its depth above standing in the counting signal.
    """

    start: int
    bottom_start: int
    deepest: int
    bottom_end: int
    end: int
    cut: CutName
    amplitude_deg: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """A movement that was looked at and not counted.

    Attributes:
        time_s: Its deepest moment.
        reason: Why it is no squat: shallow, too_short, too_long, feet_moved, split_stance, hips_stayed_up,
            within_noise, unseen or bottom_unseen.
    """

    time_s: float
    reason: str


def find_squats(signal: DepthSignal, limits: CountingLimits) -> tuple[list[SquatSpan], list[Rejected]]:
    """Return the squats in a signal, and what was looked at and turned down.

    A squat goes down from standing by at least a least depth and by a share of the person's own usual depth, and comes
    up again; the way up between two must be as large. A squat that the recording cuts off counts if its bottom was
    seen.

    Args:
        signal: The counting signal.
        limits: What makes a movement a squat.
    """
    spans: list[SquatSpan] = []
    rejected: list[Rejected] = []
    for start, stop in runs(np.isfinite(signal.depth_deg)):
        found, refused = _candidates(signal, start, stop, limits)
        spans += found
        rejected += refused
    usual = _usual([span.amplitude_deg for span in spans], limits) if spans else 0.0
    kept = []
    for span in spans:
        reason = "shallow" if span.amplitude_deg < limits.min_share_of_own_range * usual else None
        if (
            reason is None
            and _is_at_edge(signal, span, edge_s=limits.edge_s)
            and span.amplitude_deg < limits.min_edge_share * usual
        ):
            reason = "bottom_unseen"
        if reason is None:
            kept.append(span)
        else:
            rejected.append(Rejected(float(signal.time_s[span.deepest]), reason))
    return kept, sorted(rejected, key=lambda item: item.time_s)


def phases_of(signal: DepthSignal, spans: list[SquatSpan]) -> NDArray[np.uint8]:
    """Return (T,) indices of `PHASES`."""
    phases = np.where(np.isfinite(signal.depth_deg), 1, 0).astype(np.uint8)
    for span in spans:
        phases[span.start : span.bottom_start] = 2
        phases[span.bottom_start : span.bottom_end + 1] = 3
        phases[span.bottom_end + 1 : span.end + 1] = 4
    return phases


def _candidates(
    signal: DepthSignal, start: int, stop: int, limits: CountingLimits
) -> tuple[list[SquatSpan], list[Rejected]]:
    """Return what looks like squats in frames start to stop, all of which have a depth."""
    depth = signal.depth_deg[start:stop]
    frontal = signal.frontality[start:stop]
    least = limits.min_depth_side_deg + frontal * (limits.min_depth_frontal_deg - limits.min_depth_side_deg)
    peaks, sizes = _peaks(depth, least, limits)
    if not peaks:
        return [], []
    valleys = [first + int(np.argmin(depth[first:second])) for first, second in pairwise(peaks)]
    bounds = [0, *valleys, len(depth) - 1]
    spans, rejected = [], []
    for peak, size, around in zip(peaks, sizes, pairwise(bounds), strict=True):
        span = _shifted(_span(depth, peak, around=around, amplitude=size, limits=limits), start)
        reason = _fault(signal, span, limits)
        if reason is None:
            spans.append(span)
        else:
            rejected.append(Rejected(float(signal.time_s[span.deepest]), reason))
    return spans, rejected


def _peaks(depth: Doubles, least: Doubles, limits: CountingLimits) -> tuple[list[int], list[float]]:
    """Return frames of bottoms and their depth above the standing between them.

    Standing is added before and after, lest a recording that begins or ends in a squat hides it. A bounce at the bottom
    is no squat of its own, because the way up to it is small against the usual one.
    """
    standing = min(float(np.percentile(depth, 10)), float(depth.min()))
    padded = np.concatenate([[standing], depth, [standing]])
    places, facts = scipy_module("signal").find_peaks(padded, prominence=limits.min_depth_side_deg)
    sizes = facts["prominences"]
    large = sizes >= least[places - 1]
    if large.any():
        large &= sizes >= limits.min_share_of_own_range * _usual(sizes[large], limits)
    return [int(place) - 1 for place in places[large]], [float(size) for size in sizes[large]]


def _span(
    depth: Doubles, deepest: int, *, around: tuple[int, int], amplitude: float, limits: CountingLimits
) -> SquatSpan:
    """Walk from the deepest frame outward to where the bottom and then the squat end, within the valleys around it."""
    first, last = around
    peak = float(depth[deepest])
    before, after = depth[first : deepest + 1][::-1], depth[deepest : last + 1]
    upright = peak - (1 - limits.cut_share) * amplitude
    starts_cut = first == 0 and float(before.min()) > upright
    ends_cut = last == len(depth) - 1 and float(after.min()) > upright
    low = peak - (1 - limits.bottom_share) * amplitude
    levels = [peak - (1 - limits.start_share) * (peak - float(side.min())) for side in (before, after)]
    cut: CutName = "both" if starts_cut and ends_cut else "start" if starts_cut else "end" if ends_cut else "no"
    return SquatSpan(
        start=first if starts_cut else deepest - _steps_above(before, levels[0]),
        bottom_start=deepest - _steps_above(before, low),
        deepest=deepest,
        bottom_end=deepest + _steps_above(after, low),
        end=last if ends_cut else deepest + _steps_above(after, levels[1]),
        cut=cut,
        amplitude_deg=amplitude,
    )


def _steps_above(side: Doubles, level: float) -> int:
    """Return how many steps from its first value on a curve stays above a level."""
    below = np.flatnonzero(side <= level)
    return int(below[0]) - 1 if len(below) and below[0] else len(side) - 1 if not len(below) else 0


def _shifted(span: SquatSpan, offset: int) -> SquatSpan:
    return replace(
        span,
        start=span.start + offset,
        bottom_start=span.bottom_start + offset,
        deepest=span.deepest + offset,
        bottom_end=span.bottom_end + offset,
        end=span.end + offset,
    )


def _fault(signal: DepthSignal, span: SquatSpan, limits: CountingLimits) -> str | None:
    """Return why a movement is no squat, or None."""
    inside = slice(span.start, span.end + 1)
    duration = float(signal.time_s[span.end] - signal.time_s[span.start])
    if duration < limits.min_duration_s and span.cut == "no":
        return "too_short"
    if duration > limits.max_duration_s:
        return "too_long"
    if 1 - signal.seen[inside].mean() > limits.max_unseen_share:
        return "unseen"
    if _ankle_shift(signal, span) > limits.max_ankle_shift_legs:
        return "feet_moved"
    if signal.frontality[span.deepest] < 0.5 and _split(signal, inside) > limits.max_split_legs:
        return "split_stance"
    return _height_fault(signal, span, limits)


def _ankle_shift(signal: DepthSignal, span: SquatSpan) -> float:
    """Return how far one foot moved against the other between the start, bottom and end, in leg lengths."""
    moves = signal.ankles_legs[span.start : span.end + 1]
    moves = moves[np.isfinite(moves).all(axis=1)]
    if len(moves) < 3:
        return 0.0
    low, high = np.percentile(moves, (10, 90), axis=0)
    return float(np.linalg.norm(high - low))


def _split(signal: DepthSignal, inside: slice) -> float:
    apart = np.abs(signal.ankles_legs[inside, 0])
    apart = apart[np.isfinite(apart)]
    return float(np.median(apart)) if len(apart) else 0.0


def _height_fault(signal: DepthSignal, span: SquatSpan, limits: CountingLimits) -> str | None:
    """Return whether the hips sank too little for the knees' bend, or no more than noise makes believe."""
    depth, frontal = float(signal.depth_deg[span.deepest]), float(signal.frontality[span.deepest])
    top = max(depth - span.amplitude_deg, 0.0)
    standing, bent = height_of_flexion(np.array([top, depth])).tolist()
    around = slice(max(span.start - 1, 0), span.end + 2)
    highest = float(np.nanpercentile(signal.height_ratio[around], 90))
    highest = highest if span.cut == "no" else max(highest, standing)
    lost = highest - float(np.nanmedian(signal.height_ratio[span.bottom_start : span.bottom_end + 1]))
    if lost < limits.min_height_loss_share * (standing - bent):
        return "hips_stayed_up"
    noise = min(limits.noise_factor * float(signal.noise[span.deepest]) * frontal, limits.max_noise_loss)
    return "within_noise" if lost < noise else None


def _usual(depths_deg: list[float] | Doubles, limits: CountingLimits) -> float:
    return float(np.percentile(depths_deg, limits.usual_percentile))


def _is_at_edge(signal: DepthSignal, span: SquatSpan, *, edge_s: float) -> bool:
    """Tell whether the deepest frame is where the signal begins or ends, so that the bottom itself may lie outside."""
    time = signal.time_s
    first = span.cut in ("start", "both") and time[span.deepest] - time[span.start] < edge_s
    last = span.cut in ("end", "both") and time[span.end] - time[span.deepest] < edge_s
    return bool(first or last)
