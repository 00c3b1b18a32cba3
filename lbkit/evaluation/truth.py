"""The annotated people that models are judged by: who counts, on which photographs, and what was left out and why."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lbkit.core.coco import CocoFile, CocoPerson, read_coco
from lbkit.core.keypoints import LOWER_BODY_6, KeypointSchema
from lbkit.errors import AnnotationError
from lbkit.evaluation.pck import PckNorm, box_diagonals_px, box_heights_px, torso_lengths_px
from lbkit.evaluation.persons import CocoRoot

MISSING = "image file missing"
DEFAULT_ALLOWED_MISSING = 0.01

_LEGS = len(LOWER_BODY_6)
_LEFT_HIP, _RIGHT_SHOULDER = LOWER_BODY_6.names.index("left_hip"), _LEGS + 1
_WITH_SHOULDERS = KeypointSchema(
    names=(*LOWER_BODY_6.names, "left_shoulder", "right_shoulder"),
    flip_pairs=(*LOWER_BODY_6.flip_pairs, (_LEGS, _LEGS + 1)),
    skeleton=LOWER_BODY_6.skeleton,
    oks_sigmas=(*LOWER_BODY_6.oks_sigmas, 0.079, 0.079),
    coco_indices=(*LOWER_BODY_6.coco_indices, 5, 6),
)


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """N annotated people with at least one labelled joint, in the annotation file's order of images.

    Attributes:
        ann_ids: (N,) COCO annotation ids.
        image_ids: (N,) COCO image ids.
        boxes_xyxy: (N, 4) annotated boxes, edge coordinates.
        joints_xy: (N, 6, 2) image pixels; (0, 0) where not labelled.
        visibility: (N, 6) COCO's v.
        areas: (N,) square pixels.
        torso_px: (N,) torso lengths, NaN where unknown.
        sizes_xy: (N, 2) width and height of the picture, NaN where the file does not tell.
        covered: (N,) the largest share of the own box that another person's box covers.
    """

    ann_ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float64]
    joints_xy: NDArray[np.float64]
    visibility: NDArray[np.int64]
    areas: NDArray[np.float64]
    torso_px: NDArray[np.float64]
    sizes_xy: NDArray[np.float64]
    covered: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ann_ids)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> People:
        """Return some of the people."""
        return People(*(getattr(self, field.name)[rows] for field in fields(self)))

    def lengths_px(self, norm: PckNorm) -> NDArray[np.float64]:
        """Return the (N,) lengths that distances are measured by (see `NORM_TEXTS`); NaN where there is none."""
        if norm == "torso":
            return self.torso_px
        if norm == "diagonal":
            return box_diagonals_px(self.boxes_xyxy)
        if norm == "image":
            return np.asarray(self.sizes_xy.max(axis=1))
        return box_heights_px(self.boxes_xyxy)


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What a COCO root says of its people.

    Attributes:
        root: The root.
        coco: Its annotation file; persons have the six joints, then the shoulders.
        people: Those who are scored.
        image_ids: The photographs that are scored, with people or without.
        annotations_sha256: Hash of the annotation file.
        skipped: How many annotations or images were left out, by reason.
    """

    root: CocoRoot
    coco: CocoFile
    people: People
    image_ids: tuple[int, ...]
    annotations_sha256: str
    skipped: Mapping[str, int]

    @property
    def name(self) -> str:
        """Name of the data in figures: the root's folder."""
        return self.root.folder.resolve().name

    def image_path(self, image_id: int) -> Path:
        """Return the file of a photograph."""
        return self.root.images / self.coco.images[image_id].file_name

    def without_images(self, left_out: Mapping[int, str]) -> Truth:
        """Return the truth without some photographs, each counted by its reason.

        Args:
            left_out: Reason by image id.
        """
        if not left_out:
            return self
        kept = ~np.isin(self.people.image_ids, np.array(list(left_out), np.int64))
        return replace(
            self,
            people=self.people.take(kept),
            image_ids=tuple(image_id for image_id in self.image_ids if image_id not in left_out),
            skipped=_added(self.skipped, Counter(left_out.values())),
        )

    def without_people(self, reasons: Mapping[int, str]) -> Truth:
        """Return the truth without some scored people, each counted by its reason.

        Args:
            reasons: Reason by row of `people`.
        """
        if not reasons:
            return self
        kept = np.ones(len(self.people), bool)
        kept[list(reasons)] = False
        return replace(self, people=self.people.take(kept), skipped=_added(self.skipped, Counter(reasons.values())))


