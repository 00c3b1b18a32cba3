"""The pictures and boxes that could not be used, a JSON line each: part, source, kind, message."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from lbkit.errors import LbkitError
from lbkit.scale.durable import append_durably, durable_path

FAILURES_NAME = "failures.jsonl"


def failure_line(problem: LbkitError, *, part: int | None, source: Path | None) -> str:
    """Return a problem as a line.

    Args:
        problem: What went wrong.
        part: Number of the part that its picture is in; None for a source that led to no picture.
        source: The picture.
    """
    where = problem.where if source is None else str(source)
    record = {"part": part, "source": where, "reason": type(problem).__name__, "message": str(problem)}
    return json.dumps(record) + "\n"


def append_failures(folder: Path, lines: Iterable[str]) -> None:
    """Add lines; those of a part that is never finished are taken out by `drop_unfinished`.

    Raises:
        OutputError: They cannot be written.
    """
    if text := "".join(lines):
        append_durably(folder / FAILURES_NAME, text)


def drop_unfinished(folder: Path, *, parts: int) -> None:
    """Keep the lines of the first `parts` parts and of the listing; a line cut off by a crash goes too."""
    path = folder / FAILURES_NAME
    if not path.exists():
        return
    with (
        durable_path(path) as temporary,
        path.open(encoding="ascii", errors="replace") as stream,
        temporary.open("w", encoding="ascii") as kept,
    ):
        kept.writelines(line for line in stream if _counts(line, parts))


def _counts(line: str, parts: int) -> bool:
    try:
        part = json.loads(line)["part"]
    except (ValueError, TypeError, KeyError):
        return False
    return line.endswith("\n") and (part is None or part < parts)
