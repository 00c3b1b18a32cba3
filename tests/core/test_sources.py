from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from lbkit.core.box_files import BoxTable, ImageBoxes, PersonBox, read_coco_boxes, read_csv_boxes
from lbkit.core.sources import find_pictures, natural_key
from lbkit.errors import AnnotationError, InputError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def walk(*sources: object, listed: Iterable[str] = (), recursive: bool = False) -> list[str]:
    """File names found, in order; an error stands as its problem."""
    found = find_pictures(map(str, sources), listed=listed, recursive=recursive)
    return [entry.problem if isinstance(entry, InputError) else entry.name for entry in found]


def test_a_folder_gives_its_pictures_in_natural_order(tmp_path: Path) -> None:
    names = ["b.JPG", "frame10.png", "frame2.png", "frame002.png", "a.webp", "note.txt", ".hidden.jpg", "sub/c.jpg"]
    touch(tmp_path, *names)
    assert walk(tmp_path) == ["a.webp", "b.JPG", "frame002.png", "frame2.png", "frame10.png"]


def test_recursive_goes_into_subfolders_after_the_folder_itself(tmp_path: Path) -> None:
    touch(tmp_path, "z.jpg", "s10/a.jpg", "s2/b.jpg", "s2/deep/c.jpg", ".git/d.jpg", "empty/readme.md")
    assert walk(tmp_path, recursive=True) == ["z.jpg", "b.jpg", "c.jpg", "a.jpg"]
    assert walk(tmp_path) == ["z.jpg"]


def test_a_link_to_a_parent_folder_is_not_walked_round_and_round(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert walk(tmp_path, recursive=True) == ["1.jpg"]


def test_a_pattern_gives_pictures_only_and_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, "p10.jpg", "p9.jpg", "p1.txt", "q1.jpg", "pfolder.jpg/x.jpg")
    assert walk(tmp_path / "p*") == ["p9.jpg", "p10.jpg"]
    assert walk(tmp_path / "**" / "x.jpg") == ["x.jpg"]


def test_a_file_is_taken_whatever_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "noname", "a[1].jpg")
    assert walk(tmp_path / "noname", tmp_path / "a[1].jpg", tmp_path / "missing.jpg") == [
        "noname",
        "a[1].jpg",
        "missing.jpg",
    ]


def test_sources_come_in_the_order_given_and_a_barren_one_is_an_error_in_its_place(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.jpg", "empty/readme.txt", "nested/deep/c.jpg")
    found = list(
        find_pictures(
            [str(tmp_path / name) for name in ("b.jpg", "empty", "*.png", "nested", "a.jpg")], recursive=False
        )
    )
    first, empty, pattern, nested, last = found
    assert (first, last) == (tmp_path / "b.jpg", tmp_path / "a.jpg")
    assert str(empty).startswith(f"{tmp_path / 'empty'}: no picture in this folder")
    assert "--recursive" in str(nested)
    assert str(pattern).startswith(f"{tmp_path / '*.png'}: no picture matches")
    assert "--recursive" not in str(next(find_pictures([str(tmp_path / "empty")], recursive=True)))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may list every folder")
def test_a_folder_without_permission_is_an_error_and_the_rest_goes_on(tmp_path: Path) -> None:
    touch(tmp_path, "locked/a.jpg", "open/b.jpg")
    (tmp_path / "locked").chmod(0)
    assert walk(tmp_path, recursive=True) == ["cannot be listed (Permission denied)", "b.jpg"]


def test_a_folder_that_cannot_be_listed_is_an_error_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "locked/a.jpg", "open/b.jpg")
    scandir = os.scandir

    def deny(folder: Path) -> Any:
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", deny)
    assert walk(tmp_path, recursive=True) == ["cannot be listed (Permission denied)", "b.jpg"]
    assert walk(tmp_path / "locked") == ["cannot be listed (Permission denied)"]


def test_a_list_on_stdin_names_sources_line_by_line(tmp_path: Path) -> None:
    touch(tmp_path, "one.jpg", "folder/two.jpg", "with space.jpg")
    lines = [f"{tmp_path}/one.jpg\n", "\n", f"{tmp_path}/folder\r\n", f"{tmp_path}/with space.jpg"]
    assert walk("-", listed=lines) == ["one.jpg", "two.jpg", "with space.jpg"]


