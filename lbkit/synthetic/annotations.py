"""Figures as COCO keypoint annotations, and a folder of pictures with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from lbkit.core.files import atomic_path, refuse_overwrite
from lbkit.core.geometry import ImageSize
from lbkit.core.images import write_image
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.errors import InputError, OutputError
from lbkit.synthetic.figures import Figure, PoseName, random_figure

MAX_FIGURES = 100_000
"""Their annotations lie in memory until all are drawn, 11 kB each."""

# The joints of COCO's person category in its order (Lin et al., 2014), and the lines between them, counted from 1.
COCO_JOINT_NAMES: Final = (
    "nose",
    *(f"{side}_{joint}" for joint in ("eye", "ear", "shoulder", "elbow", "wrist") for side in ("left", "right")),
    *(f"{side}_{joint}" for joint in ("hip", "knee", "ankle") for side in ("left", "right")),
)
COCO_SKELETON: Final = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11),
    (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip
ANNOTATIONS_NAME: Final = "annotations.json"


@dataclass(frozen=True, slots=True)
class FigureFolder:
    """What was written.

    Attributes:
        images: The pictures, in order.
        annotations: The COCO file beside them.
    """

    images: tuple[Path, ...]
    annotations: Path


def coco_document(figures: Sequence[Figure], *, file_names: Sequence[str]) -> dict[str, Any]:
    """Return figures as a COCO keypoint document of 17-joint people of whom hips, knees and ankles are labelled.

    Joints are written as they are, in pixel-centre coordinates; boxes are left, top, width, height in edge coordinates.
    Images and annotations count from 1 in the order given.

    Args:
        figures: The figures.
        file_names: The name of each one's picture.

    Raises:
        ValueError: There are not as many names as figures.
    """
    pairs = list(zip(figures, file_names, strict=True))
    return _document(
        [_image_entry(figure.size, name, index) for index, (figure, name) in enumerate(pairs, 1)],
        [_annotation_entry(figure, index) for index, figure in enumerate(figures, 1)],
    )


def write_figures(
    folder: Path,
    *,
    count: int,
    seed: int,
    size: ImageSize,
    pose: PoseName | None = None,
    force: bool = False,
    on_written: Callable[[Path], object] | None = None,
) -> FigureFolder:
    """Write pictures figure-000.png and so on, and annotations.json, into a folder that is made if need be.

    Figure n of a seed is the same whatever the count. The annotations are written last, so that they never name a
    picture that is not there.

    Args:
        folder: Where to.
        count: How many.
        seed: Decides all of them.
        size: Size of the pictures.
        pose: What the figures do; all kinds when None.
        force: Whether files that are there are replaced.
        on_written: Called with each picture's path.

    Raises:
        InputError: The count is below 1 or above `MAX_FIGURES`, the size too small, or the seed negative.
        OutputError: A file is there and `force` is not set, or something cannot be written.
    """
    if count < 1 or seed < 0:
        raise InputError(f"count must be at least 1 and seed at least 0, got {count} and {seed}")
    if count > MAX_FIGURES:
        remedy = "fill several folders, each with its own seed"
        raise InputError(f"{count:,} figures are too many for a folder, which holds {MAX_FIGURES:,}", remedy=remedy)
    digits = max(3, len(str(count - 1)))
    paths = tuple(folder / f"figure-{index:0{digits}}.png" for index in range(count))
    annotations = folder / ANNOTATIONS_NAME
    _check_targets(folder, (*paths, annotations), force=force)
    images, people = [], []
    for index, path in enumerate(paths):
        figure = random_figure(np.random.default_rng([seed, index]), size, pose=pose)
        write_image(path, figure.image)
        images.append(_image_entry(figure.size, path.name, index + 1))
        people.append(_annotation_entry(figure, index + 1))
        if on_written is not None:
            on_written(path)
    with atomic_path(annotations) as temporary:
        temporary.write_text(json.dumps(_document(images, people), indent=1) + "\n", encoding="utf-8")
    return FigureFolder(paths, annotations)


def _check_targets(folder: Path, paths: Sequence[Path], *, force: bool) -> None:
    """Refuse before anything is rendered, not halfway."""
    if folder.exists() and not folder.is_dir():
        raise OutputError("is a file, and pictures should be written into a folder of that name", where=folder)
    for path in paths:
        refuse_overwrite(path, force=force)


def _document(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    category = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(COCO_JOINT_NAMES),
        "skeleton": [list(pair) for pair in COCO_SKELETON],
    }
    info = {"description": "Rendered figures with exact joints", "version": "1.0"}
    return {"info": info, "images": images, "annotations": annotations, "categories": [category]}


def _image_entry(size: ImageSize, name: str, image_id: int) -> dict[str, Any]:
    return {"id": image_id, "file_name": name, "height": size.height, "width": size.width}


def _annotation_entry(figure: Figure, entry_id: int) -> dict[str, Any]:
    """Return one person; an unlabelled joint is 0, 0, 0 as in COCO."""
    keypoints = np.zeros((len(COCO_JOINT_NAMES), 3))
    labelled = figure.joints_visible > 0
    rows = np.array(LOWER_BODY_6.coco_indices)[labelled]
    keypoints[rows, :2] = np.round(figure.joints_xy[labelled], 4)
    keypoints[rows, 2] = figure.joints_visible[labelled]
    left, top, right, bottom = figure.box_xyxy.tolist()
    return {
        "id": entry_id,
        "image_id": entry_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [left, top, right - left, bottom - top],
        "area": figure.area_px,
        "num_keypoints": int(labelled.sum()),
        "keypoints": [
            int(value) if index % 3 == 2 else value for index, value in enumerate(keypoints.ravel().tolist())
        ],
        "pose": figure.pose,
        "view": figure.view,
        "knee_flexion_deg": np.round(figure.knee_flexion_deg, 6).tolist(),
    }
