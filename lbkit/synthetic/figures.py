"""Pictures of one shaded mannequin each, with every joint known exactly.

`random_figure` draws everything. For a sequence, keep the parts apart: `place_skeleton` poses a body and `draw_figure`
renders it, with the same `Scene`, `Camera` and background in every picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.errors import InputError
from lbkit.synthetic.background import BackgroundName, random_background
from lbkit.synthetic.body import Outfit, barbell, dress, random_outfit, random_shape
from lbkit.synthetic.camera import Camera
from lbkit.synthetic.poses import POSE_NAMES, PoseName, random_pose
from lbkit.synthetic.raster import NOTHING, Capsule, Part, Surfaces, rasterise
from lbkit.synthetic.render import Lighting, cast_shadow, composite, shade
from lbkit.synthetic.skeleton import BodyShape, FigurePose, Skeleton, place_skeleton

__all__ = [
    "POSE_NAMES",
    "VIEW_NAMES",
    "Figure",
    "FigurePose",
    "PoseName",
    "Scene",
    "ViewName",
    "draw_figure",
    "random_figure",
    "random_scene",
]

ViewName = Literal["frontal", "oblique", "side", "back"]
VIEW_NAMES: Final[tuple[ViewName, ...]] = get_args(ViewName)
MIN_SIDE_PX: Final = 16
MAX_SIDE_PX: Final = 8192
"""No photograph that is trained on is larger, and OpenCV warps no background beyond 32,766."""

# How far around the figure the camera stands from its front, degrees, to either side.
_VIEW_RANGES_DEG: Final[dict[ViewName, tuple[float, float]]] = {
    "frontal": (0.0, 20.0),
    "oblique": (20.0, 65.0),
    "side": (65.0, 115.0),
    "back": (115.0, 180.0),
}
# The parts under whose surface a hip, knee or ankle lies, left then right.
_PARTS_AROUND: Final = (
    (Part.LEFT_THIGH, Part.TRUNK),
    (Part.RIGHT_THIGH, Part.TRUNK),
    (Part.LEFT_THIGH, Part.LEFT_SHANK),
    (Part.RIGHT_THIGH, Part.RIGHT_SHANK),
    (Part.LEFT_SHANK, Part.LEFT_FOOT),
    (Part.RIGHT_SHANK, Part.RIGHT_FOOT),
)
# The flesh over a hip is up to 0.055 of stature thick at its side, more with girth, and the other hip lies 0.112 behind
# it: a joint further below the surface than halfway between is on the body's other side.
_FLESH: Final = 0.055
_BEHIND: Final = 0.07


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture of one figure and its truth.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        joints_xy: (6, 2) float64 joint centres in image pixels, pixel-centre coordinates, order of LOWER_BODY_6.
        joints_visible: (6,) COCO's v: 2 seen, 1 behind another part of the body or gear, 0 outside the image.
        box_xyxy: (4,) tight box of the silhouette within the image, edge coordinates.
        area_px: Pixels the silhouette covers.
        pose: What the figure does.
        view: From where it is seen.
        azimuth_deg: Where the camera stands: 0 in front, 90 at the person's left side, -90 at the right.
        knee_flexion_deg: (2,) true angles in space of the left and right knee.
        skeleton: The joints in the world.
        camera: The camera.
    """

    image: ImageArray
    joints_xy: NDArray[np.float64]
    joints_visible: NDArray[np.int64]
    box_xyxy: NDArray[np.float64]
    area_px: float
    pose: PoseName
    view: ViewName
    azimuth_deg: float
    knee_flexion_deg: NDArray[np.float64]
    skeleton: Skeleton
    camera: Camera

    def __post_init__(self) -> None:
        count = len(LOWER_BODY_6)
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, 3) uint8, got {self.image.shape} {self.image.dtype}")
        if self.joints_xy.shape != (count, 2) or self.joints_visible.shape != (count,):
            raise ValueError(f"joints_xy must be ({count}, 2) and joints_visible ({count},)")
        left, top, right, bottom = self.box_xyxy
        if not (0 <= left < right <= self.size.width and 0 <= top < bottom <= self.size.height):
            raise ValueError(f"box_xyxy must lie within an image of {self.size}, got {self.box_xyxy}")

    @property
    def size(self) -> ImageSize:
        """Size of the image."""
        return ImageSize.of(self.image)


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything about a picture but the pose: who is seen, how lit, before what.

    Attributes:
        shape: The body's proportions.
        outfit: Clothes, skin and hair.
        lighting: Light on the figure and its shadow.
        shadow: Strength of the shadow on the floor, 0 to 1.
        grain: Standard deviation of the sensor's noise in grey levels.
        plate_radius_m: Radius of the plates of a barbell on the shoulders; 0 for none.
        texture_seed: Decides folds and grain.
    """

    shape: BodyShape
    outfit: Outfit
    lighting: Lighting
    shadow: float = 0.4
    grain: float = 2.0
    plate_radius_m: float = 0.0
    texture_seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.shadow <= 1.0 or self.grain < 0 or self.plate_radius_m < 0:
            raise ValueError("shadow must lie in 0..1, grain and plate_radius_m must not be negative")


def random_figure(
    rng: Generator,
    size: ImageSize,
    *,
    pose: PoseName | None = None,
    view: ViewName | None = None,
    background: BackgroundName | None = None,
    cropped_share: float = 0.1,
) -> Figure:
    """Return a picture of a figure; the same generator state gives the same picture.

    Args:
        rng: Decides everything that is not asked for.
        size: Size of the picture, at least 16 pixels a side.
        pose: What the figure does; drawn when None.
        view: From where it is seen; drawn when None, any direction alike.
        background: What is behind it; drawn when None.
        cropped_share: Part of the pictures that cut off the head or the feet.

    Raises:
        InputError: The size is too small or too large.
    """
    if max(size.height, size.width) > MAX_SIDE_PX:
        raise InputError(f"a figure needs a picture of at most {MAX_SIDE_PX} px a side, got {size}")
    if min(size.height, size.width) < MIN_SIDE_PX:
        raise InputError(f"a figure needs a picture of at least {MIN_SIDE_PX} px a side, got {size}")
    name = pose or POSE_NAMES[rng.choice(len(POSE_NAMES), p=(0.2, 0.45, 0.17, 0.18))]
    scene = random_scene(rng, barbells=name == "squatting")
    skeleton = place_skeleton(scene.shape, random_pose(rng, name, shape=scene.shape))
    azimuth = _random_azimuth_deg(rng, view)
    cropped = bool(rng.random() < cropped_share)
    camera = _random_camera(rng, size, scene=scene, skeleton=skeleton, azimuth_deg=azimuth, cropped=cropped)
    backdrop = random_background(rng, camera, name=background)
    return draw_figure(scene, skeleton, camera=camera, background=backdrop, pose=name)


def random_scene(rng: Generator, *, barbells: bool = False) -> Scene:
    """Return a person and light drawn at random.

    Args:
        rng: Decides everything.
        barbells: Whether some carry a barbell.
    """
    loaded = barbells and rng.random() < 0.15
    return Scene(
        shape=random_shape(rng),
        outfit=random_outfit(rng),
        lighting=_random_lighting(rng),
        shadow=float(rng.uniform(0.15, 0.65)),
        grain=float(rng.uniform(0.5, 5.0)),
        plate_radius_m=float(rng.uniform(0.11, 0.225)) if loaded else 0.0,
        texture_seed=int(rng.integers(2**31)),
    )


def draw_figure(scene: Scene, skeleton: Skeleton, *, camera: Camera, background: ImageArray, pose: PoseName) -> Figure:
    """Return the picture of a posed skeleton and its truth.

    Args:
        scene: Who is seen and how lit.
        skeleton: The joints, placed with `scene.shape`.
        camera: The camera.
        background: (H, W, 3) uint8 RGB of the camera's size; left as it is.
        pose: Name kept in the figure.

    Raises:
        InputError: The figure is not in the picture, or background and camera differ in size.
    """
    if ImageSize.of(background) != camera.size:
        raise InputError(f"the background must be {camera.size}, got {ImageSize.of(background)}")
    capsules = _capsules(scene, skeleton)
    surfaces = rasterise(capsules, camera)
    box = None if surfaces is None else surfaces.box_xyxy()
    if surfaces is None or box is None:
        raise InputError("the figure is not in the picture")
    image, area = _painted(scene, capsules, surfaces, camera=camera, background=background)
    azimuth = _azimuth_deg(camera)
    deepest = (_FLESH * scene.shape.girth + _BEHIND) * scene.shape.stature_m
    return Figure(
        image=image,
        joints_xy=camera.project(skeleton.lower_body_xyz),
        joints_visible=_visibility(surfaces, skeleton, camera, deepest_m=deepest),
        box_xyxy=box,
        area_px=area,
        pose=pose,
        view=_view_name(azimuth),
        azimuth_deg=azimuth,
        knee_flexion_deg=skeleton.knee_flexion_deg,
        skeleton=skeleton,
        camera=camera,
    )


def _capsules(scene: Scene, skeleton: Skeleton) -> list[Capsule]:
    capsules = dress(skeleton, shape=scene.shape, outfit=scene.outfit)
    if scene.plate_radius_m:
        iron = (0.09, 0.09, 0.10) if scene.texture_seed % 2 else (0.55, 0.10, 0.10)
        capsules += barbell(skeleton, shape=scene.shape, plate_radius_m=scene.plate_radius_m, color=iron)
    return capsules


def _painted(
    scene: Scene, capsules: Sequence[Capsule], surfaces: Surfaces, *, camera: Camera, background: ImageArray
) -> tuple[ImageArray, float]:
    """Return the finished picture and the area of the person's silhouette in pixels."""
    rng = np.random.default_rng(scene.texture_seed)
    shadowed = cast_shadow(background, capsules, camera=camera, lighting=scene.lighting, strength=scene.shadow)
    colors, coverage = shade(surfaces, capsules, camera=camera, lighting=scene.lighting, rng=rng)
    image = composite(shadowed, surfaces, colors=colors, coverage=coverage)
    area = float(np.count_nonzero(surfaces.person)) / surfaces.supersampling**2
    return _grainy(rng, image, deviation=scene.grain), area


