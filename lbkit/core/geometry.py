"""Where a pixel is: sizes, boxes made to fit, and the one transform between image, input and heatmap.

Two frames of reference, told apart everywhere:

* **Points** (joints) are in pixel-centre coordinates: the centre of the top-left pixel is (0, 0).
* **Boxes** are in edge coordinates, as COCO's are: the top-left corner of the top-left pixel is (0, 0) and an
  image of W x H pixels is the box (0, 0, W, H). A point's edge coordinate is its centre coordinate plus 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.floating[Any]]
ImageArray = NDArray[np.uint8]

# warpAffine indexes its source and destination with 16-bit integers in its fast path (OpenCV, imgwarp).
MAX_WARP_SIDE_PX = 32767


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Height and width in pixels, never a bare pair whose order must be guessed."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"height and width must be at least 1, got {self.height} x {self.width}")

    @classmethod
    def of(cls, image: NDArray[Any]) -> ImageSize:
        """Return the size of an (H, W) or (H, W, C) array."""
        return cls(int(image.shape[0]), int(image.shape[1]))

    @property
    def aspect(self) -> float:
        """Height divided by width."""
        return self.height / self.width

    @property
    def as_width_height(self) -> tuple[int, int]:
        """(width, height), the order OpenCV wants."""
        return self.width, self.height

    def __str__(self) -> str:
        return f"{self.height}x{self.width} (height x width)"


def fit_box(box_xyxy: ArrayLike, *, aspect: float, padding: float = 1.0) -> FloatArray:
    """Return the box about the same centre whose height/width is `aspect`, then enlarged by `padding`.

    The shorter side grows, so that the whole box stays inside.

    Args:
        box_xyxy: (4,) left, top, right, bottom in edge coordinates.
        aspect: Height divided by width of the result.
        padding: Factor on both sides after fitting.
    """
    left, top, right, bottom = np.asarray(box_xyxy, dtype=np.float64)
    width, height = right - left, bottom - top
    height = max(height, width * aspect) * padding
    width = height / aspect
    center_x, center_y = (left + right) / 2, (top + bottom) / 2
    return np.array([center_x - width / 2, center_y - height / 2, center_x + width / 2, center_y + height / 2])


def heatmap_to_input(xy: FloatArray, stride: int) -> FloatArray:
    """Map cell coordinates to input pixels; a cell covers `stride` pixels and is located by its centre."""
    return (xy + 0.5) * stride - 0.5


def input_to_heatmap(xy: FloatArray, stride: int) -> FloatArray:
    """Map input pixels to cell coordinates, the inverse of `heatmap_to_input`."""
    return (xy + 0.5) / stride - 0.5


@dataclass(frozen=True, slots=True)
class CropTransform:
    """The affine map between an image and a network's input crop, both ways.

    Attributes:
        matrix: (2, 3) float64; maps image points to input points, both in pixel-centre coordinates.
        input_size: Size of the crop.
    """

    matrix: NDArray[np.float64]
    input_size: ImageSize

    @classmethod
    def from_box(
        cls,
        box_xyxy: ArrayLike,
        input_size: ImageSize,
        *,
        padding: float = 1.0,
        rotation_deg: float = 0.0,
        flip: bool = False,
    ) -> CropTransform:
        """Return the transform that puts a person's box, fitted and padded, into the input.

        Args:
            box_xyxy: (4,) box in edge coordinates; it may leave the image.
            input_size: Size of the crop.
            padding: Factor on the fitted box (see `fit_box`).
            rotation_deg: Turns the picture clockwise as seen, about the box's centre.
            flip: Mirrors the crop left to right after all else.
        """
        left, top, right, _ = fit_box(box_xyxy, aspect=input_size.aspect, padding=padding)
        scale = input_size.width / (right - left)
        edges = np.array([[scale, 0.0, -scale * left], [0.0, scale, -scale * top], [0.0, 0.0, 1.0]])
        if rotation_deg:
            edges = _rotation_about(input_size.width / 2, input_size.height / 2, rotation_deg) @ edges
        if flip:
            edges = np.array([[-1.0, 0.0, input_size.width], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]) @ edges
        to_edges = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
        to_centers = np.array([[1.0, 0.0, -0.5], [0.0, 1.0, -0.5], [0.0, 0.0, 1.0]])
        return cls((to_centers @ edges @ to_edges)[:2], input_size)

    @property
    def scale(self) -> float:
        """Input pixels per image pixel."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    def to_input(self, points_xy: FloatArray) -> FloatArray:
        """Map (..., 2) image points to input points."""
        return np.asarray(points_xy) @ self.matrix[:, :2].T + self.matrix[:, 2]

    def to_image(self, points_xy: FloatArray) -> FloatArray:
        """Map (..., 2) input points to image points."""
        inverse = cv2.invertAffineTransform(self.matrix)
        return np.asarray(points_xy) @ inverse[:, :2].T + inverse[:, 2]

    def of_reduced(self, reduction: int) -> CropTransform:
        """Return the map from the points of a picture that was decoded at a fraction of its size to the same input.

        A reduced pixel covers `reduction` x `reduction` pixels from the top-left corner on, so that
        `x = (x_reduced + 0.5) * reduction - 0.5`.

        Args:
            reduction: Full pixels per reduced pixel, along each axis.
        """
        matrix = self.matrix.copy()
        matrix[:, 2] += matrix[:, :2] @ np.full(2, (reduction - 1) / 2)
        matrix[:, :2] *= reduction
        return CropTransform(matrix, self.input_size)

    def warp(self, image: ImageArray, *, border_value: tuple[int, int, int] = (0, 0, 0)) -> ImageArray:
        """Return the (H, W, 3) crop, bilinear, one warp from the source; outside the image is `border_value`.

        Args:
            image: (H, W, 3) uint8.
            border_value: Colour in the image's channel order.
        """
        source, matrix = _within_warp_limit(image, self)
        # OpenCV's stubs do not know that a numpy integer array is what comes back.
        return cv2.warpAffine(  # type: ignore[return-value]
            source,
            matrix,
            self.input_size.as_width_height,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=border_value,
        )


def _rotation_about(x: float, y: float, degrees: float) -> NDArray[np.float64]:
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y], [0.0, 0.0, 1.0]])


def _within_warp_limit(image: ImageArray, crop: CropTransform) -> tuple[ImageArray, NDArray[np.float64]]:
    """Cut a huge source down to the part that the crop sees, because warpAffine cannot index beyond 32,767.

    Where that part is huge too, every second pixel of it is taken, or fewer: the crop skips most of them anyway.
    """
    if max(image.shape[:2]) < MAX_WARP_SIDE_PX:
        return image, crop.matrix
    height, width = crop.input_size.height, crop.input_size.width
    corners = crop.to_image(np.array([[-1.0, -1.0], [width, -1.0], [width, height], [-1.0, height]]))
    left, top = np.clip(np.floor(corners.min(axis=0)) - 1, 0, [image.shape[1] - 1, image.shape[0] - 1])
    right, bottom = np.clip(np.ceil(corners.max(axis=0)) + 2, [left + 1, top + 1], image.shape[1::-1])
    matrix = crop.matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ np.array([left, top])
    part = image[int(top) : int(bottom), int(left) : int(right)]
    step = max(part.shape[:2]) // MAX_WARP_SIDE_PX + 1
    matrix[:, :2] *= step
    return np.ascontiguousarray(part[::step, ::step]), matrix
