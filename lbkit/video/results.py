"""Results of a video: JSON lines, one a frame, and a table as CSV or Parquet, one row a person and frame."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lbkit.core.keypoints import KeypointSchema
from lbkit.core.parquet import import_arrow, utf8_name
from lbkit.video.pipeline import FramePoses
from lbkit.video.sink import kept_file

ROWS_AT_ONCE = 4096
"""Rows of a Parquet file that are held before they are written."""

_HEAD = ("path", "frame", "time_s", "width", "height")


def frame_record(result: FramePoses, *, path: str) -> dict[str, Any]:
    """Return one frame's JSON object: path, frame, time_s, width, height, and people, each with its `id`.

    Args:
        result: The frame.
        path: The video as it was named.
    """
    size = result.poses.image_size
    people = [{"id": number, **person} for number, person in zip(result.ids, result.poses.to_dicts(), strict=True)]
    return {
        "path": path,
        "frame": result.index,
        "time_s": round(result.time_s, 6),
        "width": size.width,
        "height": size.height,
        "people": people,
    }


def json_line(result: FramePoses, *, path: str) -> str:
    """Return one frame's line of JSON (see `frame_record`)."""
    return json.dumps(frame_record(result, path=path)) + "\n"


def table_columns(keypoints: KeypointSchema) -> list[str]:
    """Return the names of the table's columns.

    Args:
        keypoints: The joints, in the model's order.
    """
    joints = [f"{name}_{field}" for name in keypoints.names for field in ("x", "y", "score")]
    return [*_HEAD, "id", "left", "top", "right", "bottom", "score", *joints]


def table_rows(result: FramePoses, *, path: str) -> list[list[Any]]:
    """Return one frame's rows, one a person; none where nobody was found."""
    record = frame_record(result, path=path)
    head = [record[name] for name in _HEAD]
    return [[*head, person["id"], *_flat(person)] for person in record["people"]]


def csv_header(keypoints: KeypointSchema) -> str:
    """Return the table's header line (see `table_columns`)."""
    return _csv_line(table_columns(keypoints))


def csv_rows(result: FramePoses, *, path: str) -> str:
    """Return one frame's lines of CSV (see `table_rows`)."""
    return "".join(_csv_line(row) for row in table_rows(result, path=path))


@contextmanager
def parquet_table(path: Path, keypoints: KeypointSchema, *, force: bool) -> Iterator[Callable[[list[list[Any]]], None]]:
    """Give what adds rows to a Parquet file that appears when the block ends, however it ends.

    After an error or Ctrl-C it holds the rows up to there, but not after a full disk, which leaves no readable file.
    The video's name is written by `utf8_name`.

    Args:
        path: Where to.
        keypoints: The joints, in the model's order.
        force: Replace what is there.

    Raises:
        OutputError: It exists already, or cannot be written.
        MissingDependencyError: PyArrow is not installed.
    """
    pyarrow = import_arrow()
    kinds = {"path": pyarrow.string(), **dict.fromkeys(("frame", "width", "height", "id"), pyarrow.int64())}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in table_columns(keypoints)])
    waiting: list[list[Any]] = []
    with kept_file(path, force=force) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:

        def flush() -> None:
            columns = zip(*waiting, strict=True) if waiting else ([] for _ in schema)
            arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pyarrow.table(arrays, schema=schema))
            waiting.clear()

        def add(rows: list[list[Any]]) -> None:
            waiting.extend([utf8_name(path), *values] for path, *values in rows)
            if len(waiting) >= ROWS_AT_ONCE:
                flush()

        try:
            yield add
        finally:
            flush()


def _flat(person: dict[str, Any]) -> list[float]:
    joints = [joint[field] for joint in person["keypoints"].values() for field in ("x", "y", "score")]
    return [*person["box_xyxy"], person["score"], *joints]


def _csv_line(cells: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
