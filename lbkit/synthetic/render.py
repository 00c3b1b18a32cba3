"""Shaded tapered capsules in a depth buffer.

A tapered capsule is the hull of two spheres: two caps and the cone that touches both. Rays meet it in closed form, so
silhouettes, depth and normals are exact to float32. A capsule may be flattened along one direction; it is met in the
space where it is round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.synthetic.camera import NEAR_M, Camera

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Color = tuple[float, float, float]

FAR_M: Final = 1e6
NOTHING: Final = 255
# A capsule and its second colour share a byte with NOTHING.
MOST_CAPSULES: Final = 127


class Part(IntEnum):
    """What a capsule belongs to; everything below GEAR is the person."""

    TRUNK = 0
    HEAD = 1
    LEFT_THIGH = 2
    RIGHT_THIGH = 3
    LEFT_SHANK = 4
    RIGHT_SHANK = 5
    LEFT_FOOT = 6
    RIGHT_FOOT = 7
    LEFT_ARM = 8
    RIGHT_ARM = 9
    GEAR = 10


@dataclass(frozen=True, slots=True)
class Capsule:
    """The hull of two spheres, perhaps flattened, in one or two colours.

    Attributes:
        part: What it belongs to.
        start, end: (3,) centres of the spheres in the world, metres; they may coincide.
        start_radius_m, end_radius_m: Radii, across the flattening.
        color: RGB, 0 to 1.
        end_color: RGB beyond `band_at`.
        band_at: Fraction of the length from start to end where `end_color` begins.
        stripe_m: Period along the axis in which the two colours take turns; 0 for none.
        flat_axis: (3,) unit direction in which the capsule is thinner, or None.
        flatness: Thickness along `flat_axis` as a factor on the radii.
        open_end: Leaves out the cap at the end, as a sleeve does.
    """

    part: Part
    start: Doubles
    end: Doubles
    start_radius_m: float
    end_radius_m: float
    color: Color
    end_color: Color | None = None
    band_at: float = 2.0
    stripe_m: float = 0.0
    flat_axis: Doubles | None = None
    flatness: float = 1.0
    open_end: bool = False

    def __post_init__(self) -> None:
        if self.start_radius_m <= 0 or self.end_radius_m <= 0:
            raise ValueError(f"radii must be positive, got {self.start_radius_m} and {self.end_radius_m}")
        if not 0.05 <= self.flatness <= 1.5:
            raise ValueError(f"flatness must lie in 0.05..1.5, got {self.flatness}")


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


@dataclass(frozen=True, slots=True)
class Surfaces:
    """What a grid of rays met, in a window of the image.

    Attributes:
        left_px, top_px: First column and row of the window in the image.
        supersampling: Rays a pixel has along each axis.
        depth_m: (h, w) depth in the camera's frame, FAR_M where nothing was met; h and w count rays.
        capsule: (h, w) index of the capsule met, NOTHING elsewhere.
        part: (h, w) its Part, NOTHING elsewhere.
    """

    left_px: int
    top_px: int
    supersampling: int
    depth_m: Floats
    capsule: NDArray[np.uint8]
    part: NDArray[np.uint8]

    @property
    def person(self) -> NDArray[np.bool_]:
        """(h, w) rays that met the person."""
        return self.part < Part.GEAR

    def box_xyxy(self) -> Doubles | None:
        """Return the tight box of the person in edge coordinates of the image, or None when none is seen."""
        person = self.person
        columns, rows = np.flatnonzero(person.any(axis=0)), np.flatnonzero(person.any(axis=1))
        if len(columns) == 0:
            return None
        edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)
        box: Doubles = edges / self.supersampling + np.array([self.left_px, self.top_px] * 2)
        return box

    def at(self, xy: Doubles) -> tuple[int, float]:
        """Return the Part and depth met nearest to an image point in pixel-centre coordinates."""
        origin = np.array([self.left_px, self.top_px])
        column, row = np.floor((np.asarray(xy) + 0.5 - origin) * self.supersampling).astype(int)
        height, width = self.part.shape
        if not (0 <= row < height and 0 <= column < width):
            return NOTHING, FAR_M
        return int(self.part[row, column]), float(self.depth_m[row, column])


@dataclass(frozen=True, slots=True)
class _Solids:
    """P capsules in the camera's frame and in the space where each is round ("stretched").

    Attributes:
        start: (P, 3) start in the camera's frame, not stretched.
        flat_axis, stretch: (P, 3) and (P,): a point p becomes p + stretch * (flat_axis . p) * flat_axis.
        place: (P, 3) stretched start.
        axis, length: (P, 3) and (P,): unit vector from start to end and length, stretched.
        radii: (P, 2) at start and end.
        slope: (P,) sine of the cone's half angle, positive where it tapers.
        inner, rise: (P, 3) vectors whose products with an unstretched ray are those of the stretched ray with minus
            the place and with the axis.
        windows: (P, 4) left, top, right, bottom of the outline in rays.
    """

    start: Doubles
    flat_axis: Doubles
    stretch: Doubles
    place: Doubles
    axis: Doubles
    length: Doubles
    radii: Doubles
    slope: Doubles
    inner: Doubles
    rise: Doubles
    windows: NDArray[np.int64]


def rasterise(capsules: Sequence[Capsule], camera: Camera, *, supersampling: int = 2) -> Surfaces | None:
    """Return what each ray of a camera meets first, or None where no capsule is in the picture.

    Args:
        capsules: At most 127, all of them in front of the camera.
        camera: The camera.
        supersampling: Rays a pixel has along each axis.

    Raises:
        ValueError: There are too many capsules, or one is not in front of the camera.
    """
    if len(capsules) > MOST_CAPSULES:
        raise ValueError(f"at most {MOST_CAPSULES} capsules, got {len(capsules)}")
    solids = _prepare(capsules, camera, supersampling)
    window = _union_window(solids, camera.size, supersampling)
    if window is None:
        return None
    left, top, right, bottom = window
    rays = _Rays.of(window, camera, supersampling)
    depth = np.full((bottom - top, right - left), FAR_M, dtype=np.float32)
    winner = np.full(depth.shape, NOTHING, dtype=np.uint8)
    windows = solids.windows - np.array([left, top, left, top])
    for index, capsule in enumerate(capsules):
        x0, y0, x1, y1 = windows[index]
        if x1 > x0 and y1 > y0:
            region = np.s_[y0:y1, x0:x1]
            found = _meet(solids, index, rays.part(region), capped=not capsule.open_end)
            nearer = found < depth[region]
            np.copyto(depth[region], found, where=nearer)
            np.copyto(winner[region], np.uint8(index), where=nearer)
    parts = np.full(256, NOTHING, dtype=np.uint8)
    parts[: len(capsules)] = [capsule.part for capsule in capsules]
    return Surfaces(left // supersampling, top // supersampling, supersampling, depth, winner, parts[winner])


def _prepare(capsules: Sequence[Capsule], camera: Camera, supersampling: int) -> _Solids:
    """Bring capsules into the camera's frame and the space where they are round."""
    ends = camera.to_camera(np.array([(capsule.start, capsule.end) for capsule in capsules]))
    radii = np.array([(capsule.start_radius_m, capsule.end_radius_m) for capsule in capsules])
    level = camera.rotation[2]
    flat = np.array([level if capsule.flat_axis is None else capsule.flat_axis for capsule in capsules])
    flat = flat @ camera.rotation.T
    flatness = np.array([1.0 if capsule.flat_axis is None else capsule.flatness for capsule in capsules])
    stretch = 1.0 / flatness - 1.0

    def stretched(vectors: Doubles) -> Doubles:
        result: Doubles = vectors + (stretch * np.sum(vectors * flat, axis=1))[:, None] * flat
        return result

    between = stretched(ends[:, 1] - ends[:, 0])
    length = np.linalg.norm(between, axis=1)
    axis = np.where(length[:, None] > 1e-9, between / np.maximum(length, 1e-9)[:, None], [1.0, 0.0, 0.0])
    slope = (radii[:, 0] - radii[:, 1]) / np.maximum(length, 1e-9)
    place = stretched(ends[:, 0])
    reach = radii * np.maximum(flatness, 1.0)[:, None]
    windows = _outline_windows(ends, reach, camera, supersampling)
    inner, rise = -stretched(place), stretched(axis)
    return _Solids(ends[:, 0], flat, stretch, place, axis, length, radii, slope, inner, rise, windows)


