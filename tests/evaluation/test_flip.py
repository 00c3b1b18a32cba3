from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from lbkit.core.backend import ModelOutput
from lbkit.core.contract import ModelContract
from lbkit.errors import ModelError
from lbkit.evaluation.flip import FlipAveraged
from lbkit.models.registry import bare_contract

CONTRACT = bare_contract("cnn", weights_sha256="", training_data=())


class ByColor:
    """Answers joint k with one channel of the crop; the right side gets a bias on top."""

    contract = CONTRACT

    def __init__(self, *, bias: float) -> None:
        self.bias = bias

    def run(self, crops: NDArray[np.uint8]) -> ModelOutput:
        cells = crops[:, ::4, ::4].astype(np.float32).transpose(0, 3, 1, 2)
        heatmaps = np.stack([cells[:, k // 2] + (self.bias if k % 2 else 0.0) for k in range(6)], axis=1)
        return ModelOutput(heatmaps=heatmaps, keypoints=None)


def test_a_mirror_image_averages_what_the_sides_differ_in() -> None:
    crops = np.random.default_rng(0).integers(0, 255, (2, 256, 192, 3), dtype=np.uint8)
    # Every fourth pixel from the left is another than from the right; a picture of 4 x 4 blocks is the same from both.
    crops = np.repeat(np.repeat(crops[:, ::4, ::4], 4, axis=1), 4, axis=2)
    straight = ByColor(bias=8.0).run(crops).heatmaps
    averaged = FlipAveraged(ByColor(bias=8.0)).run(crops).heatmaps
    assert straight is not None
    assert averaged is not None
    expected = straight + np.where(np.arange(6) % 2, -4.0, 4.0)[None, :, None, None]
    np.testing.assert_allclose(averaged, expected, atol=1e-4)


def test_a_model_without_heatmaps_is_refused() -> None:
    class Decoded(ByColor):
        contract: ModelContract = dataclasses.replace(
            CONTRACT,
            heatmap=dataclasses.replace(CONTRACT.heatmap, decoded_in_graph=True),
            outputs=("keypoints",),
        )

    with pytest.raises(ModelError, match=r"puts out no heatmaps.*--keep-heatmaps"):
        FlipAveraged(Decoded(bias=0.0))
