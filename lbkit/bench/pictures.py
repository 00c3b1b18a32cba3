"""What is measured on: picture files, each with one person that fills it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from lbkit.core.boxes import whole_image_box
from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import ImageSize
from lbkit.core.images import read_image, write_image
from lbkit.core.preprocess import crop_person
from lbkit.core.sources import find_pictures
from lbkit.errors import ImageReadError, InputError
from lbkit.synthetic.figures import random_figure

FIGURES = 8
FIGURE_SIZE = ImageSize(480, 640)
MOST_PICTURES = 64


def rendered_pictures(folder: Path) -> list[Path]:
    """Render `FIGURES` people as JPEG files.

    Args:
        folder: Where to.
    """
    paths = [folder / f"figure-{number}.jpg" for number in range(FIGURES)]
    for number, path in enumerate(paths):
        write_image(path, random_figure(np.random.default_rng([0, number]), FIGURE_SIZE).image)
    return paths


def readable_pictures(source: Path) -> list[Path]:
    """Return the first `MOST_PICTURES` pictures of a folder that can be read; reading also brings them into the cache.

    Raises:
        InputError: There is none.
    """
    found = (path for path in find_pictures([str(source)]) if not isinstance(path, InputError))
    paths = list(islice((path for path in found if _is_readable(path)), MOST_PICTURES))
    if not paths:
        raise InputError("has no picture that can be read", where=source, remedy="give a folder of photographs")
    return paths


def run_once(estimator: PoseEstimator, pictures: Sequence[Path], *, first: int, count: int) -> tuple[float, ...]:
    """Take people from file to joints, one stage after the other, and return the seconds of each stage.

    Args:
        estimator: The model.
        pictures: Used in turn, again and again.
        first: Which one to begin with.
        count: How many people, one a picture.
    """
    paths = list(islice(cycle(pictures), first % len(pictures), first % len(pictures) + count))
    marks = [time.perf_counter()]
    images = [read_image(path) for path in paths]
    marks.append(time.perf_counter())
    boxes = [whole_image_box(ImageSize.of(image)) for image in images]
    cut = [crop_person(image, box, contract=estimator.contract) for image, box in zip(images, boxes, strict=True)]
    batch = np.stack([crop for crop, _ in cut])
    marks.append(time.perf_counter())
    output = estimator.backend.run(batch)
    marks.append(time.perf_counter())
    joints = estimator.decode(output).astype(np.float64)
    for person, (_, transform) in zip(joints, cut, strict=True):
        person[:, :2] = transform.to_image(person[:, :2])
    marks.append(time.perf_counter())
    return tuple(np.diff(marks).tolist())


def _is_readable(path: Path) -> bool:
    try:
        read_image(path)
    except ImageReadError:
        return False
    return True
