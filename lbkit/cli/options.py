"""Options that several commands share, so that each is spelled, checked and explained in one place."""

from __future__ import annotations

import difflib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    _Choice = click.Choice[str]
    _FloatType = click.ParamType[float]
else:
    _Choice, _FloatType = click.Choice, click.ParamType  # not subscriptable before click 8.4

DEFAULT_MODEL = "fpn-int8"
PROVIDER_CHOICES = ("cpu", "cuda", "tensorrt", "openvino", "openvino-bf16", "coreml", "directml", "auto")
DECODER_CHOICES = ("argmax", "soft-argmax", "quarter", "dark")
"""Spelled out, because importing `lbkit.core.contract` would bring NumPy into `lbkit --help`; a test keeps it equal."""

MAX_THREADS = 1024
"""`lbkit.core.threads.MAX_THREADS`, spelled out likewise."""

MAX_BATCH_SIZE = 1024
"""`lbkit.core.estimator.MAX_BATCH_SIZE`, likewise."""

NEAR = 0.7
"""How alike two words must be for one to be offered for the other; at 0.66 "gpu" would be answered with "cpu"."""

CommandT = TypeVar("CommandT", bound=click.Command)


class NearestChoice(_Choice):
    """A choice that answers a wrong value with the nearest right one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the choice meant, or fail with the list and the nearest."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            near = nearest(str(value), self.choices)
            hint = f" Did you mean {near!r}?" if near else ""
            self.fail(f"{error.message}{hint}", param, ctx)


def nearest(word: str, words: tuple[str, ...] | list[str]) -> str | None:
    """Return the word that another was probably meant to be, or None if none is close."""
    near = difflib.get_close_matches(word.lower(), words, n=1, cutoff=NEAR)
    return near[0] if near else None


model_option = click.option(
    "--model",
    metavar="NAME|FILE",
    default=DEFAULT_MODEL,
    show_default=True,
    help="A shipped model's name, or an ONNX file exported by lbkit.",
)

provider_option = click.option(
    "--provider",
    type=NearestChoice(PROVIDER_CHOICES),
    default="cpu",
    show_default=True,
    help="Where the model runs; one that would silently fall to the CPU is an error. auto takes the fastest of those "
    "that give the cpu's answers, timed once for each model and machine.",
)


class Share(_FloatType):
    """A number from 0 to 1; click's own range lets nan through."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail if it is none or lies outside."""
        number: float = click.FLOAT.convert(value, param, ctx)
        if not 0 <= number <= 1:
            self.fail(f"{number} is not in the range 0<=x<=1.", param, ctx)
        return number


threads_option = click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    metavar="N",
    help="Threads of the model.  [default: what CPU affinity and cgroup grant]",
)

streams_option = click.option(
    "--streams",
    type=click.IntRange(1, MAX_THREADS),
    metavar="N",
    help="Batches that run side by side and share the threads; 1 ends a single batch soonest.  [default: a thread each "
    "on a CPU, 1 on a GPU]",
)

batch_size_option = click.option(
    "--batch-size",
    type=click.IntRange(1, MAX_BATCH_SIZE),
    default=None,
    metavar="N",
    help="People that run through the model at once; halved where the memory does not hold them.  [default: 8, or 4 in "
    "each of several streams]",
)

decoder_option = click.option(
    "--decoder",
    type=NearestChoice(DECODER_CHOICES),
    help="How heatmaps become coordinates.  [default: the model's own]",
)

output_option = click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File to write; it appears whole or not at all.",
)

force_option = click.option("--force", is_flag=True, help="Replace files that exist.")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")


def verbosity_options(command: CommandT) -> CommandT:
    """Add -v and -q to a command; they set how much of lbkit's log goes to stderr."""
    log = click.option(
        "-v", "--verbose", count=True, expose_value=False, callback=_on_verbose, help="Log more; -vv logs all."
    )
    quiet = click.option(
        "-q", "--quiet", is_flag=True, expose_value=False, callback=_on_quiet, help="Log and show errors only."
    )
    return log(quiet(command))


def is_quiet() -> bool:
    """Tell whether -q was given, so that a command leaves out progress and closing hints."""
    return logging.getLogger("lbkit").level >= logging.ERROR


def start_logging() -> None:
    """Send lbkit's warnings to stderr; -v and -q change the level."""
    package = logging.getLogger("lbkit")
    package.setLevel(logging.WARNING)
    package.handlers[:] = [_StderrHandler()]


class _StderrHandler(logging.Handler):
    """Writes to whatever `sys.stderr` is now, so that a progress bar or a test may replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)
        except Exception:
            self.handleError(record)


def _on_verbose(ctx: click.Context, param: click.Parameter, value: int) -> None:  # noqa: ARG001
    if value:
        logging.getLogger("lbkit").setLevel(logging.DEBUG if value > 1 else logging.INFO)


def _on_quiet(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: ARG001, FBT001
    if value:
        logging.getLogger("lbkit").setLevel(logging.ERROR)