def _outline_windows(centers: Doubles, radii: Doubles, camera: Camera, supersampling: int) -> NDArray[np.int64]:
    """Return (P, 4) windows, in rays, about the outlines of capsules.

    A sphere's outline is met by the tangents from the camera: angle of the centre plus or minus asin(r / d).

    Args:
        centers: (P, 2, 3) in the camera's frame.
        radii: (P, 2).
        camera: The camera.
        supersampling: Rays a pixel has along each axis.
    """
    if np.any(centers[..., 2] - radii < NEAR_M):
        raise ValueError("every capsule must lie wholly in front of the camera")
    distance = np.hypot(centers[..., :2], centers[..., 2:])
    middle = np.arctan2(centers[..., :2], centers[..., 2:])
    half = np.arcsin(np.minimum(radii[..., None] / distance, 1.0))
    scale, offset = camera.focal_px * supersampling, (camera.center_xy + 0.5) * supersampling
    low = (np.tan(middle - half) * scale + offset).min(axis=1)
    high = (np.tan(middle + half) * scale + offset).max(axis=1)
    limit = np.array(camera.size.as_width_height) * supersampling
    windows = np.concatenate([np.clip(np.floor(low), 0, limit), np.clip(np.ceil(high), 0, limit)], axis=-1)
    return windows.astype(np.int64)


