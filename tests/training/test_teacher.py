from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from lbkit.core.coco import CocoPerson, read_coco
from lbkit.core.geometry import FloatArray, ImageArray
from lbkit.errors import AnnotationError, ModelError, OutputError
from training.data import main
from training.teacher import MoveNet, Strictness, second_opinion, teach

BOX = np.array([10.0, 20.0, 70.0, 180.0])  # 160 px high, narrower than 4:3 asks
JOINTS = np.array([[30, 90], [50, 90], [32, 130], [48, 130], [30, 170], [50, 170.0]])
SIZE = np.array([100.0, 200.0])
PERSON = CocoPerson(1, 1, BOX, JOINTS, np.array([2, 2, 2, 2, 1, 0]), 100.0, False)


def answers(*, spread_px: float = 0.0, score: float = 0.9, joints: FloatArray = JOINTS) -> NDArray[np.float64]:
    both = np.stack([joints, joints + np.array([spread_px, 0.0])])
    return np.concatenate([both, np.full((2, 6, 1), score)], axis=-1)


def heard(told: NDArray[np.float64], person: CocoPerson = PERSON) -> tuple[list[int], dict[str, int]]:
    _, visibility, done = second_opinion(person, told, strictness=Strictness(), size_xy=SIZE)
    return visibility.tolist(), dict(done)


def test_a_joint_nobody_labelled_is_filled_in_as_hidden() -> None:
    joints, visibility, done = second_opinion(PERSON, answers(spread_px=4.0), strictness=Strictness(), size_xy=SIZE)
    assert visibility.tolist() == [2, 2, 2, 2, 1, 1]
    np.testing.assert_allclose(joints[:5], JOINTS[:5])
    np.testing.assert_allclose(joints[5], JOINTS[5] + np.array([2.0, 0.0]))
    assert done == {"filled": 1, "contradicted": 0, "kept": 5}


@pytest.mark.parametrize(
    "told",
    [answers(spread_px=0.07 * 160), answers(score=0.1), answers(joints=JOINTS + np.array([60.0, 0.0]))],
    ids=["two answers apart", "low score", "off the picture"],
)
def test_an_unsure_answer_fills_nothing(told: NDArray[np.float64]) -> None:
    assert heard(told)[0][5] == 0


def test_a_label_that_a_sure_teacher_contradicts_is_taken_out() -> None:
    swapped = JOINTS[[1, 0, 3, 2, 5, 4]]  # 20, 16 and 20 px apart, and 0.15 of the height is 24
    assert heard(answers(joints=swapped))[1]["contradicted"] == 0
    far = JOINTS + np.array([[0, 0], [0, -25], [0, 0], [0, 0], [0, 0], [0, 0.0]])
    assert heard(answers(joints=far)) == ([2, 0, 2, 2, 1, 1], {"filled": 1, "contradicted": 1, "kept": 4})
    assert heard(answers(joints=far, spread_px=0.04 * 160))[1]["contradicted"] == 0
    assert heard(answers(joints=far, score=0.3))[1]["contradicted"] == 0


class Sure:
    """Answers with the middle of the box, and is sure of it."""

    def __call__(self, image: ImageArray, box_xyxy: FloatArray) -> NDArray[np.float64]:
        assert image.ndim == 3
        middle = np.array([box_xyxy[[0, 2]].mean(), box_xyxy[[1, 3]].mean()])
        return answers(joints=np.tile(middle, (6, 1)))


