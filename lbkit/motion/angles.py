"""What six joints tell about a person's posture in the picture, frame by frame, and where they cannot tell.

Every angle is of the picture's plane, in degrees; up is up the picture. Signs follow Sports2D: flexion is positive.
Where something cannot be measured the value is NaN and a reason is kept: no number is made up.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lbkit.core.angles import SIDES, knee_flexion_deg
from lbkit.errors import InputError
from lbkit.motion.limits import MeasuringLimits, default_limits
from lbkit.motion.mending import MendedTrack
from lbkit.motion.view import View

__all__ = [
    "COLUMNS",
    "REASONS",
    "FrameAngles",
    "Reason",
    "check_measurable",
    "frontal_plane_projection_angle_deg",
    "hip_above_knee",
    "knee_flexion_deg",
    "knee_to_ankle_separation_ratio",
    "measure_frames",
    "pelvic_obliquity_deg",
    "shank_inclination_deg",
    "thigh_inclination_deg",
]

Doubles = NDArray[np.float64]
Reason = Literal["", "not_found", "low_score", "leapt", "foreshortened", "view"]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
"""Why a value is missing; the first stands for one that is there.

not_found: a joint was not seen. low_score: the network was not sure of one. leapt: one lay far from where it was just
before and after. foreshortened: a limb points toward the camera or away. view: the camera stands wrong for it.
"""

_SIDED: Final = (
    "knee_flexion_deg",
    "thigh_inclination_deg",
    "shank_inclination_deg",
    "frontal_plane_projection_angle_deg",
    "hip_above_knee_legs",
)
COLUMNS: Final = (
    *(f"{side}_{name}" for name in _SIDED for side in SIDES),
    "knee_flexion_difference_deg",
    "mean_frontal_plane_projection_angle_deg",
    "pelvic_obliquity_deg",
    "knee_to_ankle_separation_ratio",
)
"""Names of what is measured in every frame."""

_UNMEASURABLE: Final = {
    "hip_flexion_deg": ("the trunk's direction, and no shoulder is among the six joints", "thigh_inclination_deg"),
    "trunk_inclination_deg": ("the shoulders, which are not among the six joints", "thigh_inclination_deg"),
    "ankle_dorsiflexion_deg": (
        "the foot's direction, and neither heel nor toe is among the six joints",
        "shank_inclination_deg",
    ),
    "foot_angle_deg": ("heel and toe, which are not among the six joints", "knee_to_ankle_separation_ratio"),
}

_PIECES: Final = np.array([[0, 2, 4], [1, 3, 5]])


@dataclass(frozen=True, slots=True, eq=False)
class FrameAngles:
    """What was measured in each of T frames.

    Attributes:
        time_s: (T,) seconds.
        values: (T, C) float64 in the order of `COLUMNS`; NaN where not measurable.
        reasons: (T, C) uint8, indices of `REASONS`.
    """

    time_s: Doubles
    values: Doubles
    reasons: NDArray[np.uint8]

    def __post_init__(self) -> None:
        shape = (len(self.time_s), len(COLUMNS))
        if self.values.shape != shape or self.reasons.shape != shape:
            raise ValueError(f"values and reasons should be {shape}, got {self.values.shape}, {self.reasons.shape}")
        if (np.isfinite(self.values) == (self.reasons > 0)).any():
            raise ValueError("a value is either there or has a reason for its absence")

    def column(self, name: str) -> Doubles:
        """Return (T,) values of a column.

        Raises:
            InputError: There is no such column, or six joints cannot give it.
        """
        check_measurable(name)
        return self.values[:, COLUMNS.index(name)]

    def reason(self, name: str) -> list[Reason]:
        """Return T reasons of a column.

        Raises:
            InputError: There is no such column, or six joints cannot give it.
        """
        check_measurable(name)
        return [REASONS[index] for index in self.reasons[:, COLUMNS.index(name)]]


def check_measurable(name: str) -> None:
    """Raise unless a quantity is among `COLUMNS`.

    Raises:
        InputError: Six joints cannot give it, which says why and what can be given, or the name is unknown.
    """
    plain = name.removeprefix("left_").removeprefix("right_")
    if plain in _UNMEASURABLE:
        missing, instead = _UNMEASURABLE[plain]
        raise InputError(f"{plain} cannot be measured: it needs {missing}", remedy=f"{instead} can be given")
    if name not in COLUMNS:
        near = difflib.get_close_matches(name, COLUMNS, n=1)
        raise InputError(
            f"nothing is measured under the name {name!r}",
            remedy=f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COLUMNS)}",
        )


def thigh_inclination_deg(joints_xy: Doubles) -> Doubles:
    """Return (..., 2) angles of left and right thigh from the vertical: 0 in standing, more than 90 hip below knee.

    Args:
        joints_xy: (..., 6, 2) joints in image pixels.
    """
    thighs = joints_xy[..., 2:4, :] - joints_xy[..., 0:2, :]
    return np.degrees(np.arctan2(np.abs(thighs[..., 0]), thighs[..., 1]))


def shank_inclination_deg(joints_xy: Doubles) -> Doubles:
    """Return (..., 2) angles of left and right shank from the vertical: 0 with the knee right above the ankle.

    Args:
        joints_xy: (..., 6, 2) joints in image pixels.
    """
    shanks = joints_xy[..., 4:6, :] - joints_xy[..., 2:4, :]
    return np.degrees(np.arctan2(np.abs(shanks[..., 0]), shanks[..., 1]))


def pelvic_obliquity_deg(joints_xy: Doubles) -> Doubles:
    """Return (...) angles of the line through the hips from the horizontal, positive where the left hip is higher.

    Args:
        joints_xy: (..., 6, 2) joints in image pixels.
    """
    left, right = joints_xy[..., 0, :], joints_xy[..., 1, :]
    return np.degrees(np.arctan2(right[..., 1] - left[..., 1], np.abs(left[..., 0] - right[..., 0])))


def frontal_plane_projection_angle_deg(joints_xy: Doubles, *, faces_camera: bool) -> Doubles:
    """Return (..., 2) angles of thigh and shank from the front, knee valgus positive (Willson and Davis, 2008).

    Args:
        joints_xy: (..., 6, 2) joints in image pixels.
        faces_camera: Whether the person is seen from the front; False from behind.
    """
    legs = joints_xy[..., _PIECES, :]
    thigh, shank = legs[..., 1, :] - legs[..., 0, :], legs[..., 2, :] - legs[..., 1, :]
    cross = thigh[..., 0] * shank[..., 1] - thigh[..., 1] * shank[..., 0]
    signed = np.degrees(np.arctan2(cross, (thigh * shank).sum(axis=-1)))
    # A left knee seen from the front goes inward where it goes to the picture's left.
    return np.asarray(signed * np.array([-1.0, 1.0]) * (1 if faces_camera else -1))


def knee_to_ankle_separation_ratio(joints_xy: Doubles) -> Doubles:
    """Return (...) distances across the picture of the knees over those of the ankles; below 1 knees are nearer.

    Args:
        joints_xy: (..., 6, 2) joints in image pixels.
    """
    apart = np.abs(joints_xy[..., 0::2, 0] - joints_xy[..., 1::2, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(apart[..., 1] / apart[..., 2])


def hip_above_knee(joints_xy: Doubles) -> Doubles:
    """Return (..., 2) heights of left and right hip above its knee in pixels; negative where the hip is lower.

    Args:
        joints_xy: (..., 6, 2) joints in image pixels.
    """
    return joints_xy[..., 2:4, 1] - joints_xy[..., 0:2, 1]


def measure_frames(mended: MendedTrack, view: View, limits: MeasuringLimits | None = None) -> FrameAngles:
    """Return everything in `COLUMNS` for every frame, with reasons where it cannot be measured.

    From the side one leg hides the other, so that the knees' difference would be the network's guess; single knees are
    told, for the joints' scores say how sure each is.

    Args:
        mended: A track after `mend_track`.
        view: From where the person is seen.
        limits: What can be measured; lbkit's own when None.
    """
    limits = limits or default_limits().measuring
    joints = mended.track.joints_xy
    joint_reasons = _joint_reasons(mended)
    legs = joint_reasons[:, _PIECES].max(axis=2)
    short = np.where(_is_foreshortened(joints, limits.min_limb_share), REASONS.index("foreshortened"), 0)
    frontal = 0 if view.name == "frontal" else REASONS.index("view")
    hidden = REASONS.index("view") if view.name == "side" else 0
    # A knee bent toward the camera looks straight until its thigh looks short, so from the front no flexion is told.
    bent = np.maximum(legs, np.maximum(short.max(axis=2), REASONS.index("view") if view.name == "frontal" else 0))
    fppa = frontal_plane_projection_angle_deg(joints, faces_camera=view.faces_camera is not False)
    with np.errstate(invalid="ignore"):
        is_turned = np.abs(np.diff(fppa, axis=1)) > limits.max_turn_deg
    turned = np.where(is_turned, REASONS.index("view"), 0)
    knees = knee_flexion_deg(joints)
    parts: list[tuple[Doubles, NDArray[np.int64]]] = [
        (knees, bent),
        (thigh_inclination_deg(joints), np.maximum(joint_reasons[:, _PIECES[:, :2]].max(axis=2), short[:, :, 0])),
        (shank_inclination_deg(joints), np.maximum(joint_reasons[:, _PIECES[:, 1:]].max(axis=2), short[:, :, 1])),
        (fppa, np.maximum(legs, np.maximum(frontal, turned))),
        (hip_above_knee(joints) / mended.leg_px, joint_reasons[:, _PIECES[:, :2]].max(axis=2)),
        ((knees[:, 0] - knees[:, 1])[:, None], np.maximum(bent.max(axis=1, keepdims=True), hidden)),
        (fppa.mean(axis=1, keepdims=True), np.maximum(legs.max(axis=1, keepdims=True), frontal)),
        (pelvic_obliquity_deg(joints)[:, None], np.maximum(joint_reasons[:, :2].max(axis=1, keepdims=True), frontal)),
        _separation(mended, joint_reasons, frontal, min_ankles_legs=limits.min_ankles_legs),
    ]
    values = np.concatenate([part for part, _ in parts], axis=1)
    reasons = np.concatenate([why for _, why in parts], axis=1)
    reasons = np.where((reasons == 0) & ~np.isfinite(values), REASONS.index("not_found"), reasons)
    return FrameAngles(mended.track.time_s, np.where(reasons > 0, np.nan, values), reasons.astype(np.uint8))


def _joint_reasons(mended: MendedTrack) -> NDArray[np.int64]:
    """Return (T, 6) why a joint has no place; 0 where it has one."""
    reasons = np.full(mended.unsure.shape, REASONS.index("not_found"))
    reasons[mended.unsure] = REASONS.index("low_score")
    reasons[mended.leapt] = REASONS.index("leapt")
    return np.where(mended.track.found, 0, reasons)


def _is_foreshortened(joints_xy: Doubles, min_limb_share: float) -> NDArray[np.bool_]:
    """Return (T, 2, 2) whether a side's thigh and shank are much shorter than they were in the same distance.

    A limb's full length is what it reaches about that time in standing; its share of the leg's full length then says
    how far it is turned out of the picture's plane. Networks set the hip of a deep squat up to a fifth of the thigh too
    near, so that a limit much stricter than 0.75 would refuse good side views.
    """
    legs = joints_xy[:, _PIECES]
    lengths = np.linalg.norm(np.diff(legs, axis=2), axis=-1)
    seen = np.isfinite(lengths).all(axis=(1, 2))
    if not seen.any():
        return np.zeros(lengths.shape, dtype=bool)
    full = np.percentile(lengths[seen], 85, axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray(lengths < min_limb_share * full)


def _separation(
    mended: MendedTrack, joint_reasons: NDArray[np.int64], frontal: int, *, min_ankles_legs: float
) -> tuple[Doubles, NDArray[np.int64]]:
    """Return (T, 1) knee-to-ankle separation and its reasons; ankles that touch give no ratio."""
    joints = mended.track.joints_xy
    ankles = np.abs(joints[:, 4, 0] - joints[:, 5, 0]) / mended.leg_px
    with np.errstate(invalid="ignore"):
        narrow = np.where(ankles < min_ankles_legs, REASONS.index("view"), 0)
    reasons = np.maximum.reduce([joint_reasons[:, 2:].max(axis=1), narrow, np.full(len(joints), frontal)])
    return knee_to_ankle_separation_ratio(joints)[:, None], reasons[:, None]
