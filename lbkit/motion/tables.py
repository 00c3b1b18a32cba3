"""An analysis as JSON, CSV and Parquet: one row a frame, one row a repetition."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from lbkit.core.files import atomic_path, refuse_overwrite
from lbkit.core.parquet import import_arrow
from lbkit.errors import OutputError
from lbkit.motion.angles import COLUMNS, REASONS
from lbkit.motion.measures import MEASURES
from lbkit.motion.phases import PHASES
from lbkit.motion.repetitions import Repetition
from lbkit.motion.squat import NOTICE, SquatAnalysis

_ROWS_AT_ONCE: Final = 1024
TABLE_SUFFIXES: Final = (".csv", ".parquet")

Row = dict[str, Any]

FRAME_COLUMNS: Final = (
    "time_s",
    "phase",
    "repetition",
    "depth_deg",
    *COLUMNS,
    "interpolated",
    "sides_swapped",
    "reasons",
)
"""What a row a frame holds (see `frame_rows`)."""

REPETITION_COLUMNS: Final = (
    *("number", "start_s", "deepest_s", "end_s", "cut", "hip_below_knee"),
    *MEASURES,
    "feedback",
)
"""What a row a repetition holds (see `repetition_row`)."""


def analysis_json(analysis: SquatAnalysis, *, source: str) -> Iterator[str]:
    """Yield everything as pieces of one JSON text, so that an hour of frames is never held as text.

    `repetitions` is a list, `frames` another, `view` says from where the person is seen, `warnings` what to read the
    figures with. A value that could not be measured is null, and `reasons` beside it says why.

    Args:
        analysis: What was found.
        source: What was looked at.
    """
    head = json.dumps(_analysis_head(analysis, source=source), allow_nan=False)
    yield head.removesuffix("}") + ', "frames": ['
    separator = ""
    for row in all_frame_rows(analysis):
        yield separator + json.dumps(_frame_dict(row), allow_nan=False)
        separator = ", "
    yield "]}"


def _analysis_head(analysis: SquatAnalysis, *, source: str) -> Row:
    view = analysis.view
    return {
        "source": source,
        "person": analysis.mended.track.track_id,
        "count": len(analysis.repetitions),
        "view": {
            "name": view.name,
            "azimuth_deg": _rounded(view.azimuth_deg),
            "faces_camera": view.faces_camera,
        },
        "repetitions": [repetition_dict(item) for item in analysis.repetitions],
        "not_counted": [{"time_s": _rounded(item.time_s), "reason": item.reason} for item in analysis.rejected],
        "warnings": [{"code": item.code, "sentence": item.sentence} for item in analysis.warnings],
        "notice": NOTICE,
    }


def repetition_dict(repetition: Repetition) -> dict[str, Any]:
    """Return a repetition as plain values, its measures beside the rest and its remarks as a list."""
    return {
        **_repetition_head(repetition),
        **{name: _rounded(value) for name, value in repetition.measures.items()},
        "reasons": dict(repetition.reasons),
        "feedback": [
            {
                "code": remark.code,
                "measure": remark.measure,
                "value": _rounded(remark.value),
                "limit": remark.limit,
                "source": remark.source,
                "sentence": remark.sentence,
            }
            for remark in repetition.remarks
        ],
    }


def repetition_rows(analysis: SquatAnalysis) -> list[Row]:
    """Return one row a repetition (see `repetition_row`)."""
    return [repetition_row(item) for item in analysis.repetitions]


def repetition_row(item: Repetition) -> Row:
    """Return one repetition as a flat row; remarks are their codes, joined by spaces."""
    return {
        **_repetition_head(item),
        **{name: _rounded(item.measures[name]) for name in MEASURES},
        "feedback": " ".join(remark.code for remark in item.remarks),
    }


def frame_rows(analysis: SquatAnalysis, *, frames: range | None = None) -> list[Row]:
    """Return one row a frame: time, phase, repetition, depth, every column of `COLUMNS`, and why one is missing.

    Args:
        analysis: What was found.
        frames: Of which frames; of all when None.
    """
    number = np.zeros(len(analysis.phases), dtype=int)
    for item in analysis.repetitions:
        number[item.start_frame : item.end_frame + 1] = item.number
    mended = analysis.mended
    rows = []
    for index in range(len(analysis.phases)) if frames is None else frames:
        values, reasons = analysis.angles.values[index].tolist(), analysis.angles.reasons[index].tolist()
        row: Row = {
            "time_s": round(float(analysis.angles.time_s[index]), 4),
            "phase": PHASES[analysis.phases[index]],
            "repetition": int(number[index]) or None,
            "depth_deg": _rounded(float(analysis.signal.depth_deg[index])),
        }
        row |= {name: _rounded(value) for name, value in zip(COLUMNS, values, strict=True)}
        row["interpolated"] = bool(mended.interpolated[index].any())
        row["sides_swapped"] = bool(mended.swapped[index].any())
        row["reasons"] = {name: REASONS[why] for name, why in zip(COLUMNS, reasons, strict=True) if why}
        rows.append(row)
    return rows


def all_frame_rows(analysis: SquatAnalysis) -> Iterator[Row]:
    """Yield the rows of every frame (see `frame_rows`), some at a time."""
    for start in range(0, len(analysis.phases), _ROWS_AT_ONCE):
        yield from frame_rows(analysis, frames=range(start, min(start + _ROWS_AT_ONCE, len(analysis.phases))))


def write_table(path: Path, rows: Iterable[Row], *, columns: Sequence[str], force: bool) -> None:
    """Write rows to a CSV or Parquet file, by its suffix; dicts within a row become `name=value` joined by spaces.

    Args:
        path: Where to.
        rows: Flat rows with the same names.
        columns: The names.
        force: Replace what is there.

    Raises:
        OutputError: The suffix is neither, or the file exists already or cannot be written.
        MissingDependencyError: Parquet is wanted and PyArrow is not installed.
    """
    check_table_name(path)
    refuse_overwrite(path, force=force)
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".parquet":
            flat = [{name: _flat(value) for name, value in row.items()} for row in rows]
            arrow = import_arrow()
            table = arrow.Table.from_pylist(flat) if flat else arrow.table({name: [] for name in columns})
            arrow.parquet.write_table(table, temporary)
            return
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            _write_csv(stream, rows, columns, with_header=True)


def csv_text(rows: Iterable[Row], columns: Sequence[str], *, with_header: bool) -> str:
    """Return rows as lines of CSV; dicts within a row become `name=value` joined by spaces.

    Args:
        rows: Flat rows with these names.
        columns: The names.
        with_header: Whether the names come first.
    """
    text = io.StringIO()
    _write_csv(text, rows, columns, with_header=with_header)
    return text.getvalue()


def _write_csv(stream: TextIO, rows: Iterable[Row], columns: Sequence[str], *, with_header: bool) -> None:
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    if with_header:
        writer.writeheader()
    writer.writerows({name: _flat(value) for name, value in row.items()} for row in rows)


def check_table_name(path: Path) -> None:
    """Raise unless a table can be written under a name.

    Raises:
        OutputError: The suffix is not one of `TABLE_SUFFIXES`.
        MissingDependencyError: Parquet is wanted and PyArrow is not installed.
    """
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise OutputError("is no name for a table", where=path, remedy=f"end it in {' or '.join(TABLE_SUFFIXES)}")
    if path.suffix.lower() == ".parquet":
        import_arrow()


def _repetition_head(item: Repetition) -> Row:
    return {
        "number": item.number,
        "start_s": round(item.start_s, 3),
        "deepest_s": round(item.deepest_s, 3),
        "end_s": round(item.end_s, 3),
        "cut": item.cut,
        "hip_below_knee": item.hip_below_knee,
    }


def _frame_dict(row: Row) -> Row:
    return row if row["reasons"] else {name: value for name, value in row.items() if name != "reasons"}


def _flat(value: Any) -> Any:
    if isinstance(value, dict):
        return " ".join(f"{name}={text}" for name, text in value.items())
    return value


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 3)
