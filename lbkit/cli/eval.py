"""`lbkit eval`: how right models are on annotated photographs, as a table, JSON, a page, a gate, and the model card."""

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
    NearestChoice,
    Share,
    decoder_option,
    force_option,
    is_quiet,
    json_option,
    provider_option,
    threads_option,
)
from lbkit.cli.report import native_stderr_silenced
from lbkit.errors import VerdictError

if TYPE_CHECKING:
    from lbkit.evaluation.evaluate import Judged
    from lbkit.evaluation.truth import Truth

BACKEND_CHOICES = ("ort", "torch")
NORM_CHOICES = ("box", "torso", "diagonal", "image")
"""Spelled out to keep NumPy out of `--help`; a test keeps it equal to `lbkit.evaluation.pck.PCK_NORMS`."""

ANNOTATED_BOXES = "gt"
BATCH_SIZE = 16
PAGE_NAME, FIGURES_NAME = "evaluation.html", "evaluation.json"


@dataclass(frozen=True, slots=True)
class _Request:
    """What the command line asks for, besides how models are loaded."""

    models: tuple[str, ...]
    coco: Path
    split: str
    boxes: str
    results: Path | None
    norm: Any
    min_pck: float | None
    min_ap: float | None
    allow_missing: float
    limit: int | None
    report: Path | None
    write_card: bool
    force: bool
    as_json: bool


@click.command("eval")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--coco",
    required=True,
    envvar="LBKIT_COCO",
    show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="ROOT",
    help="Folder with annotations/person_keypoints_SPLIT.json and SPLIT/*.jpg.",
)
@click.option("--split", default="val2017", show_default=True, metavar="NAME", help="Which part of the root.")
@provider_option
@click.option(
    "--backend",
    type=NearestChoice(BACKEND_CHOICES),
    help="ort runs ONNX files, torch checkpoints (also by name).  [default: torch for .safetensors, else ort]",
)
@click.option(
    "--boxes",
    default=ANNOTATED_BOXES,
    show_default=True,
    metavar="gt|FILE.json",
    help="Where people are looked for: the annotated boxes, or a COCO result list of a detector's.",
)
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.json",
    help="Judge COCO keypoint results that another program wrote (17 joints or the six), instead of a model.",
)
@click.option("--flip", is_flag=True, help="Average over the mirror image, at twice the time.")
@decoder_option
@click.option(
    "--pck-norm",
    "norm",
    type=NearestChoice(NORM_CHOICES),
    default="box",
    show_default=True,
    help="What t of PCK@t is multiplied with: the height of the box made 4:3, the torso, the box's diagonal, or the "
    "picture's longer side.",
)
@click.option("--min-pck", type=Share(), metavar="X", help="Fail (exit 3) below this PCK@0.05 over labelled joints.")
@click.option("--min-ap", type=Share(), metavar="X", help="Fail (exit 3) below this OKS AP.")
@click.option(
    "--allow-missing",
    type=Share(),
    default=0.01,
    show_default=True,
    metavar="SHARE",
    help="So many of the images may be missing or unreadable.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Take only the first N images with people.")
@click.option("--batch-size", type=click.IntRange(min=1), default=BATCH_SIZE, show_default=True, metavar="N",
              help="People that run through a model at once.")  # fmt: skip
@threads_option
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help=f"Write {PAGE_NAME}, with the worst people drawn, and {FIGURES_NAME} there.",
)
@click.option("--write-card", is_flag=True, help="Put the figures into each ONNX file and the JSON beside it.")
@force_option
@json_option
def evaluate(
    *, backend: Any, provider: str, flip: bool, decoder: Any, batch_size: int, threads: int | None, **chosen: Any
) -> None:
    """Measure models on annotated photographs: PCK with intervals, OKS AP of the six joints, slices, knee angles.

    Without MODEL every exported and shipped one is measured. Exit code 3 says that --min-pck or --min-ap is not
    reached.
    """
    request = _checked(_Request(**chosen), backend=backend)
    from lbkit.core.files import refuse_overwrite
    from lbkit.evaluation.candidates import CandidateOptions
    from lbkit.evaluation.gate import Limits

    for target in _report_files(request):
        refuse_overwrite(target, force=request.force)
    options = CandidateOptions(backend, provider, decoder, flip, batch_size, threads)
    with native_stderr_silenced():
        judged, truth = _judge(request, options)
        verdict = Limits(request.min_pck, request.min_ap).verdict([item.evaluation for item in judged])
        _write_report(request, judged, truth, verdict)
    _tell(request, judged, verdict)
    _write_cards(request, judged)
    if not is_quiet():
        click.echo(f"next: {_next_command(request)}", err=True)
    if verdict is not None and not verdict[0]:
        raise VerdictError(verdict[1])


