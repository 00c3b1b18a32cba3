"""What stands behind a figure: gradients, noise, blurred shapes, rooms in perspective, gym-like clutter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lbkit.core.geometry import ImageArray
from lbkit.synthetic.camera import NEAR_M, Camera

BackgroundName = Literal["gradient", "noise", "shapes", "room", "gym"]
BACKGROUND_NAMES: Final[tuple[BackgroundName, ...]] = get_args(BackgroundName)

# Textures are small tiles that repeat; one pixel of them is one centimetre.
_TILE_PX: Final = 256
_PX_PER_M: Final = 100.0


def random_background(rng: Generator, camera: Camera, *, name: BackgroundName | None = None) -> ImageArray:
    """Return an (H, W, 3) uint8 RGB picture without people, floors in the camera's perspective.

    Args:
        rng: Decides everything else.
        camera: The camera, which looks at the world's origin from anywhere; it gives the size.
        name: The kind; drawn when None, rooms most often.
    """
    kind = BACKGROUND_NAMES[rng.choice(len(BACKGROUND_NAMES), p=(0.10, 0.10, 0.15, 0.30, 0.35))]
    image = _PAINTERS[name or kind](rng, camera)
    if rng.random() < 0.5:
        sigma = rng.uniform(0.003, 0.010) * camera.size.height
        image = _blurred(image, max(sigma, 0.5))
    return image


def _blurred(image: ImageArray, sigma_px: float) -> ImageArray:
    """Return the picture blurred, at a smaller size where the blur leaves nothing that this would lose."""
    factor = max(1, int(sigma_px / 1.5))
    if factor == 1:
        return _as_image(cv2.GaussianBlur(image, (0, 0), sigma_px))
    height, width = image.shape[:2]
    small = (max(width // factor, 1), max(height // factor, 1))
    reduced = cv2.GaussianBlur(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (0, 0), sigma_px / factor)
    return _as_image(cv2.resize(reduced, (width, height), interpolation=cv2.INTER_LINEAR))


def _as_image(array: Any) -> ImageArray:
    """Return OpenCV's result as what it is: its stubs do not know that uint8 in gives uint8 out."""
    image: ImageArray = array
    return image


def _muted(rng: Generator, *, low: float = 40.0, high: float = 225.0) -> NDArray[np.float64]:
    """Return an RGB colour, 0 to 255, of little saturation, as walls and floors have."""
    grey = rng.uniform(low, high)
    return np.clip(grey + rng.normal(0.0, 22.0, 3), 5.0, 250.0)


