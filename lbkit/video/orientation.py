"""How a video wants its frames turned: the display matrix of the container."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lbkit.core.geometry import ImageArray


@dataclass(frozen=True, slots=True)
class Orientation:
    """Quarter turns and mirror images, as an exchange of the axes and then a flip of each.

    Attributes:
        is_transposed: Whether rows become columns.
        flips_x: Whether left and right change places, after that.
        flips_y: Whether top and bottom change places, after that.
    """

    is_transposed: bool = False
    flips_x: bool = False
    flips_y: bool = False

    @classmethod
    def of_matrix(cls, matrix: bytes) -> Orientation:
        """Return what a display matrix asks for, to the nearest quarter turn.

        Args:
            matrix: Nine int32, row by row: a b u, c d v, x y w; a point (p, q) is shown at (a p + c q, b p + d q)
                (ISO 14496-12, 6.2.2).
        """
        a, b, _, c, d = (int(value) for value in np.frombuffer(matrix, np.int32)[:5])
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(flips_x=a < 0, flips_y=d < 0)
        return cls(is_transposed=True, flips_x=c < 0, flips_y=b < 0)

    @classmethod
    def of_frame(cls, frame: Any) -> Orientation:
        """Return what a PyAV frame's display matrix asks for; upright without one."""
        matrix = frame.side_data.get("DISPLAYMATRIX")
        return cls() if matrix is None else cls.of_matrix(bytes(matrix))

    def apply(self, image: ImageArray) -> ImageArray:
        """Return an (H, W, 3) image as it should be shown."""
        turned = image.transpose(1, 0, 2) if self.is_transposed else image
        turned = turned[:, ::-1] if self.flips_x else turned
        turned = turned[::-1] if self.flips_y else turned
        return np.ascontiguousarray(turned)
