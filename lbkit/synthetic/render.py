"""Light on what rays met: shaded surfaces over a background, and their shadow on the floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.synthetic.camera import NEAR_M, Camera
from lbkit.synthetic.raster import MOST_CAPSULES, NOTHING, Capsule, Color, Doubles, Floats, Solids, Surfaces, ray_axes


@dataclass(frozen=True, slots=True)
class Lighting:
    """One distant lamp and light from all around.

    Attributes:
        direction: (3,) unit vector in the world toward the lamp; it points up.
        ambient: Light from all around, 0 to 1.
        diffuse: Strength of the lamp.
        tint: RGB of the lamp about 1.
        gloss: Strength of highlights.
    """

    direction: Doubles
    ambient: float = 0.5
    diffuse: float = 0.7
    tint: Color = (1.0, 1.0, 1.0)
    gloss: float = 0.08

    def __post_init__(self) -> None:
        if abs(float(np.linalg.norm(self.direction)) - 1.0) > 1e-6 or self.direction[1] <= 0:
            raise ValueError("direction must be a unit vector that points up")


def shade(
    surfaces: Surfaces, capsules: Sequence[Capsule], *, camera: Camera, lighting: Lighting, rng: Generator
) -> tuple[Floats, Floats]:
    """Return colour and coverage of what was met, averaged down to pixels.

    Args:
        surfaces: What the rays met.
        capsules: The capsules that were drawn.
        camera: The camera they were drawn with.
        lighting: The light.
        rng: Decides the folds in the cloth.

    Returns:
        (h, w, 3) RGB 0 to 255 multiplied by coverage, and (h, w) coverage 0 to 1, for the window's pixels.
    """
    solids = Solids.of(capsules, camera, supersampling=surfaces.supersampling)
    paint = _averaged_paint(surfaces, capsules, solids, camera=camera)
    coverage = paint[..., 3] * np.float32(1 / 255)
    normals, depth, seen = _relief(surfaces, solids, camera)
    light = _light(_smoothed(normals), camera, lighting)
    light *= (_folds(rng, ImageSize.of(coverage)) * _occlusion(depth, seen))[..., None]
    return np.minimum(paint[..., :3] * light, np.float32(255.0)), coverage


def _averaged_paint(surfaces: Surfaces, capsules: Sequence[Capsule], solids: Solids, *, camera: Camera) -> ImageArray:
    """Return (h, w, 4) uint8 RGB and coverage, averaged down to pixels, the colours multiplied by coverage."""
    entries = surfaces.capsule.copy()
    banded = np.zeros(256, dtype=bool)
    banded[: len(capsules)] = [item.end_color is not None for item in capsules]
    places = np.flatnonzero(banded[surfaces.capsule])
    points = _met_points(surfaces, camera, places)
    second = _beyond_band(capsules, solids, points, indices=surfaces.capsule.ravel()[places].astype(np.intp))
    entries.ravel()[places[second]] += MOST_CAPSULES
    palette = np.zeros((256, 4), dtype=np.uint8)
    for offset, colors in (
        (0, [item.color for item in capsules]),
        (MOST_CAPSULES, [item.end_color or item.color for item in capsules]),
    ):
        palette[offset : offset + len(capsules), :3] = np.rint(np.array(colors) * 255.0)
        palette[offset : offset + len(capsules), 3] = 255
    # One look-up of four bytes at once.
    painted = palette.view(np.uint32)[:, 0][entries].view(np.uint8).reshape(*entries.shape, 4)
    step = surfaces.supersampling
    size = (entries.shape[1] // step, entries.shape[0] // step)
    # OpenCV's stubs do not know that a uint8 array gives a uint8 array.
    return cv2.resize(painted, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _beyond_band(
    capsules: Sequence[Capsule], solids: Solids, points: Floats, *, indices: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Return whether (3, N) points on capsules have the second colour: beyond the band, or in every other stripe."""
    slope = np.clip(solids.slope, -0.999, 0.999)
    widening = 1.0 / (1.0 - slope**2)
    offset = np.sum(solids.axis * solids.place, axis=1) + solids.radii[:, 0] * slope
    bands = np.array([item.band_at for item in capsules])
    # The caps belong to the ends of the axis, so a band at or beyond the end is never reached.
    limit = np.where(bands < 1.0, bands * solids.length, np.inf)
    period = np.array([item.stripe_m for item in capsules])
    rows = np.stack([*(solids.rise * widening[:, None]).T, offset * widening, limit, period])
    values = np.take(rows.astype(np.float32), indices, axis=1)
    foot = np.maximum(_dot(points, values[:3]) - values[3], np.float32(0.0))
    second: NDArray[np.bool_] = foot > values[4]
    if period.any():
        turns = foot / np.maximum(values[5], np.float32(1e-6))
        second |= (values[5] > 0) & (turns - np.floor(turns) > 0.5)
    return second


