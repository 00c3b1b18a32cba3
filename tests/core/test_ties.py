from __future__ import annotations

import numpy as np

from lbkit.core.contract import HeatmapSpec
from lbkit.core.geometry import ImageSize
from lbkit.core.ties import near_ties, peak_margins, wandering_px

SPEC = HeatmapSpec(size=ImageSize(8, 6), stride=4, sigma=2.0, decoder="argmax", decoded_in_graph=False)


def two_peaks(margin: float) -> np.ndarray:
    maps = np.zeros((1, 1, 8, 6), np.float32)
    maps[0, 0, 2, 1], maps[0, 0, 5, 4] = 1.0, 1.0 - margin
    return maps


def test_margins_are_of_the_two_highest_cells() -> None:
    maps = np.concatenate([two_peaks(0.0), two_peaks(0.25)])
    np.testing.assert_array_equal(peak_margins(maps), [[0.0], [0.25]])


def test_a_map_wanders_only_as_far_as_its_cells_are_close() -> None:
    far = 4 * np.hypot(3, 3)
    assert wandering_px(two_peaks(0.001)[0, 0], SPEC, disturbance=0.001) == np.float32(far)
    assert wandering_px(two_peaks(0.1)[0, 0], SPEC, disturbance=0.001) == 0.0


def test_only_a_joint_that_its_own_map_explains_is_a_near_tie() -> None:
    maps = np.concatenate([two_peaks(1e-4), two_peaks(0.1)])
    distances, cells = np.full((2, 1), 4 * np.hypot(3, 3)), np.full((2, 1), 1e-4)
    ties = near_ties(distances, cells, maps, spec=SPEC, tolerance_px=0.05)
    np.testing.assert_array_equal(ties, [[True], [False]])
    np.testing.assert_array_equal(near_ties(distances, cells, maps, spec=SPEC, tolerance_px=99.0), [[False], [False]])
