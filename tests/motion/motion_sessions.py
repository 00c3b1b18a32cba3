"""Squats and strolls drawn at random, whose counts are known."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from lbkit.core.geometry import ImageSize
from lbkit.core.tracks import PoseTrack
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
    sway,
)

SIZE = ImageSize(height=720, width=1280)
RATES = (5, 10, 15, 25, 30, 50, 60)


def faultless(*squats: PlannedSquat, azimuth_deg: float, fps: float = 30.0, distance_m: float = 4.0) -> PoseTrack:
    """What a faultless network sees of a session, at even times."""
    time_s = session_times(squats, fps=fps)
    camera = camera_at(azimuth_deg, size=SIZE, distance_m=distance_m)
    return project_track(time_s, SquatSession(squats, time_s).joints_xyz(), camera=camera)


def random_session(rng: Generator) -> tuple[PoseTrack, SquatSession]:
    """A session with 0 to 7 squats seen by a poor network: any direction, depth, tempo and frame rate."""
    fps = int(rng.choice(RATES))
    tempo_s = rng.uniform(0.8 if fps == 5 else 0.4, 2.5)
    depth_deg = rng.uniform(60, 120)
    squats = tuple(
        PlannedSquat(
            depth_deg=float(np.clip(depth_deg + rng.uniform(-12, 12), 50, 130)),
            descent_s=tempo_s * rng.uniform(0.8, 1.2),
            bottom_s=rng.uniform(0.0, 0.8),
            ascent_s=tempo_s * rng.uniform(0.7, 1.1),
            rest_s=rng.uniform(0.3, 1.5),
            valgus_deg=rng.uniform(-10, 15),
            asymmetry_deg=rng.uniform(-10, 10),
        )
        for _ in range(rng.integers(0, 8))
    )
    legs = LegModel(
        stature_m=rng.uniform(1.5, 1.95),
        stance_m=rng.uniform(0.25, 0.5),
        toe_out_deg=rng.uniform(0, 30),
        standing_deg=rng.uniform(0, 12),
    )
    lead_s = rng.uniform(0.5, 2.0)
    even = session_times(squats, fps=fps, lead_s=lead_s) if squats else np.arange(int(rng.uniform(5, 20) * fps)) / fps
    time_s = even + rng.uniform(0, 0.3 / fps, len(even))
    session = SquatSession(squats, time_s, legs, lead_s)
    camera = camera_at(
        rng.uniform(-180, 180),
        size=SIZE,
        distance_m=rng.uniform(3, 6),
        height_m=rng.uniform(0.4, 1.3),
        leg_share=rng.uniform(0.35, 0.5),
        legs=legs,
    )
    track = project_track(time_s, session.joints_xyz() + sway(time_s, rng), camera=camera)
    return corrupted(track, rng), session


def random_stroll(rng: Generator, *, minutes: float, fps: float) -> PoseTrack:
    """Somebody who walks to and fro, turns and stands, and never squats."""
    time_s = np.arange(int(minutes * 60 * fps)) / fps
    legs = LegModel(stature_m=rng.uniform(1.5, 1.95))
    heading, speed = rng.uniform(-180, 180), rng.uniform(0.7, 1.2)
    joints = stroll_joints(time_s, legs=legs, heading_deg=heading, speed_m_s=speed) + sway(time_s, rng)
    camera = camera_at(
        rng.uniform(-180, 180),
        size=SIZE,
        distance_m=rng.uniform(5, 7),
        height_m=rng.uniform(0.4, 1.3),
        leg_share=0.35,
        legs=legs,
    )
    return corrupted(project_track(time_s, joints, camera=camera), rng)


def standing(*, seconds: float = 5.0, fps: float = 30.0) -> PoseTrack:
    """Somebody who stands still, seen from the side by a faultless network."""
    time_s = np.arange(int(seconds * fps)) / fps
    legs = LegModel()
    joints = leg_joints(legs, np.full((len(time_s), 2), legs.standing_deg))
    return project_track(time_s, joints, camera=camera_at(90, size=SIZE))
