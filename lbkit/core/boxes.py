"""Boxes of people: checked, and found from a person's own joints."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lbkit.core.geometry import FloatArray, ImageSize
from lbkit.errors import BoxError

ABOVE_HIP_PER_LEG = 1.0
"""How far the head reaches above the hips, in lengths of hip to ankle; by the skeleton it is 0.957 (Winter, 2009, table
4.1), and hair and the hips' place in labels add a little."""

BELOW_ANKLE_PER_LEG = 0.18
"""How far the feet reach below the ankles in a picture; the skeleton's 0.08 leaves out toes that point at the camera.

With these two, boxes from the labelled joints of 499 people of COCO train2017 overlap the annotated ones by an IoU of
0.76, after 0.73 with the skeleton's proportions."""

SIDE_PER_LEG = 0.25
"""Room left and right of the outermost joint, about half a shoulder width (0.129 of stature) in leg lengths."""

MIN_SIDE_PX, MAX_COORDINATE_PX = 1e-3, 1e7
"""Outside these a box is a slip, and its transform would leave floating point's reach."""

SHOWN_BOXES = 5
"""How many bad boxes an error names."""


def whole_image_box(size: ImageSize) -> FloatArray:
    """Return the (4,) box of the whole image."""
    return np.array([0.0, 0.0, size.width, size.height])


def box_problem(box_xyxy: ArrayLike, size: ImageSize) -> str | None:
    """Say in words why a box cannot be used on an image, or None if it can.

    Args:
        box_xyxy: Left, top, right, bottom in edge coordinates.
        size: Size of the image.
    """
    box = np.asarray(box_xyxy, dtype=np.float64)
    if box.shape != (4,):
        return f"a box is 4 numbers (left, top, right, bottom), got shape {box.shape}"
    if not np.isfinite(box).all():
        return f"box {_numbers(box)} has a coordinate that is not a finite number"
    left, top, right, bottom = box
    if np.abs(box).max() > MAX_COORDINATE_PX:
        return f"box {_numbers(box)} lies beyond any picture"
    if right - left < MIN_SIDE_PX or bottom - top < MIN_SIDE_PX:
        return f"box {_numbers(box)} has no area (left, top, right, bottom)"
    if right <= 0 or bottom <= 0 or left >= size.width or top >= size.height:
        return f"box {_numbers(box)} lies outside the image of {size}"
    return None


def checked_boxes(boxes_xyxy: ArrayLike, size: ImageSize) -> NDArray[np.float64]:
    """Return boxes as (N, 4) float64.

    Args:
        boxes_xyxy: (N, 4), or (4,) for one person, in edge coordinates.
        size: Size of the image they lie on.

    Raises:
        BoxError: Boxes cannot be used; the message names the first `SHOWN_BOXES` of them by their index, from 0.
    """
    boxes = np.asarray(boxes_xyxy, dtype=np.float64)
    boxes = boxes.reshape(-1, 4) if boxes.size in (0, 4) else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise BoxError(f"boxes should have shape (N, 4), got {boxes.shape}")
    problems = [(index, box_problem(box, size)) for index, box in enumerate(boxes)]
    bad = [f"box {index}: {problem}" for index, problem in problems if problem is not None]
    if bad:
        more = f"; and {len(bad) - SHOWN_BOXES} more" if len(bad) > SHOWN_BOXES else ""
        raise BoxError("; ".join(bad[:SHOWN_BOXES]) + more)
    return boxes


def leg_length_px(xy: FloatArray) -> float:
    """Return how long the longer leg looks, thigh and shank, in image pixels.

    Args:
        xy: (6, 2) joints in image pixels, in the order of `LOWER_BODY_6`.
    """
    hips, knees, ankles = xy[0:2], xy[2:4], xy[4:6]
    legs = np.linalg.norm(knees - hips, axis=1) + np.linalg.norm(ankles - knees, axis=1)
    return float(legs.max())


def person_box_from_joints(xy: FloatArray, size: ImageSize, *, leg_px: float | None = None) -> FloatArray:
    """Estimate a whole person's box from hips, knees and ankles.

    The trunk is taken to rise upright from the hips by a stature's share of leg length (Winter, 2009); the box is
    clipped to the image.

    Args:
        xy: (6, 2) joints in image pixels, in the order of `LOWER_BODY_6`.
        size: Size of the image.
        leg_px: How long the person's leg is where it is known better than from these joints, because thighs that
            point at the camera look short.

    Returns:
        (4,) box in edge coordinates, at least 2 px wide and high.
    """
    hips, ankles = xy[0:2], xy[4:6]
    leg_px = leg_length_px(xy) if leg_px is None else leg_px
    head = hips.mean(axis=0) + np.array([0.0, -ABOVE_HIP_PER_LEG * leg_px])
    feet = ankles + np.array([0.0, BELOW_ANKLE_PER_LEG * leg_px])
    points = np.concatenate([xy, head[None], feet])
    side = np.array([SIDE_PER_LEG * leg_px, 0.0])
    box = np.concatenate([points.min(axis=0) - side, points.max(axis=0) + side]) + 0.5
    limits = np.array([size.width, size.height, size.width, size.height], dtype=np.float64)
    clipped = np.clip(box, 0.0, limits)
    clipped[:2] = np.minimum(clipped[:2], limits[:2] - 2)
    clipped[2:] = np.maximum(clipped[2:], clipped[:2] + 2)
    return clipped


def box_iou(first_xyxy: FloatArray, second_xyxy: FloatArray) -> float:
    """Return the intersection over union of two (4,) boxes."""
    top_left = np.maximum(first_xyxy[:2], second_xyxy[:2])
    bottom_right = np.minimum(first_xyxy[2:], second_xyxy[2:])
    overlap = float(np.prod(np.clip(bottom_right - top_left, 0.0, None)))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (first_xyxy, second_xyxy)]
    return overlap / (sum(areas) - overlap)


def _numbers(box: FloatArray) -> str:
    return "(" + ", ".join(f"{edge:g}" for edge in box) + ")"
