from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from lbkit.core.geometry import ImageSize
from lbkit.export.figures import GRID, POSES, TROUSERS, figure_crops

SIZE = ImageSize(256, 192)
SHA256 = "32d6f53fc0ac94c684041b48ef29d01542330fed951d1dafe8d061129bffa3d1"
"""Of the bytes of all figures: golden vectors in shipped files hold these pictures."""


def test_figures_are_the_same_bytes_everywhere():
    assert hashlib.sha256(figure_crops(SIZE, len(POSES)).tobytes()).hexdigest() == SHA256


def test_no_two_figures_are_alike():
    crops = figure_crops(SIZE, len(POSES))
    assert crops.shape == (len(POSES), 256, 192, 3)
    assert crops.dtype == np.uint8
    for first, second in itertools.combinations(crops, 2):
        assert (first != second).mean() > 0.05


def test_knees_are_where_the_poses_say():
    crops = figure_crops(SIZE, len(POSES))
    for crop, pose in zip(crops, POSES, strict=True):
        for x, y in pose[4:6]:
            assert tuple(crop[y * SIZE.height // GRID, x * SIZE.width // GRID]) == TROUSERS


def test_channels_differ_so_that_a_swap_is_seen():
    crops = figure_crops(SIZE, 1).astype(int)
    assert np.abs(crops[..., 0] - crops[..., 2]).mean() > 10


@pytest.mark.parametrize("count", [0, len(POSES) + 1])
def test_count_out_of_range_is_refused(count):
    with pytest.raises(ValueError, match="count"):
        figure_crops(SIZE, count)
