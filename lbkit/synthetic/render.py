"""Shaded tapered capsules in a depth buffer.

A tapered capsule is the hull of two spheres: two caps and the cone that touches both. Rays meet it in closed form, so
silhouettes, depth and normals are exact to float32. A capsule may be flattened along one direction; it is met in the
space where it is round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

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
        gloss: Strength of the highlight.
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
    gloss: float = 0.05

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
    """

    direction: Doubles
    ambient: float = 0.5
    diffuse: float = 0.7
    tint: Color = (1.0, 1.0, 1.0)

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
        return edges / self.supersampling + np.array([self.left_px, self.top_px] * 2)

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
    """P capsules in the camera's frame, in the space where each is round.

    Attributes:
        start: (P, 3) start in the camera's frame, not stretched.
        flat_axis, stretch: (P, 3) and (P,): a point p becomes p + stretch * (flat_axis . p) * flat_axis.
        axis, length: (P, 3) and (P,): unit vector from start to end and length, stretched.
        radii: (P, 2) at start and end.
        slope: (P,) sine of the cone's half angle, positive where it tapers.
        windows: (P, 3, 4) left, top, right, bottom in rays of the whole, the start's and the end's outline.
    """

    start: Doubles
    flat_axis: Doubles
    stretch: Doubles
    axis: Doubles
    length: Doubles
    radii: Doubles
    slope: Doubles
    windows: NDArray[np.int64]


