"""The time of a video's frames: its own time stamps, made to increase where a file's do not."""

from __future__ import annotations

from lbkit.errors import VideoReadError

RESTART_S = 1.0
"""A time stamp that falls back by more than this begins a new recording in the same file; less is a slip."""

SLIP_STEP_S = 1e-3
"""How far after the one before a frame is put whose time stamp slipped back or repeats."""

MAX_STALLED = 5
"""So many frames in a row may have no time of their own before the file's clock counts as broken."""


class FrameClock:
    """Gives each frame a time in seconds, strictly increasing, as near to its own time stamp as that allows.

    Args:
        step_s: The nominal time between two frames; None if the file does not say.
        where: The video, for messages.

    Attributes:
        repaired: Frames whose time stamp was missing or did not increase.
    """

    def __init__(self, step_s: float | None, *, where: str) -> None:
        self.repaired = 0
        self._step_s = step_s
        self._where = where
        self._last_s: float | None = None
        self._shift_s = 0.0
        self._stalled = 0

    def stamp(self, stamp_s: float | None) -> float:
        """Return the time of the next frame in seconds.

        Args:
            stamp_s: Its own time stamp, or None where it has none.

        Raises:
            VideoReadError: There are neither time stamps nor a frame rate, or the time stamps stand still.
        """
        if self._last_s is None:
            time_s = 0.0 if stamp_s is None else stamp_s
        elif stamp_s is None:
            time_s = self._last_s + self._nominal_step_s()
            self.repaired += 1
        else:
            time_s = self._advanced(stamp_s, self._last_s)
        self._last_s = time_s
        return time_s

    def _advanced(self, stamp_s: float, last_s: float) -> float:
        time_s = stamp_s + self._shift_s
        if time_s > last_s:
            self._stalled = 0
            return time_s
        self.repaired += 1
        if last_s - time_s > RESTART_S:
            time_s = last_s + self._nominal_step_s()
            self._shift_s = time_s - stamp_s
            return time_s
        self._stalled += 1
        if self._stalled > MAX_STALLED:
            raise VideoReadError(
                f"its time stamps stand still at {stamp_s:.3f} s (0 frames per second)",
                where=self._where,
                remedy="give its frames times, e.g. `ffmpeg -r 30 -i IN.mp4 OUT.mp4` if it was taken at 30 frames/s",
            )
        return last_s + SLIP_STEP_S

    def _nominal_step_s(self) -> float:
        if self._step_s is None:
            raise VideoReadError(
                "has neither time stamps nor a frame rate",
                where=self._where,
                remedy="convert it with its frame rate, e.g. `ffmpeg -r 30 -i IN OUT.mp4`",
            )
        return self._step_s
