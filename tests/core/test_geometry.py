from __future__ import annotations

import numpy as np
import pytest

from lbkit.core.geometry import CropTransform, ImageSize, fit_box, heatmap_to_input, input_to_heatmap

INPUT = ImageSize(256, 192)


def test_sizes_refuse_nothing_and_say_their_order() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ImageSize(0, 5)
    assert ImageSize(256, 192).as_width_height == (192, 256)
    assert ImageSize.of(np.zeros((3, 7, 3))) == ImageSize(3, 7)


@pytest.mark.parametrize("box", [[10, 20, 50, 200], [10, 20, 300, 60], [-30, 5, 40, 90]])
def test_fitted_box_keeps_center_contains_box_and_has_aspect(box: list[float]) -> None:
    fitted = fit_box(box, aspect=4 / 3)
    assert (fitted[3] - fitted[1]) / (fitted[2] - fitted[0]) == pytest.approx(4 / 3)
    assert fitted[0] + fitted[2] == pytest.approx(box[0] + box[2])
    assert fitted[1] + fitted[3] == pytest.approx(box[1] + box[3])
    assert (fitted[:2] <= np.array(box[:2]) + 1e-9).all()
    assert (fitted[2:] >= np.array(box[2:]) - 1e-9).all()
    padded = fit_box(box, aspect=4 / 3, padding=1.25)
    np.testing.assert_allclose(padded[2:] - padded[:2], 1.25 * (fitted[2:] - fitted[:2]))


def test_heatmap_cells_are_located_by_their_centers() -> None:
    # Cell 0 covers input pixels 0..3, whose centres average to 1.5.
    np.testing.assert_allclose(heatmap_to_input(np.array([0.0, 1.0]), 4), [1.5, 5.5])
    cells = np.array([[-0.3, 12.25], [47.5, 63.1]])
    np.testing.assert_allclose(input_to_heatmap(heatmap_to_input(cells, 4), 4), cells)


def test_box_edges_land_on_input_edges() -> None:
    transform = CropTransform.from_box([30, 40, 126, 168], INPUT)  # 96 x 128, so a factor of exactly 2
    assert transform.scale == pytest.approx(2.0)
    # The box's top-left corner is edge (30, 40), point (29.5, 39.5); the input's is point (-0.5, -0.5).
    np.testing.assert_allclose(transform.to_input(np.array([29.5, 39.5])), [-0.5, -0.5])
    np.testing.assert_allclose(transform.to_input(np.array([125.5, 167.5])), [191.5, 255.5])
    # A source pixel covers 2 x 2 input pixels: its centre lies between them.
    np.testing.assert_allclose(transform.to_input(np.array([30.0, 40.0])), [0.5, 0.5])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rotation_deg", [0.0, 33.0, -170.0])
def test_to_image_undoes_to_input(rotation_deg: float, *, flip: bool) -> None:
    transform = CropTransform.from_box(
        [-13.2, 7.7, 88.1, 301.9], INPUT, padding=1.25, rotation_deg=rotation_deg, flip=flip
    )
    points = np.random.default_rng(0).uniform(-50, 400, size=(5, 6, 2))
    np.testing.assert_allclose(transform.to_image(transform.to_input(points)), points, atol=1e-9)


def test_flip_mirrors_about_the_crop_center() -> None:
    box = [10.0, 20.0, 100.0, 140.0]
    plain = CropTransform.from_box(box, INPUT).to_input(np.array([[33.0, 44.0]]))
    mirrored = CropTransform.from_box(box, INPUT, flip=True).to_input(np.array([[33.0, 44.0]]))
    np.testing.assert_allclose(mirrored[:, 0], 191.0 - plain[:, 0])
    np.testing.assert_allclose(mirrored[:, 1], plain[:, 1])


def test_rotation_is_clockwise_as_seen() -> None:
    transform = CropTransform.from_box([0, 0, 192, 256], INPUT, rotation_deg=90)
    # The point right of the centre goes below it.
    np.testing.assert_allclose(transform.to_input(np.array([95.5 + 20, 127.5])), [95.5, 147.5], atol=1e-9)