def read_truth(root: CocoRoot, *, limit: int | None = None) -> Truth:
    """Read a root's annotations: people with a labelled leg joint who are no crowd are scored.

    Args:
        root: The root.
        limit: Take so many images with scored people, the first of the file; all when None.

    Raises:
        AnnotationError: The file cannot be read, or nobody in it has a labelled joint.
    """
    coco = read_coco(root.annotations, keypoints=_WITH_SHOULDERS)
    groups = coco.persons_by_image()
    scored_by_image = {image_id: [p for p in group if is_scored(p)] for image_id, group in groups.items()}
    chosen = [image_id for image_id, group in scored_by_image.items() if group][:limit]
    if not chosen:
        raise AnnotationError("has nobody with a labelled hip, knee or ankle", where=root.annotations)
    image_ids = tuple(groups) if limit is None else tuple(chosen)
    return Truth(
        root=root,
        coco=coco,
        people=_people(coco, [person for image_id in chosen for person in scored_by_image[image_id]], groups),
        image_ids=image_ids,
        annotations_sha256=hashlib.sha256(root.annotations.read_bytes()).hexdigest(),
        skipped=dict(coco.skipped),
    )


def is_scored(person: CocoPerson) -> bool:
    """Tell whether a person counts: no crowd, and a leg joint is labelled."""
    return not person.is_crowd and bool((person.visibility[:_LEGS] > 0).any())


def without_missing_images(
    truth: Truth, needed: Collection[int], *, allowed_share: float = DEFAULT_ALLOWED_MISSING
) -> Truth:
    """Return the truth without the photographs whose file is needed and not there.

    Args:
        truth: The annotated people.
        needed: Ids of the images that will be read; one on which nobody is looked for need not be there.
        allowed_share: So many of the needed ones may be missing.

    Raises:
        AnnotationError: There are none at all, or more than the allowed share is missing.
    """
    missing = {image_id: MISSING for image_id in needed if not truth.image_path(image_id).is_file()}
    check_missing(missing, needed, truth=truth, allowed_share=allowed_share)
    return truth.without_images(missing)


def check_missing(left_out: Mapping[int, str], needed: Collection[int], *, truth: Truth, allowed_share: float) -> None:
    """Raise if too many of the needed photographs cannot be used.

    Raises:
        AnnotationError: All are left out, or more than the allowed share.
    """
    if not left_out or (len(left_out) <= allowed_share * len(needed) and len(left_out) < len(needed)):
        return
    reasons = ", ".join(f"{reason}: {count}" for reason, count in Counter(left_out.values()).most_common())
    first = truth.image_path(next(iter(left_out)))
    every = len(left_out) == len(needed)
    raise AnnotationError(
        f"{len(left_out)} of {len(needed)} annotated images cannot be used ({reasons}; the first is {first})",
        where=truth.root.images,
        remedy="check --coco and --split" if every else "get the files, or allow it with --allow-missing SHARE",
    )


def _added(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return dict(Counter(first) + Counter(second))


def _people(coco: CocoFile, persons: Sequence[CocoPerson], groups: Mapping[int, Sequence[CocoPerson]]) -> People:
    joints = np.stack([person.joints_xy for person in persons])
    visibility = np.stack([person.visibility for person in persons])
    labelled = np.where((visibility > 0)[..., None], joints, np.nan)
    return People(
        ann_ids=np.array([person.ann_id for person in persons], np.int64),
        image_ids=np.array([person.image_id for person in persons], np.int64),
        boxes_xyxy=np.stack([person.box_xyxy for person in persons]),
        joints_xy=joints[:, :_LEGS],
        visibility=visibility[:, :_LEGS],
        areas=np.array([person.area for person in persons]),
        torso_px=torso_lengths_px(labelled[:, _LEFT_HIP], labelled[:, _RIGHT_SHOULDER]),
        sizes_xy=np.array([_size_xy(coco, person.image_id) for person in persons], np.float64),
        covered=np.array([_covered_share(person, groups[person.image_id]) for person in persons]),
    )


def _size_xy(coco: CocoFile, image_id: int) -> tuple[float, float]:
    size = coco.images[image_id].size
    return (np.nan, np.nan) if size is None else size.as_width_height


def _covered_share(person: CocoPerson, group: Sequence[CocoPerson]) -> float:
    """Return the largest share of a person's box that the box of another one on the image covers."""
    others = [other.box_xyxy for other in group if other is not person]
    if not others:
        return 0.0
    boxes, own = np.stack(others), person.box_xyxy
    sides = np.minimum(boxes[:, 2:], own[2:]) - np.maximum(boxes[:, :2], own[:2])
    overlaps = np.clip(sides, 0.0, None).prod(axis=1)
    return float(overlaps.max() / (own[2:] - own[:2]).prod())