def _checked(request: _Request, *, backend: str | None) -> _Request:
    """Refuse what does not go together."""
    if request.results is not None and (request.models or request.boxes != ANNOTATED_BOXES):
        raise click.UsageError("--results stands alone: it takes neither MODEL nor --boxes.")
    if not request.write_card:
        return request
    has_checkpoint = any(model.endswith(".safetensors") for model in request.models)
    if request.results is not None or backend == "torch" or has_checkpoint:
        raise click.UsageError("--write-card needs ONNX files.")
    if request.limit is not None:
        raise click.UsageError("--write-card measures all images; leave out --limit.")
    return request


def _judge(request: _Request, options: Any) -> tuple[list[Judged], Truth]:
    from lbkit.evaluation.candidates import default_models, load_candidates
    from lbkit.evaluation.evaluate import EvaluationOptions, evaluate_models, evaluate_results
    from lbkit.evaluation.persons import CocoRoot
    from lbkit.evaluation.truth import read_truth

    truth = read_truth(CocoRoot(request.coco, request.split), limit=request.limit)
    if request.results is not None:
        judged, truth = evaluate_results(request.results, truth, norm=request.norm)
        return [judged], truth
    boxes = None if request.boxes == ANNOTATED_BOXES else Path(request.boxes)
    candidates = load_candidates(request.models or default_models(options.backend), options)
    with _progress(len(set(truth.people.image_ids.tolist()))) as on_image:
        return evaluate_models(
            candidates,
            truth,
            options=EvaluationOptions(request.norm, boxes, request.allow_missing),
            on_image=on_image,
        )


@contextlib.contextmanager
def _progress(count: int) -> Iterator[Callable[[], object]]:
    """Give what to call for each photograph: it moves a bar on a terminal, and does nothing in a pipe."""
    if not sys.stderr.isatty() or is_quiet():
        yield lambda: None
        return
    with click.progressbar(length=count, label="images", file=sys.stderr) as bar:
        yield lambda: bar.update(1)


def _tell(request: _Request, judged: Sequence[Judged], verdict: tuple[bool, str] | None) -> None:
    from lbkit.evaluation.report import evaluation_document, rule_lines, terminal_rows

    first = judged[0].evaluation
    for reason, count in first.data.skipped.items():
        click.echo(f"left out: {reason}: {count}", err=True)
    if request.as_json:
        click.echo(json.dumps(evaluation_document(judged, verdict=verdict), indent=2, allow_nan=False))
        return
    if not is_quiet():
        for line in rule_lines(first):
            click.echo(line, err=True)
    rows = terminal_rows(judged)
    if sys.stdout.isatty():
        _print_table(rows)
    else:
        click.echo("\n".join("\t".join(row) for row in rows))


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, name in enumerate(rows[0]):
        table.add_column(Text(name), justify="right" if number else "left")
    for row in rows[1:]:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _report_files(request: _Request) -> list[Path]:
    return [] if request.report is None else [request.report / PAGE_NAME, request.report / FIGURES_NAME]


def _write_report(request: _Request, judged: Sequence[Judged], truth: Truth, verdict: tuple[bool, str] | None) -> None:
    if request.report is None:
        return
    from lbkit.core.files import atomic_path
    from lbkit.evaluation.report import evaluation_document, evaluation_page

    page, figures = _report_files(request)
    evaluation_page(judged, truth, verdict=verdict).write(page, force=request.force)
    with atomic_path(figures) as temporary:
        text = json.dumps(evaluation_document(judged, verdict=verdict), indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    if not is_quiet():
        click.echo(f"wrote {page} and {figures.name}", err=True)


def _write_cards(request: _Request, judged: Sequence[Judged]) -> None:
    if not request.write_card:
        return
    import datetime

    from lbkit.evaluation.card import card_figures, write_card

    today = datetime.datetime.now(tz=datetime.UTC).date()
    for item in judged:
        subject = item.evaluation.subject
        if subject.backend != "ort":
            continue
        write_card(Path(subject.file), card_figures(item.evaluation, date=today))
        click.echo(f"wrote the card of {subject.file}", err=True)


def _next_command(request: _Request) -> str:
    models = shlex.join(request.models)
    if request.report is None:
        what = f"--results {shlex.quote(str(request.results))}" if request.results else models
        split = "" if request.split == "val2017" else f" --split {shlex.quote(request.split)}"
        return " ".join(f"lbkit eval {what} --coco {shlex.quote(str(request.coco))}{split} --report report".split())
    return f"lbkit info {shlex.quote(request.models[0]) if request.models else 'MODEL'}"
