"""A window that shows frames as they are found."""

from __future__ import annotations

import cv2

from lbkit.core.geometry import ImageArray
from lbkit.errors import MissingDependencyError

CLOSING_KEYS = frozenset({27, ord("q"), ord("Q")})
"""Escape and q."""

MAX_SIDE_PX = 960


class LiveWindow:
    """A window on the screen; use it as a context.

    Args:
        title: What stands above it.

    Raises:
        MissingDependencyError: This OpenCV has no windows, or there is no screen.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        try:
            cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE)
        except cv2.error as error:
            raise MissingDependencyError(
                "--show needs a screen and an OpenCV that has windows, which the headless package has not",
                remedy="leave it out, or run `pip uninstall opencv-python-headless` and `pip install opencv-python`",
            ) from error

    def show(self, image: ImageArray) -> bool:
        """Show a frame and return whether to go on: not after q or Escape, nor when the window was closed.

        Args:
            image: (H, W, 3) uint8 RGB; a large one is shown smaller.
        """
        scale = min(1.0, MAX_SIDE_PX / max(image.shape[:2]))
        shown = image if scale == 1.0 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cv2.imshow(self._title, cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1) & 0xFF
        return key not in CLOSING_KEYS and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        """Close the window."""
        cv2.destroyWindow(self._title)

    def __enter__(self) -> LiveWindow:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()
