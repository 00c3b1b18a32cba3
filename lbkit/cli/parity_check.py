"""`lbkit parity-check`: whether a deployed file does what its checkpoint does, and if not, where it goes wrong."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lbkit.cli.options import (
    PROVIDER_CHOICES,
    NearestChoice,
    Share,
    force_option,
    is_quiet,
    json_option,
    threads_option,
)
from lbkit.cli.report import native_stderr_silenced
from lbkit.errors import VerdictError

if TYPE_CHECKING:
    from lbkit.parity.check import Checked
    from lbkit.parity.samples import Samples

PAGE_NAME, FIGURES_NAME = "parity.html", "parity.json"
DEFAULT_SYNTHETIC, MAX_SYNTHETIC, BATCH_SIZE = 24, 256, 8
"""`lbkit.parity.samples`' and `lbkit.parity.check`'s, spelled out to keep NumPy out of `--help`; a test keeps them
equal."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What the command line asks for, besides how files are run."""

    models: tuple[str, ...]
    images: Path | None
    coco: Path | None
    split: str
    limit: int | None
    samples: int
    seed: int
    their_tensor: Path | None
    write_golden: Path | None
    report: Path | None
    force: bool
    as_json: bool


@click.command("parity-check")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--provider",
    "providers",
    type=NearestChoice(PROVIDER_CHOICES),
    multiple=True,
    default=("cpu",),
    show_default=True,
    help="Where the files run; give it several times for several.",
)
@click.option(
    "--checkpoint",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The reference.  [default: the checkpoint of the same weights in LBKIT_CHECKPOINTS or training/checkpoints]",
)
@click.option(
    "--preset", metavar="NAME|FILE.toml", help="Limits: fp32, fp16, int8, or your own.  [default: by each file]"
)
@click.option(
    "--images",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Compare on the pictures of a folder.",
)
@click.option(
    "--coco",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="ROOT",
    help="Compare on annotated people: annotations/person_keypoints_SPLIT.json and SPLIT/*.jpg.",
)
@click.option("--split", default="val2017", show_default=True, metavar="NAME", help="Which part of the root.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Take only the first N photographs.")
@click.option(
    "--samples",
    type=click.IntRange(1, MAX_SYNTHETIC),
    default=DEFAULT_SYNTHETIC,
    show_default=True,
    metavar="N",
    help="Without --images and --coco: so many rendered people.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Decides them.")
@click.option("--bisect", is_flag=True, help="Name the first node whose output leaves tolerance, with its module.")
@click.option(
    "--their-tensor",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.npy",
    help="Name the mistakes in what another program's preprocessing makes of the golden picture.",
)
@click.option(
    "--write-golden",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write that picture and its box there.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=BATCH_SIZE, show_default=True, metavar="N",
              help="People that run through a model at once.")  # fmt: skip
@threads_option
@click.option(
    "--allow-missing",
    type=Share(),
    default=0.01,
    show_default=True,
    metavar="SHARE",
    help="So many of the photographs may be missing or unreadable.",
)
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help=f"Write {PAGE_NAME}, with the people drawn whose joints moved most, and {FIGURES_NAME} there.",
)
@force_option
@json_option
def parity_check(
    *,
    providers: tuple[str, ...],
    checkpoint: Path | None,
    preset: str | None,
    bisect: bool,
    batch_size: int,
    threads: int | None,
    allow_missing: float,
    **chosen: Any,
) -> None:
    """Compare ONNX files with the PyTorch checkpoints they were made from, stage by stage.

    Without MODEL every exported and shipped one is compared. Exit code 3 says that a stage leaves its limits, and
    names it; 1 that a file could not be run.
    """
    request = _checked(_Request(**chosen))
    if request.write_golden is not None:
        _write_golden(request.write_golden, force=request.force)
        return
    if request.their_tensor is not None:
        _name_mistakes(request)
        return
    from lbkit.core.files import refuse_overwrite
    from lbkit.parity.check import CheckOptions, check_models

    for target in _report_files(request):
        refuse_overwrite(target, force=request.force)
    options = CheckOptions(
        tuple(dict.fromkeys(providers)), checkpoint, preset, bisect, batch_size, threads, allow_missing
    )
    with native_stderr_silenced():
        samples = _samples(request, allow_missing=allow_missing)
        with _progress(len({target.image_id for target in samples.targets})) as on_image:
            checked = check_models(_models(request), samples, options=options, on_image=on_image)
        _write_report(request, checked)
    _tell(request, checked)
    _end(request, checked)


def _checked(request: _Request) -> _Request:
    """Refuse what does not go together."""
    if request.images is not None and request.coco is not None:
        raise click.UsageError("--images and --coco exclude each other.")
    if request.their_tensor is not None and len(request.models) > 1:
        raise click.UsageError("--their-tensor is compared with one MODEL.")
    return request


def _models(request: _Request) -> list[str]:
    from lbkit.evaluation.candidates import default_models

    return list(request.models) or default_models("ort")


