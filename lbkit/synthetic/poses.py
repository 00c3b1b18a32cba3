"""Poses of a figure: squats at any depth, lunges, a walking cycle, standing; exact or drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, Literal, get_args

import numpy as np
from numpy.random import Generator

from lbkit.synthetic.skeleton import (
    HIP_SEPARATION,
    SHANK,
    THIGH,
    ArmPose,
    BodyShape,
    FigurePose,
    LegPose,
    ankle_height_m,
    heel_lift_deg,
)

PoseName = Literal["standing", "squatting", "lunging", "walking"]
POSE_NAMES: Final[tuple[PoseName, ...]] = get_args(PoseName)

# Joint angles of natural walking at tenths of a cycle that starts with the heel's strike, rounded from the curves
# of Winter (2009), appendix A; the foot's pitch is chosen so that the sole follows the floor.
_CYCLE: Final = np.linspace(0.0, 1.0, 11)
_WALK_HIP_DEG: Final = (22, 17, 9, 1, -6, -11, -4, 12, 22, 25, 22)
_WALK_KNEE_DEG: Final = (4, 15, 19, 12, 7, 11, 40, 64, 52, 16, 4)
_WALK_FOOT_DEG: Final = (-18, -2, 0, 0, 4, 20, 52, 46, 8, -14, -18)


def squat_pose(
    shape: BodyShape,
    *,
    knee_flexion_deg: float,
    toe_out_deg: float = 18.0,
    stance_m: float = 0.36,
    shin_share: float = 0.3,
    knee_valgus_deg: float = 0.0,
    arms: tuple[ArmPose, ArmPose] | None = None,
) -> FigurePose:
    """Return a symmetric squat that keeps its feet flat and in place at every depth and its weight over them.

    Args:
        shape: The body, whose proportions decide how far the trunk leans.
        knee_flexion_deg: True knee angle of both legs, 0 (upright) to 140.
        toe_out_deg: Direction of knees and toes.
        stance_m: Distance between the ankles.
        shin_share: Part of the knee angle that the shin's forward lean takes (at most 38 degrees of lean).
        knee_valgus_deg: Turns the knees inward about the lines from hip to ankle.
        arms: Left and right arm; hanging when None.
    """
    shin = min(knee_flexion_deg * shin_share, 38.0)
    elevation = knee_flexion_deg - shin
    lean = _balancing_lean_deg(elevation, shin)
    leg = LegPose(
        hip_flexion_deg=elevation + lean,
        knee_flexion_deg=knee_flexion_deg,
        hip_abduction_deg=_stance_abduction_deg(shape, elevation, shin, toe_out_deg=toe_out_deg, stance_m=stance_m),
        hip_rotation_deg=toe_out_deg,
        knee_valgus_deg=knee_valgus_deg,
        foot_yaw_deg=toe_out_deg,
    )
    left_arm, right_arm = arms or (ArmPose(), ArmPose())
    return FigurePose(leg, leg, left_arm, right_arm, trunk_lean_deg=lean, head_pitch_deg=5.0 + 0.3 * lean)


def lunge_pose(
    shape: BodyShape,
    *,
    front: int,
    front_knee_deg: float,
    back_thigh_deg: float = -8.0,
    back_heel_deg: float = 45.0,
    trunk_lean_deg: float = 8.0,
    arms: tuple[ArmPose, ArmPose] | None = None,
) -> FigurePose:
    """Return a split stance whose front foot is flat and whose back foot stands on its ball.

    The back knee's angle follows: it is what puts both feet on the floor.

    Args:
        shape: The body's proportions.
        front: 0 with the left leg in front, 1 with the right.
        front_knee_deg: True angle of the front knee, 20 to 120.
        back_thigh_deg: Elevation of the back thigh, forward positive.
        back_heel_deg: Pitch of the back foot.
        trunk_lean_deg: Trunk forward of the vertical.
        arms: Left and right arm; hanging when None.
    """
    shin = 0.12 * front_knee_deg
    drop = _drop_m(shape, front_knee_deg - shin, front_knee_deg) + ankle_height_m(shape, 0.0)
    back_drop = drop - ankle_height_m(shape, back_heel_deg)
    thigh = np.deg2rad(back_thigh_deg)
    cosine = (back_drop - shape.thigh_m * np.cos(thigh)) / shape.shank_m
    back_knee = back_thigh_deg + np.rad2deg(np.arccos(np.clip(cosine, -1.0, 1.0)))
    ahead = LegPose(front_knee_deg - shin + trunk_lean_deg, front_knee_deg, foot_yaw_deg=4.0)
    behind = LegPose(
        back_thigh_deg + trunk_lean_deg,
        float(np.clip(back_knee, 0.0, 150.0)),
        foot_yaw_deg=2.0,
        foot_pitch_deg=back_heel_deg,
    )
    legs = (ahead, behind) if front == 0 else (behind, ahead)
    return FigurePose(*legs, *(arms or (ArmPose(), ArmPose())), trunk_lean_deg=trunk_lean_deg)


def walking_pose(*, phase: float, stride: float = 1.0, trunk_lean_deg: float = 4.0) -> FigurePose:
    """Return one moment of natural walking, the arms swinging against the legs.

    Args:
        phase: Part of the cycle since the left heel struck; any number, taken modulo 1.
        stride: Factor on the swing of hips and arms, 0.5 to 1.3.
        trunk_lean_deg: Trunk forward of the vertical.
    """
    legs, arms = [], []
    for moment in (phase % 1.0, (phase + 0.5) % 1.0):
        hip, knee, foot = (
            float(np.interp(moment, _CYCLE, curve)) for curve in (_WALK_HIP_DEG, _WALK_KNEE_DEG, _WALK_FOOT_DEG)
        )
        legs.append(LegPose(stride * hip + trunk_lean_deg, knee, foot_pitch_deg=foot, hip_abduction_deg=-1.0))
        swing = -1.1 * stride * (hip - 6.0)
        arms.append(ArmPose(swing, 9.0, 18.0 + 0.5 * max(swing, 0.0), 10.0))
    (left_leg, right_leg), (left_arm, right_arm) = legs, arms
    twist = 0.12 * (right_arm.shoulder_flexion_deg - left_arm.shoulder_flexion_deg)
    return FigurePose(left_leg, right_leg, left_arm, right_arm, trunk_lean_deg=trunk_lean_deg, trunk_twist_deg=twist)


def random_pose(rng: Generator, name: PoseName, *, shape: BodyShape) -> FigurePose:
    """Return a pose of a kind with its depth, stance, arms and head drawn at random."""
    pose = _RANDOM_POSES[name](rng, shape)
    return replace(
        pose,
        head_pitch_deg=pose.head_pitch_deg + rng.normal(0.0, 8.0),
        head_yaw_deg=pose.head_yaw_deg + rng.normal(0.0, 14.0),
    )


def _balancing_lean_deg(elevation_deg: float, shin_deg: float) -> float:
    """Return the trunk lean that brings the weight over the middle of the feet, from standing (0) to at most 60."""
    hip_ahead = SHANK * np.sin(np.deg2rad(shin_deg)) - THIGH * np.sin(np.deg2rad(elevation_deg))
    # About 0.2 of stature above the hips lies what must come forward by as much as the hips went back.
    sine = np.clip((0.02 * min(elevation_deg / 40.0, 1.0) - hip_ahead) / 0.20, 0.0, 0.87)
    return float(np.rad2deg(np.arcsin(sine)))


def _stance_abduction_deg(
    shape: BodyShape, elevation_deg: float, shin_deg: float, *, toe_out_deg: float, stance_m: float
) -> float:
    """Return the abduction that sets the ankles `stance_m` apart, solved from the leg plane's geometry."""
    wanted = (stance_m - HIP_SEPARATION * shape.hip_breadth * shape.stature_m) / 2
    angles = np.deg2rad([elevation_deg, -shin_deg])
    lengths = np.array([shape.thigh_m, shape.shank_m])
    outward = float(lengths @ np.sin(angles)) * np.sin(np.deg2rad(toe_out_deg))
    downward = float(lengths @ np.cos(angles))
    sine = np.clip(wanted / np.hypot(outward, downward), -1.0, 1.0)
    return float(np.rad2deg(np.arcsin(sine) - np.arctan2(outward, downward)))


