import numpy as np
import pytest

from lbkit.core.geometry import ImageSize
from lbkit.synthetic.camera import Camera
from lbkit.synthetic.raster import NOTHING, Capsule, Part, rasterise

SIZE = ImageSize(90, 120)
CAMERA = Camera.looking_at([0.0, 1.0, 0.0], position=[0.0, 1.0, 4.0], focal_px=200.0, size=SIZE)
RED = (0.9, 0.1, 0.1)


def _capsule(start, end, radii, **settings):
    return Capsule(Part.TRUNK, np.array(start, float), np.array(end, float), *radii, RED, **settings)


def _signed_distance(points, capsule):
    """Distance to the hull of two spheres, by brute force: the least over spheres between the ends."""
    shares = np.linspace(0.0, 1.0, 501)[:, None]
    centers = capsule.start + shares * (capsule.end - capsule.start)
    radii = capsule.start_radius_m + shares[:, 0] * (capsule.end_radius_m - capsule.start_radius_m)
    return np.min(np.linalg.norm(points[:, None] - centers, axis=2) - radii, axis=1)


def _met_points(surfaces, camera):
    rows, columns = np.nonzero(surfaces.capsule != NOTHING)
    step = surfaces.supersampling
    xy = np.stack(
        [(columns + 0.5) / step - 0.5 + surfaces.left_px, (rows + 0.5) / step - 0.5 + surfaces.top_px], axis=1
    )
    rays = np.concatenate([(xy - camera.center_xy) / camera.focal_px, np.ones((len(xy), 1))], axis=1)
    return (rays * surfaces.depth_m[rows, columns][:, None]) @ camera.rotation + camera.position


CAPSULES = {
    "upright": _capsule([0.1, 0.7, 0.0], [-0.05, 1.3, 0.1], (0.12, 0.06)),
    "widening": _capsule([-0.3, 1.1, 0.0], [0.3, 0.9, 0.3], (0.05, 0.15)),
    "straight": _capsule([-0.3, 1.1, 0.0], [0.3, 0.9, 0.3], (0.1, 0.1)),
    "toward the camera, thin end first": _capsule([0.05, 1.0, 0.0], [0.0, 1.02, 0.9], (0.25, 0.05)),
    "toward the camera, thick end first": _capsule([0.0, 1.02, 0.0], [0.05, 1.0, 0.9], (0.05, 0.25)),
    "nearly swallowed": _capsule([0.0, 1.0, 0.0], [0.1, 1.1, 0.0], (0.2, 0.07)),
    "swallowed": _capsule([0.0, 1.0, 0.0], [0.05, 1.0, 0.05], (0.05, 0.2)),
    "sphere": _capsule([0.1, 1.0, 0.0], [0.1, 1.0, 0.0], (0.2, 0.2)),
}


@pytest.mark.parametrize("name", CAPSULES)
def test_rays_stop_on_the_hull_of_both_spheres(name):
    capsule = CAPSULES[name]
    surfaces = rasterise([capsule], CAMERA, supersampling=1)
    points = _met_points(surfaces, CAMERA)
    assert len(points) > 50
    np.testing.assert_allclose(_signed_distance(points, capsule), 0.0, atol=2e-3)


@pytest.mark.parametrize("name", CAPSULES)
def test_rays_that_miss_pass_outside_the_hull(name):
    capsule = CAPSULES[name]
    surfaces = rasterise([capsule], CAMERA, supersampling=1)
    met = np.zeros((SIZE.height, SIZE.width), dtype=bool)
    height, width = surfaces.capsule.shape
    met[surfaces.top_px : surfaces.top_px + height, surfaces.left_px : surfaces.left_px + width] = (
        surfaces.capsule != NOTHING
    )
    rows, columns = np.nonzero(~met)
    chosen = np.random.default_rng(0).choice(len(rows), 200, replace=False)
    xy = np.stack([columns[chosen], rows[chosen]], axis=1)
    rays = np.concatenate([(xy - CAMERA.center_xy) / CAMERA.focal_px, np.ones((200, 1))], axis=1)
    for depth in np.linspace(2.5, 4.6, 22):
        points = (rays * depth) @ CAMERA.rotation + CAMERA.position
        assert _signed_distance(points, capsule).min() > -1e-3


