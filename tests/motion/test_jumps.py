"""Joints that go over to somebody else are noticed; squats, walks and moments gone wrong are not taken for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from motion_sessions import faultless, random_session, random_stroll

from lbkit.core.tracks import PoseTrack
from lbkit.motion.squat import SquatAnalysis, analyze_squats
from lbkit.motion.synthetic import PlannedSquat

LEG_PX = 300


def codes(analysis: SquatAnalysis) -> list[str]:
    return [warning.code for warning in analysis.warnings]


def moved(track: PoseTrack, since_s: float, until_s: float) -> PoseTrack:
    """The joints a leg's length beside themselves for a while, as those of somebody who stands there."""
    beside = (track.time_s >= since_s) & (track.time_s < until_s)
    return replace(track, joints_xy=track.joints_xy + np.where(beside, LEG_PX, 0.0)[:, None, None] * [1.0, 0.0])


@pytest.mark.parametrize("azimuth_deg", [0, 90])
@pytest.mark.parametrize("fps", [10, 30])
def test_a_jump_to_another_place_is_told_with_its_time(azimuth_deg: float, fps: float) -> None:
    track = faultless(*[PlannedSquat()] * 3, azimuth_deg=azimuth_deg, fps=fps)
    analysis = analyze_squats(moved(track, 4.0, 99.0))
    (warning,) = [warning for warning in analysis.warnings if warning.code == "person_changed"]
    assert "at 4.0 s, perhaps to another person" in warning.sentence


def test_a_jump_while_nobody_was_seen_is_told() -> None:
    track = moved(faultless(*[PlannedSquat()] * 3, azimuth_deg=90), 4.5, 99.0)
    gone = (track.time_s >= 4.0) & (track.time_s < 4.5)
    track = replace(
        track,
        joints_xy=np.where(gone[:, None, None], np.nan, track.joints_xy),
        scores=np.where(gone[:, None], 0.0, track.scores),
    )
    assert "person_changed" in codes(analyze_squats(moved(track, 4.5, 99.0)))


@pytest.mark.parametrize("frames", [1, 3])
def test_a_moment_gone_wrong_is_no_jump(frames: int) -> None:
    track = faultless(*[PlannedSquat()] * 2, azimuth_deg=90)
    assert "person_changed" not in codes(analyze_squats(moved(track, 3.0, 3.0 + (frames - 0.5) / 30)))


def test_squats_and_walks_are_no_jumps() -> None:
    rng = np.random.default_rng(8)
    tracks = [random_session(rng)[0] for _ in range(15)]
    tracks += [random_stroll(rng, minutes=0.5, fps=fps) for fps in (5, 10, 30)]
    assert all("person_changed" not in codes(analyze_squats(track)) for track in tracks)


@pytest.mark.parametrize(("company", "is_told"), [(None, False), (0.0, False), (0.1, False), (0.5, True)])
def test_somebody_else_is_told_of(company: float | None, is_told: bool) -> None:
    track = replace(faultless(PlannedSquat(), azimuth_deg=90), company=company)
    assert ("somebody_else" in codes(analyze_squats(track))) is is_told
