"""A 3-D human skeleton: proportions, a pose in joint angles, and forward kinematics to joints on a floor.

The world is right-handed and in metres: x points to the person's left, y up, z where the person faces; the floor
is y = 0. Arrays of a pair of joints are (2, 3) in the order left, right.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]

LEFT: Final = np.array([1.0, 0.0, 0.0])
UP: Final = np.array([0.0, 1.0, 0.0])
FORWARD: Final = np.array([0.0, 0.0, 1.0])
# +1 for the left side and -1 for the right: "outward" along x.
SIDE_SIGNS: Final = (1.0, -1.0)

# Segment lengths as fractions of stature: D. A. Winter, "Biomechanics and Motor Control of Human Movement",
# 4th ed. (2009), figure 4.1, after Drillis and Contini (1966).
THIGH: Final = 0.245
SHANK: Final = 0.246
ANKLE_HEIGHT: Final = 0.039
FOOT_LENGTH: Final = 0.152
TRUNK: Final = 0.288
UPPER_ARM: Final = 0.186
FOREARM: Final = 0.146
HAND: Final = 0.108
HEAD: Final = 0.130
# The figure gives breadths of the body (hips .191, shoulders .259); the joint centres lie further in.
HIP_SEPARATION: Final = 0.112
SHOULDER_SEPARATION: Final = 0.226
# Where the ankle divides the foot, and the ball of the foot, forward of the ankle.
HEEL_BEHIND: Final = 0.040
BALL_AHEAD: Final = 0.072
TOE_AHEAD: Final = FOOT_LENGTH - HEEL_BEHIND


@dataclass(frozen=True, slots=True)
class BodyShape:
    """How tall and how broad a body is.

    Attributes:
        stature_m: Standing height without shoes.
        girth: Factor on every thickness of flesh.
        shoulder_breadth: Factor on the distance between the shoulders.
        hip_breadth: Factor on the distance between the hips.
        leg_length: Factor on thigh and shank.
    """

    stature_m: float = 1.75
    girth: float = 1.0
    shoulder_breadth: float = 1.0
    hip_breadth: float = 1.0
    leg_length: float = 1.0

    def __post_init__(self) -> None:
        for item in fields(self):
            low, high = (0.5, 2.5) if item.name == "stature_m" else (0.5, 2.0)
            value = getattr(self, item.name)
            if not low <= value <= high:
                raise ValueError(f"{item.name} must lie in {low}..{high}, got {value}")

    @property
    def thigh_m(self) -> float:
        """Hip centre to knee centre."""
        return THIGH * self.leg_length * self.stature_m

    @property
    def shank_m(self) -> float:
        """Knee centre to ankle centre."""
        return SHANK * self.leg_length * self.stature_m


@dataclass(frozen=True, slots=True)
class LegPose:
    """The angles of one leg.

    Thigh and shank lie in one plane, which `hip_abduction_deg` tilts and `hip_rotation_deg` turns outward; valgus then
    turns that plane about the line from hip to ankle, so that it moves neither the foot nor the knee angle.

    Attributes:
        hip_flexion_deg: Thigh against the trunk, forward positive.
        knee_flexion_deg: Shank against the thigh's line; 0 is a straight leg.
        hip_abduction_deg: Outward positive.
        hip_rotation_deg: Outward positive; turns the direction in which the knee points.
        knee_valgus_deg: Positive brings a bent knee inward.
        foot_yaw_deg: Toes outward positive, measured on the floor.
        foot_pitch_deg: Heel lifted positive, toes lifted negative.
    """

    hip_flexion_deg: float = 0.0
    knee_flexion_deg: float = 0.0
    hip_abduction_deg: float = 0.0
    hip_rotation_deg: float = 0.0
    knee_valgus_deg: float = 0.0
    foot_yaw_deg: float = 7.0
    foot_pitch_deg: float = 0.0

    def __post_init__(self) -> None:
        _require_finite(self)
        if not 0.0 <= self.knee_flexion_deg <= 170.0:
            raise ValueError(f"knee_flexion_deg must lie in 0..170, got {self.knee_flexion_deg}")


@dataclass(frozen=True, slots=True)
class ArmPose:
    """The angles of one arm against the trunk.

    Attributes:
        shoulder_flexion_deg: Upper arm raised forward; 180 is overhead.
        shoulder_abduction_deg: Upper arm raised sideways.
        elbow_flexion_deg: Forearm against the upper arm's line; 0 is a straight arm.
        shoulder_rotation_deg: Turns the bent forearm inward, toward the other arm.
    """

    shoulder_flexion_deg: float = 5.0
    shoulder_abduction_deg: float = 8.0
    elbow_flexion_deg: float = 15.0
    shoulder_rotation_deg: float = 0.0

    def __post_init__(self) -> None:
        _require_finite(self)


@dataclass(frozen=True, slots=True)
class FigurePose:
    """The joint angles of a whole figure.

    Attributes:
        left_leg, right_leg: Legs, the person's own left and right.
        left_arm, right_arm: Arms likewise.
        trunk_lean_deg: Trunk forward of the vertical.
        trunk_side_lean_deg: Trunk toward the person's left.
        trunk_twist_deg: Shoulders against the pelvis, left shoulder forward negative.
        head_pitch_deg: Face below the horizontal, whatever the trunk does.
        head_yaw_deg: Face toward the person's left.
    """

    left_leg: LegPose = field(default_factory=LegPose)
    right_leg: LegPose = field(default_factory=LegPose)
    left_arm: ArmPose = field(default_factory=ArmPose)
    right_arm: ArmPose = field(default_factory=ArmPose)
    trunk_lean_deg: float = 0.0
    trunk_side_lean_deg: float = 0.0
    trunk_twist_deg: float = 0.0
    head_pitch_deg: float = 5.0
    head_yaw_deg: float = 0.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float | int) and not np.isfinite(value):
                raise ValueError(f"{item.name} must be finite, got {value}")

    @property
    def legs(self) -> tuple[LegPose, LegPose]:
        """Left and right leg."""
        return self.left_leg, self.right_leg

    @property
    def arms(self) -> tuple[ArmPose, ArmPose]:
        """Left and right arm."""
        return self.left_arm, self.right_arm


@dataclass(frozen=True, slots=True)
class Skeleton:
    """Joint centres and landmarks of a posed body in the world, metres.

    Attributes:
        hips, knees, ankles, heels, balls, toes: (2, 3) left, right; heel, ball and toe lie on the sole.
        shoulders, elbows, wrists, fingertips: (2, 3) left, right.
        pelvis, waist, neck, head: (3,) centre between the hips, the middle of the trunk, the level of the shoulders
            and the centre of the skull.
        pelvis_frame, trunk_frame, head_frame: (3, 3) rows are the segment's own left, up and forward.
        knee_forwards: (2, 3) unit vectors across each thigh toward the front of the knee.
        palm_normals: (2, 3) unit vectors across the hands' flat side.
    """

    hips: Vectors
    knees: Vectors
    ankles: Vectors
    heels: Vectors
    balls: Vectors
    toes: Vectors
    shoulders: Vectors
    elbows: Vectors
    wrists: Vectors
    fingertips: Vectors
    pelvis: Vectors
    waist: Vectors
    neck: Vectors
    head: Vectors
    pelvis_frame: Vectors
    trunk_frame: Vectors
    head_frame: Vectors
    knee_forwards: Vectors
    palm_normals: Vectors

    @property
    def lower_body_xyz(self) -> Vectors:
        """(6, 3) left hip, right hip, left knee, right knee, left ankle, right ankle: the order of LOWER_BODY_6."""
        return np.concatenate([self.hips, self.knees, self.ankles])

    @property
    def knee_flexion_deg(self) -> Vectors:
        """(2,) angle between thigh and shank, left and right, measured on the joints themselves."""
        thighs, shanks = self.knees - self.hips, self.ankles - self.knees
        sines = np.linalg.norm(np.cross(thighs, shanks), axis=1)
        angles: Vectors = np.rad2deg(np.arctan2(sines, np.sum(thighs * shanks, axis=1)))
        return angles


def place_skeleton(shape: BodyShape, pose: FigurePose) -> Skeleton:
    """Return the joints of a body in a pose, its lowest sole on the floor and its ankles about the origin.

    The middle between the ankles stands over x = z = 0, so that a symmetric squat keeps its feet where they are.

    Args:
        shape: The body's proportions.
        pose: Its joint angles.
    """
    pelvis_frame = _pitched(pose.trunk_lean_deg * 0.8)
    trunk_frame = _trunk_frame(pose)
    trunk = _trunk_joints(shape, pose, pelvis_frame, trunk_frame)
    legs = [_leg_joints(shape, pose, side, trunk["hips"][side]) for side in (0, 1)]
    arms = [_arm_joints(shape, pose.arms[side], side, trunk["shoulders"][side], trunk_frame) for side in (0, 1)]
    points = trunk | _paired(legs) | _paired(arms)
    directions = {name: points.pop(name) for name in ("knee_forwards", "palm_normals")}
    soles = np.concatenate([points[name] for name in ("heels", "balls", "toes")])
    middle = points["ankles"].mean(axis=0)
    shift = np.array([-middle[0], -soles[:, 1].min(), -middle[2]])
    return Skeleton(
        **{name: value + shift for name, value in points.items()},
        pelvis_frame=pelvis_frame,
        trunk_frame=trunk_frame,
        head_frame=_turned(_pitched(pose.head_pitch_deg), UP, pose.head_yaw_deg),
        **directions,
    )


def ankle_height_m(shape: BodyShape, foot_pitch_deg: float) -> float:
    """Return how high the ankle is when a foot so pitched touches the floor with its ball or its heel."""
    angle = np.deg2rad(foot_pitch_deg)
    lever = BALL_AHEAD if foot_pitch_deg > 0 else HEEL_BEHIND
    return float((lever * abs(np.sin(angle)) + ANKLE_HEIGHT * np.cos(angle)) * shape.stature_m)


def heel_lift_deg(shape: BodyShape, rise_m: float) -> float:
    """Return the foot pitch that keeps the ball on the floor with the ankle raised by `rise_m` from flat.

    A rise beyond the reach of the foot gives 60 degrees; a negative one gives 0.
    """
    if rise_m <= 0:
        return 0.0
    height = ANKLE_HEIGHT + rise_m / shape.stature_m
    reach = np.hypot(BALL_AHEAD, ANKLE_HEIGHT)
    if height >= reach:
        return 60.0
    pitch = np.rad2deg(np.arcsin(height / reach) - np.arctan2(ANKLE_HEIGHT, BALL_AHEAD))
    return float(np.clip(pitch, 0.0, 60.0))


def _require_finite(angles: LegPose | ArmPose) -> None:
    for item in fields(angles):
        if not np.isfinite(getattr(angles, item.name)):
            raise ValueError(f"{item.name} must be finite, got {getattr(angles, item.name)}")


def _sincos(degrees: float) -> tuple[float, float]:
    angle = np.deg2rad(degrees)
    return float(np.sin(angle)), float(np.cos(angle))


def rotate_about(vectors: Vectors, axis: Vectors, *, degrees: float) -> Vectors:
    """Return (..., 3) vectors turned about a unit axis by the right-hand rule (Rodrigues' formula)."""
    sin, cos = _sincos(degrees)
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    matrix = cos * np.eye(3) + sin * cross + (1 - cos) * np.outer(axis, axis)
    turned: Vectors = vectors @ matrix.T
    return turned


def cross(first: Vectors, second: Vectors) -> Vectors:
    """Return the cross product of two (3,) vectors, twenty times as fast as NumPy's general one."""
    a, b, c = first.tolist()
    d, e, f = second.tolist()
    return np.array([b * f - c * e, c * d - a * f, a * e - b * d])


def _turned(frame: Vectors, axis: Vectors, degrees: float) -> Vectors:
    return rotate_about(frame, axis, degrees=degrees)


def _pitched(degrees: float) -> Vectors:
    """Return a frame (left, up, forward) whose up leans forward."""
    return _turned(np.stack([LEFT, UP, FORWARD]), LEFT, degrees)


def _trunk_frame(pose: FigurePose) -> Vectors:
    leaning = _turned(_pitched(pose.trunk_lean_deg), FORWARD, -pose.trunk_side_lean_deg)
    return _turned(leaning, leaning[1], pose.trunk_twist_deg)


def _paired(sides: list[dict[str, Vectors]]) -> dict[str, Vectors]:
    return {name: np.stack([sides[0][name], sides[1][name]]) for name in sides[0]}


def _trunk_joints(
    shape: BodyShape, pose: FigurePose, pelvis_frame: Vectors, trunk_frame: Vectors
) -> dict[str, Vectors]:
    """Return the joints of hips and trunk with the pelvis at the world's origin."""
    stature = shape.stature_m
    half_hips = 0.5 * HIP_SEPARATION * shape.hip_breadth * stature
    half_shoulders = 0.5 * SHOULDER_SEPARATION * shape.shoulder_breadth * stature
    left, up, forward = trunk_frame
    neck = TRUNK * stature * up
    # The lumbar spine is hollow: the waist lies a little in front of the straight line.
    waist = 0.13 * stature * (0.5 * pelvis_frame[1] + 0.5 * up) + 0.006 * stature * forward
    head_frame = _turned(_pitched(pose.head_pitch_deg), UP, pose.head_yaw_deg)
    throat = neck + stature * (0.045 * up + 0.008 * forward)
    head = throat + stature * (0.070 * head_frame[1] + 0.016 * head_frame[2])
    return {
        "pelvis": np.zeros(3),
        "waist": waist,
        "neck": neck,
        "head": head,
        "hips": np.stack([sign * half_hips * LEFT for sign in SIDE_SIGNS]),
        "shoulders": np.stack([neck - 0.012 * stature * up + sign * half_shoulders * left for sign in SIDE_SIGNS]),
    }


def _leg_joints(shape: BodyShape, pose: FigurePose, side: int, hip: Vectors) -> dict[str, Vectors]:
    leg, sign = pose.legs[side], SIDE_SIGNS[side]
    elevation = leg.hip_flexion_deg - pose.trunk_lean_deg
    down, ahead = _leg_plane(leg, sign)
    sin_thigh, cos_thigh = _sincos(elevation)
    sin_shank, cos_shank = _sincos(elevation - leg.knee_flexion_deg)
    thigh = shape.thigh_m * (cos_thigh * down + sin_thigh * ahead)
    shank = shape.shank_m * (cos_shank * down + sin_shank * ahead)
    front = cos_thigh * ahead - sin_thigh * down
    ankle = hip + thigh + shank
    line = (ankle - hip) / np.linalg.norm(ankle - hip)
    # Seen from above, a left knee moves inward when it turns clockwise about the line down the leg.
    thigh, front = _turned(np.stack([thigh, front]), line, sign * leg.knee_valgus_deg)
    return {"knees": hip + thigh, "ankles": ankle, "knee_forwards": front} | _foot_points(shape, leg, sign, ankle)


def _leg_plane(leg: LegPose, sign: float) -> tuple[Vectors, Vectors]:
    """Return the unit vectors down and forward of the plane in which a leg bends."""
    sin_tilt, cos_tilt = _sincos(leg.hip_abduction_deg)
    sin_turn, cos_turn = _sincos(leg.hip_rotation_deg)
    outward = sign * LEFT
    down = -cos_tilt * UP + sin_tilt * outward
    across = cos_tilt * outward + sin_tilt * UP
    return down, cos_turn * FORWARD + sin_turn * across


def _foot_points(shape: BodyShape, leg: LegPose, sign: float, ankle: Vectors) -> dict[str, Vectors]:
    """Return heel, ball and toe on the sole; the toes stay level when the heel is lifted."""
    stature = shape.stature_m
    sin_yaw, cos_yaw = _sincos(leg.foot_yaw_deg)
    level = cos_yaw * FORWARD + sign * sin_yaw * LEFT
    sin_pitch, cos_pitch = _sincos(leg.foot_pitch_deg)
    along = cos_pitch * level - sin_pitch * UP
    down = -cos_pitch * UP - sin_pitch * level
    sole = ankle + ANKLE_HEIGHT * stature * down
    ball = sole + BALL_AHEAD * stature * along
    toe_direction = level if leg.foot_pitch_deg > 0 else along
    return {
        "heels": sole - HEEL_BEHIND * stature * along,
        "balls": ball,
        "toes": ball + (TOE_AHEAD - BALL_AHEAD) * stature * toe_direction,
    }


def _arm_joints(
    shape: BodyShape, arm: ArmPose, side: int, shoulder: Vectors, trunk_frame: Vectors
) -> dict[str, Vectors]:
    left, up, forward = trunk_frame
    outward = SIDE_SIGNS[side] * left
    sin_flex, cos_flex = _sincos(arm.shoulder_flexion_deg)
    sin_abd, cos_abd = _sincos(arm.shoulder_abduction_deg)
    sin_turn, cos_turn = _sincos(arm.shoulder_rotation_deg)
    sin_elbow, cos_elbow = _sincos(arm.elbow_flexion_deg)
    sagittal = -cos_flex * up + sin_flex * forward
    upper = cos_abd * sagittal + sin_abd * outward
    inward = sin_abd * sagittal - cos_abd * outward
    fold = cos_turn * (cos_flex * forward + sin_flex * up) + sin_turn * inward
    fore = cos_elbow * upper + sin_elbow * fold
    palm = cos_turn * inward - sin_turn * (cos_flex * forward + sin_flex * up)
    elbow = shoulder + UPPER_ARM * shape.stature_m * upper
    wrist = elbow + FOREARM * shape.stature_m * fore
    return {
        "elbows": elbow,
        "wrists": wrist,
        "fingertips": wrist + HAND * shape.stature_m * fore,
        "palm_normals": palm,
    }
