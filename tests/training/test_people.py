from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lbkit.errors import AnnotationError, ConfigError
from training.config import Recipe, read_recipe
from training.people import load_sources

COPIES = (
    'sources=[{name="a", annotations="a/annotations.json", images="a"}, '
    '{name="b", annotations="b/annotations.json", images="b", validation=1}]'
)


def test_validation_is_parted_by_image_and_stays(recipe_path: Path, figure_data: Path) -> None:
    recipe = read_recipe(recipe_path)
    (part,) = load_sources(recipe, figure_data)
    held = {person.image_id for person in part.validation}
    assert held
    assert held.isdisjoint(person.image_id for person in part.training)
    assert len(part.training) + len(part.validation) == 8
    (again,) = load_sources(recipe, figure_data)
    assert {person.image_id for person in again.validation} == held


def test_missing_pictures_are_left_out_and_an_empty_set_is_an_error(
    recipe_path: Path, figure_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "annotations.json").write_bytes((figure_data / "annotations.json").read_bytes())
    recipe = read_recipe(recipe_path)
    problem = r"nobody with a labelled joint and a picture \(picture missing: 8\); check the source"
    with caplog.at_level("INFO"), pytest.raises(AnnotationError, match=problem):
        load_sources(recipe, tmp_path)
    assert "'picture missing': 8" in caplog.text


@pytest.mark.parametrize("same", ["root", "copy"])
def test_a_root_that_is_trained_and_validated_on_is_refused(
    recipe_path: Path, figure_data: Path, tmp_path: Path, same: str
) -> None:
    shutil.copytree(figure_data, tmp_path / "a")
    if same == "copy":
        shutil.copytree(figure_data, tmp_path / "b")
    else:
        (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ConfigError, match=r"8 pictures are both trained on \(a\) and validated on \(b\)"):
        load_sources(read_recipe(recipe_path, settings=[COPIES]), tmp_path)


def test_other_pictures_of_the_same_ids_and_names_are_not_refused(
    recipe_path: Path, figure_data: Path, tmp_path: Path
) -> None:
    for name in "ab":
        shutil.copytree(figure_data, tmp_path / name)
    for picture in (tmp_path / "b").rglob("*.[jp][pn]g"):
        picture.write_bytes(picture.read_bytes() + b"\n")  # another size stands for another picture
    first, second = load_sources(read_recipe(recipe_path, settings=[COPIES]), tmp_path)
    assert (len(first.training), len(first.validation)) == (8, 0)
    assert (len(second.training), len(second.validation)) == (0, 8)


def test_nobody_to_train_on_is_an_error(recipe_path: Path, figure_data: Path) -> None:
    only = 'sources=[{name="a", annotations="annotations.json", images=".", validation=1}]'
    with pytest.raises(ConfigError, match="every source is kept for validation"):
        load_sources(read_recipe(recipe_path, settings=[only]), figure_data)


def broken_annotations(content: dict[str, Any]) -> None:
    """Break the file in every way that is counted and survived."""
    people, images = content["annotations"], content["images"]
    people[0]["keypoints"][11 * 3] = float("nan")
    people[1]["bbox"][2] = 0
    people[2]["id"] = people[3]["id"]
    people[4]["image_id"] = 10**9
    people[5]["keypoints"][15 * 3 : 15 * 3 + 3] = [images[5]["width"] + 40, 10, 2]
    people[6]["keypoints"] = [0] * 51
    people[7]["iscrowd"] = 1


def test_what_cannot_be_used_is_counted_by_reason(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(figure_data, folder)
    content = json.loads((folder / "annotations.json").read_text())
    broken_annotations(content)
    (folder / "annotations.json").write_text(json.dumps(content))
    (part,) = load_sources(_without_validation(recipe_path), folder)
    assert len(part.training) == 2
    assert part.left_out == {
        "broken keypoints": 1,
        "no box with an area": 1,
        "id used twice": 1,
        "image not in the file": 1,
        "joint outside its picture": 1,
        "no labelled joint": 1,
        "crowd": 1,
        "picture without a person": 4,
    }
    outside = next(person for person in part.training if person.image_id == content["images"][5]["id"])
    assert outside.visibility.tolist().count(0) == 1


def test_pictures_may_lie_in_folders_of_their_own(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    content = json.loads((figure_data / "annotations.json").read_text())
    for entry in content["images"]:
        entry["file_name"] = f"part/{entry['file_name']}"
    shutil.copytree(figure_data, tmp_path / "part")
    (tmp_path / "part" / content["images"][0]["file_name"].split("/")[1]).rename(tmp_path / "elsewhere.png")
    content["images"][1]["file_name"] = "\0"
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (part,) = load_sources(_without_validation(recipe_path), tmp_path)
    assert len(part.training) == 6
    assert part.left_out == {"picture missing": 2}


def test_boxes_beyond_the_picture_are_counted(recipe_path: Path, figure_data: Path, tmp_path: Path) -> None:
    shutil.copytree(figure_data, tmp_path / "data")
    content = json.loads((figure_data / "annotations.json").read_text())
    for index, box in enumerate(([1e6, 1e6, 10, 10], [10, 10, 1e308, 1e308], [10, 10, 1e-300, 1e-300])):
        content["annotations"][index]["bbox"] = box
    (tmp_path / "data" / "annotations.json").write_text(json.dumps(content))
    (part,) = load_sources(_without_validation(recipe_path), tmp_path / "data")
    assert (len(part.training), part.left_out) == (5, {"box off its picture": 3})


def _without_validation(recipe_path: Path) -> Recipe:
    return read_recipe(recipe_path, settings=['sources=[{name="figures", annotations="annotations.json", images="."}]'])


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[1]", "is not a COCO annotation file"), ('{"images": []}', "no list 'annotations'")],
)
def test_a_file_that_is_not_coco_is_an_error(recipe_path: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(AnnotationError, match=message):
        load_sources(_without_validation(recipe_path), tmp_path)


def test_hidden_joints_weigh_what_the_source_says(recipe_path: Path, figure_data: Path) -> None:
    import numpy as np

    from lbkit.models.registry import bare_contract
    from training.dataset import CropDataset

    setting = 'sources=[{name="figures", annotations="annotations.json", images=".", hidden_weight=0.25}]'
    recipe = read_recipe(recipe_path, settings=[setting])
    (part,) = load_sources(recipe, figure_data)
    contract = bare_contract("cnn", weights_sha256="", training_data=())
    dataset = CropDataset(part.training, contract, recipe=recipe, augmentation=None)
    for index, person in enumerate(part.training):
        expected = np.array([0.0, 0.25, 1.0])[person.visibility]
        np.testing.assert_array_equal(dataset[index, 0]["weight"].numpy(), expected.astype(np.float32))