def test_warp_equals_bilinear_interpolation_by_the_definition() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, size=(41, 67, 3), dtype=np.uint8)
    transform = CropTransform.from_box([5.3, -8.1, 60.2, 39.4], ImageSize(64, 48), padding=1.25)
    crop = transform.warp(image, border_value=(10, 20, 30))
    ys, xs = np.mgrid[0:64, 0:48]
    source = transform.to_image(np.stack([xs, ys], axis=-1).astype(float))
    padded = np.empty((41 + 200, 67 + 200, 3))
    padded[:] = (10, 20, 30)
    padded[100:141, 100:167] = image
    x0, y0 = np.floor(source[..., 0]).astype(int), np.floor(source[..., 1]).astype(int)
    fx, fy = (source[..., 0] - x0)[..., None], (source[..., 1] - y0)[..., None]
    top = (1 - fx) * padded[y0 + 100, x0 + 100] + fx * padded[y0 + 100, x0 + 101]
    bottom = (1 - fx) * padded[y0 + 101, x0 + 100] + fx * padded[y0 + 101, x0 + 101]
    expected = (1 - fy) * top + fy * bottom
    # OpenCV 4 interpolates with 1/32 pixel steps, OpenCV 5 exactly: 255/32 bounds both.
    assert np.abs(crop - expected).max() <= 8.0
    assert np.abs(crop - expected).mean() < 1.5


def test_gradient_image_comes_back_at_the_right_place() -> None:
    # On a linear ramp bilinear sampling is exact, so any shift of the convention shows.
    ramp = np.repeat(np.tile(np.arange(200, dtype=np.uint8), (150, 1))[..., None], 3, axis=2)
    transform = CropTransform.from_box([40, 20, 136, 148], INPUT)
    crop = transform.warp(ramp)
    xs = transform.to_image(np.stack([np.arange(192.0), np.full(192, 128.0)], axis=-1))[:, 0]
    inside = slice(4, -4)
    assert np.abs(crop[128, inside, 0] - xs[inside]).max() <= 0.55


def test_warp_reads_sources_beyond_opencvs_index_range() -> None:
    wide = np.zeros((40, 40_000, 3), dtype=np.uint8)
    wide[20, 39_000] = 255
    transform = CropTransform.from_box([38_970, 0, 39_030, 40], INPUT)
    crop = transform.warp(wide)
    y, x = np.unravel_index(crop[..., 0].argmax(), crop.shape[:2])
    np.testing.assert_allclose(transform.to_image(np.array([x, y], float)), [39_000, 20], atol=0.5)


def test_warp_shrinks_what_is_beyond_opencvs_index_range_as_a_whole() -> None:
    wide = np.zeros((500, 36_000, 3), dtype=np.uint8)
    wide[:, 25_000:27_000] = 255
    transform = CropTransform.from_box([0, 0, 36_000, 500], INPUT, padding=1.25)
    columns = transform.warp(wide)[128, :, 0].astype(float)
    centre = (columns * np.arange(192)).sum() / columns.sum()
    x = transform.to_image(np.array([centre, 128.0]))[0]
    assert abs(x - 26_000) < 120  # half a crop pixel


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_the_map_from_a_reduced_picture_ends_where_the_whole_one_s_does(reduction: int) -> None:
    transform = CropTransform.from_box((11.5, 20.0, 300.0, 777.25), ImageSize(256, 192), padding=1.25)
    reduced_xy = np.array([[0.0, 0.0], [12.25, 40.5], [30.0, 7.0]])
    whole_xy = (reduced_xy + 0.5) * reduction - 0.5
    np.testing.assert_allclose(transform.of_reduced(reduction).to_input(reduced_xy), transform.to_input(whole_xy))
    assert transform.of_reduced(reduction).scale == pytest.approx(transform.scale * reduction)
