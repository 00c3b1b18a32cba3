import numpy as np
import pytest

from lbkit.synthetic.poses import POSE_NAMES, lunge_pose, random_pose, squat_pose, walking_pose
from lbkit.synthetic.skeleton import (
    ANKLE_HEIGHT,
    SHANK,
    THIGH,
    ArmPose,
    BodyShape,
    FigurePose,
    LegPose,
    Skeleton,
    cross,
    heel_lift_deg,
    place_skeleton,
    rotate_about,
)

SHAPE = BodyShape(stature_m=1.80, leg_length=1.03, hip_breadth=1.1)


def _sole_points(skeleton: Skeleton) -> np.ndarray:
    return np.concatenate([skeleton.heels, skeleton.balls, skeleton.toes])


def test_an_upright_figure_has_its_joints_where_the_segment_lengths_put_them():
    skeleton = place_skeleton(BodyShape(stature_m=2.0), FigurePose())
    np.testing.assert_allclose(skeleton.ankles[:, 1], 2.0 * ANKLE_HEIGHT)
    np.testing.assert_allclose(skeleton.knees[:, 1], 2.0 * (ANKLE_HEIGHT + SHANK))
    np.testing.assert_allclose(skeleton.hips[:, 1], 2.0 * (ANKLE_HEIGHT + SHANK + THIGH))
    np.testing.assert_allclose(skeleton.ankles.mean(axis=0)[[0, 2]], 0.0, atol=1e-12)


def test_left_is_at_positive_x_and_the_toes_point_forward():
    skeleton = place_skeleton(SHAPE, FigurePose())
    for pair in (skeleton.hips, skeleton.knees, skeleton.ankles, skeleton.shoulders, skeleton.elbows):
        assert pair[0, 0] > 0.05
        assert pair[1, 0] < -0.05
    assert np.all(skeleton.toes[:, 2] > skeleton.ankles[:, 2] + 0.1)
    assert np.all(skeleton.heels[:, 2] < skeleton.ankles[:, 2] - 0.05)


@pytest.mark.parametrize("knee_deg", [0.0, 12.5, 90.0, 137.0])
@pytest.mark.parametrize("valgus_deg", [-15.0, 0.0, 20.0])
def test_the_knee_angle_measured_on_the_joints_is_the_one_asked_for(knee_deg, valgus_deg):
    left = LegPose(70.0, knee_deg, 12.0, 25.0, valgus_deg)
    right = LegPose(20.0, 0.5 * knee_deg, -3.0, -8.0, -valgus_deg)
    skeleton = place_skeleton(SHAPE, FigurePose(left, right, trunk_lean_deg=33.0))
    np.testing.assert_allclose(skeleton.knee_flexion_deg, [knee_deg, 0.5 * knee_deg], atol=1e-6)


def test_bones_keep_their_lengths_in_every_pose():
    for seed, name in enumerate(POSE_NAMES * 3):
        skeleton = place_skeleton(SHAPE, random_pose(np.random.default_rng(seed), name, shape=SHAPE))
        thighs = np.linalg.norm(skeleton.knees - skeleton.hips, axis=1)
        shanks = np.linalg.norm(skeleton.ankles - skeleton.knees, axis=1)
        np.testing.assert_allclose(thighs, SHAPE.thigh_m, rtol=1e-12)
        np.testing.assert_allclose(shanks, SHAPE.shank_m, rtol=1e-12)


@pytest.mark.parametrize("name", POSE_NAMES)
def test_random_poses_stand_on_the_floor(name):
    for seed in range(20):
        skeleton = place_skeleton(SHAPE, random_pose(np.random.default_rng(seed), name, shape=SHAPE))
        assert _sole_points(skeleton)[:, 1].min() == pytest.approx(0.0, abs=1e-12)
        assert skeleton.pelvis[1] > 0.05
        assert skeleton.head[1] > skeleton.pelvis[1]


def test_hip_flexion_is_measured_against_the_trunk():
    leg = LegPose(hip_flexion_deg=90.0, knee_flexion_deg=90.0)
    skeleton = place_skeleton(SHAPE, FigurePose(leg, leg, trunk_lean_deg=30.0))
    thigh = (skeleton.knees - skeleton.hips)[0]
    # The thigh is 90 - 30 = 60 degrees from straight down, so it rises cos(60) = 1/2 of its length.
    assert -thigh[1] / np.linalg.norm(thigh) == pytest.approx(0.5)
    assert thigh[2] > 0


def test_valgus_brings_both_knees_inward_and_moves_no_foot():
    straight = place_skeleton(SHAPE, squat_pose(SHAPE, knee_flexion_deg=80.0))
    caved = place_skeleton(SHAPE, squat_pose(SHAPE, knee_flexion_deg=80.0, knee_valgus_deg=15.0))
    assert caved.knees[0, 0] < straight.knees[0, 0] - 0.02
    assert caved.knees[1, 0] > straight.knees[1, 0] + 0.02
    np.testing.assert_allclose(caved.ankles, straight.ankles, atol=1e-12)