def _drop_m(shape: BodyShape, elevation_deg: float, knee_deg: float) -> float:
    """Return how far below its hip an ankle of an untilted leg lies."""
    thigh, shank = np.cos(np.deg2rad([elevation_deg, elevation_deg - knee_deg]))
    return float(shape.thigh_m * thigh + shape.shank_m * shank)


def _random_standing(rng: Generator, shape: BodyShape) -> FigurePose:
    """Draw a stance with one leg perhaps relaxed, its heel lifted by what the bent knee takes."""
    legs = []
    relaxed = rng.integers(0, 4)
    lean = rng.uniform(-3.0, 7.0)
    abduction, turn = rng.uniform(-2.0, 9.0), rng.uniform(0.0, 22.0)
    straight = _drop_m(shape, 0.0, 0.0)
    for side in (0, 1):
        knee = rng.uniform(8.0, 38.0) if side == relaxed else rng.uniform(0.0, 4.0)
        elevation = 0.6 * knee + rng.uniform(-1.5, 1.5)
        lift = heel_lift_deg(shape, straight - _drop_m(shape, elevation, knee)) if side == relaxed else 0.0
        angles = (elevation + lean, knee, abduction + rng.uniform(-1.0, 1.0), turn, 0.0, turn, lift)
        legs.append(LegPose(*angles))
    left_leg, right_leg = legs
    return FigurePose(left_leg, right_leg, *random_arms(rng), lean, rng.normal(0.0, 2.5), rng.normal(0.0, 6.0))


