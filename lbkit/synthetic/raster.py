"""What each ray of a camera meets first: tapered capsules in a depth buffer.

A tapered capsule is the hull of two spheres: two caps and the cone that touches both. Rays meet it in closed form, so
silhouettes and depth are exact to float32. A capsule may be flattened along one direction; it is met in the space where
it is round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lbkit.core.geometry import ImageSize
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
class Solids:
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

    @classmethod
    def of(cls, capsules: Sequence[Capsule], camera: Camera, *, supersampling: int) -> Solids:
        """Bring capsules into the camera's frame and the space where they are round.

        Raises:
            ValueError: A capsule is not in front of the camera.
        """
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

        ends, radii = _without_swallowed(ends, radii, np.linalg.norm(stretched(ends[:, 1] - ends[:, 0]), axis=1))
        between = stretched(ends[:, 1] - ends[:, 0])
        length = np.linalg.norm(between, axis=1)
        axis = np.where(length[:, None] > 1e-9, between / np.maximum(length, 1e-9)[:, None], [1.0, 0.0, 0.0])
        slope = (radii[:, 0] - radii[:, 1]) / np.maximum(length, 1e-9)
        place = stretched(ends[:, 0])
        windows = _outline_windows(ends, radii * np.maximum(flatness, 1.0)[:, None], camera, supersampling)
        return cls(
            ends[:, 0], flat, stretch, place, axis, length, radii, slope, -stretched(place), stretched(axis), windows
        )

    def terms(self) -> Doubles:
        """Return (P, 11) numbers that every ray's meeting with a capsule needs.

        With q from the start, h = axis . q, r the start's radius, s the slope and c^2 = 1 - s^2, the cone that touches
        both spheres is c^2 (q.q - h^2) = (r - h s)^2; along a ray that is a quadratic in the depth. The columns are
        the stretch of squared lengths, c^2, what `rise` takes from the middle term, the last term, where along the
        axis the cone begins, ends and has its apex (as depth times `rise`), the slope, the length and both spheres'
        last terms.
        """
        start_radius, end_radius = self.radii.T
        squared_cos, height = 1.0 - self.slope**2, -np.sum(self.axis * self.place, axis=1)
        squared_place = np.sum(self.place**2, axis=1)
        end = self.place + self.length[:, None] * self.axis
        columns = (
            self.stretch * (2.0 + self.stretch),
            squared_cos,
            height - start_radius * self.slope,
            squared_cos * (squared_place - height**2) - (start_radius - height * self.slope) ** 2,
            start_radius * self.slope - height,
            self.length + end_radius * self.slope - height,
            start_radius / np.where(self.slope == 0, 1e-12, self.slope) - height,
            self.slope,
            self.length,
            squared_place - start_radius**2,
            np.sum(end**2, axis=1) - end_radius**2,
        )
        return np.stack(columns, axis=1)


def _without_swallowed(ends: Doubles, radii: Doubles, lengths: Doubles) -> tuple[Doubles, Doubles]:
    """Return (P, 2, 3) ends and (P, 2) radii where a sphere inside the other gives way to a copy of that one."""
    swallowed = np.abs(radii[:, 0] - radii[:, 1]) >= 0.999 * lengths
    larger = np.argmax(radii, axis=1)
    rows = np.arange(len(radii))
    whole_ends = np.repeat(ends[rows, larger][:, None], 2, axis=1)
    whole_radii = np.repeat(radii[rows, larger][:, None], 2, axis=1)
    return np.where(swallowed[:, None, None], whole_ends, ends), np.where(swallowed[:, None], whole_radii, radii)


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
    solids = Solids.of(capsules, camera, supersampling=supersampling)
    window = _union_window(solids, camera.size, supersampling)
    if window is None:
        return None
    left, top, right, bottom = window
    depth = np.full((bottom - top, right - left), FAR_M, dtype=np.float32)
    winner = np.full(depth.shape, NOTHING, dtype=np.uint8)
    rays = _Rays.of(ray_axes(window, camera, supersampling=supersampling))
    closed = [not capsule.open_end for capsule in capsules]
    _fill(depth, winner, rays=rays, solids=solids, closed=closed, origin=(left, top))
    parts = np.full(256, NOTHING, dtype=np.uint8)
    parts[: len(capsules)] = [capsule.part for capsule in capsules]
    return Surfaces(left // supersampling, top // supersampling, supersampling, depth, winner, parts[winner])


def _fill(
    depth: Floats,
    winner: NDArray[np.uint8],
    *,
    rays: _Rays,
    solids: Solids,
    closed: Sequence[bool],
    origin: tuple[int, int],
) -> None:
    """Put every capsule into the depth buffer and its index where it is the nearest."""
    windows = (solids.windows - np.array(origin * 2)).tolist()
    terms = solids.terms().tolist()
    # Rays that miss have no square root, and NaN is never nearer.
    with np.errstate(invalid="ignore", divide="ignore"):
        for index, (left, top, right, bottom) in enumerate(windows):
            if right <= left or bottom <= top:
                continue
            region = np.s_[top:bottom, left:right]
            found = _meet(solids, index, rays.part(region), terms=terms[index], capped=closed[index])
            nearer = found < depth[region]
            np.copyto(depth[region], found, where=nearer)
            np.copyto(winner[region], index, where=nearer, casting="unsafe")


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


def _union_window(solids: Solids, size: ImageSize, supersampling: int) -> tuple[int, int, int, int] | None:
    """Return the window, in rays and whole pixels, that holds every capsule."""
    seen = solids.windows[np.all(solids.windows[:, 2:] > solids.windows[:, :2], axis=1)]
    if len(seen) == 0:
        return None
    left, top = seen[:, :2].min(axis=0) // supersampling * supersampling
    right, bottom = -(-seen[:, 2:].max(axis=0) // supersampling) * supersampling
    right, bottom = min(right, size.width * supersampling), min(bottom, size.height * supersampling)
    return int(left), int(top), int(right), int(bottom)


def ray_axes(window: tuple[int, int, int, int], camera: Camera, *, supersampling: int) -> tuple[Floats, Floats]:
    """Return x (w,) and y (h,) of the rays (x, y, 1) of a window given in rays: left, top, right, bottom."""
    left, top, right, bottom = window
    columns = (np.arange(left, right) + 0.5) / supersampling - 0.5
    rows = (np.arange(top, bottom) + 0.5) / supersampling - 0.5
    x = (columns - camera.center_xy[0]) / camera.focal_px
    y = (rows - camera.center_xy[1]) / camera.focal_px
    return x.astype(np.float32), y.astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Rays:
    """Rays (x, y, 1) on a grid: x (1, w), y (h, 1), and the parts of their squared lengths, x^2 and y^2 + 1."""

    x: Floats
    y: Floats
    x_squared: Floats
    y_squared: Floats

    @classmethod
    def of(cls, axes: tuple[Floats, Floats]) -> _Rays:
        """Return the rays with given x (w,) and y (h,)."""
        x, y = axes[0][None], axes[1][:, None]
        return cls(x, y, x * x, y * y + 1.0)

    def part(self, region: tuple[slice, slice]) -> _Rays:
        """Return the rays of a region (rows, columns)."""
        rows, columns = region
        return _Rays(self.x[:, columns], self.y[rows], self.x_squared[:, columns], self.y_squared[rows])

    def along(self, vector: Doubles) -> Floats:
        """Return the inner products (h, w) of a vector with the rays."""
        a, b, c = vector.tolist()
        products: Floats = self.x * a + (self.y * b + c)
        return products


def _meet(solids: Solids, index: int, rays: _Rays, *, terms: Sequence[float], capped: bool) -> Floats:
    """Return the depth (h, w) at which rays first meet a capsule, NaN where they miss it.

    Both spheres are inscribed in the endless cone, so a ray that misses the cone misses the capsule, and one that
    enters the cone beyond a touching circle can only meet the cap on that side.
    """
    widening, squared_cos, turn, constant, low, high = terms[:6]
    norms: Floats = rays.x_squared + rays.y_squared
    if widening:
        across = rays.along(solids.flat_axis[index])
        across *= across
        norms += across * widening
    inner, rise = rays.along(solids.inner[index]), rays.along(solids.rise[index])
    square = norms * squared_cos
    square -= rise * rise
    half = inner * squared_cos
    half -= rise * turn
    depth: Floats = half * half
    depth -= square * constant
    np.sqrt(depth, out=depth)
    depth += half
    depth /= -square
    level = rise * depth
    caps = np.flatnonzero((level <= low) | (level >= high))
    if len(caps):
        fields = (field.ravel()[caps] for field in (norms, inner, rise, level))
        depth.ravel()[caps] = _meet_caps(*fields, terms=terms, capped=capped)
    return depth


def _meet_caps(
    norms: Floats, inner: Floats, rise: Floats, level: Floats, *, terms: Sequence[float], capped: bool
) -> Floats:
    """Return the depth (N,) at which rays that enter the cone outside its used part meet a cap, NaN where they miss."""
    high, apex, slope, length, start_constant, end_constant = terms[5:]
    # Beyond the apex a ray enters the cone's mirror image: it has come through the cone's wide end, from inside.
    beyond = (level >= high) & (level <= apex) if slope >= 0 else (level >= high) | (level < apex)
    inner = inner - np.where(beyond, length * rise, 0.0)
    constant = np.where(beyond, np.float32(end_constant), np.float32(start_constant))
    depth: Floats = -(inner + np.sqrt(inner * inner - norms * constant)) / norms
    if not capped:
        depth[beyond] = np.nan
    return depth