def test_abduction_and_rotation_open_both_legs_outward():
    leg = LegPose(60.0, 60.0, hip_abduction_deg=15.0, hip_rotation_deg=20.0, foot_yaw_deg=25.0)
    skeleton = place_skeleton(SHAPE, FigurePose(leg, leg))
    assert skeleton.knees[0, 0] > skeleton.hips[0, 0] + 0.05
    assert skeleton.knees[1, 0] < skeleton.hips[1, 0] - 0.05
    toes_out = skeleton.toes[:, 0] - skeleton.heels[:, 0]
    assert toes_out[0] > 0.05
    assert toes_out[1] < -0.05


def test_a_squat_keeps_its_feet_while_it_goes_down():
    places = [place_skeleton(SHAPE, squat_pose(SHAPE, knee_flexion_deg=angle)) for angle in (0.0, 45.0, 90.0, 130.0)]
    for place in places:
        np.testing.assert_allclose(place.ankles, places[0].ankles, atol=1e-9)
        np.testing.assert_allclose(place.toes, places[0].toes, atol=1e-9)
        assert place.ankles[0, 0] - place.ankles[1, 0] == pytest.approx(0.36)
    heights = [place.pelvis[1] for place in places]
    assert heights == sorted(heights, reverse=True)


def test_a_squat_keeps_its_weight_over_the_feet():
    for angle in (0.0, 30.0, 60.0, 90.0, 120.0):
        skeleton = place_skeleton(SHAPE, squat_pose(SHAPE, knee_flexion_deg=angle))
        chest = skeleton.pelvis + 0.65 * (skeleton.neck - skeleton.pelvis)
        assert skeleton.heels[0, 2] < chest[2] < skeleton.toes[0, 2]


@pytest.mark.parametrize("front", [0, 1])
def test_a_lunge_has_both_feet_on_the_floor_and_the_right_one_in_front(front):
    skeleton = place_skeleton(SHAPE, lunge_pose(SHAPE, front=front, front_knee_deg=80.0))
    assert skeleton.knee_flexion_deg[front] == pytest.approx(80.0)
    assert skeleton.ankles[front, 2] > skeleton.ankles[1 - front, 2] + 0.4
    assert skeleton.heels[front, 1] == pytest.approx(0.0, abs=1e-9)
    assert skeleton.balls[1 - front, 1] == pytest.approx(0.0, abs=1e-9)
    assert skeleton.heels[1 - front, 1] > 0.05


def test_walking_repeats_and_its_half_cycle_is_its_mirror():
    first, half = (place_skeleton(SHAPE, walking_pose(phase=phase)) for phase in (0.2, 0.7))
    again = place_skeleton(SHAPE, walking_pose(phase=1.2))
    np.testing.assert_allclose(again.lower_body_xyz, first.lower_body_xyz, atol=1e-12)
    np.testing.assert_allclose(half.ankles[::-1] * [-1, 1, 1], first.ankles, atol=1e-12)
    assert abs(first.ankles[0, 2] - first.ankles[1, 2]) > 0.1


def test_the_heel_lift_reaches_the_floor_exactly():
    rise = 0.03
    pitch = heel_lift_deg(SHAPE, rise)
    lifted = LegPose(foot_pitch_deg=pitch, foot_yaw_deg=0.0)
    skeleton = place_skeleton(SHAPE, FigurePose(lifted, lifted))
    assert skeleton.balls[0, 1] == pytest.approx(0.0, abs=1e-12)
    assert skeleton.ankles[0, 1] == pytest.approx(ANKLE_HEIGHT * SHAPE.stature_m + rise)
    assert heel_lift_deg(SHAPE, -1.0) == 0.0
    assert heel_lift_deg(SHAPE, 5.0) == 60.0


def test_a_bent_arm_folds_forward_and_inward_rotation_brings_the_hand_to_the_other_side():
    plain = place_skeleton(SHAPE, FigurePose(left_arm=ArmPose(0.0, 0.0, 90.0), right_arm=ArmPose(0.0, 0.0, 90.0, 60.0)))
    assert plain.wrists[0, 2] > plain.elbows[0, 2] + 0.2
    assert plain.wrists[0, 0] == pytest.approx(plain.elbows[0, 0])
    assert plain.wrists[1, 0] > plain.elbows[1, 0] + 0.2


def test_head_and_trunk_turn_to_the_side_they_are_told():
    skeleton = place_skeleton(SHAPE, FigurePose(trunk_side_lean_deg=20.0, head_yaw_deg=40.0, head_pitch_deg=10.0))
    assert skeleton.neck[0] > skeleton.pelvis[0] + 0.1
    assert skeleton.head_frame[2, 0] > 0.5
    assert skeleton.head_frame[2, 1] < 0


def test_rotation_follows_the_right_hand_rule_and_cross_is_numpys():
    x, y, z = np.eye(3)
    np.testing.assert_allclose(rotate_about(x, z, degrees=90.0), y, atol=1e-12)
    first, second = np.array([1.0, -2.0, 0.5]), np.array([0.3, 4.0, -1.0])
    np.testing.assert_allclose(cross(first, second), np.cross(first, second))


@pytest.mark.parametrize(
    "build",
    [
        lambda: BodyShape(stature_m=17.5),
        lambda: LegPose(knee_flexion_deg=-1.0),
        lambda: LegPose(hip_flexion_deg=float("nan")),
        lambda: ArmPose(elbow_flexion_deg=float("inf")),
        lambda: FigurePose(trunk_lean_deg=float("nan")),
    ],
)
def test_impossible_values_are_refused(build):
    with pytest.raises(ValueError, match="must"):
        build()
