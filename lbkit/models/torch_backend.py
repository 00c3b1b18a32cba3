"""A checkpoint run by PyTorch, as a backend like any other: the reference of parity and evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lbkit.core.backend import ModelOutput
from lbkit.core.contract import ModelContract
from lbkit.core.preprocess import normalize_crops
from lbkit.models.checkpoint import Checkpoint, load_checkpoint


class TorchBackend:
    """The bare network in PyTorch, evaluation mode, single precision.

    Args:
        checkpoint: The checkpoint or its path.
        device: A PyTorch device.
    """

    def __init__(self, checkpoint: Checkpoint | Path, *, device: str = "cpu") -> None:
        loaded = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
        self._contract = loaded.contract
        self._device = torch.device(device)
        self._module = loaded.to_module().to(self._device)

    @property
    def contract(self) -> ModelContract:
        """The contract of the bare network."""
        return self._contract

    def run(self, crops: NDArray[np.uint8]) -> ModelOutput:
        """Return (N, K, h, w) heatmaps of (N, H, W, 3) uint8 RGB crops."""
        images = torch.from_numpy(normalize_crops(crops, self._contract.input)).to(self._device)
        with torch.inference_mode():
            heatmaps = self._module(images)
        return ModelOutput(heatmaps=heatmaps.float().cpu().numpy(), keypoints=None)

    def compile(self) -> None:
        """Compile the network with `torch.compile`, for each batch size apart, whose first run then takes long."""
        self._module.compile(dynamic=False, fullgraph=True)
