"""A 3-D leg model that squats and walks before a camera: joints over time whose angles and counts are known exactly.

The world is that of `lbkit.synthetic.skeleton`: metres, x to the person's left, y up, z where the person faces, the
floor at y = 0. The feet stay planted; thigh and shank are two rigid links whose knee is solved from hip and ankle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lbkit.core.geometry import ImageSize
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.core.tracks import PoseTrack
from lbkit.motion.posture import shin_lean_deg
from lbkit.synthetic.camera import Camera
from lbkit.synthetic.poses import walking_pose
from lbkit.synthetic.skeleton import ANKLE_HEIGHT, HIP_SEPARATION, SHANK, THIGH, BodyShape, place_skeleton

Doubles = NDArray[np.float64]

_SIGNS: Final = np.array([1.0, -1.0])
_WALK_KNOTS: Final = 64
_STEPS_PER_S: Final = 1.8
_WALK_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class PlannedSquat:
    """One squat as it is to be done.

    Attributes:
        depth_deg: Knee flexion at the bottom, the mean of both legs, 0 to 140.
        descent_s: Time from standing to the bottom.
        bottom_s: Time held there.
        ascent_s: Time from the bottom to standing.
        rest_s: Time stood afterwards.
        valgus_deg: How far both knees are turned inward at the bottom about the lines from ankle to hip.
        asymmetry_deg: Flexion of the left knee minus that of the right at the bottom.
    """

    depth_deg: float = 95.0
    descent_s: float = 1.2
    bottom_s: float = 0.2
    ascent_s: float = 1.0
    rest_s: float = 0.8
    valgus_deg: float = 0.0
    asymmetry_deg: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.depth_deg <= 140:
            raise ValueError(f"depth_deg must lie in 0..140, got {self.depth_deg}")
        if min(self.descent_s, self.ascent_s) <= 0 or min(self.bottom_s, self.rest_s) < 0:
            raise ValueError("descent_s and ascent_s must be positive, bottom_s and rest_s not negative")

    @property
    def duration_s(self) -> float:
        """Time from leaving the upright to the end of the rest."""
        return self.descent_s + self.bottom_s + self.ascent_s + self.rest_s


@dataclass(frozen=True, slots=True)
class LegModel:
    """Who squats and how the feet stand.

    Attributes:
        stature_m: Standing height; the segments are Winter's (2009) shares of it.
        stance_m: Distance between the ankles.
        toe_out_deg: Direction of knees and toes, outward positive.
        standing_deg: Knee flexion in standing.
    """

    stature_m: float = 1.75
    stance_m: float = 0.36
    toe_out_deg: float = 12.0
    standing_deg: float = 4.0


@dataclass(frozen=True, slots=True)
class SquatSession:
    """Squats one after another before one camera.

    Attributes:
        squats: What is done.
        time_s: (T,) when the camera looks.
        legs: Who does it.
        lead_s: Time stood before the first squat.
    """

    squats: tuple[PlannedSquat, ...]
    time_s: Doubles
    legs: LegModel = field(default_factory=LegModel)
    lead_s: float = 1.0

    @property
    def bottoms_s(self) -> Doubles:
        """(R,) middle of each squat's bottom."""
        starts = np.cumsum([self.lead_s, *(squat.duration_s for squat in self.squats)])[:-1]
        return np.array([start + s.descent_s + s.bottom_s / 2 for start, s in zip(starts, self.squats, strict=True)])

    def joints_xyz(self) -> Doubles:
        """(T, 6, 3) joints in the world, metres, in the order of `LOWER_BODY_6`."""
        flexion, valgus = self.bends_deg()
        return leg_joints(self.legs, flexion, valgus_deg=valgus)

    def bends_deg(self) -> tuple[Doubles, Doubles]:
        """Return (T, 2) flexion of the left and right knee, and (T,) valgus of both."""
        share, valgus, asymmetry, depth = self._plan()
        flexion = self.legs.standing_deg + share * np.maximum(depth - self.legs.standing_deg, 0.0)
        both = flexion[:, None] + np.outer(share * asymmetry, _SIGNS / 2)
        return np.clip(both, 0.0, 150.0), share * valgus

    def _plan(self) -> tuple[Doubles, Doubles, Doubles, Doubles]:
        """Return (T,) how far down (0 to 1) and, for the squat at hand, valgus, asymmetry and depth."""
        share, valgus, asymmetry, depth = (np.zeros(len(self.time_s)) for _ in range(4))
        start = self.lead_s
        for squat in self.squats:
            now = (self.time_s >= start) & (self.time_s < start + squat.duration_s)
            share[now] = _share_down(self.time_s[now] - start, squat)
            valgus[now], asymmetry[now], depth[now] = squat.valgus_deg, squat.asymmetry_deg, squat.depth_deg
            start += squat.duration_s
        return share, valgus, asymmetry, depth


def session_times(squats: Sequence[PlannedSquat], *, fps: float, lead_s: float = 1.0) -> Doubles:
    """Return (T,) even times that cover a session of squats."""
    total = lead_s + sum(squat.duration_s for squat in squats)
    return np.arange(int(total * fps) + 1) / fps


