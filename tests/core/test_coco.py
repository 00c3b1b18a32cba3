from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lbkit.core.coco import read_coco
from lbkit.errors import AnnotationError


def person(**changes: Any) -> dict[str, Any]:
    keypoints = [0] * 51
    keypoints[33:36] = [12, 34, 2]  # left hip, joint 11
    keypoints[48:51] = [56, 78, 1]  # right ankle, joint 16
    entry = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 30, 40], "keypoints": keypoints, "area": 600}
    return entry | changes


def write(folder: Path, annotations: list[Any], images: list[Any] | None = None) -> Path:
    path = folder / "a.json"
    content = {"images": images or [{"id": 7, "file_name": "seven.jpg"}], "annotations": annotations}
    path.write_text(json.dumps(content))
    return path


def test_a_person_is_read_whole(tmp_path: Path) -> None:
    (found,) = read_coco(write(tmp_path, [person()])).persons
    np.testing.assert_array_equal(found.box_xyxy, [10, 20, 40, 60])
    np.testing.assert_array_equal(found.visibility, [2, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(found.joints_xy[[0, 5]], [[12, 34], [56, 78]])
    assert (found.area, found.labelled_joints, found.is_crowd) == (600, 2, False)


def test_a_box_alone_is_a_person_without_labels(tmp_path: Path) -> None:
    (found,) = read_coco(write(tmp_path, [{"id": 5, "image_id": 7, "bbox": [1, 2, 3, 4]}])).persons
    assert found.labelled_joints == 0
    assert found.area == 12


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [1, 2, 0, 4]}, "no box with an area"),
        ({"bbox": [1, 2, float("nan"), 4]}, "no box with an area"),
        ({"bbox": None}, "no box with an area"),
        ({"bbox": [1, 2, 10**400, 4]}, "no box with an area"),
        ({"image_id": 8}, "image not in the file"),
        ({"image_id": [7]}, "image not in the file"),
        ({"image_id": {}}, "image not in the file"),
        ({"keypoints": [0] * 18}, "broken keypoints"),
        ({"keypoints": [float("inf")] * 51}, "broken keypoints"),
        ({"category_id": 3}, "not a person"),
        ({"id": "x"}, "no integer id"),
    ],
)
def test_unusable_annotations_are_counted_and_the_good_stay(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    coco = read_coco(write(tmp_path, [person(id=2), person(**change)]))
    assert [entry.ann_id for entry in coco.persons] == [2]
    assert coco.skipped == {reason: 1}


def test_an_id_used_twice_is_skipped_the_second_time(tmp_path: Path) -> None:
    coco = read_coco(write(tmp_path, [person(), person(bbox=[0, 0, 5, 5])]))
    assert len(coco.persons) == 1
    assert coco.skipped == {"id used twice": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON .*; give a file like"),
        ("[" * 100_000, "is not JSON .*; give a file like"),
        ('{"images": [' + "9" * 5000 + "]}", "is not JSON .*; give a file like"),
        ("[]", "no list 'images'"),
        ('{"images": []}', "no list 'annotations'"),
        ('{"images": [{"id": 1}], "annotations": []}', r"images\[0\] lacks"),
        (
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": []}',
            "two images have the id 1",
        ),
    ],
)
def test_broken_files_say_what_they_lack(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=f"broken.json: .*{words}"):
        read_coco(path)


def test_binary_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(AnnotationError, match="is not JSON"):
        read_coco(tmp_path / "x.json")
    with pytest.raises(AnnotationError, match="no such file"):
        read_coco(tmp_path / "y.json")


def test_grouping_keeps_images_without_people(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "a"}, {"id": 9, "file_name": "b"}]
    groups = read_coco(write(tmp_path, [person()], images)).persons_by_image()
    assert {key: len(value) for key, value in groups.items()} == {7: 1, 9: 0}
