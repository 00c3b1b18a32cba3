"""Flesh, hair and clothes on a skeleton, as tapered capsules.

Thicknesses are fractions of stature, chosen so that breadths and girths come near those of Winter (2009) and of
ordinary photographs; `BodyShape.girth` scales them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lbkit.synthetic.raster import Capsule, Color, Part
from lbkit.synthetic.skeleton import SIDE_SIGNS, UP, BodyShape, Skeleton, cross

Vector = NDArray[np.float64]
HairStyle = Literal["short", "long", "ponytail", "bun", "bald", "cap"]
HAIR_STYLES: Final[tuple[HairStyle, ...]] = get_args(HairStyle)

_THIGHS: Final = (Part.LEFT_THIGH, Part.RIGHT_THIGH)
_SHANKS: Final = (Part.LEFT_SHANK, Part.RIGHT_SHANK)
_FEET: Final = (Part.LEFT_FOOT, Part.RIGHT_FOOT)
_ARMS: Final = (Part.LEFT_ARM, Part.RIGHT_ARM)
_DARK: Final[Color] = (0.06, 0.05, 0.05)


@dataclass(frozen=True, slots=True)
class Outfit:
    """Colours (RGB, 0 to 1) and cut of what a figure wears.

    Attributes:
        skin, hair, shirt, shirt_stripe, legwear, waistband, socks, shoes, soles: Colours.
        sleeve: How much of the arm the shirt covers: 0 none, 1 to the elbow, 2 to the wrist.
        leg_cover: How much of the leg is covered: 0.3 briefs, 0.7 shorts, 1.5 below the knee, 2 trousers.
        looseness: How far cloth stands off the leg, as a factor on its thickness.
        sock_height: Part of the shank under socks.
        untucked: Whether the shirt hangs over the hips.
        striped: Whether the shirt has bands of `shirt_stripe`.
        hair_style: How the hair is worn.
        chest: Fullness of the chest, 0 to 1.
    """

    skin: Color = (0.80, 0.60, 0.48)
    hair: Color = (0.15, 0.10, 0.07)
    shirt: Color = (0.30, 0.42, 0.62)
    shirt_stripe: Color = (0.85, 0.85, 0.85)
    legwear: Color = (0.14, 0.15, 0.18)
    waistband: Color = (0.10, 0.10, 0.10)
    socks: Color = (0.88, 0.88, 0.88)
    shoes: Color = (0.75, 0.20, 0.16)
    soles: Color = (0.92, 0.92, 0.90)
    sleeve: float = 0.5
    leg_cover: float = 0.7
    looseness: float = 1.08
    sock_height: float = 0.2
    untucked: bool = False
    striped: bool = False
    hair_style: HairStyle = "short"
    chest: float = 0.3

    def __post_init__(self) -> None:
        if not (0.0 <= self.sleeve <= 2.0 and 0.0 <= self.leg_cover <= 2.0 and 0.0 <= self.sock_height <= 1.0):
            raise ValueError("sleeve and leg_cover must lie in 0..2 and sock_height in 0..1")
        if self.hair_style not in HAIR_STYLES:
            raise ValueError(f"hair_style must be one of {', '.join(HAIR_STYLES)}, got {self.hair_style!r}")


def dress(skeleton: Skeleton, *, shape: BodyShape, outfit: Outfit) -> list[Capsule]:
    """Return a body's capsules in the world, clothes and hair included.

    Args:
        skeleton: The posed joints.
        shape: The proportions they were placed with.
        outfit: Colours and cut.
    """
    tailor = _Tailor(skeleton, shape, outfit)
    capsules = [*tailor.pelvis(), *tailor.torso(), *tailor.head()]
    for side in (0, 1):
        capsules += [*tailor.thigh(side), *tailor.shank(side), *tailor.foot(side), *tailor.arm(side)]
    return capsules


def barbell(skeleton: Skeleton, *, shape: BodyShape, plate_radius_m: float, color: Color) -> list[Capsule]:
    """Return a barbell across the upper back: a bar and a plate at either end.

    Args:
        skeleton: The posed joints.
        shape: The proportions they were placed with.
        plate_radius_m: Radius of the plates.
        color: RGB of the plates, 0 to 1.
    """
    left, up, forward = skeleton.trunk_frame
    middle = skeleton.neck + shape.stature_m * (0.012 * up - 0.060 * forward)
    steel: Color = (0.55, 0.56, 0.58)
    bar = Capsule(Part.GEAR, middle - 0.95 * left, middle + 0.95 * left, 0.015, 0.015, steel)
    plates = []
    for sign in SIDE_SIGNS:
        place = middle + sign * 0.72 * left
        plates.append(
            Capsule(Part.GEAR, place, place, plate_radius_m, plate_radius_m, color, flat_axis=left, flatness=0.12)
        )
    return [bar, *plates]


@dataclass(frozen=True, slots=True)
class _Tailor:
    """Cuts the capsules of one dressed figure; lengths given to its methods are fractions of stature."""

    skeleton: Skeleton
    shape: BodyShape
    outfit: Outfit

    def _flesh(
        self,
        part: Part,
        ends: tuple[Vector, Vector],
        radii: tuple[float, float],
        color: Color,
        *,
        end_color: Color | None = None,
        band_at: float = 2.0,
        stripe_m: float = 0.0,
        flat: tuple[Vector, float] | None = None,
        open_end: bool = False,
        fat: float = 1.0,
    ) -> Capsule:
        """Return a capsule with radii in fractions of stature; `fat` is how much of the girth it takes on."""
        factor = self.shape.stature_m * (1.0 + fat * (self.shape.girth - 1.0))
        axis, flatness = flat or (None, 1.0)
        return Capsule(
            part,
            *ends,
            radii[0] * factor,
            radii[1] * factor,
            color,
            end_color=end_color,
            band_at=band_at,
            stripe_m=stripe_m,
            flat_axis=axis,
            flatness=flatness,
            open_end=open_end,
        )

    def _offset(self, point: Vector, frame: Vector, shift: tuple[float, float, float]) -> Vector:
        """Return a point moved by (left, up, forward) fractions of stature in a segment's frame."""
        moved: Vector = point + self.shape.stature_m * (np.array(shift) @ frame)
        return moved

    def pelvis(self) -> list[Capsule]:
        """Return hips and buttocks."""
        bones, outfit = self.skeleton, self.outfit
        frame, center = bones.pelvis_frame, bones.pelvis
        half = 0.5 * float(np.linalg.norm(bones.hips[0] - bones.hips[1])) / self.shape.stature_m
        ends = [self._offset(center, frame, (sign * half * 0.62, 0.022, 0.0)) for sign in SIDE_SIGNS]
        hips = self._flesh(Part.TRUNK, (ends[0], ends[1]), (0.060, 0.060), outfit.legwear, flat=(frame[2], 0.92))
        lap = self._flesh(
            Part.TRUNK,
            (self._offset(center, frame, (0, 0.012, 0.004)), self._offset(center, frame, (0, 0.062, 0.002))),
            (0.079, 0.077),
            outfit.legwear,
            end_color=outfit.waistband,
            band_at=0.75,
            flat=(frame[2], 0.68),
        )
        return [hips, lap, *(self._buttock(side, half) for side in (0, 1))]

    def _buttock(self, side: int, half: float) -> Capsule:
        """Return one buttock, which follows the thigh when the hip bends."""
        bones, frame = self.skeleton, self.skeleton.pelvis_frame
        above = self._offset(bones.pelvis, frame, (SIDE_SIGNS[side] * half * 0.72, 0.020, -0.024))
        back = -0.020 * self.shape.stature_m * bones.knee_forwards[side]
        below = bones.hips[side] + back + 0.02 * (bones.knees[side] - bones.hips[side])
        return self._flesh(Part.TRUNK, (above, below), (0.049, 0.050), self.outfit.legwear)

    def torso(self) -> list[Capsule]:
        """Return belly, ribs, chest and shoulders."""
        bones, outfit = self.skeleton, self.outfit
        frame = bones.trunk_frame
        broad = float(np.linalg.norm(bones.shoulders[0] - bones.shoulders[1])) / self.shape.stature_m
        stripe = 0.05 * self.shape.stature_m if outfit.striped else 0.0
        low = self._offset(bones.pelvis, bones.pelvis_frame, (0, 0.055, 0.002))
        ribs = self._offset(bones.neck, frame, (0, -0.100, -0.004))
        cloth = {"color": outfit.shirt, "end_color": outfit.shirt_stripe, "stripe_m": stripe}
        belly = self._flesh(Part.TRUNK, (low, bones.waist), (0.076, 0.071), flat=(frame[2], 0.70), fat=1.3, **cloth)  # type: ignore[arg-type]
        chest = self._flesh(
            Part.TRUNK,
            (bones.waist, ribs),
            (0.071, 0.35 * broad + 0.003),
            flat=(frame[2], 0.70),
            **cloth,  # type: ignore[arg-type]
        )
        yoke_ends = [self._offset(bones.neck, frame, (sign * 0.33 * broad, -0.036, -0.004)) for sign in SIDE_SIGNS]
        yoke = self._flesh(Part.TRUNK, (yoke_ends[0], yoke_ends[1]), (0.040, 0.040), outfit.shirt, fat=0.6)
        neck_base = self._offset(bones.neck, frame, (0, 0.030, -0.004))
        slopes = [
            self._flesh(Part.TRUNK, (neck_base, bones.shoulders[side]), (0.027, 0.029), outfit.shirt, fat=0.6)
            for side in (0, 1)
        ]
        return [belly, chest, yoke, *slopes, *self._bosom(broad), *self._shirt_tail()]

    def _shirt_tail(self) -> list[Capsule]:
        """Return the lower shirt where it hangs over the hips, open below."""
        if not self.outfit.untucked:
            return []
        bones, frame = self.skeleton, self.skeleton.pelvis_frame
        ends = (bones.waist, self._offset(bones.pelvis, frame, (0, 0.012, -0.004)))
        flat = (frame[2], 0.74)
        return [self._flesh(Part.TRUNK, ends, (0.074, 0.097), self.outfit.shirt, flat=flat, open_end=True)]

    def _bosom(self, broad: float) -> list[Capsule]:
        bones, fullness = self.skeleton, self.outfit.chest
        radius = 0.028 + 0.010 * fullness
        capsules = []
        for sign in SIDE_SIGNS:
            place = self._offset(bones.neck, bones.trunk_frame, (sign * 0.17 * broad, -0.080, 0.024 + 0.016 * fullness))
            above = self._offset(place, bones.trunk_frame, (0, 0.02, -0.008))
            capsules.append(self._flesh(Part.TRUNK, (above, place), (0.026, radius), self.outfit.shirt, fat=0.5))
        return capsules

    def head(self) -> list[Capsule]:
        """Return neck, skull, face and hair."""
        bones, skin = self.skeleton, self.outfit.skin
        frame, center = bones.head_frame, bones.head
        nape = self._offset(bones.neck, bones.trunk_frame, (0, 0.010, -0.004))
        throat = self._offset(center, frame, (0, -0.040, -0.014))
        narrow = (frame[0], 0.80)
        brow, chin = self._offset(center, frame, (0, 0.012, 0)), self._offset(center, frame, (0, -0.046, 0.026))
        return [
            self._flesh(Part.HEAD, (nape, throat), (0.034, 0.030), skin, fat=0.5),
            self._flesh(Part.HEAD, (brow, brow), (0.052, 0.052), skin, flat=narrow, fat=0.1),
            self._flesh(
                Part.HEAD,
                (self._offset(center, frame, (0, -0.004, 0.010)), chin),
                (0.044, 0.020),
                skin,
                flat=narrow,
                fat=0.2,
            ),
            *self._features(center, frame),
            *self._hair(brow, frame),
        ]

    def _features(self, center: Vector, frame: Vector) -> list[Capsule]:
        """Return nose, eyes, brows, mouth and ears."""
        skin = self.outfit.skin
        shaded: Color = (skin[0] * 0.75, skin[1] * 0.6, skin[2] * 0.6)

        def feature(
            start: tuple[float, float, float], end: tuple[float, float, float], radius: float, color: Color
        ) -> Capsule:
            ends = (self._offset(center, frame, start), self._offset(center, frame, end))
            return self._flesh(Part.HEAD, ends, (radius, radius), color, fat=0.0)

        features = [
            feature((0, 0.008, 0.048), (0, -0.012, 0.057), 0.0065, skin),
            feature((-0.010, -0.027, 0.046), (0.010, -0.027, 0.046), 0.0040, shaded),
        ]
        for sign in SIDE_SIGNS:
            features.append(feature((sign * 0.016, 0.006, 0.0445), (sign * 0.018, 0.006, 0.044), 0.0052, _DARK))
            features.append(
                feature((sign * 0.010, 0.018, 0.0475), (sign * 0.023, 0.018, 0.0445), 0.0032, self.outfit.hair)
            )
            features.append(feature((sign * 0.042, 0.006, -0.006), (sign * 0.043, -0.010, -0.004), 0.008, skin))
        return features

    def _hair(self, brow: Vector, frame: Vector) -> list[Capsule]:
        outfit, narrow = self.outfit, (frame[0], 0.84)
        if outfit.hair_style == "bald":
            return []
        thick = 0.054 if outfit.hair_style in ("short", "cap") else 0.056
        top = self._offset(brow, frame, (0, 0.013, -0.009))
        back = self._offset(brow, frame, (0, -0.018, -0.020))
        hair = [self._flesh(Part.HEAD, (top, back), (thick, thick * 0.78), outfit.hair, flat=narrow, fat=0.1)]
        return hair + self._hair_extras(brow, frame)

    def _hair_extras(self, brow: Vector, frame: Vector) -> list[Capsule]:
        """Return what hangs or sits on the hair: locks, a tail, a bun or a cap's peak."""
        outfit = self.outfit
        back = self._offset(brow, frame, (0, 0.0, -0.034))
        if outfit.hair_style == "long":
            low = self._offset(self.skeleton.neck, self.skeleton.trunk_frame, (0, -0.030, -0.050))
            return [self._flesh(Part.HEAD, (back, low), (0.044, 0.034), outfit.hair, fat=0.1)]
        if outfit.hair_style == "ponytail":
            knot = self._offset(brow, frame, (0, 0.018, -0.062))
            low = self._offset(brow, frame, (0, -0.085, -0.078))
            return [self._flesh(Part.HEAD, (knot, low), (0.018, 0.010), outfit.hair, fat=0.0)]
        if outfit.hair_style == "bun":
            knot = self._offset(brow, frame, (0, 0.046, -0.042))
            return [self._flesh(Part.HEAD, (knot, knot), (0.024, 0.024), outfit.hair, fat=0.0)]
        if outfit.hair_style == "cap":
            ends = self._offset(brow, frame, (0, 0.024, 0.030)), self._offset(brow, frame, (0, 0.016, 0.072))
            return [self._flesh(Part.HEAD, ends, (0.042, 0.032), outfit.hair, flat=(frame[1], 0.16), fat=0.1)]
        return []

    def thigh(self, side: int) -> list[Capsule]:
        """Return a thigh, its knee, and the leg of the shorts or trousers over it."""
        bones, outfit, part = self.skeleton, self.outfit, _THIGHS[side]
        hip, knee, front = bones.hips[side], bones.knees[side], bones.knee_forwards[side]
        stature = self.shape.stature_m
        top = hip + stature * (0.004 * front) + 0.03 * (knee - hip)
        covered = outfit.leg_cover >= 1.0
        skin = outfit.legwear if covered else outfit.skin
        cap = knee + stature * 0.010 * front
        legs = [
            self._flesh(
                part, (top, knee), (0.053, 0.0325), outfit.legwear, end_color=skin, band_at=min(outfit.leg_cover, 1.0)
            ),
            self._flesh(part, (cap - 0.06 * (knee - hip), cap), (0.026, 0.0245), skin, fat=0.7),
            self._flesh(
                part,
                (top + stature * 0.010 * front, hip + 0.72 * (knee - hip) + stature * 0.010 * front),
                (0.046, 0.033),
                outfit.legwear,
                end_color=skin,
                band_at=outfit.leg_cover / 0.72,
            ),
        ]
        return legs + self._trouser_leg(side, top)

    def _trouser_leg(self, side: int, top: Vector) -> list[Capsule]:
        """Return the loose cloth about a thigh, open below."""
        bones, outfit = self.skeleton, self.outfit
        if outfit.looseness <= 1.02:
            return []
        reach = min(outfit.leg_cover, 1.0)
        front = 0.005 * self.shape.stature_m * bones.knee_forwards[side]
        hem = bones.hips[side] + reach * (bones.knees[side] - bones.hips[side]) + front
        # The thigh below is 0.053 thick at the hip and 0.033 at the knee, and fuller in front.
        radius = (0.0565 - 0.020 * reach) * outfit.looseness
        open_end = outfit.leg_cover < 1.0
        return [self._flesh(_THIGHS[side], (top, hem), (0.0555, radius), outfit.legwear, open_end=open_end)]

    def shank(self, side: int) -> list[Capsule]:
        """Return shin, calf, sock and the lower trouser leg."""
        bones, outfit, part = self.skeleton, self.outfit, _SHANKS[side]
        knee, ankle = bones.knees[side], bones.ankles[side]
        down = ankle - knee
        back = -self._across(down, bones.knee_forwards[side]) * self.shape.stature_m
        covered = max(outfit.leg_cover - 1.0, 0.0)
        cloth = outfit.legwear if covered else outfit.skin
        low, low_at = (outfit.socks, 1.0 - outfit.sock_height) if covered in (0.0, 1.0) else (outfit.skin, covered)
        upper = (knee + 0.16 * down + 0.011 * back, knee + 0.38 * down + 0.013 * back)
        lower = (upper[1], knee + 0.82 * down + 0.004 * back)
        return [
            self._flesh(part, (knee, ankle), (0.0305, 0.0185), cloth, end_color=low, band_at=low_at),
            self._flesh(part, upper, (0.027, 0.029), cloth),
            self._flesh(part, lower, (0.029, 0.017), cloth, end_color=low, band_at=(low_at - 0.38) / 0.44),
            *self._trouser_shank(side, covered, back),
        ]

    def _trouser_shank(self, side: int, covered: float, back: Vector) -> list[Capsule]:
        """Return the trouser leg about a shank, open below, down to a fraction of its length."""
        if covered <= 0:
            return []
        bones, outfit, part = self.skeleton, self.outfit, _SHANKS[side]
        knee, down = bones.knees[side], bones.ankles[side] - bones.knees[side]
        slack = 0.5 + 0.5 * outfit.looseness
        hem = knee + covered * down + 0.004 * back
        radii = (0.0345 * slack, (0.041 - 0.016 * covered) * outfit.looseness)
        calf = (knee + 0.12 * down + 0.010 * back, knee + min(0.5, covered) * down + 0.010 * back)
        return [
            self._flesh(part, (knee, hem), radii, outfit.legwear, open_end=True),
            self._flesh(part, calf, (0.029 * slack, 0.031 * slack), outfit.legwear),
        ]

    @staticmethod
    def _across(line: Vector, toward: Vector) -> Vector:
        """Return the unit vector across a line nearest to a direction."""
        along = line / np.linalg.norm(line)
        across = toward - (toward @ along) * along
        length = float(np.linalg.norm(across))
        # A shank folded right back along the thigh points where the knee's front does.
        return across / length if length > 1e-6 else -along

    def foot(self, side: int) -> list[Capsule]:
        """Return a shoe: heel, middle, toe, instep and sole."""
        bones, outfit, part = self.skeleton, self.outfit, _FEET[side]
        heel, ball, toe, ankle = bones.heels[side], bones.balls[side], bones.toes[side], bones.ankles[side]
        stature = self.shape.stature_m
        along = (ball - heel) / np.linalg.norm(ball - heel)
        across = cross(UP, along)
        up = cross(along, across / np.linalg.norm(across))
        lift = stature * up
        tip = toe - 0.020 * stature * (toe - ball) / np.linalg.norm(toe - ball)
        back = heel + 0.020 * stature * along
        flat = (up, 0.86)
        sole_color = outfit.soles
        shoe = [
            (back + 0.0215 * lift, ball + 0.018 * lift, (0.0220, 0.0235), flat),
            (ball + 0.018 * lift, tip + 0.0150 * lift, (0.0235, 0.0190), (up, 0.74)),
            (ankle + 0.002 * lift, ball - 0.010 * stature * along + 0.022 * lift, (0.0215, 0.0180), flat),
            (ankle + 0.004 * lift, back + 0.024 * lift, (0.0215, 0.0205), flat),
        ]
        soles = [
            (back + 0.007 * lift, ball + 0.006 * lift, (0.0240, 0.0265), (up, 0.28)),
            (ball + 0.006 * lift, tip + 0.006 * lift, (0.0265, 0.0215), (up, 0.28)),
        ]
        return [
            *(self._flesh(part, (a, b), radii, outfit.shoes, flat=f, fat=0.3) for a, b, radii, f in shoe),
            *(self._flesh(part, (a, b), radii, sole_color, flat=f, fat=0.3) for a, b, radii, f in soles),
        ]

    def arm(self, side: int) -> list[Capsule]:
        """Return upper arm, forearm, sleeve and hand."""
        bones, outfit, part = self.skeleton, self.outfit, _ARMS[side]
        shoulder, elbow, wrist = bones.shoulders[side], bones.elbows[side], bones.wrists[side]
        upper, lower = outfit.sleeve, outfit.sleeve - 1.0
        bulge = elbow + 0.28 * (wrist - elbow)
        skin = outfit.skin

        def sleeved(ends: tuple[Vector, Vector], radii: tuple[float, float], share: float) -> Capsule:
            return self._flesh(
                part, ends, radii, outfit.shirt, end_color=skin, band_at=min(max(share, -1.0), 2.0), fat=0.8
            )

        arm = [
            sleeved((shoulder, elbow), (0.0310, 0.0225), upper if upper < 1 else 2.0),
            sleeved((elbow, bulge), (0.0215, 0.0235), lower / 0.28),
            sleeved((bulge, wrist), (0.0235, 0.0150), (lower - 0.28) / 0.72),
        ]
        if 0.15 < outfit.sleeve < 1.0:
            hem = shoulder + outfit.sleeve * (elbow - shoulder)
            arm.append(self._flesh(part, (shoulder, hem), (0.0330, 0.0320), outfit.shirt, open_end=True, fat=0.8))
        return arm + self._hand(side)

    def _hand(self, side: int) -> list[Capsule]:
        bones, skin, part = self.skeleton, self.outfit.skin, _ARMS[side]
        wrist, tip, palm = bones.wrists[side], bones.fingertips[side], bones.palm_normals[side]
        reach = tip - wrist
        thumbward = cross(reach, palm) / np.linalg.norm(reach) * self.shape.stature_m
        if SIDE_SIGNS[side] > 0:
            thumbward = -thumbward
        knuckles = wrist + 0.46 * reach
        curled = wrist + 0.86 * reach + 0.012 * self.shape.stature_m * palm
        thumb = (wrist + 0.18 * reach + 0.012 * thumbward, wrist + 0.52 * reach + 0.028 * thumbward)
        return [
            self._flesh(part, (wrist + 0.12 * reach, knuckles), (0.0170, 0.0225), skin, flat=(palm, 0.55), fat=0.3),
            self._flesh(part, (knuckles, curled), (0.0205, 0.0130), skin, flat=(palm, 0.50), fat=0.3),
            self._flesh(part, thumb, (0.0085, 0.0065), skin, fat=0.3),
        ]


