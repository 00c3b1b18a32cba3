"""What a runtime must offer so that the estimator, parity and evaluation can use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lbkit.core.contract import ModelContract


@dataclass(frozen=True, slots=True, eq=False)
class ModelOutput:
    """What a model put out for N crops; a model gives the one, the other or both.

    Attributes:
        heatmaps: (N, K, h, w) float32, or None.
        keypoints: (N, K, 3) float32 of x, y in input pixels and score, or None.
    """

    heatmaps: NDArray[np.float32] | None
    keypoints: NDArray[np.float32] | None

    def __post_init__(self) -> None:
        if self.heatmaps is None and self.keypoints is None:
            raise ValueError("a model output needs heatmaps or keypoints")


class Backend(Protocol):
    """A model loaded into a runtime."""

    @property
    def contract(self) -> ModelContract:
        """The model's contract."""
        ...

    def run(self, crops: NDArray[np.uint8]) -> ModelOutput:
        """Run the model.

        Args:
            crops: (N, H, W, 3) uint8 RGB, N >= 1.
        """
        ...


class RuntimeBackend(Backend, Protocol):
    """A backend of a model file, which says where it runs."""

    @property
    def provider(self) -> str:
        """The provider's name as the command line spells it."""
        ...

    @property
    def streams(self) -> int:
        """Runs that go side by side when they come from as many threads."""
        ...

    def run_input(self, tensor: NDArray[Any]) -> ModelOutput:
        """Run the model on a tensor as its file takes it.

        Args:
            tensor: Of the contract's dtype, shape and layout, with N >= 1 crops.
        """
        ...
