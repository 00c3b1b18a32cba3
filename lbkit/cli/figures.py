"""`lbkit figures`: pictures of mannequins with exact joints, to try everything else without photographs."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lbkit.cli.options import NearestChoice, force_option, is_quiet

if TYPE_CHECKING:
    from lbkit.synthetic.annotations import FigureFolder

    _SizeParam = click.ParamType[tuple[int, int]]
else:
    _SizeParam = click.ParamType  # not subscriptable before click 8.4

POSE_CHOICES = ("standing", "squatting", "lunging", "walking")
"""Spelled out, because importing `lbkit.synthetic` would bring NumPy into `lbkit --help`; a test keeps it equal."""


class SizeType(_SizeParam):
    """Height and width such as 480x640."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return (height, width), or fail with an example."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"([1-9]\d{0,4})[xX]([1-9]\d{0,4})", str(value).strip())
        if not found:
            self.fail(f"{value!r} is not height x width in pixels, such as 480x640", param, ctx)
        return int(found[1]), int(found[2])


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(min=1), default=12, show_default=True, metavar="N", help="How many.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Decides them all; the same seed gives the same pictures.",
)
@click.option(
    "--size",
    type=SizeType(),
    default="480x640",
    show_default=True,
    metavar="HxW",
    help="Height and width of the pictures in pixels.",
)
@click.option("--pose", type=NearestChoice(POSE_CHOICES), help="What the figures do.  [default: all of these]")
@force_option
def figures(*, folder: Path, size: tuple[int, int], force: bool, **chosen: Any) -> None:
    """Write pictures of rendered figures, with exact joints, into the folder DIR.

    Beside figure-000.png and so on, annotations.json holds every hip, knee and ankle, box and knee angle in COCO's
    format. Nothing is downloaded.
    """
    from lbkit.core.geometry import ImageSize
    from lbkit.synthetic.annotations import write_figures

    with _progress(chosen["count"]) as on_written:
        written = write_figures(folder, size=ImageSize(*size), force=force, on_written=on_written, **chosen)
    if not is_quiet():
        _tell(folder, written)


@contextlib.contextmanager
def _progress(count: int) -> Iterator[Callable[[Path], object]]:
    """Give what to call for each picture: it moves a bar on a terminal, and does nothing in a pipe."""
    if not sys.stderr.isatty() or is_quiet():
        yield lambda _: None
        return
    with click.progressbar(length=count, label="figures", file=sys.stderr) as bar:
        yield lambda _: bar.update(1)


def _tell(folder: Path, written: FigureFolder) -> None:
    number = len(written.images)
    click.echo(f"wrote {number} picture{'s' if number > 1 else ''} and {written.annotations}", err=True)
    click.echo(f"next: lbkit infer {folder} --boxes coco:{written.annotations} --draw {folder / 'drawn'}", err=True)
