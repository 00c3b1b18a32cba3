"""Squats of a rendered mannequin, frame by frame: a clip to try everything on without anybody's video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.random import Generator

from lbkit.core.geometry import ImageSize
from lbkit.motion.synthetic import LegModel, PlannedSquat, SquatSession, camera_at, session_times
from lbkit.synthetic.background import random_background
from lbkit.synthetic.figures import Figure, draw_figure, random_scene
from lbkit.synthetic.poses import random_arms, squat_pose
from lbkit.synthetic.skeleton import place_skeleton

ClipView = Literal["frontal", "oblique", "side"]
AZIMUTHS_DEG: Final[dict[ClipView, float]] = {"frontal": 6.0, "oblique": 50.0, "side": 86.0}

FRAMES_PER_S: Final = 25.0


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """What a clip shows.

    Attributes:
        squats: The squats, one after another.
        view: From where they are seen.
        size: Size of the picture.
        seed: Decides person, clothes, light, background and arms.
        frames_per_s: Frame rate.
    """

    squats: tuple[PlannedSquat, ...]
    view: ClipView
    size: ImageSize
    seed: int = 0
    frames_per_s: float = FRAMES_PER_S

    @property
    def frame_count(self) -> int:
        """How many frames there are."""
        return len(session_times(self.squats, fps=self.frames_per_s))


def random_squats(rng: Generator, *, count: int) -> tuple[PlannedSquat, ...]:
    """Return squats of about one depth and tempo, as one person does them."""
    depth_deg, tempo_s = rng.uniform(80.0, 118.0), rng.uniform(0.8, 1.3)
    return tuple(
        PlannedSquat(
            depth_deg=depth_deg + rng.uniform(-8.0, 8.0),
            descent_s=tempo_s * rng.uniform(0.9, 1.2),
            bottom_s=rng.uniform(0.1, 0.4),
            ascent_s=tempo_s * rng.uniform(0.8, 1.0),
            rest_s=rng.uniform(0.5, 1.0),
            valgus_deg=rng.uniform(-6.0, 6.0),
        )
        for _ in range(count)
    )


def rendered_frames(plan: ClipPlan) -> Iterator[tuple[float, Figure]]:
    """Yield each frame's time in seconds and its figure, whose joints and knee angles are exact.

    Args:
        plan: What is shown.
    """
    rng = np.random.default_rng(plan.seed)
    scene = random_scene(rng)
    time_s = session_times(plan.squats, fps=plan.frames_per_s)
    legs = LegModel(stature_m=scene.shape.stature_m)
    camera = camera_at(AZIMUTHS_DEG[plan.view], size=plan.size, distance_m=3.6, height_m=0.9, leg_share=0.4, legs=legs)
    background = random_background(rng, camera)
    arms = random_arms(rng, squatting=True)
    flexion_deg, valgus_deg = SquatSession(plan.squats, time_s, legs).bends_deg()
    for time, flexion, valgus in zip(time_s, flexion_deg.mean(axis=1), valgus_deg, strict=True):
        pose = squat_pose(scene.shape, knee_flexion_deg=float(flexion), knee_valgus_deg=float(valgus), arms=arms)
        skeleton = place_skeleton(scene.shape, pose)
        yield float(time), draw_figure(scene, skeleton, camera=camera, background=background, pose="squatting")
