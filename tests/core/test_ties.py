from __future__ import annotations

import numpy as np

from lbkit.core.contract import HeatmapSpec
from lbkit.core.geometry import ImageSize
from lbkit.core.ties import near_ties, peak_margins, shortfalls, wandering_px

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


def test_a_joint_falls_short_by_how_low_the_map_is_where_it_lies() -> None:
    """Peaks at cells (1, 2) and (4, 5), which is at 5.5, 9.5 and 17.5, 21.5 px of the input."""
    maps = np.repeat(two_peaks(0.25), 4, axis=1)
    joints = np.array([[[5.5, 9.5], [19.0, 20.0], [17.5, 9.5], [np.nan, 0.0]]])
    found = shortfalls(joints, maps, spec=SPEC, near_px=3.0)
    np.testing.assert_allclose(found, [[0.0, 0.25, 1.0, np.inf]])


def test_an_averaging_decoder_puts_a_joint_between_two_peaks() -> None:
    maps = np.repeat(two_peaks(0.25), 3, axis=1)
    joints = np.array([[[11.5, 15.5], [11.5, 3.5], [29.5, 33.5]]])  # halfway, beside the line, beyond the second peak
    start = np.broadcast_to(np.array([8.5, 12.5]), joints.shape)  # the expected joint lies a quarter of the way
    np.testing.assert_allclose(shortfalls(joints, maps, spec=SPEC, near_px=3.0, from_xy=start)[0, 0], 0.25)
    assert shortfalls(joints, maps, spec=SPEC, near_px=3.0)[0, 0] == 1.0
    assert (shortfalls(joints, maps, spec=SPEC, near_px=3.0, from_xy=start)[0, 1:] > 0.25).all()