_SKINS: Final = (
    (0.96, 0.80, 0.69), (0.91, 0.72, 0.59), (0.85, 0.64, 0.50), (0.76, 0.55, 0.41), (0.64, 0.44, 0.31),
    (0.51, 0.34, 0.23), (0.39, 0.25, 0.17), (0.29, 0.19, 0.13),
)  # fmt: skip
_HAIRS: Final = (
    (0.06, 0.05, 0.05), (0.12, 0.08, 0.06), (0.24, 0.15, 0.09), (0.38, 0.25, 0.14), (0.72, 0.56, 0.33),
    (0.48, 0.20, 0.10), (0.62, 0.61, 0.60),
)  # fmt: skip
_PLAIN: Final = (
    (0.08, 0.08, 0.09), (0.92, 0.92, 0.91), (0.45, 0.46, 0.48), (0.13, 0.16, 0.28), (0.24, 0.33, 0.48),
    (0.30, 0.27, 0.22),
)  # fmt: skip


def random_shape(rng: Generator) -> BodyShape:
    """Return a body's proportions, drawn about those of adults."""
    return BodyShape(
        stature_m=float(np.clip(rng.normal(1.72, 0.09), 1.45, 2.05)),
        girth=float(np.clip(rng.normal(1.04, 0.13), 0.80, 1.45)),
        shoulder_breadth=float(np.clip(rng.normal(1.0, 0.06), 0.85, 1.15)),
        hip_breadth=float(np.clip(rng.normal(1.0, 0.06), 0.85, 1.18)),
        leg_length=float(np.clip(rng.normal(1.0, 0.03), 0.93, 1.07)),
    )


