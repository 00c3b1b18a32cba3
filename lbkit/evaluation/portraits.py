"""Pictures of people with annotated and found joints, to see where a model goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lbkit.core.draw import LEFT_COLOR, MIDDLE_COLOR, OUTLINE_COLOR, RIGHT_COLOR, Color
from lbkit.core.geometry import ImageArray
from lbkit.core.images import read_image
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.errors import ImageReadError
from lbkit.evaluation.evaluate import Judged
from lbkit.evaluation.scoring import WorstPerson
from lbkit.evaluation.truth import Truth

KEY = (
    "Rings are annotated joints, dotted rings hidden ones; discs with the skeleton are what was found; white lines "
    "join the two. Left is orange and right is blue; left is the person's own."
)

PICTURE_HEIGHT_PX = 360
MAX_WIDTH_PX = 480
ROOM = 0.12
"""So much of the box is shown around it on every side, and joints up to one box away."""

_SUBPIXEL_BITS = 4
_RING_PX, _DISC_PX = 6.0, 3.5
_ANGLES = np.linspace(0.0, 2 * np.pi, 33)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def worst_portraits(judged: Judged, truth: Truth) -> Iterator[tuple[ImageArray, str]]:
    """Yield a picture and a caption of each of a model's worst people whose photograph can be read.

    Args:
        judged: The model.
        truth: Where the photographs are.
    """
    for rank, worst in enumerate(judged.evaluation.worst, 1):
        try:
            image = read_image(truth.image_path(worst.image_id))
        except ImageReadError:
            continue
        yield draw_person(image, judged, worst.row), _caption(rank, worst, judged, truth)


def draw_person(image: ImageArray, judged: Judged, row: int) -> ImageArray:
    """Return one person, cut out and enlarged, with annotated and found joints.

    Args:
        image: (H, W, 3) uint8 RGB photograph.
        judged: The model.
        row: The person's row.
    """
    people, found = judged.people, judged.found_xy[row]
    return draw_pair(
        image,
        people.boxes_xyxy[row],
        found_xy=found if np.isfinite(found).all() else None,
        reference_xy=people.joints_xy[row],
        visibility=people.visibility[row],
    )


def draw_pair(
    image: ImageArray,
    box_xyxy: NDArray[np.float64],
    *,
    found_xy: NDArray[np.float64] | None,
    reference_xy: NDArray[np.float64],
    visibility: NDArray[np.int64] | None = None,
) -> ImageArray:
    """Return one person, cut out and enlarged, with two answers: discs and skeleton, and rings.

    Args:
        image: (H, W, 3) uint8 RGB photograph.
        box_xyxy: (4,) the person's box.
        found_xy: (6, 2) image pixels of the discs; None draws none.
        reference_xy: (6, 2) image pixels of the rings.
        visibility: (6,) COCO's v of the rings: 0 draws none, 1 a dotted one; all are whole when None.
    """
    seen = np.full(len(reference_xy), 2) if visibility is None else visibility
    labelled = seen > 0
    points = reference_xy[labelled] if found_xy is None else np.concatenate([reference_xy[labelled], found_xy])
    canvas, scale, origin = _view(image, _frame(box_xyxy, points, image))
    true_px = (reference_xy - origin + 0.5) * scale - 0.5
    if found_xy is not None:
        found_px = (found_xy - origin + 0.5) * scale - 0.5
        _draw_found(canvas, found_px)
        for joint in np.flatnonzero(labelled):
            _line(canvas, true_px[joint], found_px[joint], MIDDLE_COLOR, 1)
    for joint in np.flatnonzero(labelled):
        _ring(canvas, true_px[joint], _color(joint), is_dotted=bool(seen[joint] == 1))
    return canvas


def _caption(rank: int, worst: WorstPerson, judged: Judged, truth: Truth) -> str:
    far = "not found" if worst.mean_distance is None else f"mean distance {worst.mean_distance:.2f}"
    counted = judged.people.visibility[worst.row] > 0
    name = truth.coco.images[worst.image_id].file_name
    return f"{rank}. {far} over {int(counted.sum())} joints, {name}, annotation {worst.ann_id}"


def _frame(box_xyxy: NDArray[np.float64], points_xy: NDArray[np.float64], image: ImageArray) -> NDArray[np.int64]:
    """Return the (4,) part of the photograph that shows the box and the joints not far from it."""
    sides = box_xyxy[2:] - box_xyxy[:2]
    near = np.clip(points_xy, box_xyxy[:2] - sides, box_xyxy[2:] + sides)
    low = np.minimum(box_xyxy[:2], near.min(axis=0)) - ROOM * sides
    high = np.maximum(box_xyxy[2:], near.max(axis=0)) + ROOM * sides
    limits = np.array([image.shape[1], image.shape[0]])
    low = np.clip(np.floor(low), 0, limits - 1)
    high = np.clip(np.ceil(high), low + 1, limits)
    return np.concatenate([low, high]).astype(np.int64)


def _view(image: ImageArray, frame: NDArray[np.int64]) -> tuple[ImageArray, float, NDArray[np.float64]]:
    """Return the part enlarged or reduced, its scale, and where it begins on the photograph."""
    left, top, right, bottom = frame.tolist()
    part = image[top:bottom, left:right]
    scale = min(PICTURE_HEIGHT_PX / part.shape[0], MAX_WIDTH_PX / part.shape[1])
    size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas: ImageArray = np.ascontiguousarray(cv2.resize(part, size, interpolation=how)).astype(np.uint8)
    return canvas, scale, np.array([left, top], np.float64)


def _draw_found(canvas: ImageArray, found_px: NDArray[np.float64]) -> None:
    for width, is_outline in ((5, True), (2, False)):
        for first, second in LOWER_BODY_6.skeleton:
            color = OUTLINE_COLOR if is_outline else _bone_color(first, second)
            _line(canvas, found_px[first], found_px[second], color, width)
    for joint, point in enumerate(found_px):
        for radius, color in ((_DISC_PX + 1.5, OUTLINE_COLOR), (_DISC_PX, _color(joint))):
            cv2.fillConvexPoly(canvas, _fixed(point + radius * _CIRCLE), color, cv2.LINE_AA, _SUBPIXEL_BITS)


def _ring(canvas: ImageArray, center: NDArray[np.float64], color: Color, *, is_dotted: bool) -> None:
    points = center + _RING_PX * _CIRCLE
    arcs = [points[i : i + 3] for i in range(0, 32, 4)] if is_dotted else [points]
    for width, shade in ((4, OUTLINE_COLOR), (2, color)):
        for arc in arcs:
            cv2.polylines(canvas, [_fixed(arc)], isClosed=False, color=shade, thickness=width, lineType=cv2.LINE_AA,
                          shift=_SUBPIXEL_BITS)  # fmt: skip


def _line(canvas: ImageArray, start: NDArray[np.float64], end: NDArray[np.float64], color: Color, width: int) -> None:
    first, last = _fixed(np.stack([start, end])).tolist()
    cv2.line(canvas, first, last, color, width, cv2.LINE_AA, _SUBPIXEL_BITS)


def _color(joint: int | np.signedinteger[Any]) -> Color:
    return LEFT_COLOR if LOWER_BODY_6.names[joint].startswith("left") else RIGHT_COLOR


def _bone_color(first: int, second: int) -> Color:
    return _color(first) if _color(first) == _color(second) else MIDDLE_COLOR


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return points in OpenCV's fixed point; what lies far outside is moved nearer, within its 16 bits."""
    return np.rint(np.clip(points, -1000, 2000) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
