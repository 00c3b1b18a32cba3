"""Angles are exact on faultless pictures, and where they cannot be measured the reason is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from motion_sessions import SIZE, faultless

from lbkit.core.angles import knee_flexion_deg as core_knee_flexion_deg
from lbkit.core.geometry import ImageSize
from lbkit.core.tracks import PoseTrack
from lbkit.errors import InputError
from lbkit.motion.angles import (
    COLUMNS,
    FrameAngles,
    check_measurable,
    frontal_plane_projection_angle_deg,
    hip_above_knee,
    knee_flexion_deg,
    knee_to_ankle_separation_ratio,
    measure_frames,
    pelvic_obliquity_deg,
    shank_inclination_deg,
    thigh_inclination_deg,
)
from lbkit.motion.mending import mend_track
from lbkit.motion.synthetic import LegModel, PlannedSquat, camera_at, leg_joints, project_track
from lbkit.motion.view import View, estimate_view, hip_widths

SIDE_VIEW, FRONT_VIEW = View("side", 0.0), View("frontal", 0.23)


def planar_legs(thigh_deg: np.ndarray, shank_deg: np.ndarray) -> np.ndarray:
    """(T, 6, 2) legs in the picture's plane, the thigh leaning back and the shank forward (to the right) by so much."""
    thigh, shank = np.deg2rad(thigh_deg), np.deg2rad(shank_deg)
    ankle = np.tile([640.0, 600.0], (len(thigh), 1))
    knee = ankle + 150 * np.stack([np.sin(shank), -np.cos(shank)], axis=1)
    hip = knee + 160 * np.stack([-np.sin(thigh), -np.cos(thigh)], axis=1)
    return np.repeat(np.stack([hip, knee, ankle], axis=1), 2, axis=1)


def frontal_legs(left_out_px: float, right_out_px: float) -> np.ndarray:
    """(1, 6, 2) legs seen from the front, the knees outward of the lines from hip to ankle by so much."""
    left = [[700, 300], [700 + left_out_px, 450], [700, 600]]
    right = [[600, 300], [600 - right_out_px, 450], [600, 600]]
    return np.stack([left, right], axis=1).reshape(1, 6, 2).astype(float)


def track_of(joints_xy: np.ndarray, *, size: ImageSize = SIZE) -> PoseTrack:
    seen = np.isfinite(joints_xy).all(axis=-1)
    return PoseTrack(
        time_s=np.arange(len(joints_xy)) / 30, joints_xy=joints_xy, scores=np.where(seen, 0.9, 0.0), image_size=size
    )


def test_there_is_one_knee_flexion() -> None:
    assert knee_flexion_deg is core_knee_flexion_deg


def test_angles_in_the_pictures_plane_are_exact() -> None:
    thigh, shank = np.linspace(0, 110, 45), np.linspace(0, 40, 45)
    joints = planar_legs(thigh, shank)
    both = np.ones((1, 2))
    np.testing.assert_allclose(knee_flexion_deg(joints), (thigh + shank)[:, None] * both, atol=1e-6)
    np.testing.assert_allclose(thigh_inclination_deg(joints), thigh[:, None] * both, atol=1e-6)
    np.testing.assert_allclose(shank_inclination_deg(joints), shank[:, None] * both, atol=1e-6)
    assert (hip_above_knee(joints)[thigh > 91] < 0).all()
    assert (hip_above_knee(joints)[thigh < 89] > 0).all()


@pytest.mark.parametrize("fps", [10.0, 30.0, 60.0])
def test_a_whole_analysis_keeps_a_tenth_of_a_degree_on_what_stands_still(fps: float) -> None:
    """Through mending and smoothing too, wherever the picture itself does not move faster than the low-pass lets by."""
    for flexion in (5.0, 60.0, 100.0, 130.0):
        joints = np.repeat(planar_legs(np.array([0.67 * flexion]), np.array([0.33 * flexion])), round(3 * fps), axis=0)
        track = replace(track_of(joints), time_s=np.arange(len(joints)) / fps)
        angles = measure_frames(mend_track(track), SIDE_VIEW)
        np.testing.assert_allclose(angles.column("left_knee_flexion_deg"), flexion, atol=0.1)


def test_a_distant_side_camera_sees_the_flexion_in_space() -> None:
    """With knees that point straight ahead and feet under the hips the leg lies in the picture's plane."""
    legs = LegModel(stance_m=0.112 * 1.75, toe_out_deg=0.0)
    flexion = np.repeat(np.linspace(4, 125, 40)[:, None], 2, axis=1)
    camera = camera_at(90, size=SIZE, distance_m=2000.0, height_m=0.8, legs=legs)
    track = project_track(np.arange(40) / 30, leg_joints(legs, flexion), camera=camera)
    np.testing.assert_allclose(knee_flexion_deg(track.joints_xy), flexion, atol=0.1)
    angles = measure_frames(mend_track(track), SIDE_VIEW)
    np.testing.assert_allclose(angles.column("right_knee_flexion_deg"), flexion[:, 1], atol=0.1)


@pytest.mark.parametrize(("out_px", "expected_deg"), [(-20.0, 15.19), (0.0, 0.0), (20.0, -15.19)])
def test_knees_inward_are_positive_from_the_front_and_from_behind(out_px: float, expected_deg: float) -> None:
    joints = frontal_legs(out_px, out_px)
    front = frontal_plane_projection_angle_deg(joints, faces_camera=True)
    np.testing.assert_allclose(front, [[expected_deg, expected_deg]], atol=0.01)
    behind = joints[:, [1, 0, 3, 2, 5, 4]]
    np.testing.assert_allclose(frontal_plane_projection_angle_deg(behind, faces_camera=False), front, atol=1e-9)


