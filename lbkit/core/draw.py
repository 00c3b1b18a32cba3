"""Pictures of results: skeletons over a photo, and heatmaps beside a crop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lbkit.core.geometry import FloatArray, ImageArray
from lbkit.core.poses import Poses

Color = tuple[int, int, int]

# Okabe and Ito's orange and sky blue, brightened: apart from each other for every kind of colour vision.
LEFT_COLOR: Color = (255, 150, 20)
RIGHT_COLOR: Color = (40, 170, 255)
MIDDLE_COLOR: Color = (240, 240, 240)
OUTLINE_COLOR: Color = (20, 20, 24)

DEFAULT_MIN_SCORE = 0.2

LINE_PER_LEG = 0.035
MIN_LINE_PX = 2
MAX_LINE_PER_IMAGE = 0.02
"""A line's width: a share of the person's leg, but at least so many pixels and at most a share of the shorter side."""

FAINT_PEAK = 0.25
"""A map is shown relative to its own peak, so that a weak one is seen too, but no fainter peak is made to shine."""

_SUBPIXEL_BITS = 4
_ANGLES = np.linspace(0.0, 2 * np.pi, 32, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
_FONT = cv2.FONT_HERSHEY_SIMPLEX

_LABEL_PX = 26
_GAP_PX = 6
_PANEL_COLOR: Color = (24, 24, 28)


def draw_poses(image: ImageArray, poses: Poses, *, min_score: float = DEFAULT_MIN_SCORE) -> ImageArray:
    """Return a copy of the image with the skeletons on it: left orange, right blue, all outlined in black.

    Args:
        image: (H, W, 3) uint8 RGB, of the poses' `image_size`.
        poses: The people.
        min_score: Joints below this score, and the lines to them, are left out.

    Raises:
        ValueError: The image has another size.
    """
    if image.shape[:2] != (poses.image_size.height, poses.image_size.width):
        raise ValueError(f"the poses belong to an image of {poses.image_size}, got {image.shape}")
    canvas = image.copy()
    for xy, scores in zip(poses.xy.astype(np.float64), poses.scores, strict=True):
        _draw_person(canvas, poses, xy, scores >= min_score)
    return canvas


def draw_heatmaps(crop: ImageArray, heatmaps: NDArray[np.float32], names: Sequence[str]) -> ImageArray:
    """Return a panel: the crop, and beside it each joint's heatmap over the greyed crop, with its name and peak.

    Args:
        crop: (H, W, 3) uint8 RGB, the network's input.
        heatmaps: (K, h, w) float32.
        names: The K joints' names; they fill the panel column by column, two to a column.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    height, width = crop.shape[:2]
    columns = (len(names) + 1) // 2
    tile_height, tile_width = height + _LABEL_PX + _GAP_PX, width + _GAP_PX
    photo_height = 2 * tile_height - _LABEL_PX - _GAP_PX
    photo_width = round(width * photo_height / height)
    shape = (2 * tile_height + _GAP_PX, photo_width + 2 * _GAP_PX + columns * tile_width, 3)
    panel = np.full(shape, _PANEL_COLOR, np.uint8)
    photo = cv2.resize(crop, (photo_width, photo_height), interpolation=cv2.INTER_CUBIC)
    _paste(panel, photo, "input", left=_GAP_PX, top=_GAP_PX)
    for index, (name, heatmap) in enumerate(zip(names, heatmaps, strict=True)):
        left = photo_width + 2 * _GAP_PX + index // 2 * tile_width
        label = f"{name.replace('_', ' ')}  {heatmap.max():.2f}"
        _paste(panel, _heatmap_tile(crop, heatmap), label, left=left, top=_GAP_PX + index % 2 * tile_height)
    return panel