def _grainy(rng: Generator, image: ImageArray, *, deviation: float) -> ImageArray:
    """Return the picture with uniform noise, which costs a tenth of Gaussian noise and looks the same."""
    noise = rng.integers(0, 256, image.shape, dtype=np.uint8)
    # Uniform noise over 256 levels has a standard deviation of 256 / sqrt(12) = 73.9 levels.
    weight = deviation / 73.9
    # OpenCV's stubs do not know that uint8 arrays give a uint8 array.
    return cv2.addWeighted(image, 1.0, noise, weight, -127.5 * weight)  # type: ignore[return-value]


def _visibility(surfaces: Surfaces, skeleton: Skeleton, camera: Camera, *, deepest_m: float) -> NDArray[np.int64]:
    """Return COCO's v of the six joints from what the rays through them met first."""
    joints = skeleton.lower_body_xyz
    depths, points = camera.to_camera(joints)[:, 2], camera.project(joints)
    visible = np.zeros(len(joints), dtype=np.int64)
    for index, (depth, (x, y)) in enumerate(zip(depths, points, strict=True)):
        if not (-0.5 <= x < camera.size.width - 0.5 and -0.5 <= y < camera.size.height - 0.5):
            continue
        part, surface = surfaces.at(np.array([x, y]))
        around = part == NOTHING or part in _PARTS_AROUND[index]
        visible[index] = 2 if around and depth - surface < deepest_m else 1
    return visible