def test_an_empty_list_an_empty_name_and_null_characters_are_errors(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    assert walk("-", "", tmp_path, listed=["\n", "\r\n"]) == [
        "the list on stdin is empty",
        "an empty name is no source",
        "a.jpg",
    ]
    (error,) = find_pictures(["-"], listed=["a.jpg\0" * 1000])
    assert isinstance(error, InputError)
    assert str(error).endswith("...: has a null character in it; give one path a line")
    assert len(str(error)) < 300


def test_an_endless_list_is_read_only_as_far_as_it_is_needed() -> None:
    def endless() -> Iterable[str]:
        number = 0
        while True:
            number += 1
            yield f"{number}.jpg\n"

    assert [path.name for path in islice(find_pictures(["-"], listed=endless()), 3)] == ["1.jpg", "2.jpg", "3.jpg"]  # type: ignore[union-attr]


def test_natural_order_does_not_depend_on_the_order_found() -> None:
    names = ["a", "A", "a1", "a01", "a1b", "a2", "a10", "a10b2", "a10b10", "b", "007", "7", "08"]
    for seed in range(5):
        shuffled = names.copy()
        random.Random(seed).shuffle(shuffled)
        ordered = sorted(shuffled, key=natural_key)
        assert ordered == ["007", "7", "08", "A", "a", "a01", "a1", "a1b", "a2", "a10", "a10b2", "a10b10", "b"]


def coco_file(folder: Path, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
        "annotations": [
            {"id": 70, "image_id": 7, "bbox": [10, 20, 30, 60]},
            {"id": 71, "image_id": 7, "bbox": [1, 2, 3, 4], "iscrowd": 1},
            {"id": 72, "image_id": 7, "bbox": [5, 6, 0, 9]},
            {"id": 73, "image_id": 7, "bbox": [5, 6, math.nan, 9]},
            {"id": 74, "image_id": 7, "bbox": [1, 2, 3, 4], "category_id": 18},
        ],
    }
    path = folder / "people.json"
    path.write_text(json.dumps(content | changes))
    return path


def test_coco_boxes_have_ids_and_leave_crowds_out(tmp_path: Path) -> None:
    table = read_coco_boxes(coco_file(tmp_path))
    entry = table.find(Path("photos/a.jpg"))
    assert entry is not None
    assert entry.image_id == 7
    assert entry.boxes == (PersonBox((10, 20, 40, 80), "annotation 70", 70),)
    assert entry.problems == (
        "annotation 72 of people.json: no box with an area",
        "annotation 73 of people.json: no box with an area",
    )
    assert table.has_image_ids


def test_a_picture_without_boxes_is_named_but_empty(tmp_path: Path) -> None:
    table = read_coco_boxes(coco_file(tmp_path))
    assert table.find(Path("b.jpg")) == ImageBoxes((), image_id=8)
    assert table.find(Path("c.jpg")) is None


@pytest.mark.parametrize("content", ["not json", "[]", '{"images": []}', '{"images": [{"id": 1}], "annotations": []}'])
def test_a_broken_coco_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "people.json"
    path.write_text(content)
    with pytest.raises(AnnotationError, match=r"people\.json: "):
        read_coco_boxes(path)


def table_of(*names: str) -> BoxTable:
    return BoxTable(Path("x.csv"), {name: ImageBoxes((), image_id=number) for number, name in enumerate(names)})


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        ("/data/a/1.jpg", 0),
        ("/data/b/1.jpg", 1),
        ("/data/c/1.jpg", None),
        ("/data/c/2.jpg", 2),
        ("/data/val/3.jpg", 3),
        ("/data/deep/a/4.jpg", 5),
        ("/data/other/a/4.jpg", 4),
        ("/data/5.jpg", None),
    ],
)
def test_the_longest_name_that_the_path_ends_in_wins(picture: str, expected: int | None) -> None:
    table = table_of("a/1.jpg", "b\\1.jpg", "2.jpg", "train/3.jpg", "a/4.jpg", "deep/a/4.jpg")
    found = table.find(Path(picture))
    assert (found.image_id if found else None) == expected


def test_a_relative_picture_is_matched_from_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    found = table_of("a/1.jpg", "b/1.jpg").find(Path("1.jpg"))
    assert found is not None
    assert found.image_id == 1