def test_a_sphere_is_seen_where_its_tangents_say():
    surfaces = rasterise([CAPSULES["sphere"]], CAMERA, supersampling=8)
    left, top, right, bottom = surfaces.box_xyxy()
    # Seen at an angle whose sine is radius / distance, about the direction of the centre.
    distance, offset = np.hypot(0.1, 4.0), np.arctan2(0.1, 4.0)
    half = np.arcsin(0.2 / distance)
    expected = 200.0 * np.tan([offset - half, offset + half]) + CAMERA.center_xy[0] + 0.5
    np.testing.assert_allclose([left, right], expected, atol=0.13)
    half = np.arcsin(0.2 / 4.0)
    np.testing.assert_allclose([top, bottom], 45.0 + 200.0 * np.tan([-half, half]), atol=0.13)


def test_flattening_thins_a_capsule_along_its_axis_only():
    flat = _capsule([0.0, 1.0, 0.0], [0.0, 1.0, 0.0], (0.3, 0.3), flat_axis=np.array([0.0, 1.0, 0.0]), flatness=0.5)
    left, top, right, bottom = rasterise([flat], CAMERA, supersampling=4).box_xyxy()
    assert (bottom - top) / (right - left) == pytest.approx(0.5, abs=0.03)
    np.testing.assert_allclose(_met_points(rasterise([flat], CAMERA), CAMERA)[:, 2].max(), 0.3, atol=2e-3)


def test_an_open_end_has_no_cap():
    closed = _capsule([0.0, 0.8, 0.0], [0.0, 1.2, 0.0], (0.1, 0.1))
    opened = _capsule([0.0, 0.8, 0.0], [0.0, 1.2, 0.0], (0.1, 0.1), open_end=True)
    heights = [rasterise([item], CAMERA, supersampling=4).box_xyxy()[1] for item in (closed, opened)]
    # The cap is 0.1 m high, which is 5 px at 4 m.
    assert heights[1] - heights[0] == pytest.approx(5.0, abs=0.6)


def test_the_nearer_capsule_wins_whatever_the_order():
    near = Capsule(Part.LEFT_ARM, np.array([0.0, 1.0, 0.5]), np.array([0.0, 1.0, 0.5]), 0.1, 0.1, RED)
    far = CAPSULES["sphere"]
    for order in ([near, far], [far, near]):
        part, depth = rasterise(order, CAMERA).at(CAMERA.project(near.start))
        assert part == Part.LEFT_ARM
        assert depth == pytest.approx(3.4, abs=1e-3)


def test_gear_is_no_part_of_the_person():
    bar = Capsule(Part.GEAR, np.array([-0.4, 1.0, 0.3]), np.array([0.4, 1.0, 0.3]), 0.02, 0.02, RED)
    alone = rasterise([CAPSULES["sphere"]], CAMERA).box_xyxy()
    np.testing.assert_allclose(rasterise([CAPSULES["sphere"], bar], CAMERA).box_xyxy(), alone)
    assert rasterise([bar], CAMERA).box_xyxy() is None


def test_what_lies_outside_the_picture_is_not_drawn():
    assert rasterise([_capsule([3.0, 1.0, 0.0], [3.0, 1.2, 0.0], (0.1, 0.1))], CAMERA) is None
    assert rasterise([CAPSULES["sphere"]], CAMERA).at(np.array([-5.0, 3.0]))[0] == NOTHING


def test_a_capsule_behind_the_camera_and_too_many_are_refused():
    with pytest.raises(ValueError, match="in front of the camera"):
        rasterise([_capsule([0.0, 1.0, 3.9], [0.0, 1.0, 3.0], (0.1, 0.1))], CAMERA)
    with pytest.raises(ValueError, match="at most 127"):
        rasterise([CAPSULES["sphere"]] * 128, CAMERA)


def test_impossible_capsules_are_refused():
    with pytest.raises(ValueError, match="radii"):
        _capsule([0, 0, 0], [0, 1, 0], (0.0, 0.1))
    with pytest.raises(ValueError, match="flatness"):
        _capsule([0, 0, 0], [0, 1, 0], (0.1, 0.1), flatness=0.0)
