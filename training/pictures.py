"""Training pictures as their annotators saw them."""

from __future__ import annotations

from pathlib import Path

import cv2

from lbkit.core.geometry import ImageArray
from lbkit.errors import ImageReadError


def read_annotated(path: Path) -> ImageArray:
    """Return a picture as (H, W, 3) uint8 RGB, its orientation tag ignored, as COCO's annotators saw it.

    Raises:
        ImageReadError: It is missing or no picture that OpenCV reads.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ImageReadError("is not a picture that OpenCV reads", where=path)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]
