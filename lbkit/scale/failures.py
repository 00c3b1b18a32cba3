"""The pictures and boxes that could not be used, a JSON line each: part, source, kind, message."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from lbkit.core.files import atomic_path
from lbkit.errors import LbkitError
from lbkit.scale.durable import synced

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
    """Add lines; those of a part that is never finished are taken out by `drop_unfinished`."""
    text = "".join(lines)
    if not text:
        return
    path = folder / FAILURES_NAME
    with path.open("a", encoding="ascii") as stream:
        stream.write(text)
    synced(path)


def drop_unfinished(folder: Path, *, parts: int) -> None:
    """Keep the lines of the first `parts` parts and of the listing; a line cut off by a crash goes too."""
    path = folder / FAILURES_NAME
    if not path.exists():
        return
    with atomic_path(path) as temporary, temporary.open("w", encoding="ascii") as kept:
        with path.open(encoding="ascii", errors="replace") as stream:
            kept.writelines(line for line in stream if _counts(line, parts))
        kept.flush()
        synced(temporary)


def _counts(line: str, parts: int) -> bool:
    try:
        part = json.loads(line)["part"]
    except (ValueError, TypeError, KeyError):
        return False
    return line.endswith("\n") and (part is None or part < parts)