def _random_squat(rng: Generator, shape: BodyShape) -> FigurePose:
    # Depths are drawn over the whole range, deep ones somewhat more often than a plain uniform would.
    knee = float(np.clip(20.0 + 120.0 * rng.beta(1.6, 1.2), 20.0, 138.0))
    pose = squat_pose(
        shape,
        knee_flexion_deg=knee,
        toe_out_deg=rng.uniform(3.0, 38.0),
        stance_m=shape.stature_m * rng.uniform(0.14, 0.34),
        shin_share=rng.uniform(0.22, 0.36),
        arms=random_arms(rng, squatting=True),
    )
    left, right = (replace(leg, knee_valgus_deg=rng.normal(0.0, 7.0)) for leg in pose.legs)
    lean = pose.trunk_lean_deg + rng.normal(0.0, 4.0)
    shift = lean - pose.trunk_lean_deg
    left, right = (replace(leg, hip_flexion_deg=leg.hip_flexion_deg + shift) for leg in (left, right))
    return replace(pose, left_leg=left, right_leg=right, trunk_lean_deg=lean, trunk_side_lean_deg=rng.normal(0.0, 2.0))


def _random_lunge(rng: Generator, shape: BodyShape) -> FigurePose:
    front_knee = rng.uniform(30.0, 108.0)
    pose = lunge_pose(
        shape,
        front=int(rng.integers(0, 2)),
        front_knee_deg=front_knee,
        back_thigh_deg=rng.uniform(-26.0, -12.0) + 0.12 * front_knee,
        back_heel_deg=rng.uniform(35.0, 62.0),
        trunk_lean_deg=rng.uniform(-2.0, 28.0),
        arms=random_arms(rng, squatting=bool(rng.random() < 0.4)),
    )
    spread = rng.uniform(-1.0, 8.0)
    left, right = (replace(leg, hip_abduction_deg=spread, hip_rotation_deg=rng.uniform(0, 10)) for leg in pose.legs)
    return replace(pose, left_leg=left, right_leg=right, trunk_twist_deg=rng.normal(0.0, 8.0))


def _random_walk(rng: Generator, shape: BodyShape) -> FigurePose:
    del shape
    pose = walking_pose(phase=rng.random(), stride=rng.uniform(0.7, 1.25), trunk_lean_deg=rng.uniform(0.0, 9.0))
    if rng.random() < 0.25:
        left_arm, right_arm = random_arms(rng)
        pose = replace(pose, left_arm=left_arm, right_arm=right_arm)
    return pose


_RANDOM_POSES: Final[dict[PoseName, Callable[[Generator, BodyShape], FigurePose]]] = {
    "standing": _random_standing,
    "squatting": _random_squat,
    "lunging": _random_lunge,
    "walking": _random_walk,
}

# Shoulder flexion, abduction, elbow flexion, rotation (degrees) of arm positions people take.
_HANGING: Final = (4.0, 9.0, 14.0, 15.0)
_ON_HIPS: Final = (-22.0, 42.0, 98.0, 62.0)
_FORWARD: Final = (86.0, 4.0, 6.0, 0.0)
_BEFORE_CHEST: Final = (36.0, 16.0, 126.0, 48.0)
_OVERHEAD: Final = (168.0, 14.0, 12.0, 0.0)
_AT_SHOULDERS: Final = (10.0, 46.0, 148.0, -18.0)
_SPREAD: Final = (4.0, 84.0, 10.0, 0.0)
_CROSSED: Final = (32.0, 8.0, 92.0, 66.0)
_STANDING_ARMS: Final = ((_HANGING, 8), (_ON_HIPS, 3), (_CROSSED, 2), (_SPREAD, 1), (_OVERHEAD, 1), (_BEFORE_CHEST, 1))
_SQUATTING_ARMS: Final = (
    (_FORWARD, 4),
    (_BEFORE_CHEST, 4),
    (_AT_SHOULDERS, 3),
    (_HANGING, 2),
    (_ON_HIPS, 1),
    (_OVERHEAD, 1),
)


def random_arms(rng: Generator, *, squatting: bool = False) -> tuple[ArmPose, ArmPose]:
    """Return left and right arm in a position people take, mostly alike, every angle varied."""
    choices = _SQUATTING_ARMS if squatting else _STANDING_ARMS
    weights = np.array([weight for _, weight in choices], dtype=np.float64)
    first, second = rng.choice(len(choices), size=2, p=weights / weights.sum())
    second = first if rng.random() < 0.85 else second
    return _varied_arm(rng, choices[first][0]), _varied_arm(rng, choices[second][0])


def _varied_arm(rng: Generator, angles_deg: tuple[float, ...]) -> ArmPose:
    flexion, abduction, elbow, rotation = np.array(angles_deg) + rng.normal(0.0, (8.0, 5.0, 8.0, 8.0))
    return ArmPose(float(flexion), float(abduction), float(np.clip(elbow, 0.0, 155.0)), float(rotation))
