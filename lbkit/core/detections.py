"""What a person detector finds, and the protocol that it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lbkit.core.geometry import ImageArray


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The people that a detector found on one image, the surest first.

    Attributes:
        boxes_xyxy: (N, 4) float64 boxes in edge coordinates, within the image.
        scores: (N,) float64, 0 to 1.
    """

    boxes_xyxy: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.boxes_xyxy.ndim != 2 or self.boxes_xyxy.shape[1] != 4 or len(self.boxes_xyxy) != len(self.scores):
            raise ValueError(f"expected (N, 4) boxes and N scores, got {self.boxes_xyxy.shape} and {self.scores.shape}")

    def __len__(self) -> int:
        return len(self.scores)


class PersonDetector(Protocol):
    """Something that finds the boxes of people on an image."""

    def detect(self, image: ImageArray) -> Detections:
        """Find people.

        Args:
            image: (H, W, 3) uint8 RGB.
        """
        ...
