"""What `lbkit infer` does when `--output` is a folder: a run in parts that can be gone on with."""

from __future__ import annotations

import contextlib
import hashlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lbkit.cli.messages import plain_line
from lbkit.cli.options import NearestChoice, is_quiet
from lbkit.cli.report import RunReport, native_stderr_silenced

if TYPE_CHECKING:
    from lbkit.core.keypoints import KeypointSchema
    from lbkit.scale.manifest import Manifest
    from lbkit.scale.run import Infer, RunPlan, Sources

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

ENGINES = ("local", "ray")
PART_FORMATS = ("jsonl", "parquet")
"""Spelled out to keep NumPy out of `--help`; a test keeps it equal to `lbkit.scale.parts.PART_FORMATS`."""

INTERRUPTED = 130
STDOUT = Path("-")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options that only a run into a folder has.

    Attributes:
        resume: Go on with the run in the folder.
        part_size: Pictures a part; None for the default.
        engine: This process, or a Ray cluster.
        ray_address: Of the cluster; None starts one on this machine.
        actors: Sessions on the cluster; None for as many as fit.
        cpus_per_actor: Processors of a session.
        num_gpus_per_actor: Share of a GPU of a session.
    """

    resume: bool
    part_size: int | None
    engine: str
    ray_address: str | None
    actors: int | None
    cpus_per_actor: int
    num_gpus_per_actor: float

    @classmethod
    def taken_from(cls, chosen: dict[str, Any]) -> RunOptions:
        """Take these options out of what a command was given."""
        return cls(**{field.name: chosen.pop(field.name) for field in fields(cls)})

    def check(self, *, is_folder: bool, result_format: str | None, boxes: str, draws: bool) -> None:
        """Raise where options do not go together.

        Args:
            is_folder: Whether the output is a folder.
            result_format: The format asked for, if any.
            boxes: Where people are looked for.
            draws: Whether pictures are drawn.

        Raises:
            UsageError: They do not.
        """
        if not is_folder:
            needs = [("--resume", self.resume), ("--part-size", self.part_size), ("--engine ray", self.engine == "ray")]
            needs.append(("Parquet of pictures", result_format == "parquet"))
            for option, is_given in needs:
                if is_given:
                    raise click.UsageError(f"{option} needs a folder: --output DIR.")
            return
        if result_format not in (None, *PART_FORMATS):
            raise click.UsageError(f"a folder's parts are {' or '.join(PART_FORMATS)}, not {result_format}.")
        if self.engine == "ray" and draws:
            raise click.UsageError("--draw and --heatmaps do not go with --engine ray.")
        if self.engine == "ray" and boxes.startswith("detector:"):
            raise click.UsageError("--engine ray takes --boxes auto, whole, coco:FILE.json or FILE.csv.")
        if self.engine != "ray" and (
            self.ray_address or self.actors or self.num_gpus_per_actor or self.cpus_per_actor != 1
        ):
            names = "--ray-address, --actors, --cpus-per-actor and --num-gpus-per-actor"
            raise click.UsageError(f"{names} go with --engine ray.")


def run_options(command: CommandT) -> CommandT:
    """Add the options of `RunOptions` to a command."""
    for option in reversed(
        (
            click.option(
                "--resume", is_flag=True, help="Go on with the run in --output DIR; give the same line again."
            ),
            click.option(
                "--part-size",
                type=click.IntRange(1, 10_000_000),
                metavar="N",
                help="Pictures a part.  [default: 1000, or a ten-thousandth of all]",
            ),
            click.option(
                "--engine",
                type=NearestChoice(ENGINES),
                default="local",
                show_default=True,
                help="ray spreads the pictures over a Ray cluster.",
            ),
            click.option(
                "--ray-address",
                metavar="HOST:PORT",
                help="A running cluster, or auto for this machine's.  [default: one started here]",
            ),
            click.option(
                "--actors",
                type=click.IntRange(1, 100_000),
                metavar="N",
                help="Sessions on it.  [default: what fits]",
            ),
            click.option(
                "--cpus-per-actor",
                type=click.IntRange(1, 1024),
                default=1,
                show_default=True,
                metavar="N",
                help="Processors, and threads, of a session.",
            ),
            click.option(
                "--num-gpus-per-actor",
                type=click.FloatRange(0, 64),
                default=0.0,
                show_default=True,
                metavar="N",
                help="Share of a GPU of a session.",
            ),
        )
    ):
        command = option(command)
    return command


def is_run_folder(output: Path | None) -> bool:
    """Tell whether an output is a folder: one that is there, or a name without a suffix that is not."""
    if output is None or output == STDOUT:
        return False
    return output.is_dir() or (not output.suffix and not output.exists())


def box_settings(boxes: str) -> Any:
    """Return what a run remembers of where people are looked for: a file by its hash too."""
    path = Path(boxes.split(":", 1)[-1])
    return [boxes, hashlib.sha256(path.read_bytes()).hexdigest()] if path.is_file() else boxes


def make_plan(
    output: Path,
    options: RunOptions,
    *,
    part_format: str | None,
    settings: dict[str, Any],
    keypoints: KeypointSchema,
) -> RunPlan:
    """Return the plan of a run.

    Args:
        output: The folder.
        options: What the command line says.
        part_format: jsonl, parquet, or None for jsonl.
        settings: What decides the results.
        keypoints: The joints, in the model's order.
    """
    from lbkit._version import __version__
    from lbkit.scale.run import RunPlan

    part_format = part_format or "jsonl"
    return RunPlan(
        output,
        {"lbkit": __version__, "format": part_format, **settings},
        keypoints,
        part_format=part_format,  # type: ignore[arg-type]
        part_size=options.part_size,
    )


def do_run(
    plan: RunPlan, options: RunOptions, *, sources: Sources, engine: contextlib.AbstractContextManager[Infer]
) -> int:
    """Do what is left of a run, tell what became of it, and return the exit code.

    Args:
        plan: The run.
        options: What the command line says.
        sources: Gives the pictures of a new run.
        engine: Gives the model; entered only if a picture is left.
    """
    from lbkit.scale.run import opened_run

    with opened_run(plan, sources=sources, resume=options.resume) as manifest:
        if manifest.done and not is_quiet():
            click.echo(f"{manifest.done} of {manifest.pictures} pictures were done before", err=True)
        if not manifest.is_complete:
            manifest = _go_on(plan, manifest, engine)
    _tell(plan.folder, manifest)
    if not manifest.is_complete:
        return INTERRUPTED
    return 1 if manifest.failures or _has_bad_sources(plan.folder) else 0


def _go_on(plan: RunPlan, manifest: Manifest, engine: contextlib.AbstractContextManager[Infer]) -> Manifest:
    from lbkit.scale.run import Watcher, run_parts

    left = manifest.pictures - manifest.done
    report = RunReport(lambda: left, shows_progress=True)
    with engine as infer, _stopping() as is_stopping, native_stderr_silenced(), report:
        watcher = Watcher(take=report.take, is_stopping=is_stopping)
        manifest = run_parts(plan, manifest, infer=infer, watcher=watcher)
    report.summarize()
    return manifest


def _tell(folder: Path, manifest: Manifest) -> None:
    if not manifest.is_complete:
        done = f"stopped after {manifest.done} of {manifest.pictures} pictures"
        click.echo(f"{done}; give the same line with --resume to go on", err=True)
        return
    failures, where = manifest.failures, folder / "failures.jsonl"
    if not failures and _has_bad_sources(folder):
        click.echo(plain_line(f"error: sources could not be used; they are in {where}"), err=True)
    if not is_quiet():
        known = f"; {_counted(failures, 'failure')} {'is' if failures == 1 else 'are'} in {where}" if failures else ""
        people = f"{manifest.people} {'person' if manifest.people == 1 else 'people'}"
        of = f"{_counted(manifest.pictures, 'picture')} in {_counted(len(manifest.parts), 'part')}"
        click.echo(plain_line(f"{people} of {of} in {folder}{known}"), err=True)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _has_bad_sources(folder: Path) -> bool:
    path = folder / "failures.jsonl"
    return path.exists() and path.stat().st_size > 0


@contextlib.contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into an answer, so that the running batch is finished; a second stops it."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            signal.default_int_handler(number, frame)
        asked = True
        click.echo("finishing the running batch; once more to stop at once", err=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
