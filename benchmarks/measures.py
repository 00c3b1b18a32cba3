"""Measured figures: their spread, their targets, and how they are shown, stored and put into a README."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lbkit.core.files import atomic_path

FIGURES = "figures"
BEGIN_MARK, END_MARK = f"<!-- {FIGURES}:begin -->", f"<!-- {FIGURES}:end -->"
_HEADER = ("section", "figure", "median", "least to most", "target", "met")


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure, measured once or several times.

    Attributes:
        section: What it belongs to.
        name: What it is.
        unit: Of the values; empty for a ratio.
        values: In the order measured.
        target: What the median should not exceed, if anything.
        is_least: The target is what the median should reach instead.
    """

    section: str
    name: str
    unit: str
    values: tuple[float, ...]
    target: float | None = None
    is_least: bool = False

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"{self.name} was not measured")

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool | None:
        """Whether the median keeps the target; None without one."""
        if self.target is None:
            return None
        return self.median >= self.target if self.is_least else self.median <= self.target

    def to_dict(self) -> dict[str, Any]:
        """Return the figure as JSON can hold it."""
        return {
            "section": self.section,
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "least": min(self.values),
            "most": max(self.values),
            "values": list(self.values),
            "target": self.target,
            "is_met": self.is_met,
        }

    def cells(self) -> tuple[str, ...]:
        """Return the figure as the cells of a table's row."""
        spread = f"{_digits(min(self.values))} to {_digits(max(self.values))}" if len(self.values) > 1 else ""
        target = "" if self.target is None else f"{'≥' if self.is_least else '≤'} {self.target:g} {self.unit}".rstrip()
        verdict = {True: "yes", False: "**no**", None: ""}[self.is_met]
        return self.section, self.name, f"{_digits(self.median)} {self.unit}".rstrip(), spread, target, verdict


def table(measures: Sequence[Measure]) -> str:
    """Return figures as a Markdown table whose columns also line up as plain text."""
    return _aligned([_HEADER, *(measure.cells() for measure in measures)])


def grid(measures: Sequence[Measure], *, corner: str) -> str:
    """Return medians as a Markdown table with a row a figure and a column a section, both in the order first met.

    Args:
        measures: Figures of one unit.
        corner: Heads the names of the figures, and says the unit.
    """
    sections = list(dict.fromkeys(measure.section for measure in measures))
    medians = {(measure.name, measure.section): _digits(measure.median) for measure in measures}
    names = dict.fromkeys(measure.name for measure in measures)
    return _aligned(
        [(corner, *sections), *((name, *(medians.get((name, each), "") for each in sections)) for name in names)]
    )


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document so that it appears whole or not at all; an older one is replaced."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def marks(name: str) -> tuple[str, str]:
    """Return the marks in a Markdown file that a script's figures stand between."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def replace_figures(path: Path, block: str, *, name: str = FIGURES) -> None:
    """Put a block between the marks of a Markdown file, in place of what is there.

    Args:
        path: The file.
        block: The new text.
        name: Whose marks.

    Raises:
        ClickException: The file lacks the marks.
    """
    begin_mark, end_mark = marks(name)
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if not begin or not end:
        raise click.ClickException(f"{path} should have {begin_mark} and after it {end_mark}")
    with atomic_path(path) as temporary:
        temporary.write_text(f"{before}{begin}\n{block.strip()}\n{end}{after}", encoding="utf-8")


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table, the first one its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_line([cell.ljust(width) for cell, width in zip(row, widths, strict=True)]) for row in rows]
    return "\n".join([lines[0], _line(["-" * width for width in widths]), *lines[1:]])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _digits(value: float) -> str:
    """Write three significant digits, but never cut the whole part."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"
