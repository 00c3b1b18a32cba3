import numpy as np
import pytest

from lbkit.core.geometry import ImageSize
from lbkit.synthetic.camera import Camera
from lbkit.synthetic.raster import Capsule, Part, rasterise
from lbkit.synthetic.render import Lighting, cast_shadow, composite, shade

SIZE = ImageSize(120, 160)
CAMERA = Camera.looking_at([0.0, 1.0, 0.0], position=[0.0, 1.6, 4.0], focal_px=260.0, size=SIZE)
FROM_LEFT = Lighting(np.array([0.8, 0.6, 0.0]), ambient=0.3, diffuse=0.7, gloss=0.0)


def _ball(**settings):
    place = np.array([0.0, 1.0, 0.0])
    return Capsule(Part.TRUNK, place, place, 0.4, 0.4, (0.5, 0.5, 0.5), **settings)


def _picture(capsules, background=None, lighting=FROM_LEFT):
    backdrop = np.full((SIZE.height, SIZE.width, 3), (10, 200, 30), np.uint8) if background is None else background
    surfaces = rasterise(capsules, CAMERA)
    colors, coverage = shade(surfaces, capsules, camera=CAMERA, lighting=lighting, rng=np.random.default_rng(0))
    return composite(backdrop, surfaces, colors=colors, coverage=coverage), surfaces, coverage


def test_the_lit_side_is_the_brighter_one():
    image, _, _ = _picture([_ball()])
    x, y = CAMERA.project(np.array([0.0, 1.0, 0.0])).round().astype(int)
    assert image[y, x + 15].mean() > 1.4 * image[y, x - 15].mean()


def test_the_background_stays_outside_and_is_mixed_in_at_the_edge():
    image, surfaces, coverage = _picture([_ball()])
    height, width = coverage.shape
    whole = np.zeros(image.shape[:2])
    whole[surfaces.top_px : surfaces.top_px + height, surfaces.left_px : surfaces.left_px + width] = coverage
    assert np.all(image[whole == 0] == (10, 200, 30))
    assert np.all(image[whole == 1][:, 1] < 190)
    # Of a disc 26 px in radius about 163 pixels are cut by the rim; rays 1/2 px apart tell most of them.
    assert 80 < np.count_nonzero((whole > 0) & (whole < 1)) < 220


def test_bands_and_stripes_take_the_second_colour():
    start, end = np.array([0.0, 0.6, 0.0]), np.array([0.0, 1.4, 0.0])
    settings = {"color": (0.9, 0.05, 0.05), "end_color": (0.05, 0.05, 0.9)}
    banded = Capsule(Part.TRUNK, start, end, 0.1, 0.1, band_at=0.5, **settings)
    striped = Capsule(Part.TRUNK, start, end, 0.1, 0.1, stripe_m=0.2, **settings)
    heights = np.linspace(0.65, 1.35, 60)
    points = CAMERA.project(np.stack([0 * heights, heights, 0 * heights + 0.1], axis=1)).round().astype(int)

    def is_blue(capsule):
        image, _, _ = _picture([capsule])
        colors = image[points[:, 1], points[:, 0]].astype(int)
        return colors[:, 2] > colors[:, 0]

    np.testing.assert_array_equal(is_blue(banded)[[0, 20, 40, 59]], [False, False, True, True])
    turns = int(np.count_nonzero(np.diff(is_blue(striped))))
    assert 6 <= turns <= 8


def test_the_shadow_falls_away_from_the_lamp_and_only_darkens():
    plain = np.full((SIZE.height, SIZE.width, 3), 200, np.uint8)
    foot = np.array([0.0, 0.1, 0.0])
    ball = Capsule(Part.TRUNK, foot, foot, 0.1, 0.1, (0.5, 0.5, 0.5))
    wide = Camera.looking_at([0.0, 0.2, 0.0], position=[0.0, 1.6, 4.0], focal_px=260.0, size=SIZE)
    dark = cast_shadow(plain, [ball], camera=wide, lighting=FROM_LEFT, strength=0.5)
    assert dark.max() <= 200
    # A ball 0.1 m up, lit from 37 degrees above the left: its shadow's middle lies 0.8 / 0.6 * 0.1 m to the right.
    rows, columns = np.nonzero(dark[..., 0] < 150)
    expected = wide.project(np.array([-0.1333, 0.0, 0.0]))
    np.testing.assert_allclose([columns.mean(), rows.mean()], expected, atol=1.2)
    assert cast_shadow(plain, [ball], camera=wide, lighting=FROM_LEFT, strength=0.0).min() == 200


def test_a_surface_behind_its_neighbour_is_darker():
    back = Capsule(Part.TRUNK, np.array([-0.3, 1.0, -0.3]), np.array([0.3, 1.0, -0.3]), 0.3, 0.3, (0.5, 0.5, 0.5))
    front = Capsule(Part.TRUNK, np.array([0.0, 0.5, 0.3]), np.array([0.0, 1.5, 0.3]), 0.06, 0.06, (0.5, 0.5, 0.5))
    overhead = Lighting(np.array([0.0, 1.0, 0.0]), ambient=0.6, diffuse=0.3, gloss=0.0)
    alone, _, _ = _picture([back], lighting=overhead)
    beside, _, _ = _picture([back, front], lighting=overhead)
    x, y = CAMERA.project(np.array([0.0, 1.0, 0.0])).round().astype(int)
    near, far = x + 7, x + 24
    darker = alone[y].astype(float).mean(axis=1) - beside[y].astype(float).mean(axis=1)
    assert darker[near] > darker[far] + 2


def test_light_must_come_from_above_and_have_unit_length():
    for direction in ([0.0, -1.0, 0.0], [0.0, 2.0, 0.0]):
        with pytest.raises(ValueError, match="unit vector"):
            Lighting(np.array(direction))