def leg_joints(legs: LegModel, flexion_deg: Doubles, *, valgus_deg: Doubles | float = 0.0) -> Doubles:
    """Return the joints of planted legs whose knees are bent so far.

    Args:
        legs: Who stands there.
        flexion_deg: (T, 2) left and right knee.
        valgus_deg: (T,) or one number; turns both knees inward about the lines from ankle to hip.

    Returns:
        (T, 6, 3) metres, in the order of `LOWER_BODY_6`; the knees' angles in space are `flexion_deg` exactly.
    """
    thigh, shank = THIGH * legs.stature_m, SHANK * legs.stature_m
    bend = np.deg2rad(flexion_deg)
    reach = np.sqrt(thigh**2 + shank**2 + 2 * thigh * shank * np.cos(bend))
    ankles = np.zeros((*flexion_deg.shape, 3))
    ankles[..., 0], ankles[..., 1] = _SIGNS * legs.stance_m / 2, ANKLE_HEIGHT * legs.stature_m
    hips = _hips(legs, flexion_deg, ankles, reach)
    knees = _knees(hips, ankles, _forwards(legs, valgus_deg, len(flexion_deg)), thigh=thigh, shank=shank)
    return np.concatenate([hips, knees, ankles], axis=1)


def stroll_joints(
    time_s: Doubles, *, legs: LegModel, heading_deg: float, speed_m_s: float = 1.1, rest_s: float = 8.0
) -> Doubles:
    """Return the joints of somebody who walks to and fro through the origin and stands a while at one end.

    Args:
        time_s: (T,) seconds.
        legs: Who walks.
        heading_deg: Direction, 0 toward +z, 90 toward +x; turned round at either end, within a second.
        speed_m_s: Speed.
        rest_s: Time stood before setting out again.

    Returns:
        (T, 6, 3) metres, in the order of `LOWER_BODY_6`.
    """
    phases = np.linspace(0.0, 1.0, _WALK_KNOTS, endpoint=False)
    shape = BodyShape(stature_m=legs.stature_m)
    knots = np.stack([_lower_body(shape, phase) for phase in phases])
    table = np.concatenate([knots, knots[:1]]).reshape(_WALK_KNOTS + 1, -1)
    moment = time_s % (2 * _WALK_S + rest_s)
    walking = np.clip(np.minimum(moment, 2 * _WALK_S - moment) / 0.3, 0.0, 1.0)[:, None, None]
    phase = (moment * _STEPS_PER_S / 2) % 1.0
    columns = [np.interp(phase, np.append(phases, 1.0), column) for column in table.T]
    standing = leg_joints(legs, np.full((1, 2), legs.standing_deg))
    posture = walking * np.stack(columns, axis=1).reshape(-1, 6, 3) + (1 - walking) * standing
    out = np.clip(moment - _WALK_S + 0.5, 0.0, 1.0) - np.clip(moment - 2 * _WALK_S + 0.5, 0.0, 1.0)
    strolled = _yawed(posture, np.deg2rad(heading_deg + 180.0 * out))
    along = speed_m_s * (_WALK_S / 2 - np.minimum(np.abs(moment - _WALK_S), _WALK_S))
    heading = np.deg2rad(heading_deg)
    strolled[..., 0] += (along * np.sin(heading))[:, None]
    strolled[..., 2] += (along * np.cos(heading))[:, None]
    return strolled


def sway(time_s: Doubles, rng: Generator, *, amount_m: float = 0.02) -> Doubles:
    """Return (T, 6, 3) small slow shifts of hips and knees, as standing people's, to add to joints; the feet stay."""
    waves = sum(
        rng.normal(0.0, 0.5, (1, 3)) * np.sin(2 * np.pi * rng.uniform(0.05, 0.5) * time_s + rng.uniform(0, 6))[:, None]
        for _ in range(4)
    )
    parts = np.repeat([1.0, 0.5, 0.0], 2)[None, :, None] * np.array([1.0, 0.15, 1.0])
    shifts: Doubles = amount_m * np.asarray(waves)[:, None, :] * parts
    return shifts


def camera_at(
    azimuth_deg: float,
    *,
    size: ImageSize,
    distance_m: float = 4.0,
    height_m: float = 1.0,
    leg_share: float = 0.42,
    legs: LegModel | None = None,
) -> Camera:
    """Return a camera that looks at a person's middle.

    Args:
        azimuth_deg: 0 in front, 90 at the person's left side, 180 behind.
        size: Size of the picture.
        distance_m: Distance from the person.
        height_m: Height of the lens.
        leg_share: Part of the picture's height that the standing legs fill.
        legs: Who is looked at.
    """
    model = legs or LegModel()
    azimuth = np.deg2rad(azimuth_deg)
    position = np.array([distance_m * np.sin(azimuth), height_m, distance_m * np.cos(azimuth)])
    focal = leg_share * size.height * distance_m / ((THIGH + SHANK) * model.stature_m)
    return Camera.looking_at([0.0, 0.45 * model.stature_m, 0.0], position=position, focal_px=focal, size=size)


