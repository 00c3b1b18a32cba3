from __future__ import annotations

import numpy as np

from lbkit.core.preprocess import crop_person, normalize_crops
from lbkit.models.registry import bare_contract

CONTRACT = bare_contract("cnn", weights_sha256="", training_data=())


def test_normalization_is_the_definition_in_nchw() -> None:
    crops = np.random.default_rng(0).integers(0, 256, size=(2, 256, 192, 3), dtype=np.uint8)
    spec = CONTRACT.input
    expected = (crops / 255.0 - np.array(spec.mean)) / np.array(spec.std)
    got = normalize_crops(crops, spec)
    assert got.shape == (2, 3, 256, 192)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_crop_uses_the_contracts_padding_and_border() -> None:
    image = np.full((90, 70, 3), 200, dtype=np.uint8)
    crop, transform = crop_person(image, np.array([0.0, 0.0, 60.0, 80.0]), contract=CONTRACT)
    assert crop.shape == (256, 192, 3)
    # The box is 60 x 80, already 3:4, so a crop of 75 x 100 image pixels.
    assert transform.scale == 256 / 100
    np.testing.assert_array_equal(crop[0, 0], CONTRACT.crop.border_value)
    np.testing.assert_array_equal(crop[128, 96], [200, 200, 200])
