"""Groups of people in which models differ more than on average: flexion, size, truncation, crowding, legs alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lbkit.core.angles import knee_flexion_deg
from lbkit.evaluation.pck import box_heights_px
from lbkit.evaluation.truth import People
from lbkit.evaluation.walk import Target

FLEXION_DEG = (30.0, 60.0, 90.0)
HEIGHTS_PX = (64.0, 128.0, 256.0)
COVERED_SHARE = 0.3
EDGE_PX = 1.0
"""A box that comes so near the picture's edge is taken to be cut by it."""

MARGIN_PER_LEG = 0.1
"""Above the higher hip so much of the leg's length stays on the photograph when all above is cut away."""

MAX_LEAN_DEG = 30.0
MIN_CUT_SHARE = 0.1
"""At least so much of the box must fall away, or the framing would be the same."""


@dataclass(frozen=True, slots=True, eq=False)
class PeopleGroup:
    """Some of the people.

    Attributes:
        kind: What they are grouped by.
        name: The group.
        members: (N,) who is in it.
    """

    kind: str
    name: str
    members: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class LegsOnly:
    """People whose photograph can be cut at the hips.

    Attributes:
        rows: (M,) rows of the people.
        cut_rows: (M,) pixel rows that fall away at the top.
    """

    rows: NDArray[np.int64]
    cut_rows: NDArray[np.int64]

    def targets(self, people: People, *, first_row: int) -> list[Target]:
        """Return their boxes, clipped at the cut, with rows from `first_row` on."""
        targets = []
        for number, (row, cut) in enumerate(zip(self.rows, self.cut_rows, strict=True)):
            box = people.boxes_xyxy[row].copy()
            box[1] = max(box[1], cut)
            targets.append(Target(first_row + number, int(people.image_ids[row]), box, int(cut)))
        return targets


def people_groups(people: People) -> list[PeopleGroup]:
    """Return all groups; one kind's groups have nobody in common, and people of whom it is not known are in none."""
    return [
        PeopleGroup(kind, name, members)
        for kind, groups in (
            ("knee flexion", _binned(deeper_flexion_deg(people), FLEXION_DEG, "°")),
            ("box height", _binned(box_heights_px(people.boxes_xyxy), HEIGHTS_PX, " px")),
            ("picture edge", _edge_groups(people)),
            ("crowding", _crowding_groups(people)),
        )
        for name, members in groups
    ]


def deeper_flexion_deg(people: People) -> NDArray[np.float64]:
    """Return the (N,) annotated flexion of the knee that is bent more; NaN where no leg has all its joints labelled."""
    flexion = labelled_flexion_deg(people)
    deeper = np.fmax(flexion[:, 0], flexion[:, 1])
    return np.asarray(deeper)


def labelled_flexion_deg(people: People) -> NDArray[np.float64]:
    """Return (N, 2) annotated knee flexion, left and right; NaN where a joint of the leg is not labelled."""
    return knee_flexion_deg(np.where((people.visibility > 0)[..., None], people.joints_xy, np.nan))


def legs_only(people: People) -> LegsOnly:
    """Return those who stand upright with both hips labelled, and where their photograph is cut above the hips.

    Upright means that the line from between the hips to the middle of the labelled ankles, or knees where no ankle is,
    leans by at most 30 degrees. A tenth of that line's length stays above the higher hip.
    """
    xy = np.where((people.visibility > 0)[..., None], people.joints_xy, np.nan)
    hips, middle = xy[:, 0:2], xy[:, 0:2].mean(axis=1)
    ankles, knees = _mean_of_known(xy[:, 4:6]), _mean_of_known(xy[:, 2:4])
    leg = np.where(np.isnan(ankles), knees, ankles) - middle
    length = np.linalg.norm(leg, axis=1)
    lean_deg = np.degrees(np.arctan2(np.abs(leg[:, 0]), leg[:, 1]))
    cut = np.floor(hips[..., 1].min(axis=1) - MARGIN_PER_LEG * length + 0.5)
    top, bottom = people.boxes_xyxy[:, 1], people.boxes_xyxy[:, 3]
    is_cut = (cut - np.maximum(top, 0.0)) >= MIN_CUT_SHARE * (bottom - top)
    rows = np.flatnonzero((lean_deg <= MAX_LEAN_DEG) & is_cut & (cut < bottom))
    return LegsOnly(rows, cut[rows].astype(np.int64))


def _mean_of_known(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N, 2) means of the (N, 2, 2) points that are not NaN."""
    known = ~np.isnan(xy[..., 0])
    sums = np.where(known[..., None], xy, 0.0).sum(axis=1)
    counts = known.sum(axis=1)[:, None]
    return np.asarray(np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0))


def _binned(
    values: NDArray[np.float64], edges: tuple[float, ...], unit: str
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    yield f"below {edges[0]:g}{unit}", values < edges[0]
    for low, high in itertools.pairwise(edges):
        yield f"{low:g} to {high:g}{unit}", (values >= low) & (values < high)
    yield f"{edges[-1]:g}{unit} and more", values >= edges[-1]


def _edge_groups(people: People) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    left_top, right_bottom = people.boxes_xyxy[:, :2], people.boxes_xyxy[:, 2:]
    near_edge = np.concatenate([left_top <= EDGE_PX, right_bottom >= people.sizes_xy - EDGE_PX], axis=1)
    touches = np.asarray(near_edge.any(axis=1))
    is_known = np.asarray(~np.isnan(people.sizes_xy).any(axis=1))
    yield "box inside", is_known & ~touches
    yield "box touches the edge", is_known & touches


def _crowding_groups(people: People) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    covered = people.covered
    yield "no other box overlaps", covered <= 0
    yield f"covered below {COVERED_SHARE:.0%}", (covered > 0) & (covered < COVERED_SHARE)
    yield f"covered {COVERED_SHARE:.0%} and more", covered >= COVERED_SHARE