def random_outfit(rng: Generator) -> Outfit:
    """Return clothes, skin and hair drawn at random; plain dark and light cloth is the most frequent."""
    skin = _varied(rng, _SKINS[rng.integers(len(_SKINS))], spread=0.03)
    shirtless = rng.random() < 0.08
    legwear = _cloth(rng)
    tight = rng.random() < 0.35
    return Outfit(
        skin=skin,
        hair=_varied(rng, _HAIRS[rng.integers(len(_HAIRS))], spread=0.03),
        shirt=skin if shirtless else _cloth(rng),
        shirt_stripe=_cloth(rng),
        legwear=legwear,
        waistband=_cloth(rng) if rng.random() < 0.3 else _scaled(legwear, 0.75),
        socks=_cloth(rng),
        shoes=_cloth(rng),
        soles=_varied(rng, (0.90, 0.90, 0.88), spread=0.05) if rng.random() < 0.7 else _cloth(rng),
        sleeve=float(rng.choice([0.0, 0.0, 0.45, 0.5, 0.55, 0.9, 1.5, 1.96])),
        leg_cover=float(rng.choice([0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 1.5, 1.97, 1.97, 1.97])),
        looseness=1.0 if tight else float(rng.uniform(1.04, 1.28)),
        sock_height=float(rng.choice([0.0, 0.12, 0.2, 0.4])),
        untucked=not shirtless and bool(rng.random() < 0.4),
        striped=not shirtless and bool(rng.random() < 0.2),
        hair_style=HAIR_STYLES[rng.choice(len(HAIR_STYLES), p=(0.42, 0.16, 0.16, 0.08, 0.08, 0.10))],
        chest=float(rng.uniform(0.0, 0.3 if shirtless else 1.0)),
    )


def _cloth(rng: Generator) -> Color:
    if rng.random() < 0.55:
        return _varied(rng, _PLAIN[rng.integers(len(_PLAIN))], spread=0.04)
    hue, saturation, value = rng.random(), rng.uniform(0.25, 0.9), rng.uniform(0.2, 0.9)
    wheel = np.clip(np.abs((hue * 6.0 + np.array([0.0, 4.0, 2.0])) % 6.0 - 3.0) - 1.0, 0.0, 1.0)
    return _color(value * (1.0 - saturation + saturation * wheel))


def _varied(rng: Generator, color: Sequence[float], *, spread: float) -> Color:
    return _color(np.array(color) + rng.normal(0.0, spread, 3))


def _scaled(color: Color, factor: float) -> Color:
    return _color(np.array(color) * factor)


def _color(rgb: Vector) -> Color:
    red, green, blue = np.clip(rgb, 0.02, 0.98)
    return float(red), float(green), float(blue)
