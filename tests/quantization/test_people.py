from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lbkit.errors import AnnotationError, InputError
from lbkit.quantization.people import Source, cut_crops, read_source, split_source


def source(photographs: int, people: int) -> Source:
    paths = tuple(Path(f"{index}.jpg") for index in range(photographs) for _ in range(people))
    boxes = np.arange(4.0 * len(paths)).reshape(-1, 4)
    return Source("data", paths, boxes, None)


def test_parts_share_no_photograph_and_lose_nobody() -> None:
    parts = split_source(source(30, 3), 12, 8)
    assert [len(part) for part in parts[:2]] == [12, 8]
    photographs = [set(part.paths) for part in parts]
    assert not photographs[0] & photographs[1]
    assert not photographs[2] & (photographs[0] | photographs[1])
    assert len(set.union(*photographs)) == 30


def test_a_part_gets_a_third_of_the_photographs_at_most() -> None:
    parts = split_source(source(9, 1), 1000, 1000)
    assert [len(part) for part in parts] == [3, 3, 3]


def test_the_draw_is_the_same_every_time_and_not_the_files_order() -> None:
    first, again = (split_source(source(40, 1), 10, 10) for _ in range(2))
    assert [part.paths for part in first] == [part.paths for part in again]
    assert first[0].paths != source(40, 1).paths[:10]


def test_boxes_and_annotations_stay_with_their_people(people_root: Path) -> None:
    whole = read_source(people_root)
    assert whole.people is not None
    part = split_source(whole, 3)[0]
    assert part.people is not None
    for path, image_id in zip(part.paths, part.people.image_ids, strict=True):
        assert path.name == f"{image_id:06d}.png"
    np.testing.assert_array_equal(part.boxes_xyxy, part.people.boxes_xyxy)
    assert whole.sha256 is not None
    assert whole.photographs == 12


def test_an_annotation_file_with_pictures_beside_it(people_root: Path, tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(people_root / "val2017")
    content = (people_root / "annotations" / "person_keypoints_val2017.json").read_text()
    (tmp_path / "annotations.json").write_text(content)
    for given in (tmp_path, tmp_path / "annotations.json"):
        found = read_source(given)
        assert (len(found), found.name) == (12, tmp_path.name)
        assert found.paths[0].is_file()


def test_broken_photographs_and_boxes_are_left_out(
    people_root: Path, toys: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = people_root / "val2017" / "000001.png"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    boxes = np.array([[10, 10, 90, 200], [10, 10, 90, 200], [5000, 10, 5090, 200]], float)
    crops = cut_crops(Source("data", (good, broken, good), boxes, None), toys.toy_contract())
    assert len(crops) == 1
    assert crops.pixels.shape == (1, 256, 192, 3)
    assert "broken.png" in caplog.text
    assert "box cannot be used" in caplog.text
    with pytest.raises(InputError, match="nobody of data"):
        cut_crops(Source("data", (broken,), boxes[:1], None), toys.toy_contract())


def test_photographs_that_are_not_there_are_an_error(people_root: Path, tmp_path: Path) -> None:
    content = (people_root / "annotations" / "person_keypoints_val2017.json").read_text()
    (tmp_path / "annotations.json").write_text(content)
    with pytest.raises(AnnotationError, match="none of its photographs"):
        read_source(tmp_path)
