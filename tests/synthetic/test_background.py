import numpy as np
import pytest

from lbkit.core.geometry import ImageSize
from lbkit.synthetic.background import BACKGROUND_NAMES, random_background
from lbkit.synthetic.camera import Camera


def _camera(size):
    return Camera.looking_at(
        [0.0, 0.9, 0.0], position=[2.0, 1.4, 3.0], focal_px=1.1 * size.height, size=size, roll_deg=2
    )


@pytest.mark.parametrize("name", BACKGROUND_NAMES)
@pytest.mark.parametrize("size", [ImageSize(16, 16), ImageSize(33, 90), ImageSize(120, 70)], ids=str)
def test_every_kind_fills_every_size_with_some_variety(name, size):
    for seed in range(4):
        image = random_background(np.random.default_rng(seed), _camera(size), name=name)
        assert image.shape == (size.height, size.width, 3)
        assert image.dtype == np.uint8
        assert np.ptp(image.astype(int), axis=(0, 1)).max() > 3


@pytest.mark.parametrize("name", BACKGROUND_NAMES)
def test_the_same_seed_gives_the_same_background_and_another_another(name):
    camera = _camera(ImageSize(60, 80))
    first, again, other = (random_background(np.random.default_rng(seed), camera, name=name) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert np.mean(first != other) > 0.5


def test_kinds_are_drawn_when_none_is_named():
    camera = _camera(ImageSize(24, 32))
    images = [random_background(np.random.default_rng(seed), camera) for seed in range(6)]
    assert len({image.tobytes() for image in images}) == 6
