"""Live, squats are counted when they end, as many as in the recording, in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
from motion_sessions import SIZE, faultless, random_stroll

from lbkit.motion.live import MEMORY_S, LiveCounter
from lbkit.motion.repetitions import Repetition
from lbkit.motion.synthetic import PlannedSquat, corrupted


def fed(counter: LiveCounter, track) -> list[tuple[float, Repetition]]:
    return [
        (time, item)
        for time, joints, scores in zip(track.time_s, track.joints_xy, track.scores, strict=True)
        for item in counter.add(time, joints, scores)
    ]


@pytest.mark.parametrize(("azimuth_deg", "count"), [(0, 3), (90, 12), (130, 3)])
def test_each_squat_is_told_once_soon_after_its_end(azimuth_deg: float, count: int) -> None:
    track = corrupted(faultless(*[PlannedSquat()] * count, azimuth_deg=azimuth_deg, fps=12), np.random.default_rng(0))
    assert (track.time_s[-1] > MEMORY_S + 10) == (count == 12)
    counter = LiveCounter(SIZE)
    told = fed(counter, track) + [(float(track.time_s[-1]), item) for item in counter.finish()]
    assert [item.number for _, item in told] == list(range(1, count + 1))
    assert counter.count == count
    assert max(time - item.end_s for time, item in told) < 1.0
    assert min(np.diff([item.deepest_s for _, item in told])) > 2.5


def test_a_squat_cut_off_by_the_end_is_told_at_the_end() -> None:
    track = faultless(PlannedSquat(), PlannedSquat(ascent_s=1.0, rest_s=0.0), azimuth_deg=90)
    kept = track.time_s < track.time_s[-1] - 0.6
    counter = LiveCounter(SIZE)
    for time, joints, scores in zip(track.time_s[kept], track.joints_xy[kept], track.scores[kept], strict=True):
        counter.add(time, joints, scores)
    assert counter.count == 1
    assert [item.number for item in counter.finish()] == [2]


def test_nothing_is_counted_where_nobody_squats() -> None:
    assert fed(LiveCounter(SIZE), random_stroll(np.random.default_rng(1), minutes=0.4, fps=12)) == []
    empty = LiveCounter(SIZE)
    for time in np.arange(40) / 10:
        assert empty.add(time, np.full((6, 2), np.nan), np.zeros(6)) == []
    assert empty.finish() == []
    assert LiveCounter(SIZE).finish() == []


def test_time_must_move_on_and_arrays_fit() -> None:
    counter = LiveCounter(SIZE)
    counter.add(1.0, np.zeros((6, 2)), np.ones(6))
    with pytest.raises(ValueError, match="time must move on"):
        counter.add(1.0, np.zeros((6, 2)), np.ones(6))
    with pytest.raises(ValueError, match="a frame has"):
        counter.add(2.0, np.zeros((5, 2)), np.ones(5))
