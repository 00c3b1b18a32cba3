"""Small pictures of a person in closed form, on which an exported graph is compared with PyTorch.

A trained network answers a figure with clear peaks and noise with none, and on maps without a peak keypoints cannot
be compared. The pictures are integer arithmetic from end to end, so they are the same bytes on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lbkit.core.geometry import ImageArray, ImageSize

GRID = 1000
"""The figures are drawn on a grid of GRID rows and columns laid over the picture."""

Point = tuple[int, int]
Color = tuple[int, int, int]

SKIN: Color = (224, 172, 140)
SHIRT: Color = (176, 48, 40)
TROUSERS: Color = (40, 56, 120)
SHOES: Color = (24, 24, 24)

# x, y on the grid: head, neck, hips, knees, ankles, hands; left is the person's own left, at the picture's right
POSES: tuple[tuple[Point, ...], ...] = (
    ((500, 130), (500, 230), (560, 500), (440, 500), (570, 690), (430, 690), (575, 880), (425, 880)),
    ((500, 300), (490, 390), (560, 610), (420, 620), (700, 660), (290, 670), (630, 870), (360, 880)),
    ((450, 140), (460, 240), (500, 510), (410, 520), (620, 680), (380, 710), (560, 860), (350, 900)),
    ((560, 260), (520, 350), (430, 590), (380, 600), (600, 640), (560, 660), (520, 860), (470, 880)),
    ((520, 110), (515, 210), (590, 470), (470, 490), (640, 670), (440, 700), (700, 850), (430, 900)),
)
"""Standing, squatting, a step, a squat seen from the side, a lunge."""


def figure_crops(size: ImageSize, count: int) -> ImageArray:
    """Return (count, H, W, 3) uint8 RGB pictures of one person each, no two alike.

    Args:
        size: Size of a picture.
        count: How many, at most `len(POSES)`.
    """
    if not 1 <= count <= len(POSES):
        raise ValueError(f"count should lie in 1..{len(POSES)}, got {count}")
    return np.stack([_figure(size, index) for index in range(count)])


def _figure(size: ImageSize, index: int) -> ImageArray:
    picture = _background(size, index)
    head, neck, left_hip, right_hip, left_knee, right_knee, left_ankle, right_ankle = POSES[index]
    hips = ((left_hip[0] + right_hip[0]) // 2, (left_hip[1] + right_hip[1]) // 2)
    limbs: list[tuple[Point, Point, int, Color]] = [
        (neck, (neck[0] + 150, neck[1] + 210), 28, SKIN),
        (neck, (neck[0] - 150, neck[1] + 210), 28, SKIN),
        (right_hip, right_knee, 50, TROUSERS),
        (right_knee, right_ankle, 38, TROUSERS),
        (left_hip, left_knee, 50, TROUSERS),
        (left_knee, left_ankle, 38, TROUSERS),
        (right_ankle, (right_ankle[0] - 40, right_ankle[1] + 30), 26, SHOES),
        (left_ankle, (left_ankle[0] + 40, left_ankle[1] + 30), 26, SHOES),
        (neck, hips, 85, SHIRT),
        (head, head, 70, SKIN),
    ]
    for start, end, radius, color in limbs:
        picture[_capsule(size, start, end, radius=radius)] = color
    return picture


def _background(size: ImageSize, index: int) -> ImageArray:
    """Return a slope of colour from top to bottom, another for every index; in rows, so that a PNG stays small."""
    y = np.arange(size.height) * 96 // size.height
    colors = np.stack([128 + y, 104 + 12 * index + 0 * y, 168 - y], axis=-1).astype(np.uint8)
    return np.repeat(colors[:, None, :], size.width, axis=1)


def _capsule(size: ImageSize, start: Point, end: Point, *, radius: int) -> NDArray[np.bool_]:
    """Return the (H, W) mask of pixels within `radius` of a segment, all on the grid, in 64-bit integers."""
    # one unit in x and y is the same length in the picture, so the grid's columns are scaled to its rows
    y = ((2 * np.arange(size.height, dtype=np.int64) + 1) * GRID // (2 * size.height))[:, None]
    x = ((2 * np.arange(size.width, dtype=np.int64) + 1) * GRID // (2 * size.height))[None, :]
    ax, bx = (point[0] * size.width // size.height for point in (start, end))
    ay, by = start[1], end[1]
    dx, dy = bx - ax, by - ay
    length2 = max(dx * dx + dy * dy, 1)
    along = np.clip((x - ax) * dx + (y - ay) * dy, 0, length2)
    off_x, off_y = (x - ax) * length2 - along * dx, (y - ay) * length2 - along * dy
    inside: NDArray[np.bool_] = (off_x // length2) ** 2 + (off_y // length2) ** 2 <= radius * radius
    return inside
