"""Files of people's boxes: COCO annotations and CSV tables, matched to pictures by name."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lbkit.core.coco import CocoFile, read_coco
from lbkit.errors import AnnotationError, InputError

CSV_COLUMNS = ("image", "left", "top", "right", "bottom")
CSV_ID_COLUMN = "id"
MAX_ID_DIGITS = 18
"""Longer ids stay text; every integer of so many digits fits into 64 bits."""

_MEND = "mend it or leave it out"


@dataclass(frozen=True, slots=True)
class PersonBox:
    """One person's box as a file gives it, not yet checked against the picture.

    Attributes:
        xyxy: Left, top, right, bottom in edge coordinates of the picture as it is shown.
        origin: Where it stands, for messages: "annotation 12" or "line 3".
        person_id: The file's id of it, or None.
    """

    xyxy: tuple[float, float, float, float]
    origin: str
    person_id: int | str | None = None


@dataclass(frozen=True, slots=True)
class ImageBoxes:
    """What a box file says of one picture.

    Attributes:
        boxes: The people.
        image_id: COCO's id of the picture, or None.
        problems: Entries that cannot be used, in words.
    """

    boxes: tuple[PersonBox, ...]
    image_id: int | None = None
    problems: tuple[str, ...] = ()


class BoxTable:
    """A box file in memory.

    Args:
        path: Where it was read from.
        entries: Boxes by picture name as the file spells it.
        problems: Lines that cannot be used.
        has_image_ids: Whether pictures have COCO ids.
    """

    def __init__(
        self,
        path: Path,
        entries: Mapping[str, ImageBoxes],
        *,
        problems: tuple[InputError, ...] = (),
        has_image_ids: bool = False,
    ) -> None:
        self.path = path
        self.problems = problems
        self.has_image_ids = has_image_ids
        self._by_file_name: dict[str, list[tuple[tuple[str, ...], ImageBoxes]]] = {}
        for name, boxes in entries.items():
            parts = PurePosixPath(name.replace("\\", "/")).parts
            self._by_file_name.setdefault(parts[-1] if parts else "", []).append((parts, boxes))

    def find(self, picture: Path) -> ImageBoxes | None:
        """Return what the file says of a picture, or None if it does not name it.

        A name fits if the picture's path ends in it, and the longest such wins. If none fits, the one entry of the
        same file name is taken, whatever its folder; of several, none.
        """
        entries = self._by_file_name.get(picture.name, [])
        parts = picture.absolute().parts
        fitting = [entry for entry in entries if parts[-len(entry[0]) :] == entry[0]]
        if fitting:
            return max(fitting, key=lambda entry: len(entry[0]))[1]
        return entries[0][1] if len(entries) == 1 else None


def read_coco_boxes(path: Path) -> BoxTable:
    """Read the boxes of a COCO annotation file; crowds are left out.

    Args:
        path: The JSON file.

    Raises:
        AnnotationError: It cannot be read or is not COCO.
    """
    coco = read_coco(path)
    persons = coco.persons_by_image()
    rejected = _rejected_by_image(coco)
    entries: dict[str, ImageBoxes] = {}
    problems: list[InputError] = []
    for image in coco.images.values():
        if image.file_name in entries:
            ids = f"{entries[image.file_name].image_id} and {image.image_id}"
            problem = f"images {ids} are both named {image.file_name!r}, and the boxes of the first are taken"
            problems.append(AnnotationError(problem, where=path, remedy=_MEND))
            continue
        entries[image.file_name] = ImageBoxes(
            boxes=tuple(
                PersonBox(_corners(person.box_xyxy), f"annotation {person.ann_id}", person.ann_id)
                for person in persons[image.image_id]
                if not person.is_crowd
            ),
            image_id=image.image_id,
            problems=tuple(rejected.get(image.image_id, ())),
        )
    return BoxTable(path, entries, problems=tuple(problems), has_image_ids=True)


def read_csv_boxes(path: Path) -> BoxTable:
    """Read a CSV table of boxes: one person a row, with the columns `CSV_COLUMNS` and, if wanted, `id`.

    Args:
        path: The CSV file, in UTF-8.

    Raises:
        AnnotationError: It cannot be read, is not UTF-8, or lacks a column.
    """
    rows: dict[str, list[PersonBox]] = {}
    problems: list[InputError] = []
    for line, row in _csv_rows(path):
        try:
            rows.setdefault(_cell(row, "image"), []).append(_person_box(row, line))
        except ValueError as error:
            problems.append(AnnotationError(f"line {line}: {error}", where=path, remedy=_MEND))
    entries = {name: ImageBoxes(tuple(boxes)) for name, boxes in rows.items()}
    return BoxTable(path, entries, problems=tuple(problems))


def _rejected_by_image(coco: CocoFile) -> dict[int, list[str]]:
    rejected: dict[int, list[str]] = {}
    for entry in coco.rejected:
        name = "an annotation" if entry.ann_id is None else f"annotation {entry.ann_id}"
        rejected.setdefault(entry.image_id, []).append(f"{name} of {coco.path.name}: {entry.reason}")
    return rejected


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            _check_header(reader.fieldnames, path)
            for row in reader:
                yield reader.line_num, row
    except FileNotFoundError as error:
        raise AnnotationError("no such file", where=path, remedy="check the path") from error
    except OSError as error:
        raise AnnotationError(f"cannot be read ({error.strerror})", where=path, remedy="check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f"is not CSV in UTF-8 ({error})", where=path, remedy="save it as CSV UTF-8") from error


def _check_header(names: Sequence[str], path: Path) -> None:
    found = list(names)
    missing = [column for column in CSV_COLUMNS if column not in found]
    if missing:
        wanted = ",".join(CSV_COLUMNS)
        is_separated_otherwise = len(found) == 1 and all(column in found[0] for column in CSV_COLUMNS)
        raise AnnotationError(
            f"line 1: expected the header {wanted}[,{CSV_ID_COLUMN}], got {','.join(found) or 'nothing'}",
            where=path,
            remedy="separate the columns by commas" if is_separated_otherwise else f"add the column {missing[0]}",
        )


def _person_box(row: Mapping[str, str | None], line: int) -> PersonBox:
    left, top, right, bottom = (_number(row, column) for column in CSV_COLUMNS[1:])
    text = (row.get(CSV_ID_COLUMN) or "").strip()
    is_number = text.isdecimal() and len(text) <= MAX_ID_DIGITS
    return PersonBox((left, top, right, bottom), f"line {line}", int(text) if is_number else text or None)


def _number(row: Mapping[str, str | None], column: str) -> float:
    text = _cell(row, column)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{column} should be a number, got {text!r}") from None


def _cell(row: Mapping[str, str | None], column: str) -> str:
    text = (row.get(column) or "").strip()
    if not text:
        raise ValueError(f"{column} is empty")
    return text


def _corners(box_xyxy: Iterable[float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(edge) for edge in box_xyxy)
    return left, top, right, bottom
