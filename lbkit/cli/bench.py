"""`lbkit bench`: how fast models run on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lbkit.cli.messages import plain_line
from lbkit.cli.options import MAX_BATCH_SIZE, PROVIDER_CHOICES, NearestChoice, is_quiet, json_option, threads_option
from lbkit.errors import ModelNotFoundError

if TYPE_CHECKING:
    from lbkit.bench.run import BenchPlan, BenchRow

    _TupleType = click.ParamType[tuple[str, ...]]
else:
    _TupleType = click.ParamType  # not subscriptable before click 8.4

AGAINST = {"torch": ("torch", "torch-compile"), "openvino": ("openvino",)}
"""What each word of --against adds to the providers."""

COLUMNS = (
    "model",
    "precision",
    "runner",
    "batch",
    "read",
    "warp",
    "model p50",
    "p95",
    "p99",
    "decode",
    "total",
    "people/s",
    "in streams",
    "drift",
    "cold",
    "memory",
)


class WordsType(_TupleType):
    """Words of a list, separated by commas."""

    name = "words"

    def __init__(self, choices: tuple[str, ...]) -> None:
        self._choice = NearestChoice(choices)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the words, each once, or fail at the first that is not in the list."""
        if isinstance(value, tuple):
            return value
        words = [self._choice.convert(word.strip(), param, ctx) for word in str(value).split(",")]
        return tuple(dict.fromkeys(words))


class CountsType(click.ParamType):  # type: ignore[type-arg]  # not subscriptable before click 8.4
    """Numbers of people, separated by commas."""

    name = "counts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers, each once, or fail at the first that is out of range."""
        if isinstance(value, tuple):
            return value
        count: Any = click.IntRange(1, MAX_BATCH_SIZE)
        return tuple(dict.fromkeys(int(count.convert(word.strip(), param, ctx)) for word in str(value).split(",")))


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--provider",
    "providers",
    type=WordsType(PROVIDER_CHOICES),
    default="cpu",
    show_default=True,
    metavar="NAME[,NAME]",
    help=f"Where the models run: {', '.join(PROVIDER_CHOICES)}.",
)
@click.option(
    "--batch-size",
    "batches",
    type=CountsType(),
    default="1,8,32",
    show_default=True,
    metavar="N[,N]",
    help="People that run through the model at once.",
)
@click.option(
    "--against",
    type=WordsType(tuple(AGAINST)),
    default=(),
    metavar="torch[,openvino]",
    help="Measure these too: torch is PyTorch eager and torch.compile with the checkpoint that the file was made from.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 3600, min_open=True),
    default=2.0,
    show_default=True,
    metavar="S",
    help="How long each row is timed; once more so long in streams.",
)
@click.option(
    "--photos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Photographs to measure on, one person filling each.  [default: rendered figures]",
)
@click.option("--no-cold", is_flag=True, help="Leave out the fresh processes that show cold start and memory.")
@threads_option
@json_option
@click.pass_context
def bench(ctx: click.Context, /, *, models: tuple[str, ...], as_json: bool, **chosen: Any) -> None:
    """Time MODELs, names or files, on this machine; every model found when none is given.

    A row is a model on a provider with a batch size. Times are milliseconds a batch: read, warp, model, decode one
    after the other; medians, and the model's 95th and 99th percentile too. people/s is the model alone, then all
    stages; in streams is the model alone with a run in each of as many streams as there are threads, as `lbkit infer`
    runs it over many pictures. drift compares the model's last runs with its first; cold is a fresh process until its
    first answer, memory the most it held.

    Before a row is timed its answers are compared with those of the same file in ONNX Runtime on the CPU; where they
    differ beyond what the file's precision allows, the exit code is 3.
    """
    from lbkit.bench.run import run_bench

    plan = _plan(models, **chosen)
    rows = []
    for row in run_bench(plan):
        rows.append(row)
        if not is_quiet():
            click.echo(plain_line(_progress(row)), err=True)
    if as_json:
        click.echo(json.dumps(_document(rows), indent=1))
    else:
        _print_rows(rows)
    if any(row.is_wrong for row in rows):
        ctx.exit(3)
    ctx.exit(1 if any(row.problem for row in rows) else 0)


def _plan(
    models: tuple[str, ...],
    *,
    providers: tuple[str, ...],
    batches: tuple[int, ...],
    against: tuple[str, ...],
    seconds: float,
    photos: Path | None,
    no_cold: bool,
    threads: int | None,
) -> BenchPlan:
    from lbkit.bench.run import BenchPlan
    from lbkit.runtime.loading import list_models

    names = models or tuple(list_models())
    if not names:
        raise ModelNotFoundError("no model is found", remedy="make one with `lbkit export`")
    peers = tuple(runner for word in against for runner in AGAINST[word])
    runners = tuple(dict.fromkeys((*providers, *peers)))
    return BenchPlan(names, runners, batches, seconds, threads, photos, cold=not no_cold)


def _progress(row: BenchRow) -> str:
    head = f"{row.model} {row.runner}" + (f" batch {row.batch}" if row.batch else "")
    if row.times is None:
        return f"error: {head}: {row.problem}"
    return f"{head}: {row.times.percentile_ms('model', 50):.1f} ms, {row.times.people_per_second('model'):.1f} people/s"


def _document(rows: list[BenchRow]) -> dict[str, Any]:
    from lbkit.runtime.doctor import describe_machine

    return {"machine": describe_machine(), "rows": [row.to_dict() for row in rows]}


def _cells(row: BenchRow) -> tuple[str, ...]:
    head = (row.model, row.precision, row.runner, str(row.batch or ""))
    if row.times is None:
        return (*head, row.problem, *[""] * (len(COLUMNS) - len(head) - 1))
    times = row.times
    stages = [f"{times.percentile_ms(stage, 50):.1f}" for stage in ("read", "warp")]
    model = [f"{times.percentile_ms('model', percent):.1f}" for percent in (50, 95, 99)]
    ends = [f"{times.percentile_ms(stage, 50):.1f}" for stage in ("decode", "total")]
    rate = f"{times.people_per_second('model'):.1f} / {times.people_per_second('total'):.1f}"
    several = "" if row.side_by_side is None else f"{row.side_by_side.people_per_second:.1f}"
    cold = "" if row.cold is None else f"{row.cold.first_answer_s:.2f} s"
    peak = None if row.cold is None else row.cold.peak_bytes
    memory = "" if peak is None else f"{peak / 1e6:.0f} MB"
    return (*head, *stages, *model, *ends, rate, several, f"{100 * times.drift:+.0f} %", cold, memory)


def _print_rows(rows: list[BenchRow]) -> None:
    if not sys.stdout.isatty():
        for cells in (COLUMNS, *map(_cells, rows)):
            click.echo("\t".join(map(plain_line, cells)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*COLUMNS, box=None, padding=(0, 1))
    for row in rows:
        table.add_row(*[Text(cell, style="red" if row.problem else "") for cell in _cells(row)])
    Console().print(table)