def csv_file(folder: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path = folder / "boxes.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_table_gives_boxes_by_picture(tmp_path: Path, encoding: str) -> None:
    text = "id,image,left,top,right,bottom,note\n4,ü.jpg,1,2.5,30,40,x\nanna,ü.jpg,5,6,7,8,\n,b.jpg,1,2,3,4,\n"
    table = read_csv_boxes(csv_file(tmp_path, text, encoding=encoding))
    first, second = table.find(Path("ü.jpg")).boxes  # type: ignore[union-attr]
    assert first == PersonBox((1, 2.5, 30, 40), "line 2", 4)
    assert second == PersonBox((5, 6, 7, 8), "line 3", "anna")
    assert table.find(Path("b.jpg")).boxes[0].person_id is None  # type: ignore[union-attr]
    assert table.problems == ()
    assert not table.has_image_ids


def test_bad_lines_are_named_and_the_others_kept(tmp_path: Path) -> None:
    rows = [
        "image,left,top,right,bottom",
        "a.jpg,1,2,3,4",
        "a.jpg,1,two,3,4",
        "a.jpg,1,2,3",
        ",1,2,3,4",
        "a.jpg,5,6,7,8",
    ]
    table = read_csv_boxes(csv_file(tmp_path, "\n".join(rows)))
    path = tmp_path / "boxes.csv"
    assert [str(problem).split(";")[0] for problem in table.problems] == [
        f"{path}: line 3: top should be a number, got 'two'",
        f"{path}: line 4: bottom is empty",
        f"{path}: line 5: image is empty",
    ]
    assert [box.origin for box in table.find(Path("a.jpg")).boxes] == ["line 2", "line 6"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "got nothing"),
        (b"image;left;top;right;bottom\n", "expected the header image,left,top,right,bottom"),
        (b"image,left,top,right\n", "add the column bottom"),
        ("image,left,top,right,bottom\nü.jpg,1,2,3,4".encode("latin-1"), "not CSV in UTF-8"),
    ],
)
def test_what_is_no_box_table_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "boxes.csv"
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=r"boxes\.csv: ") as caught:
        read_csv_boxes(path)
    assert words in str(caught.value)


def test_a_missing_box_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="no such file"):
        read_csv_boxes(tmp_path / "none.csv")
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_csv_boxes(tmp_path)


def test_a_name_that_two_images_of_a_coco_file_share_is_reported(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": "a.jpg"} for number in (1, 2)]
    people = [{"id": 10 + number, "image_id": number, "bbox": [number, 0, 9, 9]} for number in (1, 2)]
    (tmp_path / "people.json").write_text(json.dumps({"images": images, "annotations": people}))
    table = read_coco_boxes(tmp_path / "people.json")
    assert ["images 1 and 2 are both named 'a.jpg'" in str(problem) for problem in table.problems] == [True]
    found = table.find(Path("a.jpg"))
    assert found is not None
    assert [box.person_id for box in found.boxes] == [11]


def test_the_header_of_a_box_table_may_be_spelled_as_people_do(tmp_path: Path) -> None:
    table = read_csv_boxes(csv_file(tmp_path, "Image, Left, Top ,Right,BOTTOM\na.jpg, 1, 2, 3, 4\n"))
    found = table.find(Path("a.jpg"))
    assert found is not None
    assert [box.xyxy for box in found.boxes] == [(1, 2, 3, 4)]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_box_table_with_another_separator_says_so(tmp_path: Path, separator: str) -> None:
    text = "image,left,top,right,bottom\na.jpg,1,2,3,4\n".replace(",", separator)
    with pytest.raises(AnnotationError, match=r"line 1: expected the header .*; separate the columns by commas$"):
        read_csv_boxes(csv_file(tmp_path, text))


def test_an_endless_id_stays_text(tmp_path: Path) -> None:
    text = f"image,left,top,right,bottom,id\na.jpg,1,2,3,4,{'9' * 5000}\na.jpg,1,2,3,4,9\n"
    found = read_csv_boxes(csv_file(tmp_path, text)).find(Path("a.jpg"))
    assert found is not None
    assert [box.person_id for box in found.boxes] == ["9" * 5000, 9]
