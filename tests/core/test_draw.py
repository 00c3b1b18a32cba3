from __future__ import annotations

import numpy as np
import pytest

from lbkit.core.draw import LEFT_COLOR, RIGHT_COLOR, draw_heatmaps, draw_poses
from lbkit.core.geometry import ImageSize
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.core.poses import Poses

SIZE = ImageSize(300, 220)
JOINTS = np.array([[140, 60], [80, 64], [150, 150], [70, 154], [146, 250], [76, 244]], dtype=np.float64)


def poses(xy: np.ndarray = JOINTS, scores: np.ndarray | None = None, size: ImageSize = SIZE) -> Poses:
    scores = np.ones(6) if scores is None else scores
    return Poses(xy[None], scores[None], np.array([[0, 0, 1, 1]]), size, LOWER_BODY_6)


def canvas(size: ImageSize = SIZE, grey: int = 128) -> np.ndarray:
    return np.full((size.height, size.width, 3), grey, np.uint8)


def changed(drawn: np.ndarray, before: np.ndarray) -> np.ndarray:
    return (drawn.astype(int) != before).any(axis=2)


def test_left_and_right_have_their_colours_at_their_joints() -> None:
    drawn = draw_poses(canvas(), poses())
    for index, (x, y) in enumerate(JOINTS.astype(int)):
        assert tuple(drawn[y, x]) == (LEFT_COLOR if index % 2 == 0 else RIGHT_COLOR)
    assert tuple(drawn[105, 145]) == LEFT_COLOR
    assert tuple(drawn[109, 75]) == RIGHT_COLOR


def test_the_picture_given_stays_as_it_was() -> None:
    image = canvas()
    draw_poses(image, poses())
    assert (image == 128).all()


def test_joints_below_the_score_and_their_lines_are_left_out() -> None:
    scores = np.array([1, 1, 0.49, 1, 1, 1.0])
    drawn = changed(draw_poses(canvas(), poses(scores=scores), min_score=0.5), canvas())
    assert not drawn[140:160, 130:170].any()
    assert not drawn[105, 145]
    assert drawn[154, 70]
    assert drawn[250, 146]
    nobody = draw_poses(canvas(), poses(scores=np.zeros(6)), min_score=0.5)
    np.testing.assert_array_equal(nobody, canvas())


@pytest.mark.parametrize("grey", [0, 255])
def test_every_line_stands_out_from_black_and_from_white(grey: int) -> None:
    drawn = draw_poses(canvas(grey=grey), poses()).astype(int)
    row = drawn[105]
    assert np.abs(row - LEFT_COLOR).sum(axis=1).min() < 30
    if grey == 255:
        dark = row.mean(axis=1) < 110
        assert dark[135:145].any()
        assert dark[146:156].any()


def test_lines_grow_with_the_person() -> None:
    large = ImageSize(1300, 1250)
    small = changed(draw_poses(canvas(large), poses(size=large)), canvas(large))
    big = changed(draw_poses(canvas(large), poses(JOINTS * 4, size=large)), canvas(large))
    # A shape four times as large, lines and all, covers sixteen times the pixels; with lines of one width, four times.
    assert 11 < big.sum() / small.sum() < 17


def test_a_joint_is_drawn_between_pixels() -> None:
    image = canvas()
    columns = []
    for shift in (0.0, 0.25, 0.5):
        drawn = draw_poses(image, poses(JOINTS + np.array([shift, 0]))).astype(float)
        weight = np.abs(drawn - image).sum(axis=2)
        columns.append(float((weight * np.arange(SIZE.width)).sum() / weight.sum()))
    np.testing.assert_allclose(np.diff(columns), 0.25, atol=0.06)


def test_joints_outside_the_picture_and_a_picture_of_one_pixel_do_no_harm() -> None:
    one = ImageSize(1, 1)
    assert draw_poses(canvas(one), poses(size=one)).shape == (1, 1, 3)
    assert draw_poses(canvas(), poses(JOINTS * 50 - 3000)).shape == (300, 220, 3)


def test_poses_of_another_picture_are_refused() -> None:
    with pytest.raises(ValueError, match="300x220"):
        draw_poses(canvas(ImageSize(220, 300)), poses())


def test_nobody_leaves_the_picture_as_it_is() -> None:
    drawn = draw_poses(canvas(), Poses.empty(SIZE, LOWER_BODY_6))
    np.testing.assert_array_equal(drawn, canvas())


def heatmaps(peaks: list[tuple[int, int]], values: list[float]) -> np.ndarray:
    maps = np.zeros((len(peaks), 64, 48), np.float32)
    for number, ((x, y), value) in enumerate(zip(peaks, values, strict=True)):
        maps[number, y, x] = value
        maps[number, y, x + 1] = value / 2
    return maps


def panel(values: list[float]) -> np.ndarray:
    crop = np.zeros((256, 192, 3), np.uint8)
    crop[..., 0] = 180
    peaks = [(5, 8), (40, 10), (8, 50), (30, 33), (12, 20), (44, 60)]
    return draw_heatmaps(crop, heatmaps(peaks, values), LOWER_BODY_6.names)


def test_the_panel_shows_the_crop_and_six_maps() -> None:
    drawn = panel([0.9] * 6)
    height, width = drawn.shape[:2]
    assert height > 2 * 256
    assert width > 3 * 192 + 384
    photo = drawn[60 : height - 60, 40:300]
    assert (photo == [180, 0, 0]).all()


def test_each_map_shows_in_its_own_tile_and_only_there() -> None:
    quiet = panel([0.0] * 6)
    for joint in range(6):
        values = [0.0] * 6
        values[joint] = 0.9
        rows, columns = np.nonzero(changed(panel(values), quiet))
        left, top = 420 + joint // 2 * 198, 6 + joint % 2 * 288
        assert rows.min() >= top
        assert rows.max() <= top + 26 + 256
        assert columns.min() >= left - 8
        assert columns.max() < left + 192 + 8


def test_a_weak_map_is_seen_and_a_faint_one_does_not_shine() -> None:
    def red_of(value: float) -> int:
        maps = np.zeros((6, 64, 48), np.float32)
        maps[0, 10:30, 5:25] = value
        drawn = draw_heatmaps(np.zeros((256, 192, 3), np.uint8), maps, LOWER_BODY_6.names)
        return int(drawn[32 + 25 * 4, 420 + 20 * 4, 0])  # in the plateau, away from the cross on its first cell

    assert red_of(0.9) == red_of(0.3) > 200
    assert 5 < red_of(0.05) < 100


def test_the_score_is_written_beside_the_name() -> None:
    drawn = [panel([0.81, 0, 0, 0, 0, 0]), panel([0.82, 0, 0, 0, 0, 0])]
    label = slice(6, 30)
    assert changed(drawn[0][label], drawn[1][label]).any()


def test_an_odd_number_of_joints_has_its_panel() -> None:
    crop = np.zeros((256, 192, 3), np.uint8)
    assert draw_heatmaps(crop, np.zeros((5, 64, 48), np.float32), [f"joint_{n}" for n in range(5)]).ndim == 3
