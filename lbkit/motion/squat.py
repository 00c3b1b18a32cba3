"""From one person's joints over time to squats: the whole analysis, a pure function."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lbkit.core.tracks import PoseTrack
from lbkit.errors import InputError
from lbkit.motion.angles import FrameAngles, measure_frames
from lbkit.motion.depth import DepthSignal, depth_signal
from lbkit.motion.jumps import jump_times
from lbkit.motion.limits import RecordingLimits, SquatLimits, ViewLimits, default_limits
from lbkit.motion.mending import MIN_SCORE, MendedTrack, mend_track, smoothed
from lbkit.motion.phases import Rejected, SquatSpan, find_squats, phases_of
from lbkit.motion.repetitions import Repetition, describe, remarks_on
from lbkit.motion.view import View, estimate_view, hip_widths

NOTICE: Final = "lbkit is no medical device: it measures pictures, and gives no diagnosis and no advice on treatment."

COUNTING_MIN_SCORE: Final = 0.08
"""Counting bears with joints that measuring does not trust: a small network is unsure of knees in a deep squat."""


@dataclass(frozen=True, slots=True)
class Warn:
    """Something about a recording that its figures should be read with.

    Attributes:
        code: What it is.
        sentence: The same in words.
    """

    code: str
    sentence: str


@dataclass(frozen=True, slots=True, eq=False)
class SquatAnalysis:
    """What was found in one person's track.

    Attributes:
        view: From where the person is seen.
        repetitions: The squats, in order.
        angles: What was measured in each of T frames.
        phases: (T,) indices of `lbkit.motion.phases.PHASES`.
        signal: What was counted on.
        mended: The joints as they were used.
        warnings: What the figures should be read with.
        rejected: Movements that were looked at and not counted.
    """

    view: View
    repetitions: tuple[Repetition, ...]
    angles: FrameAngles
    phases: NDArray[np.uint8]
    signal: DepthSignal
    mended: MendedTrack
    warnings: tuple[Warn, ...]
    rejected: tuple[Rejected, ...]


def analyze_squats(
    track: PoseTrack, *, limits: SquatLimits | None = None, min_score: float = MIN_SCORE
) -> SquatAnalysis:
    """Return the squats in one person's joints over time.

    A repetition is a way down from standing and up again, as deep as a quarter squat at least and as a good part of the
    person's own usual depth, with both feet in place. One that the recording cuts off counts if its bottom was seen.

    Args:
        track: The person's joints.
        limits: What counts and what is remarked on; lbkit's own when None.
        min_score: Joints below it are not measured on.

    Raises:
        InputError: The track holds no leg in any frame.
        MissingDependencyError: SciPy is not installed.
    """
    limits = limits or default_limits()
    counted = mend_track(track, min_score=min(COUNTING_MIN_SCORE, min_score))
    if not np.isfinite(counted.leg_px):
        raise InputError(
            "nobody's leg was seen in any frame", remedy="film the whole person from hip to foot, near and well lit"
        )
    signal = depth_signal(counted, limits)
    spans, rejected = find_squats(signal, limits.counting)
    view = _view(counted, spans, limits.view)
    is_sure = bool((track.scores[track.found] >= min_score).all())
    trusted = counted if is_sure else replace(mend_track(track, min_score=min_score), leg_px=counted.leg_px)
    mended = smoothed(trusted)
    angles = measure_frames(mended, view, limits.measuring)
    repetitions = []
    for number, span in enumerate(spans, 1):
        told = describe(span, number, angles=angles, signal=signal, mended=mended, view=view, limits=limits.measuring)
        repetitions.append(replace(told, remarks=remarks_on(told, limits.feedback, view=view)))
    return SquatAnalysis(
        view=view,
        repetitions=tuple(repetitions),
        angles=angles,
        phases=phases_of(signal, spans),
        signal=signal,
        mended=mended,
        warnings=(
            _VIEW_WARNINGS[view.name],
            *_person_warnings(track, leg_px=counted.leg_px, limits=limits.recording),
            *_frame_warnings(signal, mended, limits.recording),
            *_count_warnings(repetitions, rejected),
        ),
        rejected=tuple(rejected),
    )


def _view(mended: MendedTrack, spans: list[SquatSpan], limits: ViewLimits) -> View:
    """Return the view about the squats, or of the whole track where there are none."""
    widths = hip_widths(mended.track.joints_xy, leg_px=mended.leg_px)
    if not spans:
        return estimate_view(widths, limits)
    inside = np.zeros(len(widths), dtype=bool)
    for span in spans:
        inside[span.start : span.end + 1] = True
    return estimate_view(np.where(inside, widths, np.nan), limits)


def _person_warnings(track: PoseTrack, *, leg_px: float, limits: RecordingLimits) -> list[Warn]:
    """Return what makes it doubtful whose joints these are."""
    warnings = []
    if track.company is not None and track.company > limits.max_company_share:
        sentence = f"Somebody else was in the picture in {track.company:.0%} of the looks; {_WHOSE}."
        warnings.append(Warn("somebody_else", sentence))
    jumps_s = jump_times(track, leg_px=leg_px, limits=limits)
    if jumps_s:
        times = ", ".join(f"{time:.1f} s" for time in jumps_s[:_MOST_TIMES])
        more = f" and {len(jumps_s) - _MOST_TIMES} times more" if len(jumps_s) > _MOST_TIMES else ""
        sentence = f"The joints jumped to another place at {times}{more}, perhaps to another person; {_WHOSE}."
        warnings.append(Warn("person_changed", sentence))
    return warnings


def _frame_warnings(signal: DepthSignal, mended: MendedTrack, limits: RecordingLimits) -> list[Warn]:
    warnings = []
    step = float(np.median(np.diff(signal.time_s))) if len(signal.time_s) > 1 else 0.0
    if step * limits.min_frames_per_s > 1:
        rate = 1 / step
        warnings.append(Warn("few_frames", f"{rate:.0f} frames a second: joints are not smoothed, tempo is coarse."))
    unseen = 1 - float(signal.seen.mean())
    if unseen > limits.max_unseen_share:
        warnings.append(Warn("much_unseen", f"The legs were not seen in {unseen:.0%} of the frames."))
    if mended.swapped.any():
        share = float(mended.swapped.any(axis=1).mean())
        warnings.append(
            Warn("sides_swapped", f"Left and right had changed places in {share:.1%} of the frames; mended.")
        )
    return warnings


def _count_warnings(repetitions: list[Repetition], rejected: list[Rejected]) -> list[Warn]:
    warnings = []
    cut = [item.number for item in repetitions if item.cut != "no"]
    if cut:
        warnings.append(Warn("cut_off", f"The recording cuts off repetition {', '.join(map(str, cut))}."))
    if any(item.reason == "bottom_unseen" for item in rejected):
        warnings.append(Warn("bottom_unseen", "A squat whose bottom lies outside the recording is not counted."))
    return warnings


_MOST_TIMES: Final = 3
_WHOSE: Final = "check whose squats these are"
_VIEW_WARNINGS: Final = {
    "frontal": Warn(
        "view_frontal", "Frontal view: knee flexion cannot be measured; depth is estimated from the hips' height."
    ),
    "oblique": Warn(
        "view_oblique",
        "Oblique view: knee flexion looks smaller than it is and is not remarked on, and inward knees cannot be told; "
        "film from the side for depth, from the front for the knees.",
    ),
    "side": Warn(
        "view_side", "Side view: inward knees, pelvis, evenness and sway cannot be told; film from the front for them."
    ),
    "unknown": Warn("view_unknown", "The hips were never seen, so the view is unknown."),
}