def _met_points(surfaces: Surfaces, camera: Camera, places: NDArray[np.intp]) -> Floats:
    """Return the points (3, N) in the camera's frame that rays (flat indices) met."""
    height, width = surfaces.capsule.shape
    step = surfaces.supersampling
    left, top = surfaces.left_px * step, surfaces.top_px * step
    x, y = ray_axes((left, top, left + width, top + height), camera, supersampling=step)
    depth = surfaces.depth_m.ravel()[places]
    rows, columns = np.divmod(places, width)
    return np.stack([x[columns] * depth, y[rows] * depth, depth])


def _relief(surfaces: Surfaces, solids: Solids, camera: Camera) -> tuple[Floats, Floats, Floats]:
    """Return normals (h, w, 3) in the camera's frame, depth (h, w) and 1 where a pixel has them, all 0 elsewhere.

    One ray a pixel suffices: light varies slowly, and what it falls on is averaged over all rays.
    """
    step = surfaces.supersampling
    rows, columns = np.nonzero(surfaces.capsule[::step, ::step] != NOTHING)
    places = rows * (step * surfaces.capsule.shape[1]) + columns * step
    indices = surfaces.capsule.ravel()[places].astype(np.intp)
    points = _met_points(surfaces, camera, places)
    height, width = surfaces.capsule.shape[0] // step, surfaces.capsule.shape[1] // step
    field = np.zeros((5, height, width), dtype=np.float32)
    flat = field.reshape(5, -1)
    target = rows * width + columns
    for plane, values in zip(flat, (*_capsule_normals(points, solids, indices), points[2]), strict=False):
        plane[target] = values
    flat[4][target] = 1.0
    # OpenCV's stubs do not know that float arrays give a float array.
    normals: Any = cv2.merge([field[0], field[1], field[2]])
    return normals, field[3], field[4]


def _capsule_normals(points: Floats, solids: Solids, indices: NDArray[np.intp]) -> Floats:
    """Return the unit normals (3, N) of capsules at (3, N) points on them."""
    slope = np.clip(solids.slope, -0.999, 0.999)
    squared_cos = 1.0 - slope**2
    scalars = (solids.stretch, solids.radii[:, 0] * slope / squared_cos, 1.0 / squared_cos, solids.length)
    table = np.concatenate([solids.start.T, solids.flat_axis.T, solids.axis.T, np.stack(scalars)])
    values = np.take(table.astype(np.float32), indices, axis=1)
    flat, axis = values[3:6], values[6:9]
    stretch, touch, widening, length = values[9:]
    local: Floats = points - values[0:3]
    local += (stretch * _dot(local, flat)) * flat
    local -= np.minimum(np.maximum(_dot(local, axis) * widening - touch, 0), length) * axis
    local += (stretch * _dot(local, flat)) * flat
    local /= np.maximum(np.sqrt(_dot(local, local)), np.float32(1e-9))
    return local


def _dot(first: Floats, second: Floats) -> Floats:
    """Return the inner products (N,) of (3, N) vectors."""
    products: Floats = first[0] * second[0] + first[1] * second[1] + first[2] * second[2]
    return products


def _smoothed(normals: Floats) -> Floats:
    """Return unit normals smoothed a little over the picture, which rounds the seams between capsules as skin does."""
    smooth: Any = cv2.GaussianBlur(normals, (0, 0), max(0.5, 0.005 * normals.shape[0]))
    length = np.sqrt(smooth[..., 0] ** 2 + smooth[..., 1] ** 2 + smooth[..., 2] ** 2)
    unit: Floats = smooth / np.maximum(length, np.float32(1e-6))[..., None]
    return unit


def _light(normals: Floats, camera: Camera, lighting: Lighting) -> Floats:
    """Return the light (h, w, 3) on surfaces with (h, w, 3) normals, highlights included."""
    lamp = camera.rotation @ lighting.direction
    # Halfway between the lamp and the viewer, who is roughly along -z of the camera's frame.
    halfway = lamp + np.array([0.0, 0.0, -1.0])
    halfway /= max(float(np.linalg.norm(halfway)), 1e-6)
    products = normals.reshape(-1, 3) @ np.stack([lamp, camera.rotation[:, 1], halfway], axis=1).astype(np.float32)
    facing, upward, shining = products.T.reshape(3, *normals.shape[:2])
    # Wrapped a little around the terminator, as light through skin and cloth is.
    direct = np.float32(lighting.diffuse) * np.maximum((facing + np.float32(0.15)) / np.float32(1.15), 0)
    around = np.float32(lighting.ambient) * (np.float32(0.75) + np.float32(0.25) * upward)
    shine = np.square(np.square(np.square(np.maximum(shining, 0))))
    direct += np.float32(lighting.gloss) * shine * shine
    # OpenCV's stubs do not know that float arrays give a float array.
    merged: Any = cv2.merge([around + direct * np.float32(channel) for channel in lighting.tint])
    return merged  # type: ignore[no-any-return]


