from __future__ import annotations

import numpy as np
import pytest

from lbkit.core.angles import knee_flexion_deg


def legs(left_deg: float, right_deg: float, *, turn_deg: float = 0.0) -> np.ndarray:
    """Thighs of 50 px hanging down, shanks of 40 px bent by so many degrees to either side, all turned."""
    joints = np.zeros((6, 2))
    for side, (x, bend) in enumerate([(60.0, left_deg), (20.0, -right_deg)]):
        hip, knee = np.array([x, 10.0]), np.array([x, 60.0])
        shank = 40 * np.array([np.sin(np.radians(bend)), np.cos(np.radians(bend))])
        joints[side], joints[2 + side], joints[4 + side] = hip, knee, knee + shank
    cos, sin = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    return joints @ np.array([[cos, sin], [-sin, cos]])


@pytest.mark.parametrize("turn_deg", [0.0, 33.0, 180.0, 271.0])
@pytest.mark.parametrize(("left", "right"), [(0.0, 0.0), (15.0, 92.5), (179.0, 45.0)])
def test_bends_are_what_they_were_made(left: float, right: float, turn_deg: float) -> None:
    np.testing.assert_allclose(knee_flexion_deg(legs(left, right, turn_deg=turn_deg)), [left, right], atol=1e-9)


def test_shapes_follow_and_a_leg_of_no_length_is_not_measured() -> None:
    people = np.stack([legs(10, 20), legs(30, 40)])
    people[0, 4] = people[0, 2]
    people[1, 1] = np.nan
    found = knee_flexion_deg(people[None])
    assert found.shape == (1, 2, 2)
    np.testing.assert_array_equal(np.isnan(found[0]), [[True, False], [False, True]])
    np.testing.assert_allclose(found[0][[0, 1], [1, 0]], [20, 30])
