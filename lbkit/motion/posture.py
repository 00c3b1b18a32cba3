"""A squat with flat feet: how far the shin leans and how high the hips are at each bend of the knees."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

STANDING_RATIO: Final = 2.0
"""Height of the hips above the ankles in standing, in shanks (Winter, 2009: thigh 0.245, shank 0.246 of stature)."""

_SHIN_SHARE: Final = 0.33
_MOST_SHIN_DEG: Final = 38.0
_KNOTS_DEG: Final = np.arange(0.0, 151.0)


def shin_lean_deg(flexion_deg: Doubles) -> Doubles:
    """Return how far the shin leans forward: a third of the knee's bend, as far as a flat foot lets it.

    Args:
        flexion_deg: Knee flexion, any shape.
    """
    return np.minimum(_SHIN_SHARE * flexion_deg, _MOST_SHIN_DEG)


def height_of_flexion(flexion_deg: Doubles) -> Doubles:
    """Return the height of the hips above the ankles, over the same in standing.

    Args:
        flexion_deg: Knee flexion, the same in both legs, any shape.
    """
    shin = np.deg2rad(shin_lean_deg(flexion_deg))
    return np.asarray((np.cos(np.deg2rad(flexion_deg) - shin) + np.cos(shin)) / 2)


def flexion_of_height(ratio: Doubles) -> Doubles:
    """Return the knee flexion at which the hips are so high: the inverse of `height_of_flexion`.

    Args:
        ratio: Height over the same in standing, any shape; NaN stays NaN.
    """
    heights = height_of_flexion(_KNOTS_DEG)
    return np.where(np.isfinite(ratio), np.interp(ratio, heights[::-1], _KNOTS_DEG[::-1]), np.nan)
