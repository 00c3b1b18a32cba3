import json

import cv2
import numpy as np
import pytest

from lbkit.core.coco import read_coco
from lbkit.core.geometry import ImageSize
from lbkit.core.images import read_image
from lbkit.errors import InputError, OutputError
from lbkit.synthetic.annotations import COCO_JOINT_NAMES, coco_document, write_figures
from lbkit.synthetic.figures import random_figure

SIZE = ImageSize(60, 44)


def _figures(count):
    return [random_figure(np.random.default_rng([3, index]), SIZE, cropped_share=0.5) for index in range(count)]


def test_joints_boxes_and_visibility_come_back_from_the_file(tmp_path):
    figures = _figures(6)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(coco_document(figures, file_names=[f"{index}.png" for index in range(6)])))
    coco = read_coco(path)
    assert not coco.skipped
    assert len(coco.persons) == 6
    for figure, person in zip(figures, coco.persons, strict=True):
        labelled = figure.joints_visible > 0
        np.testing.assert_array_equal(person.visibility, figure.joints_visible)
        np.testing.assert_allclose(person.joints_xy[labelled], figure.joints_xy[labelled], atol=1e-4)
        np.testing.assert_allclose(person.joints_xy[~labelled], 0.0)
        np.testing.assert_allclose(person.box_xyxy, figure.box_xyxy)
        assert person.area == figure.area_px


def test_only_hips_knees_and_ankles_are_labelled_and_counted():
    figures = _figures(4)
    document = coco_document(figures, file_names=["a", "b", "c", "d"])
    assert document["categories"][0]["keypoints"] == list(COCO_JOINT_NAMES)
    assert COCO_JOINT_NAMES[11:] == ("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle")
    assert [entry["file_name"] for entry in document["images"]] == ["a", "b", "c", "d"]
    for figure, entry in zip(figures, document["annotations"], strict=True):
        visibility = entry["keypoints"][2::3]
        assert visibility[:11] == [0] * 11
        assert entry["num_keypoints"] == int(np.sum(figure.joints_visible > 0)) == sum(v > 0 for v in visibility)
        assert entry["knee_flexion_deg"] == pytest.approx(figure.knee_flexion_deg.tolist(), abs=1e-5)


def test_as_many_names_as_figures_are_needed():
    with pytest.raises(ValueError, match="zip"):
        coco_document(_figures(2), file_names=["a"])


def test_the_pictures_written_are_those_rendered(tmp_path):
    told = []
    written = write_figures(tmp_path / "new", count=3, seed=9, size=SIZE, pose="lunging", on_written=told.append)
    assert [path.name for path in written.images] == ["figure-000.png", "figure-001.png", "figure-002.png"]
    assert tuple(told) == written.images
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "annotations.json",
        "figure-000.png",
        "figure-001.png",
        "figure-002.png",
    ]
    expected = random_figure(np.random.default_rng([9, 1]), SIZE, pose="lunging")
    np.testing.assert_array_equal(read_image(written.images[1]), expected.image)
    entries = json.loads(written.annotations.read_text())["annotations"]
    assert [entry["pose"] for entry in entries] == ["lunging"] * 3


def test_a_figure_does_not_depend_on_how_many_there_are(tmp_path):
    few = write_figures(tmp_path / "few", count=1, seed=2, size=SIZE)
    many = write_figures(tmp_path / "many", count=2, seed=2, size=SIZE)
    assert few.images[0].read_bytes() == many.images[0].read_bytes()
    assert many.images[0].read_bytes() != many.images[1].read_bytes()


def test_nothing_is_overwritten_or_begun_without_force(tmp_path):
    (tmp_path / "figure-001.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match="--force"):
        write_figures(tmp_path, count=2, seed=0, size=SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["figure-001.png"]
    write_figures(tmp_path, count=2, seed=0, size=SIZE, force=True)
    assert cv2.imread(str(tmp_path / "figure-001.png")).shape == (60, 44, 3)


def test_a_file_in_the_folders_place_and_numbers_out_of_range_are_refused(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        write_figures(tmp_path / "taken", count=1, seed=0, size=SIZE)
    for count, seed in ((0, 0), (1, -1)):
        with pytest.raises(InputError, match="count must be"):
            write_figures(tmp_path, count=count, seed=seed, size=SIZE)
