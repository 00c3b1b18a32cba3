"""Test-time flip: the mean of a model's heatmaps on a crop and on its mirror image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lbkit.core.backend import Backend, ModelOutput
from lbkit.core.contract import ModelContract
from lbkit.errors import ModelError


class FlipAveraged:
    """A backend that answers with the mean over the two directions, at twice the cost (Newell et al., 2016).

    In the pixel convention of lbkit the mirror image of heatmap cell i is cell w - 1 - i, so that nothing shifts.

    Args:
        backend: A model that puts out heatmaps.

    Raises:
        ModelError: The model decodes in its graph and keeps its heatmaps to itself.
    """

    def __init__(self, backend: Backend) -> None:
        if "heatmaps" not in backend.contract.outputs:
            raise ModelError(
                "puts out no heatmaps, and the flip averages them",
                remedy="export it without --decode, or with --keep-heatmaps",
            )
        self._backend = backend

    @property
    def contract(self) -> ModelContract:
        """The model's contract."""
        return self._backend.contract

    def run(self, crops: NDArray[np.uint8]) -> ModelOutput:
        """Return (N, K, h, w) heatmaps of (N, H, W, 3) uint8 RGB crops, averaged over both directions."""
        straight = self._heatmaps(crops)
        mirrored = self._heatmaps(np.ascontiguousarray(crops[:, :, ::-1]))
        order = list(self.contract.keypoints.flip_order)
        mean = np.float32(0.5) * (straight + mirrored[:, order, :, ::-1])
        return ModelOutput(heatmaps=mean, keypoints=None)

    def _heatmaps(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        heatmaps = self._backend.run(crops).heatmaps
        assert heatmaps is not None  # the contract says so
        return heatmaps
