from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lbkit.core.geometry import ImageSize
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.core.poses import Poses
from lbkit.core.results import ImageResult, ResultFormat, result_file, result_writer
from lbkit.errors import ImageReadError, OutputError

SIZE = ImageSize(300, 220)


def result(people: int, *, path: str = "photos/a.jpg", image_id: int | None = None) -> ImageResult:
    """Joint j of person p lies at (10 + j + p / 4, 100 + 2 j) and scores (j + 1) / 10."""
    joints = np.arange(6.0)
    xy = np.array([np.stack([10 + joints + person / 4, 100 + 2 * joints], axis=1) for person in range(people)])
    boxes = np.array([[1.5 + person, 2, 101.5 + person, 202] for person in range(people)])
    poses = Poses(
        xy.reshape(-1, 6, 2), np.tile((joints + 1) / 10, (people, 1)), boxes.reshape(-1, 4), SIZE, LOWER_BODY_6
    )
    ids = tuple(500 + person if image_id is not None else None for person in range(people))
    return ImageResult(Path(path), poses, person_ids=ids, image_id=image_id)


def unread() -> ImageResult:
    return ImageResult(Path("b.jpg"), None, problems=(ImageReadError("is empty"),))


def written(name: ResultFormat, results: Iterable[ImageResult]) -> str:
    writer = result_writer(name, LOWER_BODY_6)
    return writer.begin() + "".join(writer.rows(one) for one in results) + writer.end()


def test_a_json_line_is_a_picture_with_its_people() -> None:
    lines = written("jsonl", [result(2), unread(), result(0, path="c.jpg")]).splitlines()
    first, last = (json.loads(line) for line in lines)
    assert (first["path"], first["width"], first["height"]) == ("photos/a.jpg", 220, 300)
    assert len(first["people"]) == 2
    second = first["people"][1]
    assert second["box_xyxy"] == [2.5, 2, 102.5, 202]
    assert list(second["keypoints"]) == list(LOWER_BODY_6.names)
    assert second["keypoints"]["left_knee"] == {"x": 12.25, "y": 104.0, "score": 0.3}
    assert second["score"] == pytest.approx(0.35)
    assert not {"image_id"} & set(first)
    assert not {"ann_id"} & set(second)
    assert last["people"] == []


def test_a_json_line_carries_ids_if_there_are_any() -> None:
    record = json.loads(written("jsonl", [result(2, image_id=7)]))
    assert record["image_id"] == 7
    assert [person["ann_id"] for person in record["people"]] == [500, 501]


def test_the_table_has_a_row_a_person() -> None:
    text = written("csv", [result(2, path='a,"b".jpg', image_id=7), unread(), result(0), result(1)])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["path"], row["person"], row["ann_id"]) for row in rows] == [
        ('a,"b".jpg', "1", "500"),
        ('a,"b".jpg', "2", "501"),
        ("photos/a.jpg", "1", ""),
    ]
    assert {name: float(rows[1][name]) for name in ("left", "top", "right", "bottom", "width", "height")} == {
        "left": 2.5,
        "top": 2,
        "right": 102.5,
        "bottom": 202,
        "width": 220,
        "height": 300,
    }
    joint = [float(rows[1][f"right_ankle_{field}"]) for field in ("x", "y", "score")]
    assert joint == [15.25, 110.0, 0.6]
    assert None not in rows[0]
    assert None not in rows[0].values()


def test_coco_rows_are_what_pycocotools_expects() -> None:
    rows = json.loads(written("coco", [result(2, image_id=7), unread(), result(1), result(0, image_id=9)]))
    assert [(row["image_id"], row["ann_id"], row["category_id"]) for row in rows] == [(7, 500, 1), (7, 501, 1)]
    assert rows[1]["bbox"] == [2.5, 2, 100, 200]
    keypoints = np.array(rows[1]["keypoints"]).reshape(17, 3)
    assert not keypoints[:11].any()
    np.testing.assert_allclose(keypoints[13], [12.25, 104, 0.3])
    assert rows[1]["score"] == pytest.approx(0.35)
    assert json.loads(written("coco", [])) == []


def test_pycocotools_reads_and_scores_the_rows() -> None:
    coco_module = pytest.importorskip("pycocotools.coco", reason="pycocotools comes with lbkit[eval]")
    from pycocotools.cocoeval import COCOeval

    one = result(1, image_id=7)
    joints = np.zeros((17, 3))
    joints[11:, :2], joints[11:, 2] = one.poses.xy[0], 2  # type: ignore[union-attr]
    truth = coco_module.COCO()
    truth.dataset = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 220, "height": 300}],
        "categories": [{"id": 1, "name": "person", "keypoints": [str(n) for n in range(17)], "skeleton": []}],
        "annotations": [
            {
                "id": 500,
                "image_id": 7,
                "category_id": 1,
                "bbox": [1.5, 2, 100, 200],
                "area": 9000,
                "iscrowd": 0,
                "num_keypoints": 6,
                "keypoints": joints.ravel().tolist(),
            }
        ],
    }
    truth.createIndex()
    found = truth.loadRes(json.loads(written("coco", [one])))
    evaluation = COCOeval(truth, found, "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_ids_must_match_the_people() -> None:
    with pytest.raises(ValueError, match="1 people need as many person_ids, got 2"):
        ImageResult(Path("a.jpg"), result(1).poses, person_ids=(1, 2))


def test_the_file_appears_only_when_all_is_written(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out.jsonl"
    with result_file(target, force=False) as stream:
        stream.write("half")
        stream.flush()
        assert not target.exists()
    assert target.read_text() == "half"
    assert [entry.name for entry in target.parent.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("crash", [KeyboardInterrupt, RuntimeError, OSError(28, "No space left on device")])
def test_a_crash_leaves_neither_the_file_nor_a_temporary_one(tmp_path: Path, crash: Any) -> None:
    def write_half() -> None:
        with result_file(tmp_path / "out.jsonl", force=False) as stream:
            stream.write("half")
            raise crash

    with pytest.raises(OutputError if isinstance(crash, OSError) else crash):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_replaced_by_force_only(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")
    with pytest.raises(OutputError, match="--force"), result_file(target, force=False):
        pytest.fail("it was opened")
    assert target.read_text() == "old"
    with result_file(target, force=True) as stream:
        stream.write("new")
    assert target.read_text() == "new"


def test_a_file_name_that_is_not_utf_8_comes_out_as_it_is(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg"
    with result_file(tmp_path / "out.csv", force=False) as stream:
        stream.write(written("csv", [result(1, path=name.decode("utf-8", "surrogateescape"))]))
    assert b"\ncaf\xe9.jpg,220," in (tmp_path / "out.csv").read_bytes()
