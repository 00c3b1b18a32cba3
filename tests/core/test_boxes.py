from __future__ import annotations

import numpy as np
import pytest

from lbkit.core.boxes import (
    ABOVE_HIP_PER_LEG,
    BELOW_ANKLE_PER_LEG,
    box_iou,
    box_problem,
    checked_boxes,
    leg_length_px,
    person_box_from_joints,
    whole_image_box,
)
from lbkit.core.geometry import ImageSize
from lbkit.errors import BoxError

SIZE = ImageSize(300, 200)


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ([0, 0, 0, 50], "has no area"),
        ([50, 10, 40, 60], "has no area"),
        ([np.nan, 0, 10, 10], "not a finite number"),
        ([0, 0, np.inf, 10], "not a finite number"),
        ([200, 0, 220, 10], "outside the image of 300x200"),
        ([0, -20, 10, 0], "outside"),
        ([1, 2, 3], "4 numbers"),
    ],
)
def test_unusable_boxes_are_told_apart(box: list[float], words: str) -> None:
    assert words in (box_problem(box, SIZE) or "")
    if len(box) == 4:
        with pytest.raises(BoxError, match="box 1: "):
            checked_boxes([[0, 0, 5, 5], box], SIZE)


def test_boxes_partly_outside_are_fine() -> None:
    boxes = checked_boxes([[-50, -20, 10, 400], [199, 299, 260, 350]], SIZE)
    assert boxes.shape == (2, 4)
    assert checked_boxes([1, 2, 30, 40], SIZE).shape == (1, 4)
    assert checked_boxes([], SIZE).shape == (0, 4)


def test_wrong_shape_is_an_error() -> None:
    with pytest.raises(BoxError, match=r"\(N, 4\)"):
        checked_boxes(np.zeros((2, 5)), SIZE)


def test_a_standing_persons_box_comes_from_the_legs() -> None:
    # Stature 200: hips at 0.530, knees at 0.285, ankles at 0.039 of it (Winter, 2009), feet on y = 260.
    y = {name: 260 - share * 200 for name, share in {"hip": 0.530, "knee": 0.285, "ankle": 0.039}.items()}
    joints = np.array(
        [[110, y["hip"]], [90, y["hip"]], [110, y["knee"]], [90, y["knee"]], [110, y["ankle"]], [90, y["ankle"]]]
    )
    box = person_box_from_joints(joints, SIZE)
    assert box[1] == pytest.approx(60, abs=6)  # a little above the head
    assert 260 <= box[3] <= 272  # and below the feet, whose toes may point at the camera
    assert box[0] < 90 < 110 < box[2]


def test_a_leg_known_to_be_longer_makes_the_box_as_high() -> None:
    """A squat seen from the front: the thighs point at the camera."""
    joints = np.array([[115.0, 190], [85, 190], [125, 200], [75, 200], [118, 250], [82, 250]])
    short, tall = person_box_from_joints(joints, SIZE), person_box_from_joints(joints, SIZE, leg_px=98)
    assert leg_length_px(joints) < 65
    assert tall[1] == pytest.approx(190 - ABOVE_HIP_PER_LEG * 98, abs=1)
    assert tall[1] < short[1] - 30
    assert tall[3] == pytest.approx(250 + BELOW_ANKLE_PER_LEG * 98, abs=1)


def test_box_from_scattered_joints_stays_usable() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        joints = rng.uniform(-500, 800, size=(6, 2))
        assert box_problem(person_box_from_joints(joints, SIZE), SIZE) is None


def test_overlap() -> None:
    assert box_iou(np.array([0, 0, 10, 10.0]), np.array([5, 0, 15, 10.0])) == pytest.approx(1 / 3)
    assert box_iou(np.array([0, 0, 1, 1.0]), np.array([2, 2, 3, 3.0])) == 0.0
    np.testing.assert_array_equal(whole_image_box(SIZE), [0, 0, 200, 300])