def _draw_person(canvas: ImageArray, poses: Poses, xy: FloatArray, shown: NDArray[np.bool_]) -> None:
    names = poses.keypoints.names
    width = _line_width(canvas, poses, xy)
    outline = width + 2 * max(1, round(width / 4))
    bones = [(a, b) for a, b in poses.keypoints.skeleton if shown[a] and shown[b]]
    for a, b in bones:
        _line(canvas, xy[a], xy[b], OUTLINE_COLOR, outline)
    for a, b in bones:
        _line(canvas, xy[a], xy[b], _bone_color(names[a], names[b]), width)
    for joint in np.flatnonzero(shown):
        _disc(canvas, xy[joint], OUTLINE_COLOR, 1.15 * width + outline - width)
        _disc(canvas, xy[joint], MIDDLE_COLOR, 1.15 * width)
        _disc(canvas, xy[joint], _side_color(names[joint]), 0.75 * width)


def _line_width(canvas: ImageArray, poses: Poses, xy: FloatArray) -> int:
    """Scale with the median bone, doubled to about a leg's length, so that one joint gone astray hardly counts."""
    bones = [float(np.linalg.norm(xy[a] - xy[b])) for a, b in poses.keypoints.skeleton]
    leg_px = 2 * float(np.median(bones)) if bones else 0.0
    most = max(MIN_LINE_PX, MAX_LINE_PER_IMAGE * float(min(canvas.shape[:2])))
    return round(min(max(LINE_PER_LEG * leg_px, MIN_LINE_PX), most))


def _side_color(name: str) -> Color:
    if name.startswith("left"):
        return LEFT_COLOR
    return RIGHT_COLOR if name.startswith("right") else MIDDLE_COLOR


def _bone_color(first: str, second: str) -> Color:
    colors = {_side_color(first), _side_color(second)}
    return colors.pop() if len(colors) == 1 else MIDDLE_COLOR


def _line(canvas: ImageArray, start: FloatArray, end: FloatArray, color: Color, width: int) -> None:
    first, last = _fixed_point(np.stack([start, end])).tolist()
    cv2.line(canvas, first, last, color, width, cv2.LINE_AA, _SUBPIXEL_BITS)


def _disc(canvas: ImageArray, center: FloatArray, color: Color, radius: float) -> None:
    """Fill a disc as a polygon, because `cv2.circle` makes a diamond of a small one between pixels."""
    cv2.fillConvexPoly(canvas, _fixed_point(center + radius * _CIRCLE), color, cv2.LINE_AA, _SUBPIXEL_BITS)


def _fixed_point(points_xy: FloatArray) -> NDArray[np.int32]:
    return np.rint(points_xy * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _heatmap_tile(crop: ImageArray, heatmap: NDArray[np.float32]) -> ImageArray:
    """Lay a map over the greyed crop, the higher the brighter and more opaque, and mark its highest cell."""
    height, width = crop.shape[:2]
    relative = np.clip(heatmap / max(float(heatmap.max()), FAINT_PEAK), 0.0, 1.0)
    value = cv2.resize(relative, (width, height), interpolation=cv2.INTER_LINEAR)
    heat = cv2.applyColorMap(np.round(value * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[..., None] * 0.6
    opacity = np.sqrt(value)[..., None] * 0.9
    tile: ImageArray = np.rint(grey * (1 - opacity) + heat * opacity).astype(np.uint8)
    row, column = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    peak = np.array([(column + 0.5) * width / heatmap.shape[1], (row + 0.5) * height / heatmap.shape[0]]) - 0.5
    for color, thickness in ((OUTLINE_COLOR, 3), (MIDDLE_COLOR, 1)):
        for step in (np.array([5.0, 0.0]), np.array([0.0, 5.0])):
            _line(tile, peak - step, peak + step, color, thickness)
    return tile


def _paste(panel: NDArray[Any], tile: NDArray[Any], label: str, *, left: int, top: int) -> None:
    baseline = top + _LABEL_PX - 8
    cv2.putText(panel, label, (left + 2, baseline), _FONT, 0.5, MIDDLE_COLOR, 1, cv2.LINE_AA)
    top += _LABEL_PX
    panel[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