def _samples(request: _Request, *, allow_missing: float) -> Samples:
    from lbkit.parity.samples import annotated_samples, folder_samples, synthetic_samples

    if request.images is not None:
        return folder_samples(request.images, limit=request.limit)
    if request.coco is not None:
        from lbkit.evaluation.persons import CocoRoot
        from lbkit.evaluation.truth import read_truth, without_missing_images

        truth = read_truth(CocoRoot(request.coco, request.split), limit=request.limit)
        needed = set(truth.people.image_ids.tolist())
        return annotated_samples(without_missing_images(truth, needed, allowed_share=allow_missing))
    return synthetic_samples(request.samples, seed=request.seed)


@contextlib.contextmanager
def _progress(count: int) -> Iterator[Callable[[], object]]:
    """Give what to call for each photograph: it moves a bar on a terminal, and does nothing in a pipe."""
    if not sys.stderr.isatty() or is_quiet():
        yield lambda: None
        return
    with click.progressbar(length=count, label="photographs", file=sys.stderr) as bar:
        yield lambda: bar.update(1)


def _report_files(request: _Request) -> list[Path]:
    return [] if request.report is None else [request.report / PAGE_NAME, request.report / FIGURES_NAME]


def _write_report(request: _Request, checked: Checked) -> None:
    if request.report is None:
        return
    from lbkit.core.files import atomic_path
    from lbkit.parity.report import parity_document, parity_page

    page, figures = _report_files(request)
    parity_page(checked).write(page, force=request.force)
    with atomic_path(figures) as temporary:
        text = json.dumps(parity_document(checked), indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    if not is_quiet():
        click.echo(f"wrote {page} and {figures.name}", err=True)


def _tell(request: _Request, checked: Checked) -> None:
    from lbkit.parity.report import culprit_text, node_text, parity_document, terminal_rows, verdict_text

    report = checked.report
    for reason, count in report.samples.left_out.items():
        click.echo(f"left out: {reason}: {count}", err=True)
    for problem in report.problems:
        click.echo(f"could not run: {problem.model} on {problem.provider}: {problem.text}", err=True)
    if request.as_json:
        click.echo(json.dumps(parity_document(checked), indent=2, allow_nan=False))
        return
    if report.candidates:  # a table of files that could not be run says nothing more than the lines above
        _print_table(terminal_rows(report))
    for item in report.candidates:
        if not item.passed:
            click.echo(f"{item.name} on {item.provider} failed: {culprit_text(item)}")
        elif item.node is not None:
            click.echo(f"{item.name} on {item.provider}: {node_text(item.node)}")
    click.echo(f"{'passed' if report.passed else 'not passed'}: {verdict_text(report)}")


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    if not sys.stdout.isatty():
        click.echo("\n".join("\t".join(row) for row in rows))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, name in enumerate(rows[0]):
        table.add_column(Text(name), justify="right" if number else "left")
    for row in rows[1:]:
        styles = {"failed": "bold red", "could not run": "bold red", "passed": "green"}
        table.add_row(*(Text(cell, style=styles.get(cell.split(":")[0], "")) for cell in row))
    Console().print(table)


def _end(request: _Request, checked: Checked) -> None:
    """Print the next command, and end with 1 where a file could not be run and 3 where one failed."""
    report = checked.report
    if report.candidates and not is_quiet():
        click.echo(f"next: {_next_command(request, checked)}", err=True)
    if report.problems:
        click.get_current_context().exit(1)
    failed = [item.name for item in report.candidates if not item.passed]
    if failed:
        raise VerdictError(f"{', '.join(failed)} not as the checkpoint", remedy="see the stage above, or give --bisect")


def _next_command(request: _Request, checked: Checked) -> str:
    models = shlex.join(request.models)
    failed = [item for item in checked.report.candidates if not item.passed]
    if failed and failed[0].node is None:
        return f"lbkit parity-check {shlex.quote(str(failed[0].file))} --bisect"
    if request.coco is None:
        return " ".join(f"lbkit parity-check {models} --coco ROOT --report report".split())
    return " ".join(f"lbkit eval {models} --coco {shlex.quote(str(request.coco))}".split())


def _write_golden(folder: Path, *, force: bool) -> None:
    from lbkit.parity.mistakes import write_golden

    for path in write_golden(folder, force=force):
        click.echo(f"wrote {path}", err=True)
    if not is_quiet():
        click.echo("next: lbkit parity-check MODEL --their-tensor tensor.npy", err=True)


def _name_mistakes(request: _Request) -> None:
    from lbkit.parity.mistakes import diagnose_file

    assert request.their_tensor is not None  # the caller has seen it
    diagnosis = diagnose_file(request.their_tensor, model=request.models[0] if request.models else None)
    if request.as_json:
        click.echo(json.dumps(diagnosis.to_dict(), indent=2))
    else:
        click.echo(diagnosis.text)
    if not diagnosis.is_right:
        raise VerdictError("their tensor is not what the model was trained on", where=request.their_tensor)