def _azimuth_deg(camera: Camera) -> float:
    return float(np.rad2deg(np.arctan2(camera.position[0], camera.position[2])))


def _view_name(azimuth_deg: float) -> ViewName:
    for name, (_, limit) in _VIEW_RANGES_DEG.items():
        if abs(azimuth_deg) < limit:
            return name
    return "back"


def _random_azimuth_deg(rng: Generator, view: ViewName | None) -> float:
    low, high = (0.0, 180.0) if view is None else _VIEW_RANGES_DEG[view]
    # A hair inside the range, so that the name read back from the camera's place is the one asked for.
    azimuth = float(np.clip(rng.uniform(low, high), low + 1e-6, high - 1e-6))
    return azimuth if rng.random() < 0.5 else -azimuth


def _random_lighting(rng: Generator) -> Lighting:
    elevation, azimuth = np.deg2rad(rng.uniform(42.0, 82.0)), rng.uniform(0.0, 2 * np.pi)
    level = np.cos(elevation)
    direction = np.array([level * np.sin(azimuth), np.sin(elevation), level * np.cos(azimuth)])
    warmth = rng.normal(0.0, 0.05)
    return Lighting(
        direction,
        ambient=float(rng.uniform(0.45, 0.8)),
        diffuse=float(rng.uniform(0.25, 0.85)),
        tint=(1.0 + warmth, 1.0, 1.0 - warmth),
        gloss=float(rng.uniform(0.0, 0.25)),
    )


