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

VIEW_CHOICES = ("frontal", "oblique", "side")
"""`lbkit.motion.clip.AZIMUTHS_DEG`, spelled out likewise."""

MAX_SQUATS = 1000
"""Some hours of a clip."""

CLIP_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
"""What the name of a clip ends in."""


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
@click.argument("target", metavar="DIR|CLIP.mp4", type=click.Path(path_type=Path))
@click.option(
    "--count", type=click.IntRange(min=1), metavar="N", help="How many.  [default: 12 pictures, or 5 squats in a clip]"
)
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
@click.option("--view", type=NearestChoice(VIEW_CHOICES), help="From where a clip is filmed.  [default: side]")
@force_option
def figures(
    *, target: Path, size: tuple[int, int], count: int | None, pose: str | None, view: str | None, **chosen: Any
) -> None:
    """Write pictures of rendered figures, with exact joints, into the folder DIR, or a clip of squats.

    Beside figure-000.png and so on, annotations.json holds every hip, knee and ankle, box and knee angle in COCO's
    format. A clip shows one figure that squats, to try `lbkit squat` on. Nothing is downloaded.
    """
    if target.suffix.lower() in CLIP_SUFFIXES:
        if pose is not None:
            raise click.UsageError("--pose is for pictures; a clip shows squats.")
        if count is not None and count > MAX_SQUATS:
            raise click.UsageError(f"--count {count}: a clip has at most {MAX_SQUATS} squats; make several.")
        _write_clip(target, size=size, count=count or 5, view=view or "side", **chosen)
        return
    if view is not None:
        raise click.UsageError("--view is for a clip; name one such as squats.mp4.")
    if target.is_file():
        raise click.UsageError(f"{target} is a file, and pictures are written into a folder.")
    _write_pictures(target, size=size, count=count or 12, pose=pose, **chosen)


def _write_pictures(folder: Path, *, size: tuple[int, int], force: bool, **chosen: Any) -> None:
    from lbkit.core.geometry import ImageSize
    from lbkit.synthetic.annotations import write_figures

    with _progress(chosen["count"]) as on_written:
        written = write_figures(folder, size=ImageSize(*size), force=force, on_written=on_written, **chosen)
    if not is_quiet():
        _tell(folder, written)


def _write_clip(path: Path, *, size: tuple[int, int], count: int, view: Any, seed: int, force: bool) -> None:
    import numpy as np

    from lbkit.core.geometry import ImageSize
    from lbkit.motion.clip import ClipPlan, random_squats, rendered_frames
    from lbkit.video.sink import VideoWriter

    squats = random_squats(np.random.default_rng(seed), count=count)
    plan = ClipPlan(squats, view, ImageSize(*size), seed=seed)
    with (
        VideoWriter(path, size=plan.size, frames_per_s=plan.frames_per_s, force=force) as writer,
        _progress(plan.frame_count) as on_written,
    ):
        for time_s, figure in rendered_frames(plan):
            writer.write(time_s, figure.image)
            on_written(path)
    if not is_quiet():
        depths = ", ".join(f"{squat.depth_deg:.0f}" for squat in squats)
        click.echo(f"wrote {path}: {count} squat{'' if count == 1 else 's'}, knees bent {depths} degrees", err=True)
        click.echo(f"next: lbkit squat {path}", err=True)


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