def _rgb(color: NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = np.clip(color, 0, 255)
    return float(red), float(green), float(blue)


def _gradient(rng: Generator, camera: Camera) -> ImageArray:
    corners = np.stack([_muted(rng) for _ in range(4)]).reshape(2, 2, 3).astype(np.float32)
    grid = cv2.resize(corners, camera.size.as_width_height, interpolation=cv2.INTER_LINEAR)
    return np.clip(grid, 0, 255).astype(np.uint8)


def _noise(rng: Generator, camera: Camera) -> ImageArray:
    """Return noise of a few octaves, tinted."""
    total = np.zeros((camera.size.height, camera.size.width, 3), dtype=np.float32)
    total += _muted(rng).astype(np.float32)
    for octave in range(2, 7):
        layer = rng.normal(0.0, 90.0 / octave**1.3, (2**octave, 2**octave, 3)).astype(np.float32)
        layer = 0.6 * layer.mean(axis=2, keepdims=True) + 0.4 * layer
        total += cv2.resize(layer, camera.size.as_width_height, interpolation=cv2.INTER_LINEAR)
    return np.clip(total, 0, 255).astype(np.uint8)


def _shapes(rng: Generator, camera: Camera) -> ImageArray:
    """Return blurred random ellipses and polygons, as a background out of focus."""
    image = _gradient(rng, camera)
    height, width = camera.size.height, camera.size.width
    for _ in range(int(rng.integers(8, 30))):
        color = _rgb(rng.uniform(0, 255, 3) if rng.random() < 0.4 else _muted(rng))
        center = rng.uniform((0, 0), (width, height))
        spread = rng.uniform(0.03, 0.25) * max(height, width)
        if rng.random() < 0.5:
            corners = center + rng.normal(0.0, spread, (int(rng.integers(3, 6)), 2))
            cv2.fillPoly(image, [np.rint(corners).astype(np.int32)], color, lineType=cv2.LINE_AA)
        else:
            axes = (max(int(spread), 1), max(int(spread * rng.uniform(0.3, 1.0)), 1))
            middle = (int(center[0]), int(center[1]))
            cv2.ellipse(image, middle, axes, rng.uniform(0, 180), 0, 360, color, -1, cv2.LINE_AA)
    return _blurred(image, max(rng.uniform(0.0, 0.03) * height, 0.6))


def _texture(rng: Generator) -> ImageArray:
    """Return a (256, 256, 3) tile: plain, tiles, planks, bricks or speckles, with smooth stains."""
    base = _muted(rng)
    image = np.empty((_TILE_PX, _TILE_PX, 3), dtype=np.uint8)
    image[:] = base.astype(np.uint8)
    _PATTERNS[int(rng.integers(len(_PATTERNS)))](rng, image, base)
    # Uniform noise of bytes (deviation 74 levels) is drawn ten times as fast as Gaussian noise and looks the same.
    grain = rng.integers(0, 256, (_TILE_PX, _TILE_PX), dtype=np.uint8)
    stains = cv2.resize(rng.integers(0, 256, (16, 16), dtype=np.uint8), (_TILE_PX, _TILE_PX))
    fine, coarse = rng.uniform(0.0, 7.0) / 74.0, rng.uniform(2.0, 9.0) / 74.0
    noise = cv2.addWeighted(grain, fine, stains, coarse, 127.5 * (1.0 - fine - coarse))
    return _as_image(cv2.addWeighted(image, 1.0, cv2.merge([noise, noise, noise]), 1.0, -127.5))


def _plain(rng: Generator, image: ImageArray, base: NDArray[np.float64]) -> None:
    del rng, image, base


def _tiles(rng: Generator, image: ImageArray, base: NDArray[np.float64]) -> None:
    """Paint square tiles with joints, or a checkerboard."""
    step = int(rng.choice([32, 64, 128]))
    other = _rgb(base + rng.uniform(-60, 60) * (rng.random() < 0.5) + rng.normal(0, 6, 3))
    joint = _rgb(base + rng.uniform(-60, 40))
    for row in range(0, _TILE_PX, step):
        for column in range(0, _TILE_PX, step):
            if (row + column) // step % 2:
                image[row : row + step, column : column + step] = other
    width = int(rng.integers(1, 4))
    for line in range(0, _TILE_PX, step):
        image[line : line + width] = joint
        image[:, line : line + width] = joint


def _planks(rng: Generator, image: ImageArray, base: NDArray[np.float64]) -> None:
    """Paint long boards, or bricks where they are short, each of its own shade."""
    step = int(rng.choice([8, 16, 32]))
    length = int(rng.choice([2 * step, 128, 256]))
    joint = _rgb(base - rng.uniform(15, 60))
    for row in range(0, _TILE_PX, step):
        offset = (row // step % 2) * length // 2
        for column in range(-offset, _TILE_PX, length):
            left = max(column, 0)
            image[row : row + step, left : column + length] = _rgb(base + rng.normal(0, 10) + rng.normal(0, 3, 3))
            image[row : row + step, left : left + 1] = joint
        image[row : row + 1] = joint


def _speckles(rng: Generator, image: ImageArray, base: NDArray[np.float64]) -> None:
    """Paint flecks, as rubber floors of gyms have."""
    fleck = _rgb(base + rng.uniform(30, 110) * rng.choice([-1, 1]))
    places = rng.integers(0, _TILE_PX - 2, (int(rng.integers(200, 900)), 2))
    for row, column in places:
        image[row : row + 2, column : column + 2] = fleck


_PATTERNS: Final[tuple[Callable[[Generator, ImageArray, NDArray[np.float64]], None], ...]] = (
    _plain,
    _tiles,
    _planks,
    _speckles,
)


def _horizontal_view(camera: Camera) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the unit vectors on the floor away from the camera and to its right."""
    away = np.array([-camera.position[0], 0.0, -camera.position[2]])
    away /= max(float(np.linalg.norm(away)), 1e-9)
    return away, np.cross(away, [0.0, 1.0, 0.0])


def _room(rng: Generator, camera: Camera) -> ImageArray:
    return _painted_room(rng, camera)[0]


def _painted_room(rng: Generator, camera: Camera) -> tuple[ImageArray, float]:
    """Return a floor with a wall behind it, and the wall's distance from the origin in metres."""
    away, right = _horizontal_view(camera)
    distance = rng.uniform(1.2, 5.0)
    turn = rng.uniform(-0.5, 0.5)
    normal, along = np.cos(turn) * away + np.sin(turn) * right, np.cos(turn) * right - np.sin(turn) * away
    wall_foot = away * distance
    floor = _mapped(rng, camera, np.zeros(3), across=right, along=away)
    wall = _mapped(rng, camera, wall_foot, across=along, along=np.array([0.0, 1.0, 0.0]))
    mask = _floor_mask(camera, wall_foot, normal)
    cv2.copyTo(floor, mask, wall)
    image = _shaded(rng, wall, strength=0.3)
    _paint_skirting(rng, image, camera, wall_foot=wall_foot, along=along)
    return image, distance


def _mapped(
    rng: Generator,
    camera: Camera,
    origin: NDArray[np.float64],
    *,
    across: NDArray[np.float64],
    along: NDArray[np.float64],
) -> ImageArray:
    """Return a repeating texture laid on a plane through a world point, over the whole picture."""
    scale = rng.uniform(0.8, 2.2)
    to_metres = np.diag([scale / _PX_PER_M, scale / _PX_PER_M, 1.0])
    shift = origin - rng.uniform(0.0, 2.5) * across
    matrix = camera.plane_homography(shift, across=across, along=along) @ to_metres
    size = camera.size.as_width_height
    return _as_image(
        cv2.warpPerspective(_texture(rng), matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    )


def _floor_mask(camera: Camera, wall_foot: NDArray[np.float64], normal: NDArray[np.float64]) -> ImageArray:
    """Return (H, W) pixels, 255, whose rays meet the floor before the wall; 0 elsewhere."""
    columns = ((np.arange(camera.size.width) - camera.center_xy[0]) / camera.focal_px).astype(np.float32)
    rows = ((np.arange(camera.size.height) - camera.center_xy[1]) / camera.focal_px).astype(np.float32)[:, None]
    sink = camera.rotation @ np.array([0.0, -1.0, 0.0]) / camera.position[1]
    close = camera.rotation @ normal / float((wall_foot - camera.position) @ normal)
    # A ray (x, y, 1) meets a plane after 1 / (vector . ray): the larger product meets first.
    ahead = (sink - close).astype(np.float32)
    floor_first = columns * ahead[0] + (rows * ahead[1] + ahead[2]) > 0
    sinking = columns * np.float32(sink[0]) + (rows * np.float32(sink[1]) + np.float32(sink[2])) > 0
    mask: ImageArray = np.where(floor_first & sinking, np.uint8(255), np.uint8(0))
    return mask


def _shaded(rng: Generator, image: ImageArray, *, strength: float) -> ImageArray:
    """Return the picture under uneven light."""
    corners = rng.uniform(1.0 - 2 * strength, 1.0 + 0.3 * strength, (2, 2)).astype(np.float32)
    light = cv2.resize(corners * 255.0 / 1.3, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    grey = np.clip(light, 0, 255).astype(np.uint8)
    return _as_image(cv2.multiply(image, cv2.merge([grey, grey, grey]), scale=1.3 / 255.0))


def _fill(image: ImageArray, camera: Camera, corners: NDArray[np.float64], color: NDArray[np.float64]) -> None:
    """Paint a convex polygon of (n, 3) world points, if all of it lies in front of the camera."""
    seen = camera.to_camera(corners)
    if seen[:, 2].min() < 10 * NEAR_M:
        return
    limit = 8.0 * max(image.shape[:2])
    points = np.clip(camera.image_of(seen), -limit, limit)
    cv2.fillConvexPoly(image, np.rint(points * 8).astype(np.int32), _rgb(color), lineType=cv2.LINE_AA, shift=3)


def _paint_skirting(
    rng: Generator, image: ImageArray, camera: Camera, *, wall_foot: NDArray[np.float64], along: NDArray[np.float64]
) -> None:
    """Paint a skirting board and perhaps windows, mirrors or posters on the wall."""
    up = np.array([0.0, 1.0, 0.0])

    def panel(left: float, right: float, low: float, high: float, color: NDArray[np.float64]) -> None:
        corners = [wall_foot + x * along + y * up for x, y in ((left, low), (right, low), (right, high), (left, high))]
        _fill(image, camera, np.stack(corners), color)

    if rng.random() < 0.6:
        panel(-8.0, 8.0, 0.0, rng.uniform(0.05, 0.15), _muted(rng))
    for _ in range(int(rng.integers(0, 5))):
        left, low = rng.uniform(-4.0, 3.5), rng.uniform(0.2, 1.8)
        width, height = rng.uniform(0.4, 2.0), rng.uniform(0.4, 1.6)
        frame = _muted(rng)
        panel(left - 0.05, left + width + 0.05, low - 0.05, low + height + 0.05, frame)
        panel(left, left + width, low, low + height, _muted(rng, low=90, high=245))


def _gym(rng: Generator, camera: Camera) -> ImageArray:
    """Return a room with boxes, posts, racks and plates standing behind the figure."""
    image, distance = _painted_room(rng, camera)
    away, right = _horizontal_view(camera)
    for _ in range(int(rng.integers(3, 11))):
        depth = rng.uniform(0.55, max(distance - 0.3, 0.6))
        place = away * depth + right * rng.uniform(-2.4, 2.4) * (1.0 + 0.25 * depth)
        color = rng.uniform(20, 235, 3) if rng.random() < 0.35 else _muted(rng, low=15, high=150)
        _CLUTTER[int(rng.integers(len(_CLUTTER)))](rng, image, camera, place, color)
    return image


def _paint_block(
    image: ImageArray,
    camera: Camera,
    place: NDArray[np.float64],
    *,
    size_m: tuple[float, float, float],
    turn: float,
    color: NDArray[np.float64],
) -> None:
    """Paint a box (width, height, depth) with its foot at a place, the farthest face first."""
    across = np.array([np.cos(turn), 0.0, np.sin(turn)]) * size_m[0] / 2
    inward = np.array([-np.sin(turn), 0.0, np.cos(turn)]) * size_m[2] / 2
    up = np.array([0.0, size_m[1], 0.0])
    middle = place + up / 2
    faces = []
    for half, first, second, shade in (
        (across, inward, up / 2, 0.8),
        (inward, across, up / 2, 0.62),
        (up / 2, across, inward, 1.1),
    ):
        for sign in (1.0, -1.0):
            center = middle + sign * half
            if (camera.position - center) @ (sign * half) > 0:
                corners = [center + a * first + b * second for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
                faces.append((np.stack(corners), shade))
    for corners_xyz, shade in faces:
        _fill(image, camera, corners_xyz, color * shade)


def _crate(
    rng: Generator, image: ImageArray, camera: Camera, place: NDArray[np.float64], color: NDArray[np.float64]
) -> None:
    size = (rng.uniform(0.2, 0.9), rng.uniform(0.15, 1.0), rng.uniform(0.2, 0.7))
    _paint_block(image, camera, place, size_m=size, turn=rng.uniform(0, np.pi), color=color)


def _post(
    rng: Generator, image: ImageArray, camera: Camera, place: NDArray[np.float64], color: NDArray[np.float64]
) -> None:
    width = rng.uniform(0.04, 0.14)
    _paint_block(
        image, camera, place, size_m=(width, rng.uniform(1.4, 2.6), width), turn=rng.uniform(0, np.pi), color=color
    )


def _rack(
    rng: Generator, image: ImageArray, camera: Camera, place: NDArray[np.float64], color: NDArray[np.float64]
) -> None:
    """Paint two posts and the bars between them."""
    turn, width, height = rng.uniform(0, np.pi), rng.uniform(0.6, 1.4), rng.uniform(0.8, 2.3)
    along = np.array([np.cos(turn), 0.0, np.sin(turn)])
    for shelf in np.linspace(0.25, 1.0, int(rng.integers(2, 5))):
        bar = place + np.array([0.0, height * float(shelf) - 0.06, 0.0])
        _paint_block(image, camera, bar, size_m=(width, 0.06, 0.06), turn=turn, color=color)
    for sign in (-1.0, 1.0):
        foot = place + sign * width / 2 * along
        _paint_block(image, camera, foot, size_m=(0.07, height, 0.07), turn=turn, color=color)


def _ball(
    rng: Generator, image: ImageArray, camera: Camera, place: NDArray[np.float64], color: NDArray[np.float64]
) -> None:
    """Paint a ball or plate with a lighter spot toward the light."""
    radius = rng.uniform(0.12, 0.35)
    center = place + np.array([0.0, radius, 0.0])
    depth = float(camera.to_camera(center)[2])
    if depth < 1.0:
        return
    middle = camera.project(center)
    size = camera.focal_px * radius / depth
    for share, shade in ((1.0, 0.7), (0.8, 0.85), (0.5, 1.0), (0.25, 1.15)):
        spot = middle - np.array([0.25, 0.3]) * size * (1.0 - share)
        place_px = (int(np.clip(spot[0], -9999, 9999)), int(np.clip(spot[1], -9999, 9999)))
        cv2.circle(image, place_px, max(int(size * share), 1), _rgb(color * shade), -1, cv2.LINE_AA)


_CLUTTER: Final[
    tuple[
        Callable[[Generator, ImageArray, Camera, NDArray[np.float64], NDArray[np.float64]], None],
        ...,
    ]
] = (_crate, _post, _rack, _ball)
_PAINTERS: Final[dict[BackgroundName, Callable[[Generator, Camera], ImageArray]]] = {
    "gradient": _gradient,
    "noise": _noise,
    "shapes": _shapes,
    "room": _room,
    "gym": _gym,
}
