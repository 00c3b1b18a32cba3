import numpy as np
import pytest

from lbkit.core.geometry import ImageSize
from lbkit.synthetic.camera import Camera

SIZE = ImageSize(240, 320)


def _front_camera(**changes):
    settings = {"position": [0.0, 1.0, 4.0], "focal_px": 400.0, "size": SIZE} | changes
    return Camera.looking_at([0.0, 1.0, 0.0], **settings)


def test_projection_is_the_pinhole_formula_in_pixel_centre_coordinates():
    camera = _front_camera()
    # The target is in the middle, which lies between pixels 159 and 160 and between rows 119 and 120.
    np.testing.assert_allclose(camera.project(np.array([0.0, 1.0, 0.0])), [159.5, 119.5])
    # 0.5 m to the person's left, 0.25 m up, 4 m away: 400 * 0.5 / 4 = 50 px right and 25 px up.
    np.testing.assert_allclose(camera.project(np.array([0.5, 1.25, 0.0])), [209.5, 94.5])
    # One metre nearer, and everything is 4/3 as far from the middle.
    np.testing.assert_allclose(camera.project(np.array([0.3, 1.0, 1.0])), [159.5 + 40.0, 119.5])


def test_a_camera_behind_the_figure_sees_its_left_at_the_left():
    camera = _front_camera(position=[0.0, 1.0, -4.0])
    assert camera.project(np.array([0.5, 1.0, 0.0]))[0] == pytest.approx(109.5)


def test_roll_turns_the_camera_clockwise_and_the_picture_the_other_way():
    camera = _front_camera(roll_deg=90.0)
    np.testing.assert_allclose(camera.project(np.array([0.5, 1.0, 0.0])), [159.5, 119.5 - 50.0], atol=1e-9)


def test_framing_fits_the_points_into_the_box_and_keeps_the_view():
    camera = _front_camera(position=[1.0, 0.6, 3.0])
    points = np.random.default_rng(3).uniform((-0.5, 0.5, -0.5), (0.5, 1.5, 0.5), (30, 3))
    framed = camera.framed(points, box_xyxy=[20.0, 10.0, 300.0, 200.0])
    image = framed.project(points)
    low, high = image.min(axis=0), image.max(axis=0)
    assert np.all(low >= [20.0 - 1e-9, 10.0 - 1e-9])
    assert np.all(high <= [300.0 + 1e-9, 200.0 + 1e-9])
    assert np.min(np.abs((high - low) - [280.0, 190.0])) < 1e-6
    np.testing.assert_allclose((low + high) / 2, [160.0, 105.0])
    assert framed.position is camera.position


def test_the_homography_of_the_floor_agrees_with_projection():
    camera = _front_camera(position=[1.0, 1.5, 3.0], roll_deg=4.0)
    across, along = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, -1.0])
    origin = np.array([0.2, 0.0, 0.1])
    matrix = camera.plane_homography(origin, across=across, along=along)
    mapped = matrix @ [0.4, 0.7, 1.0]
    expected = camera.project(origin + 0.4 * across + 0.7 * along)
    np.testing.assert_allclose(mapped[:2] / mapped[2], expected)


def test_a_point_behind_the_camera_is_refused():
    with pytest.raises(ValueError, match="in front of the camera"):
        _front_camera().project(np.array([0.0, 1.0, 5.0]))


@pytest.mark.parametrize("position", [[0.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
def test_a_camera_at_or_above_its_target_is_refused(position):
    with pytest.raises(ValueError, match="must not be at the target"):
        _front_camera(position=position)


def test_a_focal_length_of_nought_is_refused():
    with pytest.raises(ValueError, match="focal_px"):
        _front_camera(focal_px=0.0)
