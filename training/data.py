"""Get COCO, cut it down, and let a teacher check labels: `python -m training.data download|subset|teach`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import click
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from lbkit.cli.options import NearestChoice, force_option, json_option
from training.download import COCO_ARCHIVES, COCO_URL, Watch, download_coco, next_command
from training.endings import errors_as_lines, tell_error
from training.subsets import MINI_PERSONS, RULES, SubsetReport, SubsetRule, write_subset

log = logging.getLogger(__name__)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Training data: the official COCO archives, subsets of annotation files by rule, labels checked by a teacher."""


@main.command()
@click.option("--root", required=True, type=click.Path(file_okay=False, path_type=Path), help="The COCO root to fill.")
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=NearestChoice(tuple(COCO_ARCHIVES)),
    help="What to get; may be given several times.  [default: all]",
)
@click.option("--url", default=COCO_URL, show_default=True, metavar="BASE", help="Server with COCO's zips/ and so on.")
@click.option("--keep-archives", is_flag=True, help="Keep the ZIP files once they are unpacked.")
@click.pass_context
def download(ctx: click.Context, *, root: Path, parts: tuple[str, ...], url: str, keep_archives: bool) -> None:
    """Get COCO's archives (20.4 GB), check them and unpack them; the same line goes on after a stop."""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise click.BadParameter(f"{url!r} does not begin with http:// or https:// and a host", param_hint="--url")
    console = Console(stderr=True)
    _start_logging(console)
    with errors_as_lines(on_interrupt="run the same line again to go on"), _Progress(console) as watch:
        report = download_coco(
            root, parts or tuple(COCO_ARCHIVES), base_url=url, keep_archives=keep_archives, watch=watch
        )
    for problem in report.problems:
        tell_error(problem)
    if report.whole:
        click.echo(f"whole in {root}: {', '.join(report.whole)}")
        click.echo(f"next: {next_command(report)}")
    ctx.exit(1 if report.problems else 0)


@main.command()
@click.argument("annotations", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--rule", required=True, type=NearestChoice(RULES), help="Whom to keep.")
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.json")
@click.option("--persons", type=click.IntRange(min=1), help=f"Size of the mini sample.  [default: {MINI_PERSONS}]")
@click.option("--seed", type=int, help="Of the mini sample.  [default: 1]")
@click.option(
    "--images",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of the pictures: leave out persons whose picture is missing there.",
)
@force_option
@json_option
def subset(
    annotations: Path,
    *,
    rule: str,
    output: Path,
    persons: int | None,
    seed: int | None,
    images: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the persons of a COCO keypoint file that a rule keeps, and tell why not the others.

    full: a labelled keypoint; mini: a sample of full; lower-body: hips, knees and ankles all labelled (v > 0);
    lower-body-visible: all six visible (v = 2).
    """
    given: dict[str, Any] = {"persons": persons, "seed": seed}
    given = {name: value for name, value in given.items() if value is not None}
    if given and rule != "mini":
        raise click.UsageError(f"--{next(iter(given))} goes with --rule mini only")
    _start_logging(Console(stderr=True))
    with errors_as_lines(on_interrupt="nothing was written"):
        asked = SubsetRule(rule, **given)  # type: ignore[arg-type]
        report = write_subset(annotations, output, rule=asked, images=images, force=force)
    if as_json:
        click.echo(json.dumps({**report.to_dict(), "output": str(output)}, indent=2))
        return
    for line in _lines(report):
        click.echo(line)
    click.echo(f"wrote {output}")


@main.command()
@click.argument("annotations", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--images", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option(
    "--teacher",
    "teacher_path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="MOVENET.onnx",
    help="MoveNet single pose: int32 (1, S, S, 3) in, (1, 1, 17, 3) out.",
)
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.json")
@force_option
def teach(annotations: Path, *, images: Path, teacher_path: Path, output: Path, force: bool) -> None:
    """Write a COCO file again with unlabelled joints filled in, as v = 1, and contradicted labels taken out."""
    from training.teacher import MoveNet
    from training.teacher import teach as hear

    console = Console(stderr=True)
    _start_logging(console)
    with errors_as_lines(on_interrupt="nothing was written"), _Progress(console, unit="people") as watch:
        done = hear(
            annotations,
            output,
            images=images,
            teacher=MoveNet(teacher_path),
            teacher_name=teacher_path.name,
            force=force,
            watch=lambda people, total: watch(annotations.name, people, total),
        )
    for what, count in done.items():
        click.echo(f"{what:<24}{count:>10,}")
    click.echo(f"wrote {output}")


def _lines(report: SubsetReport) -> Iterator[str]:
    yield f"{report.source}, rule {report.rule.name}"
    yield from _rows("annotations", report.annotations, kept=report.persons, left_out=report.left_out)
    yield from _rows("images", report.source_images, kept=report.images, left_out=report.images_left_out)
    yield ""
    yield f"{'joint':<16}{'v > 0':>10}{'v = 2':>10}{'v = 1':>10}{'outside':>10}"
    for name, count in report.joints.items():
        yield f"{name:<16}{count.labelled:>10,}{count.visible:>10,}{count.hidden:>10,}{count.outside:>10,}"


def _rows(what: str, total: int, *, kept: int, left_out: Mapping[str, int]) -> Iterator[str]:
    width = max(map(len, ["kept", *left_out])) + 2
    yield ""
    yield f"{what:<{width}}{total:>10,}"
    yield f"  {'kept':<{width - 2}}{kept:>10,}"
    for reason, count in left_out.items():
        yield f"  {reason:<{width - 2}}{count:>10,}"


def _start_logging(console: Console) -> None:
    """Log to stderr; on a terminal through the console that draws the bars, so that neither breaks the other."""
    if console.is_terminal:
        plain = RichHandler(console=console, show_path=False, show_level=False, log_time_format="%H:%M:%S")
        plain.setFormatter(logging.Formatter("%(message)s"))
        logging.basicConfig(level=logging.INFO, handlers=[plain])
    else:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


class _Progress:
    """Shows progress as bars on a terminal, and logs every tenth of it elsewhere.

    Args:
        console: Where stderr goes.
        unit: What is counted: "bytes", or anything that a log line should name.
    """

    def __init__(self, console: Console, *, unit: str = "bytes") -> None:
        bytes_columns = (DownloadColumn(), TransferSpeedColumn())
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            *(bytes_columns if unit == "bytes" else (MofNCompleteColumn(), TextColumn(unit))),
        )
        self._unit = unit
        is_shown = console.is_terminal
        self._bars = Progress(*columns, TimeRemainingColumn(), console=console) if is_shown else None
        self._tasks: dict[str, Any] = {}
        self._tenths: dict[str, int] = {}

    def __enter__(self) -> Watch:
        if self._bars is None:
            return self._log
        self._bars.start()
        return self._draw

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def _draw(self, what: str, done: int, total: int) -> None:
        if self._bars is None:
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total, completed=done)
        self._bars.update(self._tasks[what], completed=done)

    def _log(self, what: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth != self._tenths.get(what):
            self._tenths[what] = tenth
            share = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if self._unit == "bytes" else f"{done} of {total}"
            log.info("%s: %d %%, %s", what, 10 * tenth, share)


if __name__ == "__main__":
    main()