def _random_camera(
    rng: Generator, size: ImageSize, *, scene: Scene, skeleton: Skeleton, azimuth_deg: float, cropped: bool
) -> Camera:
    """Return a camera at a random distance, height and roll, zoomed so that the figure fits."""
    distance, height = rng.uniform(2.2, 7.0), rng.uniform(0.3, 2.1)
    azimuth = np.deg2rad(azimuth_deg)
    position = np.array([distance * np.sin(azimuth), height, distance * np.cos(azimuth)])
    target = np.array([0.0, 0.5 * scene.shape.stature_m, 0.0])
    roll = float(rng.normal(0.0, 2.0))
    camera = Camera.looking_at(target, position=position, focal_px=1.0, size=size, roll_deg=roll)
    frame = _random_frame(rng, size, cropped=cropped)
    return camera.framed(_outline(skeleton, shape=scene.shape), box_xyxy=frame)


def _outline(skeleton: Skeleton, *, shape: BodyShape) -> NDArray[np.float64]:
    """Return (n, 3) points about a figure: every joint, and as far from it along the axes as flesh and hair reach."""
    limbs = ("hips", "knees", "ankles", "heels", "toes", "shoulders", "elbows", "wrists", "fingertips")
    joints = np.concatenate([*(getattr(skeleton, name) for name in limbs), skeleton.head[None]])
    reach = np.full(len(joints), 0.025 * shape.stature_m)
    reach[[0, 1, 10, 11]] = 0.065 * shape.girth * shape.stature_m
    reach[-1] = 0.090 * shape.stature_m
    steps = np.concatenate([np.eye(3), -np.eye(3)])
    points: NDArray[np.float64] = joints[:, None] + reach[:, None, None] * steps
    return points.reshape(-1, 3)


def _random_frame(rng: Generator, size: ImageSize, *, cropped: bool) -> NDArray[np.float64]:
    """Return the box (4,), pixel-centre coordinates, that the figure is to fill in one direction."""
    share = rng.uniform(0.62, 0.95)
    extent = np.array([size.width, size.height]) * share
    slack = np.array([size.width, size.height]) - extent
    corner = slack * rng.uniform(0.1, 0.9, 2)
    box = np.concatenate([corner, corner + extent]) - 0.5
    if not cropped:
        return box
    taller = extent[1] * rng.uniform(0.12, 0.5)
    # Mostly the head and trunk leave the picture, as where a phone is pointed at the legs.
    box[[1, 3]] += [-taller, 0.0] if rng.random() < 0.75 else [0.0, 0.5 * taller]
    box[[0, 2]] += [-taller, taller]
    return box
