"""`lbkit doctor`: what this machine can run lbkit on, and what mends the rest."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from lbkit.cli.options import json_option

if TYPE_CHECKING:
    from lbkit.runtime.doctor import Diagnosis
    from lbkit.runtime.probe import ProviderStatus

Section = tuple[str, list[tuple[str, str]]]


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> None:
    """Show versions, CPU, threads, models, and on which providers a session really runs.

    Ends with 1 if no provider works.
    """
    from lbkit.runtime.doctor import examine

    diagnosis = examine()
    if as_json:
        click.echo(json.dumps(diagnosis.to_dict(), indent=2))
    elif sys.stdout.isatty():
        _print_table(_sections(diagnosis))
    else:
        _print_plain(_sections(diagnosis))
    ctx.exit(0 if diagnosis.any_provider_works else 1)


def _sections(diagnosis: Diagnosis) -> list[Section]:
    return [
        ("versions", [(name, version or "not installed") for name, version in diagnosis.versions.items()]),
        ("machine", _machine_rows(diagnosis)),
        ("providers", [(status.name, _status_text(status)) for status in diagnosis.providers]),
        ("models", _model_rows(diagnosis)),
        ("problems", [(str(number), str(problem)) for number, problem in enumerate(diagnosis.problems, 1)]),
    ]


def _status_text(status: ProviderStatus) -> str:
    if status.works:
        return "works"
    return f"does not work: {status.problem}" + (f"; {status.remedy}" if status.remedy else "")


def _machine_rows(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    cpu, limits = diagnosis.cpu, diagnosis.threads
    sets = cpu.instruction_sets
    quota = "none" if limits.quota_cpus is None else f"{limits.quota_cpus:g} CPUs"
    return [
        ("system", diagnosis.system),
        ("cpu", cpu.model),
        ("has", "unknown" if sets is None else ", ".join(name for name, there in sets.items() if there) or "none"),
        ("lacks", "unknown" if sets is None else ", ".join(name for name, there in sets.items() if not there)),
        ("threads", f"{limits.threads} (affinity {limits.affinity}, cgroup quota {quota})"),
    ]


def _model_rows(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    found = [(name, str(path)) for name, path in diagnosis.models.items()]
    return found or [("none", f"looked in {', '.join(map(str, diagnosis.model_folders))}; `lbkit export` makes one")]


def _print_plain(sections: list[Section]) -> None:
    for title, rows in sections:
        for name, text in rows:
            click.echo(f"{title}\t{name}\t{text}")


def _print_table(sections: list[Section]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for title, rows in sections:
        for index, (name, text) in enumerate(rows):
            table.add_row(Text(title if index == 0 else "", style="bold"), name, Text(text, style=_style(text)))
    Console().print(table)


def _style(text: str) -> str:
    if text == "works":
        return "green"
    return "red" if text.startswith("does not work") else ""
