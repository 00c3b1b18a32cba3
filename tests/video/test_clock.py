from __future__ import annotations

import pytest

from lbkit.errors import VideoReadError
from lbkit.video.clock import MAX_STALLED, SLIP_STEP_S, FrameClock


def stamped(clock: FrameClock, *stamps: float | None) -> list[float]:
    return [clock.stamp(stamp) for stamp in stamps]


def test_times_of_the_file_are_kept() -> None:
    clock = FrameClock(1 / 30, where="a.mp4")
    assert stamped(clock, -0.5, 0.0, 0.04, 7.0) == [-0.5, 0.0, 0.04, 7.0]
    assert clock.repaired == 0


def test_missing_times_follow_at_the_nominal_step() -> None:
    clock = FrameClock(0.25, where="a.mp4")
    assert stamped(clock, None, None, 0.6, None) == [0.0, 0.25, 0.6, 0.85]
    assert clock.repaired == 2


def test_a_slip_is_put_just_after_the_one_before() -> None:
    clock = FrameClock(0.1, where="a.mp4")
    assert stamped(clock, 0.0, 0.1, 0.1, 0.2) == pytest.approx([0.0, 0.1, 0.1 + SLIP_STEP_S, 0.2])
    assert clock.repaired == 1


def test_a_second_recording_in_the_file_goes_on_where_the_first_ended() -> None:
    clock = FrameClock(0.1, where="a.mp4")
    assert stamped(clock, 50.0, 50.1, 0.0, 0.1, 0.3) == pytest.approx([50.0, 50.1, 50.2, 50.3, 50.5])


def test_time_that_stands_still_is_an_error() -> None:
    clock = FrameClock(None, where="a.mp4")
    with pytest.raises(VideoReadError, match=r"a\.mp4: its time stamps stand still .*\(0 frames per second\)"):
        stamped(clock, *[0.0] * (MAX_STALLED + 2))


def test_neither_times_nor_a_rate_is_an_error() -> None:
    with pytest.raises(VideoReadError, match="neither time stamps nor a frame rate"):
        stamped(FrameClock(None, where="a.mp4"), None, None)