def test_valgus_of_one_knee_is_told_of_that_knee() -> None:
    angles = measure_frames(mend_track(track_of(frontal_legs(-15, 0))), FRONT_VIEW)
    assert angles.column("left_frontal_plane_projection_angle_deg")[0] == pytest.approx(11.42, abs=0.01)
    assert angles.column("right_frontal_plane_projection_angle_deg")[0] == pytest.approx(0.0, abs=0.01)


def test_both_knees_to_one_side_are_the_cameras_doing() -> None:
    angles = measure_frames(mend_track(track_of(frontal_legs(-40, 40))), FRONT_VIEW)
    for side in ("left", "right"):
        assert angles.reason(f"{side}_frontal_plane_projection_angle_deg") == ["view"]
    assert angles.column("mean_frontal_plane_projection_angle_deg")[0] == pytest.approx(0.0, abs=0.01)


def test_pelvis_and_separation() -> None:
    joints = frontal_legs(10, 10)
    joints[0, 0, 1] -= 10
    assert pelvic_obliquity_deg(joints)[0] == pytest.approx(np.degrees(np.arctan2(10, 100)))
    assert knee_to_ankle_separation_ratio(joints)[0] == pytest.approx(1.2)


def test_what_a_view_cannot_show_is_missing_with_that_reason() -> None:
    track = mend_track(faultless(PlannedSquat(), azimuth_deg=0))
    side = measure_frames(track, SIDE_VIEW)
    front = measure_frames(track, FRONT_VIEW)
    for name in ("pelvic_obliquity_deg", "knee_to_ankle_separation_ratio", "left_frontal_plane_projection_angle_deg"):
        assert set(side.reason(name)) == {"view"}
        assert np.isnan(side.column(name)).all()
    assert set(front.reason("left_knee_flexion_deg")) == {"view"}
    assert np.isfinite(front.column("pelvic_obliquity_deg")).all()


def test_a_thigh_that_points_at_the_camera_is_foreshortened() -> None:
    track = faultless(PlannedSquat(depth_deg=110), azimuth_deg=0)
    angles = measure_frames(mend_track(track), View("oblique", 0.12))
    deepest = int(np.argmax(track.joints_xy[:, 0, 1]))
    assert angles.reason("left_knee_flexion_deg")[deepest] == "foreshortened"
    assert angles.reason("left_knee_flexion_deg")[0] == ""


def test_missing_unsure_and_leaping_joints_are_told_apart() -> None:
    track = faultless(*[PlannedSquat()] * 2, azimuth_deg=90)
    joints, scores = track.joints_xy.copy(), track.scores.copy()
    joints[20:40, 2], scores[20:40, 2] = np.nan, 0.0
    scores[60:80, 4] = 0.1
    angles = measure_frames(mend_track(replace(track, joints_xy=joints, scores=scores)), SIDE_VIEW)
    reasons = angles.reason("left_knee_flexion_deg")
    assert set(reasons[20:40]) == {"not_found"}
    assert set(reasons[60:80]) == {"low_score"}
    assert set(angles.reason("right_knee_flexion_deg")) == {""}
    assert set(angles.reason("left_thigh_inclination_deg")[60:80]) == {""}


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("hip_flexion_deg", "thigh_inclination_deg"),
        ("left_ankle_dorsiflexion_deg", "shank_inclination_deg"),
        ("trunk_inclination_deg", "thigh_inclination_deg"),
    ],
)
def test_what_six_joints_cannot_give_is_refused_with_what_they_can(name: str, instead: str) -> None:
    with pytest.raises(InputError, match=f"cannot be measured: it needs .*; {instead} can be given"):
        check_measurable(name)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'left_knee_flexion_deg'"):
        check_measurable("left_knee_flexon_deg")
    assert [check_measurable(name) for name in COLUMNS] == [None] * len(COLUMNS)


def test_a_value_without_a_reason_for_its_absence_is_refused() -> None:
    values = np.full((1, len(COLUMNS)), np.nan)
    with pytest.raises(ValueError, match="a reason for its absence"):
        FrameAngles(np.zeros(1), values, np.zeros(values.shape, np.uint8))


@pytest.mark.parametrize(
    ("azimuth_deg", "name", "faces"),
    [
        (0, "frontal", True),
        (30, "frontal", True),
        (-55, "oblique", True),
        (80, "side", None),
        (-95, "side", None),
        (125, "oblique", False),
        (180, "frontal", False),
    ],
)
def test_the_view_is_told_from_the_hips(azimuth_deg: float, name: str, faces: bool | None) -> None:
    mended = mend_track(faultless(PlannedSquat(), azimuth_deg=azimuth_deg))
    view = estimate_view(hip_widths(mended.track.joints_xy, leg_px=mended.leg_px))
    assert view.name == name
    assert view.faces_camera is faces
    off_front = min(abs(azimuth_deg), 180 - abs(azimuth_deg))
    assert view.azimuth_deg == pytest.approx(off_front, abs=12)


def test_hips_never_seen_give_no_view() -> None:
    view = estimate_view(np.full(5, np.nan))
    assert (view.name, view.azimuth_deg, view.faces_camera) == ("unknown", None, None)
