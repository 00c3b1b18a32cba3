from __future__ import annotations

import math

import numpy as np
import pytest

from lbkit.evaluation.pck import box_heights_px, pck, relative_distances


def test_height_is_that_of_the_box_made_4_to_3_without_padding() -> None:
    boxes = np.array([[0, 0, 30, 100.0], [0, 0, 90, 100.0], [10, 20, 85, 120.0]])
    np.testing.assert_allclose(box_heights_px(boxes), [100, 120, 100])


def test_pck_by_hand() -> None:
    # Height 100: threshold 0.05 is 5 px. Distances 5 (3-4-5), 5.01, 0, 50.
    truth = np.zeros((1, 4, 2))
    found = np.array([[[3, 4], [5.01, 0], [0, 0], [30, 40]]])
    distances = relative_distances(found, truth, heights_px=np.array([100.0]))
    np.testing.assert_allclose(distances, [[0.05, 0.0501, 0.0, 0.5]])
    counted = np.array([[True, True, True, False]])
    assert pck(distances, counted, threshold=0.05) == pytest.approx(2 / 3)
    assert pck(distances, counted, threshold=0.10) == 1.0
    assert pck(distances, np.ones((1, 4), bool), threshold=0.10) == 0.75
    assert math.isnan(pck(distances, np.zeros((1, 4), bool), threshold=0.05))


def test_pck_does_not_depend_on_the_crops_scale() -> None:
    rng = np.random.default_rng(0)
    truth, found = rng.uniform(0, 100, (2, 20, 6, 2))
    heights = rng.uniform(50, 300, 20)
    np.testing.assert_allclose(
        relative_distances(found, truth, heights_px=heights),
        relative_distances(found * 2.56, truth * 2.56, heights_px=heights * 2.56),
    )
