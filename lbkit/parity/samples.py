"""The people that two paths are compared on: of a COCO root, of a folder of pictures, or rendered from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lbkit.core.boxes import whole_image_box
from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.core.image_header import HeaderError, read_header
from lbkit.core.images import read_image
from lbkit.core.sources import find_pictures
from lbkit.errors import InputError
from lbkit.evaluation.truth import Truth
from lbkit.evaluation.walk import Target
from lbkit.synthetic.figures import Figure, random_figure

SIZES = tuple(
    ImageSize(*pair)
    for pair in ((333, 501), (641, 427), (480, 640), (359, 97), (613, 1021), (251, 379), (877, 493), (151, 463))
)
"""Heights and widths of rendered pictures: portrait and landscape, mostly odd, smaller and larger than a crop."""

DEFAULT_SYNTHETIC, MAX_SYNTHETIC = 24, 256
"""Rendered pictures are kept, at about 1 MB each."""

_OVERHANG = 0.35
"""A rendered person's box is shifted by up to this share of its sides, so that some leave the picture."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Boxes on photographs.

    Attributes:
        text: What they are, in words.
        targets: The boxes, rows from 0 on.
        read: Gives a photograph by its id; called in any thread.
        names: Name of each photograph by its id.
        sizes: What is known of its size beforehand, by its id.
        truth: The annotated people, one a target in the same order; None where there are none.
    """

    text: str
    targets: tuple[Target, ...]
    read: Callable[[int], ImageArray]
    names: Mapping[int, str]
    sizes: Mapping[int, ImageSize | None]
    truth: Truth | None = None


def annotated_samples(truth: Truth) -> Samples:
    """Return the scored people of a COCO root in their annotated boxes."""
    people = truth.people
    return Samples(
        text=f"people of {truth.name}, {truth.root.split} (annotations sha256 {truth.annotations_sha256[:12]})",
        targets=tuple(
            Target(row, int(image_id), box)
            for row, (image_id, box) in enumerate(zip(people.image_ids, people.boxes_xyxy, strict=True))
        ),
        read=lambda image_id: read_image(truth.image_path(image_id)),
        names={image_id: image.file_name for image_id, image in truth.coco.images.items()},
        sizes={image_id: image.size for image_id, image in truth.coco.images.items()},
        truth=truth,
    )


def folder_samples(folder: Path, *, limit: int | None = None) -> Samples:
    """Return two boxes on each picture of a folder: the whole picture, and an upright one that leaves it.

    Args:
        folder: The folder.
        limit: Take so many pictures, the first in natural order; all when None.

    Raises:
        InputError: The folder is not there or has no picture.
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=folder, remedy="check --images")
    found = list(find_pictures([str(folder)]))
    problems = [item for item in found if isinstance(item, InputError)]
    if problems:
        problem = problems[0].problem
        raise InputError(problem, where=folder, remedy="put pictures there, or give --images another folder")
    paths = dict(enumerate(item for item in found[:limit] if isinstance(item, Path)))
    targets = [
        Target(2 * number + index, number, box)
        for number, path in paths.items()
        for index, box in enumerate(_picture_boxes(_size_of(path)))
    ]
    return Samples(
        text=f"boxes on the pictures of {folder}: the whole picture, and one that leaves it",
        targets=tuple(targets),
        read=lambda number: read_image(paths[number]),
        names={number: path.name for number, path in paths.items()},
        sizes=dict.fromkeys(paths),
    )


def synthetic_samples(count: int, *, seed: int) -> Samples:
    """Return rendered people of odd sizes, portrait and landscape, some of whose boxes leave their picture.

    Args:
        count: How many, one a picture, at most `MAX_SYNTHETIC`.
        seed: Decides them all.

    Raises:
        InputError: The count is out of range.
    """
    if not 1 <= count <= MAX_SYNTHETIC:
        raise InputError(f"at least one person and at most {MAX_SYNTHETIC} are rendered, got {count}")
    figures = [_figure(number, seed) for number in range(count)]
    rng = np.random.default_rng([seed, 1])
    return Samples(
        text=f"rendered people of seed {seed}, in pictures of odd sizes",
        targets=tuple(
            Target(number, number, _shifted(figure.box_xyxy, figure.size, rng)) for number, figure in enumerate(figures)
        ),
        read=lambda number: figures[number].image,
        names={number: f"figure {number} of seed {seed}" for number in range(count)},
        sizes={number: figure.size for number, figure in enumerate(figures)},
    )


def _figure(number: int, seed: int) -> Figure:
    return random_figure(np.random.default_rng([seed, 0, number]), SIZES[number % len(SIZES)])


def _shifted(box_xyxy: NDArray[np.float64], size: ImageSize, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a box moved and scaled as a rough detector's is, still overlapping its picture."""
    sides = box_xyxy[2:] - box_xyxy[:2]
    shift = rng.uniform(-_OVERHANG, _OVERHANG, 2) * sides
    grown = rng.uniform(0.9, 1.3) * sides
    center = np.clip((box_xyxy[:2] + box_xyxy[2:]) / 2 + shift, 1.0, np.array(size.as_width_height) - 1.0)
    return np.concatenate([center - grown / 2, center + grown / 2])


def _picture_boxes(size: ImageSize | None) -> list[NDArray[np.float64]]:
    """Return the whole picture, and an upright box about its middle that leaves it below."""
    if size is None:  # a broken picture is counted when it is read
        return [np.array([0.0, 0.0, 8.0, 8.0])]
    width, height = size.as_width_height
    side = 0.3 * min(width, height)
    middle = np.array([width / 2 - side, 0.21 * height, width / 2 + side, 0.21 * height + height])
    return [whole_image_box(size), middle]


def _size_of(path: Path) -> ImageSize | None:
    """Return a picture's size as it is shown, from its header."""
    try:
        header = read_header(path.read_bytes())
    except (OSError, HeaderError):
        return None
    sides = (header.height, header.width)
    return ImageSize(*(sides if header.orientation < 5 else sides[::-1]))
