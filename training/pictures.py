"""Training pictures as their annotators saw them."""

from __future__ import annotations

from pathlib import Path

import cv2

from lbkit.core.geometry import ImageArray
from lbkit.errors import ImageReadError


def is_there(path: Path) -> bool:
    """Tell whether a file is at a path, which may be what no file can be called."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a null character
        return False


def read_annotated(path: Path) -> ImageArray:
    """Return a picture as (H, W, 3) uint8 RGB, its orientation tag ignored, as COCO's annotators saw it.

    Raises:
        ImageReadError: It is missing or no picture that OpenCV reads.
    """
    if not is_there(path):
        raise ImageReadError("no such file", where=path, remedy="check the folder of pictures")
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ImageReadError("is not a picture that OpenCV reads", where=path, remedy="copy or download it again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]
