"""Frames with their people's skeletons drawn on them."""

from __future__ import annotations

import cv2
import numpy as np

from lbkit.core.draw import DEFAULT_MIN_SCORE, MIDDLE_COLOR, OUTLINE_COLOR, draw_poses
from lbkit.core.geometry import ImageArray
from lbkit.video.pipeline import FramePoses

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TEXT_PER_HEIGHT = 1 / 900
"""Size of a person's number, by the height of the picture."""


def annotated(result: FramePoses, *, min_score: float = DEFAULT_MIN_SCORE, shows_ids: bool = False) -> ImageArray:
    """Return a frame with its skeletons, and with each person's number above the hips if wanted.

    Args:
        result: The frame.
        min_score: Joints below this score are left out.
        shows_ids: Whether to write the numbers.
    """
    canvas = draw_poses(result.image, result.poses, min_score=min_score)
    if not shows_ids:
        return canvas
    scale = max(0.5, canvas.shape[0] * _TEXT_PER_HEIGHT)
    for number, xy in zip(result.ids, result.poses.xy, strict=True):
        x, y = np.rint(xy[:2].mean(axis=0)).astype(int) - np.array([round(10 * scale), round(18 * scale)])
        for color, thickness in ((OUTLINE_COLOR, 4), (MIDDLE_COLOR, 2)):
            cv2.putText(canvas, str(number), (int(x), int(y)), _FONT, scale, color, thickness, cv2.LINE_AA)
    return canvas