def test_a_file_is_written_again_with_the_opinion_in_it(figure_data: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "annotations.json", tmp_path / "taught.json"
    content = json.loads((figure_data / "annotations.json").read_text())
    first = content["annotations"][0]
    first["keypoints"][13 * 3 : 13 * 3 + 3] = [0, 0, 0]
    head = first["keypoints"][:33]
    source.write_text(json.dumps(content))
    strict = replace(Strictness(), contradiction=9.0)
    ticks: list[tuple[int, int]] = []
    done = teach(
        source,
        target,
        images=figure_data,
        teacher=Sure(),
        teacher_name="sure",
        strictness=strict,
        watch=lambda people, total: ticks.append((people, total)),
    )
    before, after = read_coco(source).persons, read_coco(target).persons
    assert done["filled"] == sum(6 - person.labelled_joints for person in before) >= 1
    assert done["contradicted"] == 0
    assert ticks[-1] == (8, 8)
    assert after[0].visibility[2] == 1
    for old, new in zip(before, after, strict=True):
        kept = old.visibility > 0
        np.testing.assert_array_equal(old.joints_xy[kept], new.joints_xy[kept])
    written = json.loads(target.read_text())
    assert written["annotations"][0]["keypoints"][:33] == head
    assert written["info"]["lbkit_teacher"]["teacher"] == "sure"
    with pytest.raises(OutputError, match="exists already"):
        teach(source, target, images=figure_data, teacher=Sure(), teacher_name="sure")


def test_pictures_that_are_missing_are_counted(figure_data: Path, tmp_path: Path) -> None:
    done = teach(
        figure_data / "annotations.json",
        tmp_path / "taught.json",
        images=tmp_path,
        teacher=Sure(),
        teacher_name="sure",
    )
    assert done == {"people without a picture": 8}


def save_movenet(path: Path) -> None:
    """Write a graph with MoveNet's signature that puts all joints at 0.25 of the height and 0.75 of the width."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    joints = np.tile(np.array([0.25, 0.75, 0.5], np.float32), (1, 1, 17, 1))
    take = helper.make_node("Shape", ["image"], ["shape"])
    zero = helper.make_node("ReduceMin", ["shape"], ["least"], keepdims=0)
    cast = helper.make_node("Cast", ["least"], ["one"], to=TensorProto.FLOAT)
    scale = helper.make_node("Mul", ["joints", "one"], ["output"])
    graph = helper.make_graph(
        [take, zero, cast, scale],
        "movenet",
        [helper.make_tensor_value_info("image", TensorProto.INT32, [1, 64, 64, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 17, 3])],
        [numpy_helper.from_array(joints, "joints")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def test_movenet_answers_in_the_picture_and_its_mirror_image(tmp_path: Path) -> None:
    save_movenet(tmp_path / "movenet.onnx")
    image = np.zeros((200, 100, 3), np.uint8)
    straight, mirrored = MoveNet(tmp_path / "movenet.onnx", threads=1)(image, BOX)
    side, middle = 160 * 1.1, np.array([40.0, 100.0])
    np.testing.assert_allclose(straight[0, :2], middle + np.array([0.25, -0.25]) * side - 0.5, atol=1e-6)
    np.testing.assert_allclose(mirrored[0, :2], middle + np.array([-0.25, -0.25]) * side - 0.5, atol=1e-6)
    assert straight[0, 2] == 0.5


def test_another_model_is_no_teacher(toys, tmp_path: Path) -> None:
    toys.save_toy_model(tmp_path / "toy.onnx")
    with pytest.raises(ModelError, match=r"is not a MoveNet: takes tensor\(uint8\)"):
        MoveNet(tmp_path / "toy.onnx", threads=1)


def test_the_command_tells_what_it_did(figure_data: Path, tmp_path: Path) -> None:
    save_movenet(tmp_path / "movenet.onnx")
    line = ["teach", str(figure_data / "annotations.json"), "--images", str(figure_data)]
    line += ["--teacher", str(tmp_path / "movenet.onnx"), "--output", str(tmp_path / "taught.json")]
    done = CliRunner().invoke(main, line)
    assert done.exit_code == 0, done.output
    assert "kept" in done.output
    assert f"wrote {tmp_path / 'taught.json'}" in done.output
    again = CliRunner().invoke(main, line)
    assert again.exit_code == 1
    assert "exists already" in again.output


def test_labels_are_never_lost_to_their_own_file_nor_taught_twice(figure_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "annotations.json"
    source.write_bytes((figure_data / "annotations.json").read_bytes())
    before = source.read_bytes()
    (tmp_path / "link.json").hardlink_to(source)
    for target in (source, tmp_path / "link.json"):
        with pytest.raises(OutputError, match="the labels would be lost"):
            teach(source, target, images=figure_data, teacher=Sure(), teacher_name="sure", force=True)
    assert source.read_bytes() == before
    teach(source, tmp_path / "taught.json", images=figure_data, teacher=Sure(), teacher_name="sure")
    with pytest.raises(AnnotationError, match=r"taught\.json: has a teacher's opinion in it already"):
        teach(
            tmp_path / "taught.json", tmp_path / "twice.json", images=figure_data, teacher=Sure(), teacher_name="sure"
        )


def test_nobody_asks_about_a_crowd(figure_data: Path, tmp_path: Path) -> None:
    source, content = tmp_path / "crowd.json", json.loads((figure_data / "annotations.json").read_text())
    crowd = content["annotations"][0]
    crowd["iscrowd"] = 1
    source.write_text(json.dumps(content))
    teach(source, tmp_path / "taught.json", images=figure_data, teacher=Sure(), teacher_name="sure")
    written = json.loads((tmp_path / "taught.json").read_text())["annotations"]
    assert written[0]["keypoints"] == crowd["keypoints"]
