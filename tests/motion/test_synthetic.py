"""The leg model is exact: its knees bend as planned, its feet stay, and what it does is what was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from motion_sessions import SIZE, faultless

from lbkit.motion.synthetic import (
    LegModel,
    PlannedSquat,
    SquatSession,
    camera_at,
    corrupted,
    leg_joints,
    project_track,
    session_times,
    stroll_joints,
)
from lbkit.synthetic.skeleton import SHANK, THIGH


def flexion_in_space(joints_xyz: np.ndarray) -> np.ndarray:
    thighs, shanks = joints_xyz[:, 2:4] - joints_xyz[:, 0:2], joints_xyz[:, 4:6] - joints_xyz[:, 2:4]
    cosine = (thighs * shanks).sum(-1) / np.linalg.norm(thighs, axis=-1) / np.linalg.norm(shanks, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@pytest.mark.parametrize("valgus_deg", [-10.0, 0.0, 15.0])
def test_knees_bend_exactly_as_asked_and_segments_keep_their_length(valgus_deg: float) -> None:
    wanted = np.stack([np.linspace(1, 140, 50), np.linspace(5, 120, 50)], axis=1)
    legs = LegModel(stature_m=1.8)
    joints = leg_joints(legs, wanted, valgus_deg=valgus_deg)
    np.testing.assert_allclose(flexion_in_space(joints), wanted, atol=1e-6)
    thighs = np.linalg.norm(joints[:, 2:4] - joints[:, 0:2], axis=-1)
    shanks = np.linalg.norm(joints[:, 4:6] - joints[:, 2:4], axis=-1)
    np.testing.assert_allclose(thighs, THIGH * 1.8, atol=1e-9)
    np.testing.assert_allclose(shanks, SHANK * 1.8, atol=1e-9)
    assert np.ptp(joints[:, 4:6], axis=0).max() == 0


def test_valgus_brings_the_knees_together() -> None:
    bent = np.full((1, 2), 90.0)
    apart = [np.diff(leg_joints(LegModel(), bent, valgus_deg=valgus)[0, 2:4, 0])[0] for valgus in (-10, 0, 10)]
    assert abs(apart[0]) > abs(apart[1]) > abs(apart[2])


def test_a_session_reaches_each_depth_at_its_bottom() -> None:
    squats = (PlannedSquat(depth_deg=110, asymmetry_deg=8), PlannedSquat(depth_deg=70, rest_s=2.0))
    time_s = session_times(squats, fps=200)
    session = SquatSession(squats, time_s)
    flexion = flexion_in_space(session.joints_xyz())
    at_bottom = flexion[np.searchsorted(time_s, session.bottoms_s)]
    np.testing.assert_allclose(at_bottom, [[114, 106], [70, 70]], atol=1e-6)
    np.testing.assert_allclose(flexion[[0, -1]], LegModel().standing_deg, atol=1e-6)


def test_a_stroll_covers_ground_and_turns_round() -> None:
    time_s = np.arange(0, 18, 0.02)
    joints = stroll_joints(time_s, legs=LegModel(), heading_deg=90, speed_m_s=1.0)
    middle = joints[:, :2].mean(axis=1)
    assert np.ptp(middle[:, 0]) == pytest.approx(5.0, abs=0.2)
    assert np.ptp(middle[:, 2]) < 0.3
    heading = np.sign(joints[:, 0, 2] - joints[:, 1, 2])
    assert heading[100] == -heading[400]
    steps = np.linalg.norm(np.diff(joints, axis=0), axis=-1)
    assert steps.max() / 0.02 < 6.0  # no joint is faster than a swinging foot


def test_a_camera_at_the_left_sees_the_person_look_to_the_left_of_the_picture() -> None:
    track = faultless(PlannedSquat(), azimuth_deg=90)
    deepest = int(np.argmax(track.joints_xy[:, 0, 1]))
    hips, knees = track.joints_xy[deepest, :2, 0], track.joints_xy[deepest, 2:4, 0]
    assert (knees < hips).all()
    front = project_track(np.zeros(1), leg_joints(LegModel(), np.zeros((1, 2))), camera=camera_at(0, size=SIZE))
    assert front.joints_xy[0, 0, 0] > front.joints_xy[0, 1, 0]


def test_corruption_is_what_it_is_said_to_be() -> None:
    track = faultless(*[PlannedSquat()] * 10, azimuth_deg=0)
    poor = corrupted(track, np.random.default_rng(0), noise_px=5, dropout=0.1, swaps_per_s=0.0)
    assert (~poor.found).mean() == pytest.approx(0.1, abs=0.02)
    assert np.nanstd(poor.joints_xy - track.joints_xy) == pytest.approx(5, abs=0.3)
    swapped = corrupted(track, np.random.default_rng(0), noise_px=0, dropout=0.0, swaps_per_s=1.0)
    wrong = (np.abs(swapped.joints_xy - track.joints_xy) > 1e-9).any(axis=(1, 2))
    assert 0.01 < wrong.mean() < 0.2
    np.testing.assert_array_equal(swapped.joints_xy[wrong], track.joints_xy[wrong][:, [1, 0, 3, 2, 5, 4]])


@pytest.mark.parametrize("wrong", [{"depth_deg": 150}, {"depth_deg": -1}, {"descent_s": 0}, {"rest_s": -0.1}])
def test_impossible_squats_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PlannedSquat(**wrong)