def _union_window(solids: _Solids, size: ImageSize, supersampling: int) -> tuple[int, int, int, int] | None:
    """Return the window, in rays and whole pixels, that holds every capsule."""
    seen = solids.windows[np.all(solids.windows[:, 2:] > solids.windows[:, :2], axis=1)]
    if len(seen) == 0:
        return None
    left, top = seen[:, :2].min(axis=0) // supersampling * supersampling
    right, bottom = -(-seen[:, 2:].max(axis=0) // supersampling) * supersampling
    right, bottom = min(right, size.width * supersampling), min(bottom, size.height * supersampling)
    return int(left), int(top), int(right), int(bottom)


def _ray_axes(window: tuple[int, int, int, int], camera: Camera, supersampling: int) -> tuple[Floats, Floats]:
    """Return x (w,) and y (h,) of the rays (x, y, 1) of a window given in rays: left, top, right, bottom."""
    left, top, right, bottom = window
    columns = (np.arange(left, right) + 0.5) / supersampling - 0.5
    rows = (np.arange(top, bottom) + 0.5) / supersampling - 0.5
    x = (columns - camera.center_xy[0]) / camera.focal_px
    y = (rows - camera.center_xy[1]) / camera.focal_px
    return x.astype(np.float32), y.astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Rays:
    """Rays (x, y, 1) on a grid: x (1, w), y (h, 1), and their squared lengths (h, w)."""

    x: Floats
    y: Floats
    norms: Floats

    @classmethod
    def of(cls, window: tuple[int, int, int, int], camera: Camera, supersampling: int) -> _Rays:
        """Return the rays of a window given in rays: left, top, right, bottom."""
        columns, rows = _ray_axes(window, camera, supersampling)
        x, y = columns[None], rows[:, None]
        return cls(x, y, x * x + (y * y + np.float32(1.0)))

    def part(self, region: tuple[slice, slice]) -> _Rays:
        """Return the rays of a region (rows, columns)."""
        rows, columns = region
        return _Rays(self.x[:, columns], self.y[rows], self.norms[region])

    def along(self, vector: Doubles) -> Floats:
        """Return the inner products (h, w) of a vector with the rays."""
        a, b, c = vector.tolist()
        return self.x * np.float32(a) + (self.y * np.float32(b) + np.float32(c))


def _meet(solids: _Solids, index: int, rays: _Rays, *, capped: bool) -> Floats:
    """Return the depth (h, w) at which rays first meet a capsule, NaN where they miss it.

    Both spheres are inscribed in the endless cone, so a ray that misses the cone misses the capsule, and one that
    enters the cone beyond a touching circle can only meet the cap on that side.
    """
    norms = rays.norms
    stretch = float(solids.stretch[index])
    if stretch:
        across = rays.along(solids.flat_axis[index])
        norms = norms + np.float32(stretch * (2.0 + stretch)) * (across * across)
    inner = rays.along(solids.inner[index])
    slope, (start_radius, end_radius) = float(solids.slope[index]), solids.radii[index]
    length, place = float(solids.length[index]), solids.place[index]
    end = place + length * solids.axis[index]
    if abs(slope) >= 0.999:  # one sphere holds the other
        rise = rays.along(solids.rise[index] * (length if slope < 0 else 0.0))
        center, radius = (end, end_radius) if slope < 0 else (place, start_radius)
        return _meet_sphere(norms, inner - rise, constant=float(center @ center - radius**2))
    rise = rays.along(solids.rise[index])
    depth, below, above = _meet_cone(solids, index, norms=norms, inner=inner, rise=rise)
    depth[below] = _meet_sphere(norms[below], inner[below], constant=float(place @ place - start_radius**2))
    inner_end = inner[above] - np.float32(length) * rise[above]
    cap = _meet_sphere(norms[above], inner_end, constant=float(end @ end - end_radius**2))
    depth[above] = cap if capped else np.nan
    return depth


def _meet_sphere(norms: Floats, inner: Floats, *, constant: float) -> Floats:
    """Return the depth at which rays meet a sphere, NaN where they miss.

    Args:
        norms: Squared lengths of the stretched rays.
        inner: Their products with the camera's place as seen from the centre.
        constant: Squared distance of the centre less the squared radius.
    """
    with np.errstate(invalid="ignore"):
        root = np.sqrt(inner * inner - norms * np.float32(constant))
    depth: Floats = -(inner + root) / norms
    return depth


def _meet_cone(
    solids: _Solids, index: int, *, norms: Floats, inner: Floats, rise: Floats
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where rays enter the endless cone (NaN where they miss), and whether before or beyond its used part.

    With q from the start, h = axis . q, r the start's radius, s the slope and c^2 = 1 - s^2, the cone that touches both
    spheres is c^2 (q.q - h^2) = (r - h s)^2; along a ray that is a quadratic in the depth.
    """
    slope, radius, axis, place = solids.slope[index], solids.radii[index, 0], solids.axis[index], solids.place[index]
    squared_cos, height = 1.0 - slope**2, -float(axis @ place)
    square = norms * np.float32(squared_cos) - rise * rise
    half = inner * np.float32(squared_cos) - rise * np.float32(height - radius * slope)
    constant = squared_cos * float(place @ place - height**2) - (radius - height * slope) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        depth: Floats = half * half
        depth -= square * np.float32(constant)
        np.sqrt(depth, out=depth)
        depth += half
        depth /= -square
        level = rise * depth
        below = level <= np.float32(radius * slope - height)
        above = level >= np.float32(solids.length[index] + solids.radii[index, 1] * slope - height)
    steep = square < 0
    if steep.any():
        # A ray steeper than the cone may come from inside it: the cap is the one that faces the camera.
        beside = steep & (below | above)
        below, above = (below & ~beside) | (beside & (rise > 0)), (above & ~beside) | (beside & (rise <= 0))
    return depth, below, above


def shade(
    surfaces: Surfaces, capsules: Sequence[Capsule], camera: Camera, *, lighting: Lighting, rng: Generator
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
    paint = _averaged_paint(surfaces, capsules, camera)
    coverage = paint[..., 3] * np.float32(1 / 255)
    normals, depth, seen = _relief(surfaces, capsules, camera)
    light = _light(_smoothed(normals), camera, lighting)
    light *= (_folds(rng, ImageSize.of(coverage)) * _occlusion(depth, seen))[..., None]
    return np.minimum(paint[..., :3] * light, np.float32(255.0)), coverage


def _averaged_paint(surfaces: Surfaces, capsules: Sequence[Capsule], camera: Camera) -> ImageArray:
    """Return (h, w, 4) uint8 RGB and coverage, averaged down to pixels, the colours multiplied by coverage."""
    entries = surfaces.capsule.copy()
    banded = np.zeros(256, dtype=bool)
    banded[: len(capsules)] = [item.end_color is not None for item in capsules]
    places = np.flatnonzero(banded[surfaces.capsule])
    second = _beyond_band(surfaces, capsules, camera, places)
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
    surfaces: Surfaces, capsules: Sequence[Capsule], camera: Camera, places: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Return whether rays (flat indices) met the second colour: beyond the band, or in every other stripe."""
    solids = _prepare(capsules, camera, surfaces.supersampling)
    indices = surfaces.capsule.ravel()[places].astype(np.intp)
    points = _met_points(surfaces, camera, places)
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
    x, y = _ray_axes((left, top, left + width, top + height), camera, step)
    depth = surfaces.depth_m.ravel()[places]
    rows, columns = np.divmod(places, width)
    return np.stack([x[columns] * depth, y[rows] * depth, depth])


def _relief(surfaces: Surfaces, capsules: Sequence[Capsule], camera: Camera) -> tuple[Floats, Floats, Floats]:
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
    solids = _prepare(capsules, camera, step)
    for plane, values in zip(flat, (*_capsule_normals(points, solids, indices), points[2]), strict=False):
        plane[target] = values
    flat[4][target] = 1.0
    # OpenCV's stubs do not know that float arrays give a float array.
    normals: Any = cv2.merge([field[0], field[1], field[2]])
    return normals, field[3], field[4]


def _capsule_normals(points: Floats, solids: _Solids, indices: NDArray[np.intp]) -> Floats:
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


def composite(background: ImageArray, surfaces: Surfaces, colors: Floats, *, coverage: Floats) -> ImageArray:
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
    image: ImageArray, capsules: Sequence[Capsule], camera: Camera, *, lighting: Lighting, strength: float
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
