"""Joint angles in the image plane, as parity, evaluation and motion measure them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lbkit.core.keypoints import LOWER_BODY_6

SIDES = ("left", "right")

_LEGS = np.array(
    [[LOWER_BODY_6.names.index(f"{side}_{joint}") for joint in ("hip", "knee", "ankle")] for side in SIDES]
)


def knee_flexion_deg(joints_xy: ArrayLike) -> NDArray[np.float64]:
    """Return how far the knees are bent: 0 is a straight leg, and the angle grows with flexion (Winter, 2009).

    It is the angle between the thigh, continued beyond the knee, and the shank as the image shows them; a leg that is
    not in the image plane looks more or less bent than it is.

    Args:
        joints_xy: (..., 6, 2) lower-body joints in any upright, undistorted frame.

    Returns:
        (..., 2) degrees in [0, 180], left and right; NaN where two joints of a leg coincide or are NaN.
    """
    legs = np.asarray(joints_xy, dtype=np.float64)[..., _LEGS, :]
    thigh, shank = legs[..., 1, :] - legs[..., 0, :], legs[..., 2, :] - legs[..., 1, :]
    cross = thigh[..., 0] * shank[..., 1] - thigh[..., 1] * shank[..., 0]
    dot = (thigh * shank).sum(axis=-1)
    angle = np.degrees(np.arctan2(np.abs(cross), dot))
    is_leg = (np.linalg.norm(thigh, axis=-1) > 0) & (np.linalg.norm(shank, axis=-1) > 0)
    return np.where(is_leg, angle, np.nan)