def _folds(rng: Generator, size: ImageSize) -> Floats:
    """Return (h, w) factors about 1 that vary smoothly, as cloth and skin do."""
    coarse = (max(size.height // 14, 2), max(size.width // 14, 2))
    noise = rng.normal(1.0, 0.03, coarse).astype(np.float32)
    # OpenCV's stubs do not know that a float array gives a float array.
    return cv2.resize(noise, size.as_width_height, interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def _occlusion(depth: Floats, seen: Floats) -> Floats:
    """Return (h, w) factors below 1 where a surface lies just behind its neighbours in the picture.

    Args:
        depth: (h, w) metres, 0 where nothing was met.
        seen: (h, w) 1 where something was met, else 0.
    """
    side = max(3, round(0.06 * depth.shape[0])) | 1
    around = cv2.blur(depth, (side, side)) / np.maximum(cv2.blur(seen, (side, side)), np.float32(1e-3))
    factors: Floats = np.float32(1.0) - np.float32(3.2) * np.minimum(np.maximum(depth - around, 0), np.float32(0.12))
    return factors


def composite(background: ImageArray, surfaces: Surfaces, *, colors: Floats, coverage: Floats) -> ImageArray:
    """Return the (H, W, 3) background with shaded surfaces over it.

    Args:
        background: (H, W, 3) uint8 RGB; left as it is.
        surfaces: What the rays met; says where the window is.
        colors: (h, w, 3) RGB times coverage, from `shade`.
        coverage: (h, w) from `shade`.
    """
    image = background.copy()
    height, width = coverage.shape
    region = image[surfaces.top_px : surfaces.top_px + height, surfaces.left_px : surfaces.left_px + width]
    blended = region * (np.float32(1.0) - coverage)[..., None] + colors
    region[:] = np.clip(blended + np.float32(0.5), 0.0, 255.0).astype(np.uint8)
    return image


def cast_shadow(
    image: ImageArray, capsules: Sequence[Capsule], *, camera: Camera, lighting: Lighting, strength: float
) -> ImageArray:
    """Return the image with the capsules' soft shadow on the floor.

    A sphere's shadow on the plane y = 0 is an ellipse, longer away from the lamp; a capsule's is the hull of two.

    Args:
        image: (H, W, 3) uint8 RGB; left as it is.
        capsules: What casts the shadow.
        camera: The camera.
        lighting: Its lamp casts.
        strength: 0 for none, 1 for black.
    """
    outlines = _shadow_outlines([item for item in capsules if item.start_radius_m > 0.014], lighting)
    outlines = camera.to_camera(outlines)
    outlines = outlines[outlines[..., 2].min(axis=1) > NEAR_M]
    height, width = image.shape[:2]
    mask = np.zeros(((height + 1) // 2, (width + 1) // 2), dtype=np.uint8)
    limit = 4.0 * max(height, width)
    # Half the resolution is enough for something blurred; 8 steps a pixel of it.
    corners = (np.clip(camera.image_of(outlines), -limit, limit) - 0.5) / 2
    for outline in np.rint(corners * 8).astype(np.int32):
        cv2.fillConvexPoly(mask, cv2.convexHull(outline), (255,), lineType=cv2.LINE_AA, shift=3)
    blur = max(0.6, 0.015 * camera.focal_px / float(np.linalg.norm(camera.position)))
    soft = cv2.resize(cv2.GaussianBlur(mask, (0, 0), blur), (width, height), interpolation=cv2.INTER_LINEAR)
    light = cv2.convertScaleAbs(soft, alpha=-strength, beta=255.0)
    # OpenCV's stubs do not know that uint8 arrays give a uint8 array.
    return cv2.multiply(image, cv2.merge([light, light, light]), scale=1 / 255)  # type: ignore[return-value]


def _shadow_outlines(capsules: Sequence[Capsule], lighting: Lighting) -> Doubles:
    """Return (P, 20, 3) points on the floor about the shadows of both spheres of each capsule."""
    centers = np.stack([(capsule.start, capsule.end) for capsule in capsules])
    radii = np.array([(capsule.start_radius_m, capsule.end_radius_m) for capsule in capsules])
    lamp = lighting.direction
    feet = centers - lamp * (np.maximum(centers[..., 1], 0.0) / lamp[1])[..., None]
    level = np.array([lamp[0], 0.0, lamp[2]])
    away = level / max(float(np.linalg.norm(level)), 1e-9) if np.any(level) else np.array([1.0, 0.0, 0.0])
    across = np.array([away[2], 0.0, -away[0]])
    angles = np.linspace(0.0, 2 * np.pi, 10, endpoint=False)
    circle = np.cos(angles)[:, None] * away / lamp[1] + np.sin(angles)[:, None] * across
    outlines: Doubles = feet[:, :, None] + radii[:, :, None, None] * circle
    outlines[..., 1] = 0.0
    return outlines.reshape(len(capsules), -1, 3)