def project_track(time_s: Doubles, joints_xyz: Doubles, *, camera: Camera, score: float = 0.9) -> PoseTrack:
    """Return what a faultless network would see: every joint where the camera has it, all with one score."""
    return PoseTrack(
        time_s=time_s,
        joints_xy=camera.project(joints_xyz),
        scores=np.full(joints_xyz.shape[:2], score),
        image_size=camera.size,
    )


def corrupted(
    track: PoseTrack, rng: Generator, *, noise_px: float = 5.0, dropout: float = 0.1, swaps_per_s: float = 0.3
) -> PoseTrack:
    """Return a track with what networks do wrong.

    Args:
        track: A faultless track.
        rng: Decides all.
        noise_px: Standard deviation of a joint's error per axis, independent from frame to frame.
        dropout: Part of the joints that are missing, independently.
        swaps_per_s: How often all left and right joints change places, for up to 0.15 s each time.
    """
    joints = track.joints_xy + rng.normal(0.0, noise_px, track.joints_xy.shape)
    scores = np.clip(track.scores + rng.normal(0.0, 0.05, track.scores.shape), 0.3, 1.0)
    for start in rng.uniform(track.time_s[0], track.time_s[-1], rng.poisson(swaps_per_s * np.ptp(track.time_s))):
        span = (track.time_s >= start) & (track.time_s <= start + rng.uniform(0.0, 0.15))
        joints[span] = joints[span][:, LOWER_BODY_6.flip_order]
    gone = rng.random(scores.shape) < dropout
    joints[gone], scores[gone] = np.nan, 0.0
    return replace(track, joints_xy=joints, scores=scores)


def _share_down(since_s: Doubles, squat: PlannedSquat) -> Doubles:
    """Return how far down (0 to 1) at times since the descent's start, with smooth beginnings and ends."""
    after = since_s - squat.descent_s - squat.bottom_s
    down = np.clip(since_s / squat.descent_s, 0.0, 1.0)
    up = np.clip(after / squat.ascent_s, 0.0, 1.0)
    progress = np.where(after < 0, down, 1.0 - up)
    eased: Doubles = 0.5 - 0.5 * np.cos(np.pi * progress)
    return eased


def _hips(legs: LegModel, flexion_deg: Doubles, ankles: Doubles, reach: Doubles) -> Doubles:
    """Return (T, 2, 3) hips as far from their ankles as the bent knees let them be, and behind them in a squat."""
    mean = flexion_deg.mean(axis=1, keepdims=True)
    shin = np.deg2rad(shin_lean_deg(mean))
    back = THIGH * np.sin(np.deg2rad(mean) - shin) - SHANK * np.sin(shin)
    hips = np.zeros_like(ankles)
    hips[..., 0] = _SIGNS * HIP_SEPARATION * legs.stature_m / 2
    hips[..., 2] = -back * legs.stature_m * np.cos(np.deg2rad(legs.toe_out_deg))
    level = (hips[..., 0] - ankles[..., 0]) ** 2 + (hips[..., 2] - ankles[..., 2]) ** 2
    hips[..., 1] = ankles[..., 1] + np.sqrt(np.maximum(reach**2 - level, 1e-6))
    return hips


def _forwards(legs: LegModel, valgus_deg: Doubles | float, frames: int) -> Doubles:
    """Return (T, 2, 3) level directions in which the knees point."""
    turn = np.deg2rad(legs.toe_out_deg - np.broadcast_to(valgus_deg, (frames,)))[:, None] * _SIGNS
    return np.stack([np.sin(turn), np.zeros_like(turn), np.cos(turn)], axis=-1)


def _knees(hips: Doubles, ankles: Doubles, forwards: Doubles, *, thigh: float, shank: float) -> Doubles:
    """Return (T, 2, 3) knees of two links from ankle to hip, in the plane with the knees' direction."""
    line = hips - ankles
    reach = np.linalg.norm(line, axis=-1, keepdims=True)
    axis = line / reach
    along = (reach**2 + shank**2 - thigh**2) / (2 * reach)
    aside = np.sqrt(np.maximum(shank**2 - along**2, 0.0))
    forward = forwards - (forwards * axis).sum(axis=-1, keepdims=True) * axis
    forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
    knees: Doubles = ankles + along * axis + aside * forward
    return knees


def _lower_body(shape: BodyShape, phase: float) -> Doubles:
    return place_skeleton(shape, walking_pose(phase=float(phase))).lower_body_xyz


def _yawed(points_xyz: Doubles, turn_rad: Doubles) -> Doubles:
    """Return (T, K, 3) points turned about the vertical, z toward x, by (T,) angles."""
    cos, sin = np.cos(turn_rad)[:, None], np.sin(turn_rad)[:, None]
    x, y, z = np.moveaxis(points_xyz, -1, 0)
    return np.stack([cos * x + sin * z, y, cos * z - sin * x], axis=-1)
