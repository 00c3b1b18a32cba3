"""A pinhole camera without distortion, in the pixel convention of `lbkit.core.geometry`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lbkit.core.geometry import ImageSize

# A point nearer than this to the camera's plane has no image.
NEAR_M = 0.05


@dataclass(frozen=True, slots=True)
class Camera:
    """Where a camera stands and how it maps the world to pixels.

    The camera's own frame has x to the right of the image, y down it and z into the scene.

    Attributes:
        rotation: (3, 3) turns world directions into the camera's frame.
        position: (3,) the camera in the world, metres.
        focal_px: Focal length.
        center_xy: (2,) principal point in pixel-centre coordinates.
        size: Size of the image.
    """

    rotation: NDArray[np.float64]
    position: NDArray[np.float64]
    focal_px: float
    center_xy: NDArray[np.float64]
    size: ImageSize

    def __post_init__(self) -> None:
        if self.rotation.shape != (3, 3) or not np.allclose(self.rotation @ self.rotation.T, np.eye(3), atol=1e-9):
            raise ValueError("rotation must be an orthonormal (3, 3) matrix")
        if self.position.shape != (3,) or self.center_xy.shape != (2,):
            raise ValueError("position must be (3,) and center_xy (2,)")
        if not (np.isfinite(self.focal_px) and self.focal_px > 0):
            raise ValueError(f"focal_px must be positive, got {self.focal_px}")

    @classmethod
    def looking_at(
        cls, target: ArrayLike, *, position: ArrayLike, focal_px: float, size: ImageSize, roll_deg: float = 0.0
    ) -> Camera:
        """Return a camera whose optical axis meets `target` in the middle of the image.

        Args:
            target: (3,) point in the world.
            position: (3,) the camera; not straight above or below the target.
            focal_px: Focal length.
            size: Size of the image.
            roll_deg: Turns the camera clockwise, so that the picture turns the other way.

        Raises:
            ValueError: The camera is at the target or looks straight up or down.
        """
        place = np.asarray(position, dtype=np.float64)
        axis = np.asarray(target, dtype=np.float64) - place
        right = np.cross(axis, [0.0, 1.0, 0.0])
        if np.linalg.norm(right) < 1e-6 * max(float(np.linalg.norm(axis)), 1.0):
            raise ValueError("the camera must not be at the target, nor straight above or below it")
        axis, right = axis / np.linalg.norm(axis), right / np.linalg.norm(right)
        down = np.cross(axis, right)
        cos, sin = np.cos(np.deg2rad(roll_deg)), np.sin(np.deg2rad(roll_deg))
        rotation = np.stack([cos * right + sin * down, cos * down - sin * right, axis])
        middle = np.array([(size.width - 1) / 2, (size.height - 1) / 2])
        return cls(rotation, place, focal_px, middle, size)

    def to_camera(self, points_xyz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map (..., 3) world points to the camera's frame, metres; z is the depth."""
        mapped: NDArray[np.float64] = (points_xyz - self.position) @ self.rotation.T
        return mapped

    def project(self, points_xyz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map (..., 3) world points to (..., 2) image points in pixel-centre coordinates.

        Raises:
            ValueError: A point is behind the camera or closer than `NEAR_M`.
        """
        points = self.to_camera(points_xyz)
        if np.any(points[..., 2] < NEAR_M):
            raise ValueError(f"every point must lie at least {NEAR_M} m in front of the camera")
        return self.image_of(points)

    def image_of(self, points_xyz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map (..., 3) points of the camera's own frame, all in front of it, to (..., 2) image points."""
        image: NDArray[np.float64] = self.focal_px * points_xyz[..., :2] / points_xyz[..., 2:] + self.center_xy
        return image

    def plane_homography(
        self, origin: NDArray[np.float64], *, across: NDArray[np.float64], along: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the (3, 3) matrix from plane coordinates to image points.

        Args:
            origin: (3,) world point of plane coordinates (0, 0).
            across: (3,) world vector of the first coordinate's unit.
            along: (3,) world vector of the second coordinate's unit.
        """
        columns = np.stack([self.rotation @ across, self.rotation @ along, self.to_camera(origin)], axis=1)
        center_x, center_y = self.center_xy
        intrinsics = np.array([[self.focal_px, 0, center_x], [0, self.focal_px, center_y], [0, 0, 1.0]])
        homography: NDArray[np.float64] = intrinsics @ columns
        return homography

    def framed(self, points_xyz: NDArray[np.float64], *, box_xyxy: ArrayLike) -> Camera:
        """Return this camera zoomed and shifted so that points just fit into a box, as a crop would.

        The points' extent fills the box in one direction and is centred in the other.

        Args:
            points_xyz: (..., 3) world points.
            box_xyxy: (4,) box in pixel-centre coordinates.
        """
        rays = replace(self, focal_px=1.0, center_xy=np.zeros(2)).project(points_xyz).reshape(-1, 2)
        low, high = rays.min(axis=0), rays.max(axis=0)
        box = np.asarray(box_xyxy, dtype=np.float64)
        focal = float(np.min((box[2:] - box[:2]) / np.maximum(high - low, 1e-9)))
        center = (box[:2] + box[2:]) / 2 - focal * (low + high) / 2
        return replace(self, focal_px=focal, center_xy=center)
