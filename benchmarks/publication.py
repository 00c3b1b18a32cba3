"""What the scripts share about a run: its options, its record, and its place in the README of this folder."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from machine import machine_words
from measures import FIGURES, Measure, replace_figures, table, write_json

from lbkit.cli.options import DEFAULT_MODEL

README = Path(__file__).with_name("README.md")

model_option = click.option(
    "--model", metavar="NAME|FILE", default=DEFAULT_MODEL, show_default=True, help="An exported model."
)
photos_option = click.option(
    "--photos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Photographs to measure on.  [default: rendered figures]",
)
quick_option = click.option("--quick", is_flag=True, help="A little, to see that it runs; the figures mean nothing.")
readme_option = click.option("--readme", is_flag=True, help="Put the figures into the README of this folder.")


def output_option(script: str) -> Any:
    """Return the option of where all values go.

    Args:
        script: The script's name, which is also that of the file.
    """
    return click.option(
        "--output",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE.json",
        default=Path(f"build/{script}.json"),
        show_default=True,
        help="Where all values go; an older file is replaced.",
    )


def refuse_partial_readme(*, readme: bool, **partial: object) -> None:
    """Keep figures of a run that was cut short out of the README.

    Args:
        readme: Whether `--readme` was given.
        partial: By name, the options that cut a run short, as they were given.

    Raises:
        UsageError: Both were given.
    """
    if readme and any(partial.values()):
        names = " and ".join(f"--{name}" for name in partial)
        raise click.UsageError(f"--readme needs the whole run, without {names}.")


def shown_command(script: str, *arguments: str, **options: object) -> str:
    """Return the command line that makes figures again, without the folders of this machine.

    Args:
        script: The script's name.
        arguments: What stands before the options.
        options: By name: True for a flag, a list for a repeated one; what is None, False, empty or the default model is
            left out.
    """
    words = ["python", f"benchmarks/{script}.py", *(Path(each).name for each in arguments)]
    for name, given in options.items():
        values = given if isinstance(given, (list, tuple)) else [given]
        for value in values:
            if value is None or value is False or (name == "model" and value == DEFAULT_MODEL):
                continue
            shown = value.resolve().name if isinstance(value, Path) else str(value)
            shown = Path(shown).name if name == "model" else shown
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [option, shown]
    return shlex.join(words)


def run_record(command: str, machine: Mapping[str, Any], **settings: object) -> dict[str, Any]:
    """Return what is known of a run besides its figures.

    Args:
        command: From `shown_command`.
        machine: From `describe_machine` of `machine.py`, before the run.
        settings: What else decides the figures.
    """
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"command": command, "date": date, "machine": dict(machine), **settings}


def publish(
    record: Mapping[str, Any],
    measures: Sequence[Measure],
    *,
    output: Path,
    readme: bool,
    name: str = FIGURES,
    notes: Sequence[str] = (),
    tables: Sequence[str] | None = None,
) -> None:
    """Print figures, keep every value, and put them into the README where that is asked for.

    Args:
        record: The run; `figures` is added to it unless it holds them in another form.
        measures: The figures.
        output: Where every value goes.
        readme: Whether they go into the README of this folder.
        name: Whose marks there.
        notes: Paragraphs above the figures there.
        tables: The figures as Markdown; one table of all when None.
    """
    shown = [table(measures)] if tables is None else list(tables)
    click.echo("\n\n".join(shown))
    write_json(output, {**record, **({} if "sections" in record else {"figures": [row.to_dict() for row in measures]})})
    click.echo(f"wrote {output}", err=True)
    if readme:
        head = [f"`{record['command']}`, {record['date']}", f"{machine_words(record['machine'])}."]
        replace_figures(README, "\n\n".join([*head, *notes, *shown]), name=name)
        click.echo(f"wrote {README}", err=True)
