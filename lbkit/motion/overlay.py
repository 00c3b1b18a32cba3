"""Squats drawn over their frames: skeleton, knee angles, the count and the phase."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from lbkit.core.draw import LEFT_COLOR, MIDDLE_COLOR, OUTLINE_COLOR, RIGHT_COLOR, draw_poses
from lbkit.core.geometry import ImageArray
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.core.poses import Poses
from lbkit.motion.phases import PHASES
from lbkit.motion.squat import SquatAnalysis

_CLOSE_PX: Final = 60.0
_LIFT_PX: Final = 13.0
_FONT: Final = cv2.FONT_HERSHEY_DUPLEX
# From the side how far the knee is bent; from the front how far it is inward, with its sign.
_DRAWN: Final = ("knee_flexion_deg", "frontal_plane_projection_angle_deg")
_LEGS: Final = ((0, 2, 4, "left", LEFT_COLOR), (1, 3, 5, "right", RIGHT_COLOR))


def draw_squat_frame(image: ImageArray, analysis: SquatAnalysis, frame: int) -> ImageArray:
    """Return a copy of a frame with the mended skeleton, the knees' angles where measurable, the count and the phase.

    Args:
        image: (H, W, 3) uint8 RGB, the frame.
        analysis: What was found.
        frame: Its number in the track.
    """
    track = analysis.mended.track
    xy, scores = track.joints_xy[frame], track.scores[frame]
    poses = Poses(
        xy=np.nan_to_num(xy)[None].astype(np.float32),
        scores=scores[None].astype(np.float32),
        boxes_xyxy=np.zeros((1, 4), np.float32),
        image_size=track.image_size,
        keypoints=LOWER_BODY_6,
    )
    # Joints that were filled in have no score; what has no place has score 0.
    canvas = draw_poses(image, poses, min_score=1e-6)
    scale = max(image.shape[0] / 720, 0.5)
    # From the side one knee hides the other: their numbers then stand above each other.
    is_close = bool(np.linalg.norm(xy[2] - xy[3]) < _CLOSE_PX * scale)
    for hip, knee, ankle, side, color in _LEGS:
        flexion, inward = (analysis.angles.column(f"{side}_{name}")[frame] for name in _DRAWN)
        text = f"{flexion:.0f}" if np.isfinite(flexion) else f"{inward:+.0f}" if np.isfinite(inward) else ""
        if text:
            lift = 0.0 if not is_close else -_LIFT_PX if side == "left" else _LIFT_PX
            _draw_angle(canvas, xy[[hip, knee, ankle]], text, color=color, scale=scale, lift_px=lift * scale)
    done = sum(item.end_frame < frame for item in analysis.repetitions)
    going = any(item.start_frame <= frame <= item.end_frame for item in analysis.repetitions)
    _draw_count(canvas, str(done + going), PHASES[analysis.phases[frame]], scale=scale)
    return canvas


def draw_live_frame(image: ImageArray, poses: Poses, *, count: int, phase: str) -> ImageArray:
    """Return a copy of a frame with the skeletons as they were found, the count so far and the phase.

    Args:
        image: (H, W, 3) uint8 RGB.
        poses: Who was found.
        count: Squats that have ended.
        phase: What the person is doing.
    """
    canvas = draw_poses(image, poses)
    _draw_count(canvas, str(count), phase, scale=max(image.shape[0] / 720, 0.5))
    return canvas


def _draw_angle(
    canvas: ImageArray,
    leg_xy: NDArray[np.float64],
    text: str,
    *,
    color: tuple[int, int, int],
    scale: float,
    lift_px: float,
) -> None:
    """Draw the arc from the thigh's continuation to the shank, and its degrees beside the knee."""
    hip, knee, ankle = leg_xy
    thigh, shank = knee - hip, ankle - knee
    radius = 0.35 * float(min(np.linalg.norm(thigh), np.linalg.norm(shank)))
    start = float(np.degrees(np.arctan2(thigh[1], thigh[0])))
    turn = float(np.degrees(np.arctan2(shank[1], shank[0]))) - start
    turn = (turn + 180) % 360 - 180
    center = (round(float(knee[0])), round(float(knee[1])))
    width = max(1, round(2 * scale))
    axes = (max(round(radius), 1),) * 2
    for shade, thickness in ((OUTLINE_COLOR, width + 2), (color, width)):
        cv2.ellipse(canvas, center, axes, 0.0, start, start + turn, shade, thickness, cv2.LINE_AA)
    middle = np.deg2rad(start + turn / 2)
    place = knee + (radius + 26 * scale) * np.array([np.cos(middle), np.sin(middle)]) + [0.0, lift_px]
    _draw_text(canvas, text, place, size=0.7 * scale, color=color)


def _draw_count(canvas: ImageArray, count: str, phase: str, *, scale: float) -> None:
    height, width = round(96 * scale), round(190 * scale)
    corner = canvas[:height, :width]
    corner[:] = (corner * 0.35).astype(np.uint8)
    _draw_text(canvas, count, np.array([40 * scale, 42 * scale]), size=2.0 * scale, color=MIDDLE_COLOR)
    _draw_text(canvas, phase, np.array([width / 2, 80 * scale]), size=0.62 * scale, color=MIDDLE_COLOR)


def _draw_text(
    canvas: ImageArray, text: str, center: NDArray[np.float64], *, size: float, color: tuple[int, int, int]
) -> None:
    thickness = max(1, round(1.6 * size))
    (width, height), _ = cv2.getTextSize(text, _FONT, size, thickness)
    place = (round(float(center[0]) - width / 2), round(float(center[1]) + height / 2))
    cv2.putText(canvas, text, place, _FONT, size, OUTLINE_COLOR, thickness + 3, cv2.LINE_AA)
    cv2.putText(canvas, text, place, _FONT, size, color, thickness, cv2.LINE_AA)
