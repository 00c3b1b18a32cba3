"""The joints: their names, order, left/right pairs and OKS constants."""

from __future__ import annotations

from dataclasses import dataclass

COCO_JOINTS = 17


@dataclass(frozen=True, slots=True)
class KeypointSchema:
    """A set of K joints in a fixed order.

    Attributes:
        names: K names, in the order of every array that lbkit returns.
        flip_pairs: Index pairs (left, right) that change places in a mirrored image.
        skeleton: Index pairs that a drawing joins by a line.
        oks_sigmas: K per-joint constants of object keypoint similarity (COCO keypoint evaluation, 2017).
        coco_indices: K positions of these joints in COCO's list of 17.
    """

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    skeleton: tuple[tuple[int, int], ...]
    oks_sigmas: tuple[float, ...]
    coco_indices: tuple[int, ...]

    def __post_init__(self) -> None:
        count = len(self.names)
        if len(set(self.names)) != count or count == 0:
            raise ValueError("names must be unique and at least one")
        if len(self.oks_sigmas) != count or len(self.coco_indices) != count:
            raise ValueError(f"{count} names need {count} oks_sigmas and coco_indices")
        indices = [index for pair in (*self.flip_pairs, *self.skeleton) for index in pair]
        if any(not 0 <= index < count for index in indices):
            raise ValueError(f"flip_pairs and skeleton must index the {count} names")
        if any(not 0 <= index < COCO_JOINTS for index in self.coco_indices):
            raise ValueError(f"coco_indices must index COCO's {COCO_JOINTS} joints, got {self.coco_indices}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def flip_order(self) -> tuple[int, ...]:
        """The permutation of joints that mirroring an image brings about."""
        order = list(range(len(self)))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return tuple(order)


LOWER_BODY_6 = KeypointSchema(
    names=("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
    flip_pairs=((0, 1), (2, 3), (4, 5)),
    skeleton=((0, 1), (0, 2), (2, 4), (1, 3), (3, 5)),
    oks_sigmas=(0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
    coco_indices=(11, 12, 13, 14, 15, 16),
)
"""Hips, knees and ankles; left is the person's own left (COCO's joints 11 to 16)."""