def rasterise(capsules: Sequence[Capsule], camera: Camera, *, supersampling: int = 2) -> Surfaces | None:
    """Return what each ray of a camera meets first, or None where no capsule is in the picture.

    Args:
        capsules: At most 254, all of them in front of the camera.
        camera: The camera.
        supersampling: Rays a pixel has along each axis.

    Raises:
        ValueError: There are too many capsules, or one is not in front of the camera.
    """
    if len(capsules) >= NOTHING:
        raise ValueError(f"at most {NOTHING - 1} capsules, got {len(capsules)}")
    solids = _prepare(capsules, camera, supersampling)
    window = _union_window(solids, camera.size, supersampling)
    if window is None:
        return None
    left, top, right, bottom = window
    depth = np.full((bottom - top, right - left), FAR_M, dtype=np.float32)
    winner = np.full(depth.shape, NOTHING, dtype=np.uint8)
    rays_x, rays_y = _ray_axes(window, camera, supersampling)
    for index, capsule in enumerate(capsules):
        _draw(solids, index, rays=(rays_x, rays_y), origin=(left, top), depth=depth, winner=winner, capped=not capsule.open_end)
    parts = np.full(256, NOTHING, dtype=np.uint8)
    parts[: len(capsules)] = [capsule.part for capsule in capsules]
    return Surfaces(left // supersampling, top // supersampling, supersampling, depth, winner, parts[winner])


def _prepare(capsules: Sequence[Capsule], camera: Camera, supersampling: int) -> _Solids:
    """Bring capsules into the camera's frame and the space where they are round."""
    starts = camera.to_camera(np.stack([capsule.start for capsule in capsules]))
    ends = camera.to_camera(np.stack([capsule.end for capsule in capsules]))
    radii = np.array([(capsule.start_radius_m, capsule.end_radius_m) for capsule in capsules])
    nowhere = np.array([0.0, 0.0, 1.0])
    flat = np.stack([nowhere if capsule.flat_axis is None else capsule.flat_axis for capsule in capsules])
    flat = flat @ camera.rotation.T
    flatness = np.array([1.0 if capsule.flat_axis is None else capsule.flatness for capsule in capsules])
    stretch = 1.0 / flatness - 1.0
    between = ends - starts
    between += (stretch * np.sum(between * flat, axis=1))[:, None] * flat
    length = np.linalg.norm(between, axis=1)
    axis = np.where(length[:, None] > 1e-9, between / np.maximum(length, 1e-9)[:, None], [1.0, 0.0, 0.0])
    slope = (radii[:, 0] - radii[:, 1]) / np.maximum(length, 1e-9)
    reach = radii * np.maximum(flatness, 1.0)[:, None]
    windows = _outline_windows(np.stack([starts, ends], axis=1), reach, camera, supersampling)
    return _Solids(starts, flat, stretch, axis, length, radii, slope, windows)


def _outline_windows(
    centers: Doubles, radii: Doubles, camera: Camera, supersampling: int
) -> NDArray[np.int64]:
    """Return (P, 3, 4) windows, in rays, about the hull and the two spheres of each capsule.

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
    offset = (camera.center_xy + 0.5) * supersampling
    low = np.tan(middle - half) * camera.focal_px * supersampling + offset
    high = np.tan(middle + half) * camera.focal_px * supersampling + offset
    limit = np.array(camera.size.as_width_height) * supersampling
    spheres = np.concatenate([np.clip(np.floor(low), 0, limit), np.clip(np.ceil(high), 0, limit)], axis=-1)
    hull = np.concatenate([spheres[..., :2].min(axis=1), spheres[..., 2:].max(axis=1)], axis=-1)
    return np.concatenate([hull[:, None], spheres], axis=1).astype(np.int64)


def _union_window(solids: _Solids, size: ImageSize, supersampling: int) -> tuple[int, int, int, int] | None:
    """Return the window, in rays and whole pixels, that holds every capsule."""
    hulls = solids.windows[:, 0]
    hulls = hulls[np.all(hulls[:, 2:] > hulls[:, :2], axis=1)]
    if len(hulls) == 0:
        return None
    left, top = hulls[:, :2].min(axis=0) // supersampling
    right, bottom = -(-hulls[:, 2:].max(axis=0) // supersampling)
    right, bottom = min(right, size.width), min(bottom, size.height)
    return tuple(int(edge) * supersampling for edge in (left, top, right, bottom))  # type: ignore[return-value]


def _ray_axes(window: tuple[int, int, int, int], camera: Camera, supersampling: int) -> tuple[Floats, Floats]:
    """Return the rays' x and y at depth 1: (w,) and (h,); a ray is (x, y, 1)."""
    left, top, right, bottom = window
    columns = (np.arange(left, right) + 0.5) / supersampling - 0.5
    rows = (np.arange(top, bottom) + 0.5) / supersampling - 0.5
    x = (columns - camera.center_xy[0]) / camera.focal_px
    y = (rows - camera.center_xy[1]) / camera.focal_px
    return x.astype(np.float32), y.astype(np.float32)


def _draw(
    solids: _Solids,
    index: int,
    *,
    rays: tuple[Floats, Floats],
    origin: tuple[int, int],
    depth: Floats,
    winner: NDArray[np.uint8],
    capped: bool,
) -> None:
    """Put one capsule into the depth buffer: its cone, then the caps."""
    meetings = [(0, _meet_cone), (1, _meet_start)] + ([(2, _meet_end)] if capped else [])
    for which, meet in meetings:
        left, top, right, bottom = solids.windows[index, which] - np.array(origin * 2)
        if right <= left or bottom <= top or (which == 0 and abs(solids.slope[index]) >= 0.999):
            continue
        region = np.s_[top:bottom, left:right]
        found = meet(solids, index, rays[0][None, left:right], rays[1][top:bottom, None])
        nearer = found < depth[region]
        np.copyto(depth[region], found, where=nearer)
        np.copyto(winner[region], np.uint8(index), where=nearer)


def _along(vector: Doubles, x: Floats, y: Floats) -> Floats:
    """Return the inner products of a vector with the rays (x, y, 1)."""
    a, b, c = vector.astype(np.float32)
    return (a * x) + (b * y + c)


def _stretched(solids: _Solids, index: int, vector: Doubles) -> Doubles:
    axis = solids.flat_axis[index]
    stretched: Doubles = vector + solids.stretch[index] * float(axis @ vector) * axis
    return stretched


def _ray_norms(solids: _Solids, index: int, x: Floats, y: Floats) -> Floats:
    """Return the squared lengths of the stretched rays."""
    norms = x * x + (y * y + np.float32(1.0))
    stretch = solids.stretch[index]
    if stretch:
        norms += np.float32(stretch * (2.0 + stretch)) * np.square(_along(solids.flat_axis[index], x, y))
    return norms


def _meet_sphere(solids: _Solids, index: int, center: Doubles, radius: float, x: Floats, y: Floats) -> Floats:
    """Return the depth at which rays meet a sphere given by its stretched centre, NaN where they miss."""
    norms = _ray_norms(solids, index, x, y)
    inner = _along(_stretched(solids, index, center), x, y)
    within = inner * inner
    within -= norms * np.float32(center @ center - radius**2)
    with np.errstate(invalid="ignore"):
        np.sqrt(within, out=within)
    inner -= within
    inner /= norms
    return inner


def _meet_start(solids: _Solids, index: int, x: Floats, y: Floats) -> Floats:
    center = _stretched(solids, index, solids.start[index])
    return _meet_sphere(solids, index, center, float(solids.radii[index, 0]), x, y)


def _meet_end(solids: _Solids, index: int, x: Floats, y: Floats) -> Floats:
    center = _stretched(solids, index, solids.start[index]) + solids.length[index] * solids.axis[index]
    return _meet_sphere(solids, index, center, float(solids.radii[index, 1]), x, y)


def _meet_cone(solids: _Solids, index: int, x: Floats, y: Floats) -> Floats:
    """Return the depth at which rays meet the cone between the circles where it touches the spheres, else NaN.

    With q from the start, h = axis . q, slope s and c^2 = 1 - s^2 the cone is c^2 (q.q) - (h^2 - 2 h r s + r^2) = 0 less
    terms that cancel; along a ray q = t d - p that is a quadratic in t.
    """
    axis, slope, radius = solids.axis[index], solids.slope[index], solids.radii[index, 0]
    place = _stretched(solids, index, solids.start[index])
    squared_cos = 1.0 - slope**2
    height = -float(axis @ place)
    rise = _along(_stretched(solids, index, axis), x, y)
    inner = _along(_stretched(solids, index, -place), x, y)
    square = _ray_norms(solids, index, x, y)
    square *= np.float32(squared_cos)
    square -= rise * rise
    inner *= np.float32(squared_cos)
    inner -= rise * np.float32(height - radius * slope)
    constant = squared_cos * float(place @ place - height**2) - (radius - height * slope) ** 2
    root = inner * inner
    root -= square * np.float32(constant)
    with np.errstate(invalid="ignore", divide="ignore"):
        np.sqrt(root, out=root)
        root += inner
        root /= square
    np.negative(root, out=root)
    rise *= root
    low, high = radius * slope - height, solids.length[index] + solids.radii[index, 1] * slope - height
    with np.errstate(invalid="ignore"):
        root[~((rise > np.float32(low)) & (rise < np.float32(high)) & (root > 0))] = np.nan
    return root


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
    hit = surfaces.capsule != NOTHING
    indices = surfaces.capsule[hit]
    solids = _prepare(capsules, camera, surfaces.supersampling)
    normals, heights = _normals(surfaces, solids, camera, hit, indices)
    colors = _surface_colors(capsules, solids, indices, heights)
    gloss = np.array([capsule.gloss for capsule in capsules], dtype=np.float32)[indices]
    light = _light(normals, camera, lighting, gloss=gloss)
    relief = _folds(rng, ImageSize.of(hit))[hit] * _occlusion(surfaces, hit)[hit]
    canvas = np.zeros((*hit.shape, 3), dtype=np.float32)
    canvas[hit] = np.clip(colors * light[0] * relief[:, None] + light[1], 0.0, 1.0) * 255.0
    return _averaged(canvas, surfaces.supersampling), _averaged(hit.astype(np.float32), surfaces.supersampling)


def _averaged(array: Floats, factor: int) -> Floats:
    size = (array.shape[1] // factor, array.shape[0] // factor)
    # OpenCV's stubs do not know that a float array gives a float array.
    return cv2.resize(array, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _normals(
    surfaces: Surfaces, solids: _Solids, camera: Camera, hit: NDArray[np.bool_], indices: NDArray[np.uint8]
) -> tuple[Floats, Floats]:
    """Return the unit normals (N, 3) in the camera's frame and where along the axis (N,), metres, they stand.

    The normals are smoothed a little over the picture, which rounds the seams between capsules as skin does.
    """
    height, width = hit.shape
    step = surfaces.supersampling
    window = (surfaces.left_px * step, surfaces.top_px * step, surfaces.left_px * step + width, surfaces.top_px * step + height)
    x, y = _ray_axes(window, camera, step)
    rows, columns = np.nonzero(hit)
    depth = surfaces.depth_m[hit]
    points = np.stack([x[columns] * depth, y[rows] * depth, depth], axis=1)
    normal, along = _capsule_normals(points, solids, indices)
    field = np.zeros((*hit.shape, 3), dtype=np.float32)
    field[hit] = normal
    smooth = cv2.GaussianBlur(field, (0, 0), max(0.8, 0.006 * height))[hit]
    smooth /= np.maximum(np.sqrt(np.einsum("ij,ij->i", smooth, smooth)), 1e-6)[:, None]
    return smooth, along


def _capsule_normals(points: Floats, solids: _Solids, indices: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Return the unit normals (N, 3) of capsules at (N, 3) points on them, and the feet (N,) of these on the axes."""

    def of(table: Doubles) -> Floats:
        return table.astype(np.float32)[indices]

    flat, stretch, axis = of(solids.flat_axis), of(solids.stretch), of(solids.axis)
    local = points - of(solids.start)
    local += (stretch * np.einsum("ij,ij->i", local, flat))[:, None] * flat
    slope = np.clip(solids.slope, -0.999, 0.999)
    height = np.einsum("ij,ij->i", local, axis)
    foot = (height - of(solids.radii[:, 0] * slope)) / of(1.0 - slope**2)
    foot = np.clip(foot, np.float32(0.0), of(solids.length))
    normal = local - foot[:, None] * axis
    normal += (stretch * np.einsum("ij,ij->i", normal, flat))[:, None] * flat
    normal /= np.maximum(np.sqrt(np.einsum("ij,ij->i", normal, normal)), 1e-9)[:, None]
    return normal, foot


def _surface_colors(
    capsules: Sequence[Capsule], solids: _Solids, indices: NDArray[np.uint8], heights: Floats
) -> Floats:
    """Return (N, 3) colours: each capsule's first, or its second beyond the band and in every other stripe."""
    pairs = np.array([(item.color, item.end_color or item.color) for item in capsules], dtype=np.float32)
    limits = np.array([item.band_at for item in capsules]) * np.maximum(solids.length, 1e-6)
    second = heights > limits.astype(np.float32)[indices]
    stripes = np.array([item.stripe_m for item in capsules], dtype=np.float32)
    if stripes.any():
        period = stripes[indices]
        turns = heights / np.maximum(period, np.float32(1e-6))
        second |= (period > 0) & (turns - np.floor(turns) > 0.5)
    chosen: Floats = pairs[indices, second.astype(np.intp)]
    return chosen


def _light(
    normals: Floats, camera: Camera, lighting: Lighting, *, gloss: Floats
) -> tuple[Floats, Floats]:
    """Return the light (N, 3) that falls on surfaces and the highlight (N, 1) that they add."""
    lamp = (camera.rotation @ lighting.direction).astype(np.float32)
    sky = camera.rotation[:, 1].astype(np.float32)
    facing = normals @ lamp
    # Wrapped a little around the terminator, as light through skin and cloth is.
    direct = np.float32(lighting.diffuse) * np.clip((facing + 0.15) / 1.15, 0.0, None)
    around = np.float32(lighting.ambient) * (0.75 + 0.25 * (normals @ sky))
    # Halfway between the lamp and the viewer, who is roughly along -z of the camera's frame.
    halfway = lamp + np.array([0.0, 0.0, -1.0], dtype=np.float32)
    halfway /= max(float(np.linalg.norm(halfway)), 1e-6)
    shine = gloss * np.clip(normals @ halfway, 0.0, None) ** 16
    tint = np.array(lighting.tint, dtype=np.float32)
    return around[:, None] + direct[:, None] * tint, shine[:, None]


def _folds(rng: Generator, size: ImageSize) -> Floats:
    """Return (h, w) factors about 1 that vary smoothly, as cloth and skin do."""
    coarse = ImageSize(max(size.height // 12, 2), max(size.width // 12, 2))
    noise = rng.normal(1.0, 0.07, (coarse.height, coarse.width)).astype(np.float32)
    return cv2.resize(noise, size.as_width_height, interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def _occlusion(surfaces: Surfaces, hit: NDArray[np.bool_]) -> Floats:
    """Return (h, w) factors below 1 where a surface lies just behind its neighbours in the picture."""
    height = hit.shape[0]
    seen = hit.astype(np.float32)
    depth = np.where(hit, surfaces.depth_m, np.float32(0.0))
    side = max(3, round(0.05 * height)) | 1
    mean = cv2.blur(depth, (side, side)) / np.maximum(cv2.blur(seen, (side, side)), np.float32(1e-3))
    behind: Floats = np.clip(depth - mean, np.float32(0.0), np.float32(0.12))
    return np.float32(1.0) - np.float32(3.2) * behind


def composite(
    background: ImageArray, surfaces: Surfaces, colors: Floats, *, coverage: Floats
) -> ImageArray:
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
    outlines = _shadow_outlines(capsules, lighting)
    visible = camera.to_camera(outlines)[..., 2].min(axis=1) > NEAR_M
    mask = np.zeros(image.shape[:2], dtype=np.uint8)
    limit = 4.0 * max(image.shape[:2])
    for outline in camera.project(outlines[visible]):
        hull = cv2.convexHull(np.clip(outline, -limit, limit).astype(np.float32))
        cv2.fillConvexPoly(mask, np.rint(hull * 8).astype(np.int32), (255,), lineType=cv2.LINE_AA, shift=3)
    blur = max(0.6, 0.03 * camera.focal_px / float(np.linalg.norm(camera.position)))
    soft = cv2.GaussianBlur(mask, (0, 0), blur)
    light = 255 - np.rint(soft * np.float32(strength)).astype(np.uint8)
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
    outlines = feet[:, :, None] + radii[:, :, None, None] * circle
    outlines[..., 1] = 0.0
    return outlines.reshape(len(capsules), -1, 3)
