"""Parts of a run's results: JSON lines, or Parquet with a row a person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, TextIO, get_args

from lbkit.core.keypoints import KeypointSchema
from lbkit.core.parquet import import_arrow, utf8_name
from lbkit.core.results import ImageResult, JsonLinesWriter

PartFormat = Literal["jsonl", "parquet"]
PART_FORMATS: tuple[PartFormat, ...] = get_args(PartFormat)

ROWS_AT_ONCE = 2048
"""Rows of a Parquet part that are held before they are written."""


class PartWriter(Protocol):
    """Writes results to a file; use it as a context, at whose end the file is whole."""

    def __enter__(self) -> PartWriter:
        """Open the file."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        ...

    def write(self, result: ImageResult) -> None:
        """Add a result."""
        ...


class JsonLinesPart:
    """A part of JSON lines, as `lbkit infer` writes them.

    Args:
        path: The file.
        keypoints: The joints, in the model's order.
    """

    def __init__(self, path: Path, keypoints: KeypointSchema) -> None:
        self._path, self._writer = path, JsonLinesWriter(keypoints)
        self._stream: TextIO | None = None

    def __enter__(self) -> JsonLinesPart:
        self._stream = self._path.open("w", encoding="utf-8", newline="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._stream is not None
        self._stream.close()

    def write(self, result: ImageResult) -> None:
        """Add a picture's line, if it could be read."""
        assert self._stream is not None
        self._stream.write(self._writer.rows(result))


class ParquetPart:
    """A part of rows, one a person, in the columns of the CSV format (see `person_rows`).

    Args:
        path: The file.
        keypoints: The joints, in the model's order.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """

    def __init__(self, path: Path, keypoints: KeypointSchema) -> None:
        self._path, self._schema = path, parquet_schema(keypoints)
        self._rows: list[dict[str, Any]] = []
        self._writer: Any = None

    def __enter__(self) -> ParquetPart:
        self._writer = import_arrow().parquet.ParquetWriter(self._path, self._schema)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._writer.close()

    def write(self, result: ImageResult) -> None:
        """Add a picture's people."""
        self._rows.extend(person_rows(result))
        if len(self._rows) >= ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(import_arrow().Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def parquet_schema(keypoints: KeypointSchema) -> Any:
    """Return the Arrow schema of a person's row.

    Args:
        keypoints: The joints, in the model's order.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    pyarrow = import_arrow()
    numbers = ["left", "top", "right", "bottom", "score"]
    numbers += [f"{name}_{field}" for name in keypoints.names for field in ("x", "y", "score")]
    return pyarrow.schema(
        [
            ("path", pyarrow.string()),
            ("width", pyarrow.int32()),
            ("height", pyarrow.int32()),
            ("image_id", pyarrow.int64()),
            ("person", pyarrow.int32()),
            ("ann_id", pyarrow.string()),
            *((name, pyarrow.float64()) for name in numbers),
        ]
    )


def person_rows(result: ImageResult) -> list[dict[str, Any]]:
    """Return a row a person: path, width, height, image_id, person (from 1), ann_id, box, score, joints.

    Coordinates are pixels of the picture, rounded as in the JSON lines; the path is written by `utf8_name`.
    """
    if result.poses is None:
        return []
    size = result.poses.image_size
    rows = []
    for number, (person, ann_id) in enumerate(zip(result.poses.to_dicts(), result.person_ids, strict=True), start=1):
        row: dict[str, Any] = {
            "path": utf8_name(str(result.path)),
            "width": size.width,
            "height": size.height,
            "image_id": result.image_id,
            "person": number,
            "ann_id": None if ann_id is None else str(ann_id),
            **dict(zip(("left", "top", "right", "bottom"), person["box_xyxy"], strict=True)),
            "score": person["score"],
        }
        for name, joint in person["keypoints"].items():
            row |= {f"{name}_{field}": joint[field] for field in ("x", "y", "score")}
        rows.append(row)
    return rows


_WRITERS: dict[PartFormat, Callable[[Path, KeypointSchema], PartWriter]] = {
    "jsonl": JsonLinesPart,
    "parquet": ParquetPart,
}


def part_writer(part_format: PartFormat, path: Path, *, keypoints: KeypointSchema) -> PartWriter:
    """Return the writer of a part.

    Args:
        part_format: One of `PART_FORMATS`.
        path: The file.
        keypoints: The joints, in the model's order.

    Raises:
        MissingDependencyError: pyarrow is needed and not installed.
    """
    return _WRITERS[part_format](path, keypoints)
