"""The pictures that are measured on: somebody's photographs or rendered figures, repeated through links."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import click
import numpy as np

from lbkit.core.geometry import ImageSize
from lbkit.core.images import read_image, write_image
from lbkit.core.sources import find_pictures
from lbkit.errors import ImageReadError, InputError
from lbkit.synthetic.figures import random_figure

FIGURE_SIZE = ImageSize(480, 640)


@dataclass(frozen=True, slots=True)
class PictureSet:
    """Different pictures, all readable.

    Attributes:
        paths: The files.
        kind: What they are, in words.
        mean_megapixels: Mean size.
        mean_kilobytes: Mean file size.
    """

    paths: tuple[Path, ...]
    kind: str
    mean_megapixels: float
    mean_kilobytes: float

    def __str__(self) -> str:
        each = f"{self.mean_megapixels:.2f} megapixels and {self.mean_kilobytes:.0f} kB each"
        return f"{len(self.paths)} different {self.kind} of about {each}"


def chosen_pictures(photos: Path | None, folder: Path, count: int) -> PictureSet:
    """Take a folder's photographs, or render figures where none is given.

    Args:
        photos: The photographs.
        folder: Where figures are written.
        count: How many at most.

    Raises:
        ClickException: No photograph can be read.
    """
    return rendered_figures(folder, count) if photos is None else photographs(photos, count)


def rendered_figures(folder: Path, count: int) -> PictureSet:
    """Render figures and write them as JPEG.

    Args:
        folder: Where to.
        count: How many.
    """
    paths = [folder / f"figure-{index:03}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        write_image(path, random_figure(np.random.default_rng([0, index]), FIGURE_SIZE).image)
    return _picture_set(paths, "rendered figures")


def photographs(folder: Path, limit: int) -> PictureSet:
    """Take the first pictures of a folder that can be read; reading also brings them into the system's cache.

    Args:
        folder: Where they are, without subfolders.
        limit: How many at most.

    Raises:
        ClickException: There is none.
    """
    paths: list[Path] = []
    for found in find_pictures([str(folder)]):
        if len(paths) < limit and not isinstance(found, InputError) and _is_readable(found):
            paths.append(found)
    if not paths:
        raise click.ClickException(f"no readable picture in {folder}")
    return _picture_set(paths, "photographs")


def repeat_pictures(pictures: Sequence[Path], folder: Path, count: int) -> list[Path]:
    """Fill a new folder with links to the pictures, again and again, and return the links in order.

    Args:
        pictures: The files.
        folder: Made here.
        count: How many links.
    """
    folder.mkdir(parents=True)
    links = []
    for index, picture in enumerate(islice(cycle(pictures), count)):
        link = folder / f"{index:06}{picture.suffix}"
        _link(picture.resolve(), link)
        links.append(link)
    return links


def _link(picture: Path, link: Path) -> None:
    try:
        os.link(picture, link)
    except OSError:  # another file system, or a system that refuses hard links to other people's files
        link.symlink_to(picture)


def _is_readable(path: Path) -> bool:
    try:
        read_image(path)
    except ImageReadError:
        return False
    return True


def _picture_set(paths: Sequence[Path], kind: str) -> PictureSet:
    sizes = [ImageSize.of(read_image(path)) for path in paths]
    return PictureSet(
        paths=tuple(paths),
        kind=kind,
        mean_megapixels=float(np.mean([size.height * size.width for size in sizes])) / 1e6,
        mean_kilobytes=float(np.mean([path.stat().st_size for path in paths])) / 1e3,
    )
