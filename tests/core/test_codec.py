from __future__ import annotations

import numpy as np
import pytest

from lbkit.core.codec import decode_heatmaps, encode_heatmaps
from lbkit.core.contract import DECODERS, DecoderName, HeatmapSpec
from lbkit.core.geometry import ImageSize, heatmap_to_input

SPEC = HeatmapSpec(ImageSize(64, 48), stride=4, sigma=2.0, decoder="dark", decoded_in_graph=False)
SUBCELLS = np.linspace(-0.475, 0.475, 20)
"""Symmetric about the cell's centre and without the exact half, where two cells tie."""

# Largest error in cells over all sub-cell positions inside the map, from each decoder's definition: half a cell
# for argmax, a quarter for the quarter shift, exact for DARK on Gaussians. With beta = 100 the soft-argmax is nearly
# an argmax on maps of height 1; its 0.33 was measured.
INNER_BOUND_CELLS: dict[DecoderName, float] = {"argmax": 0.5, "quarter": 0.25, "soft-argmax": 0.33, "dark": 1e-3}


def gaussian_maps(cells_xy: np.ndarray, *, height: float = 1.0) -> np.ndarray:
    joints = heatmap_to_input(cells_xy, SPEC.stride)[:, None]
    maps, weights = encode_heatmaps(joints, np.ones((len(joints), 1), bool), spec=SPEC)
    assert (weights == 1).all()
    return (maps * height).astype(np.float32)


def errors_cells(cells_xy: np.ndarray, decoder: DecoderName, *, height: float = 1.0) -> np.ndarray:
    found = decode_heatmaps(gaussian_maps(cells_xy, height=height), spec=SPEC, decoder=decoder)[:, 0, :2]
    return (found - heatmap_to_input(cells_xy, SPEC.stride)) / SPEC.stride


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("height", [1.0, 0.3])
def test_bias_over_all_subcell_positions(decoder: DecoderName, height: float) -> None:
    grid = np.array([(20 + dx, 31 + dy) for dx in SUBCELLS for dy in SUBCELLS])
    errors = errors_cells(grid, decoder, height=height)
    assert np.abs(errors).max() <= INNER_BOUND_CELLS[decoder] + 1e-5
    # No decoder may lean to one side: the mean over the symmetric grid is the convention's bias.
    assert np.abs(errors.mean(axis=0)).max() <= 1e-4


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("column", "row"),
    [
        *((column, 31) for column in (0, 1, 2, 4, 5, 6, 43, 46, 47)),
        *((20, row) for row in (0, 1, 4, 5, 58, 62, 63)),
        *((0, 0), (47, 63), (1, 1), (46, 1), (5, 60)),
    ],
)
def test_bias_near_the_border(decoder: DecoderName, column: int, row: int) -> None:
    grid = np.array([(column + dx, row + dy) for dx in SUBCELLS for dy in SUBCELLS])
    errors = np.abs(errors_cells(grid, decoder))
    if column in (0, 47) or row in (0, 63):
        # In a border cell there is no neighbour to refine by: half a cell for all.
        assert errors.max() <= 0.5
    else:
        assert errors.max() <= INNER_BOUND_CELLS[decoder] + 0.01


def test_dark_beats_quarter_beats_argmax_on_noisy_maps() -> None:
    rng = np.random.default_rng(3)
    cells = rng.uniform([6, 6], [41, 57], size=(400, 2))
    maps = gaussian_maps(cells, height=0.7) + rng.normal(0, 0.01, size=(400, 1, 64, 48)).astype(np.float32)
    truth = heatmap_to_input(cells, SPEC.stride)
    mean = {
        name: float(np.abs(decode_heatmaps(maps, spec=SPEC, decoder=name)[:, 0, :2] - truth).mean())
        for name in ("argmax", "quarter", "dark")
    }
    assert mean["dark"] < 0.6 * mean["quarter"] < 0.6 * mean["argmax"]


@pytest.mark.parametrize("decoder", DECODERS)
def test_score_is_the_height_of_the_peak_and_x_is_not_y(decoder: DecoderName) -> None:
    maps = np.zeros((1, 2, 64, 48), np.float32)
    maps[0, 0, 50, 10], maps[0, 1, 3, 40] = 0.75, 0.5
    found = decode_heatmaps(maps, spec=SPEC, decoder=decoder)
    np.testing.assert_allclose(found[0, :, 2], [0.75, 0.5])
    np.testing.assert_allclose(found[0, :, :2], heatmap_to_input(np.array([[10.0, 50.0], [40.0, 3.0]]), 4), atol=0.1)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("value", [0.0, -1.0, 0.4])
def test_flat_maps_give_finite_coordinates_inside(decoder: DecoderName, value: float) -> None:
    found = decode_heatmaps(np.full((1, 1, 64, 48), value, np.float32), spec=SPEC, decoder=decoder)
    assert np.isfinite(found).all()
    assert (found[..., :2] >= 0).all()
    assert (found[..., :2] <= [191, 255]).all()


def test_ties_go_to_the_first_cell_in_row_order() -> None:
    maps = np.zeros((1, 1, 64, 48), np.float32)
    maps[0, 0, 9, 30] = maps[0, 0, 20, 5] = 1.0
    found = decode_heatmaps(maps, spec=SPEC, decoder="argmax")
    np.testing.assert_allclose(found[0, 0, :2], heatmap_to_input(np.array([30.0, 9.0]), 4))


def test_batch_equals_singles() -> None:
    maps = np.random.default_rng(4).random((5, 6, 64, 48)).astype(np.float32)
    for decoder in DECODERS:
        whole = decode_heatmaps(maps, spec=SPEC, decoder=decoder)
        singles = [decode_heatmaps(maps[i : i + 1], spec=SPEC, decoder=decoder) for i in range(5)]
        np.testing.assert_array_equal(whole, np.concatenate(singles))


def test_targets_have_their_peak_on_the_joint_and_none_where_unknown_or_outside() -> None:
    joints = np.array([[101.5, 57.5], [20.0, 30.0], [-3.0, 100.0], [50.0, 300.0]])
    labelled = np.array([True, False, True, True])
    maps, weights = encode_heatmaps(joints, labelled, spec=SPEC)
    assert maps.shape == (4, 64, 48)
    np.testing.assert_array_equal(weights, [1, 0, 0, 0])
    # (101.5 + 0.5) / 4 - 0.5 = 25, (57.5 + 0.5) / 4 - 0.5 = 14: exactly on a cell.
    assert maps[0, 14, 25] == pytest.approx(1.0)
    assert maps[0, 14, 27] == pytest.approx(np.exp(-0.5), rel=1e-5)
    assert not maps[1:].any()
