"""Squats counted while they are done."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lbkit.core.geometry import ImageSize
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.core.tracks import PoseTrack
from lbkit.errors import InputError
from lbkit.motion.limits import SquatLimits
from lbkit.motion.mending import MIN_SCORE
from lbkit.motion.phases import PHASES, PhaseName
from lbkit.motion.repetitions import Repetition
from lbkit.motion.squat import SquatAnalysis, analyze_squats
from lbkit.motion.tables import Row, frame_rows

MEMORY_S: Final = 25.0
"""So much of the past is looked at, and no more is kept."""

_MOST_REMEMBERED: Final = 64
_EVERY_S: Final = 0.4
_SETTLED_S: Final = 0.15
_APART_S: Final = 0.3
_NEWS_S: Final = 2.0
"""What ended longer ago and was not seen then is not seen now: the past is not judged anew."""

SETTLED_ROW_S: Final = 2.0
"""A frame's row is given when it is so old, for what comes after it decides which phase it was."""


class LiveCounter:
    """Counts squats from frames as they come, each when the person stands again.

    Two or three times a second what was last seen is analysed as a recording would be; nothing of the future is
    needed, and neither memory nor time grows.

    Args:
        image_size: Size of every frame.
        limits: What counts; lbkit's own when None.
        min_score: Joints below it are not measured on.

    Attributes:
        count: Squats so far.
        phase: What the person is doing, as it looked at the last analysis.
    """

    def __init__(
        self, image_size: ImageSize, *, limits: SquatLimits | None = None, min_score: float = MIN_SCORE
    ) -> None:
        self._size, self._limits, self._min_score = image_size, limits, min_score
        self._frames: deque[tuple[float, NDArray[np.float64], NDArray[np.float64]]] = deque()
        self._looked_s = -np.inf
        self._deepest_s = -np.inf
        self._has_forgotten = False
        self._last: SquatAnalysis | None = None
        self._told: deque[tuple[float, int]] = deque(maxlen=_MOST_REMEMBERED)
        self._row_s = -np.inf
        self.count = 0
        self.phase: PhaseName = "unknown"

    def add(self, time_s: float, joints_xy: ArrayLike, scores: ArrayLike) -> list[Repetition]:
        """Take a frame and return the repetitions that have just ended, mostly none.

        Args:
            time_s: Seconds, later than the frame's before.
            joints_xy: (6, 2) image pixels, NaN where nobody was found.
            scores: (6,) in 0 to 1, 0 where nobody was found.

        Raises:
            ValueError: Time does not move on, or the arrays are of another shape.
        """
        if self._frames and time_s <= self._frames[-1][0]:
            raise ValueError(f"time must move on, got {time_s} s after {self._frames[-1][0]} s")
        joints, certain = np.asarray(joints_xy, dtype=np.float64), np.asarray(scores, dtype=np.float64)
        if joints.shape != (len(LOWER_BODY_6), 2) or certain.shape != (len(LOWER_BODY_6),):
            raise ValueError(f"a frame has (6, 2) joints and (6,) scores, got {joints.shape} and {certain.shape}")
        self._frames.append((time_s, joints, certain))
        while time_s - self._frames[0][0] > MEMORY_S:
            self._frames.popleft()
            self._has_forgotten = True
        if time_s - self._looked_s < _EVERY_S:
            return []
        self._looked_s = time_s
        return self._ended(time_s)

    def finish(self) -> list[Repetition]:
        """Return the repetitions that the end of the recording cut off after their bottom."""
        if not self._frames:
            return []
        return self._ended(self._frames[-1][0] + _SETTLED_S, takes_cut=True)

    def settled_rows(self, *, is_over: bool = False) -> list[Row]:
        """Return rows, as of `frame_rows`, of the frames that have got old enough since the last call.

        Frames while nobody was in all that is remembered have no row.

        Args:
            is_over: Take the last frames too, after `finish`.
        """
        if self._last is None:
            return []
        time_s = self._last.angles.time_s
        until_s = np.inf if is_over else time_s[-1] - SETTLED_ROW_S
        first, stop = np.searchsorted(time_s, (self._row_s, until_s), side="right").tolist()
        rows = frame_rows(self._last, frames=range(first, stop))
        for row, time in zip(rows, time_s[first:stop].tolist(), strict=True):
            row["repetition"] = self._number_at(time)
            self._row_s = time
        return rows

    def _number_at(self, time_s: float) -> int | None:
        """Return the number of the squat at a time: the one it was told under, or will be."""
        for item in self._last.repetitions if self._last is not None else ():
            if item.start_s <= time_s <= item.end_s:
                told = [number for deepest_s, number in self._told if abs(deepest_s - item.deepest_s) <= _APART_S]
                return told[0] if told else self.count + 1
        return None

    def _ended(self, now_s: float, *, takes_cut: bool = False) -> list[Repetition]:
        try:
            self._last = analyze_squats(self._track(), limits=self._limits, min_score=self._min_score)
        except InputError:  # nobody in all that is remembered
            self._last, self.phase = None, "unknown"
            return []
        self.phase = PHASES[self._last.phases[-1]]
        ended = []
        for item in self._last.repetitions:
            is_whole = item.cut == "no" or takes_cut or (item.cut == "start" and not self._has_forgotten)
            is_over = is_whole and now_s - _NEWS_S < item.end_s <= now_s - _SETTLED_S
            if is_over and item.deepest_s > self._deepest_s + _APART_S:
                self.count += 1
                self._deepest_s = item.deepest_s
                self._told.append((item.deepest_s, self.count))
                ended.append(replace(item, number=self.count))
        return ended

    def _track(self) -> PoseTrack:
        times, joints, scores = zip(*self._frames, strict=True)
        return PoseTrack(
            time_s=np.array(times), joints_xy=np.stack(joints), scores=np.stack(scores), image_size=self._size
        )
