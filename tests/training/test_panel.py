from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

from lbkit.core.backend import ModelOutput
from lbkit.core.coco import CocoFile, CocoPerson, read_coco
from lbkit.core.codec import encode_heatmaps
from lbkit.core.contract import ModelContract
from lbkit.core.estimator import PoseEstimator
from lbkit.core.images import read_image
from lbkit.core.preprocess import crop_person
from lbkit.errors import AnnotationError, BoxError, InputError
from lbkit.evaluation.pck import relative_distances
from lbkit.models.checkpoint import Checkpoint, checkpoint_state, save_checkpoint, state_sha256
from lbkit.models.registry import bare_contract, build_model
from training.config import read_recipe
from training.dataset import Annotated, CropDataset
from training.losses import JointsMSELoss
from training.panel import PersonView, find_persons, main, panel_figure, random_persons, view_person

CONTRACT = bare_contract("cnn", weights_sha256="", training_data=())


class FixedMaps:
    """A network that puts out the same heatmaps whatever it sees."""

    contract: ModelContract = CONTRACT

    def __init__(self, heatmaps: NDArray[np.float32]) -> None:
        self.heatmaps = heatmaps

    def run(self, crops: NDArray[np.uint8]) -> ModelOutput:
        return ModelOutput(heatmaps=np.stack([self.heatmaps] * len(crops)), keypoints=None)


@pytest.fixture
def coco(figure_data: Path) -> CocoFile:
    return read_coco(figure_data / "annotations.json")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    state = checkpoint_state(build_model("cnn"), half=True)
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    save_checkpoint(path, Checkpoint(CONTRACT.replace(weights_sha256=state_sha256(state)), state))
    return path


def picture(coco: CocoFile, person: CocoPerson) -> NDArray[np.uint8]:
    return read_image(coco.path.parent / coco.images[person.image_id].file_name)


def targets_of(coco: CocoFile, person: CocoPerson) -> NDArray[np.float32]:
    _, transform = crop_person(picture(coco, person), person.box_xyxy, contract=CONTRACT)
    joints = transform.to_input(person.joints_xy)
    return encode_heatmaps(joints, person.visibility > 0, spec=CONTRACT.heatmap)[0]


def view_of(coco: CocoFile, person: CocoPerson, heatmaps: NDArray[np.float32]) -> PersonView:
    estimator = PoseEstimator(FixedMaps(heatmaps))
    return view_person(estimator, picture(coco, person), person=person, label="toy")


def test_perfect_heatmaps_lose_nothing_and_find_every_joint(coco: CocoFile) -> None:
    person = coco.persons[0]
    view = view_of(coco, person, targets_of(coco, person))
    assert view.loss_fixed == view.loss_visible == 0
    assert "PCK@0.05 1.00 (6 of 6)" in view.title
    np.testing.assert_allclose(view.found_xy, view.true_xy, atol=0.1)


def test_crop_targets_loss_and_distances_are_those_of_the_training(
    coco: CocoFile, recipe_path: Path, figure_data: Path
) -> None:
    """The training data set and the panel come to the same crop, joints, loss and distances."""
    person = dataclasses.replace(coco.persons[1], visibility=np.array([2, 1, 0, 2, 0, 2]))
    heatmaps = np.random.default_rng(3).random((6, 64, 48), dtype=np.float32)
    view = view_of(coco, person, heatmaps)
    path = figure_data / coco.images[person.image_id].file_name
    entry = Annotated("x", path, person.image_id, person.box_xyxy, person.joints_xy, person.visibility)
    recipe = read_recipe(recipe_path, settings=["input_height=256", "input_width=192"])
    item = CropDataset([entry], CONTRACT, recipe=recipe, augmentation=None)[0, 0]
    np.testing.assert_array_equal(view.crop, item["image"].permute(1, 2, 0).numpy())
    np.testing.assert_allclose(view.true_xy, item["joints"].numpy(), atol=1e-4)
    maps = torch.from_numpy(heatmaps)[None], item["target"][None], item["weight"][None]
    assert view.loss_fixed == pytest.approx(float(JointsMSELoss()(*maps)), rel=1e-5)
    assert view.loss_visible == pytest.approx(float(JointsMSELoss(reduction="visible")(*maps)), rel=1e-5)
    assert view.loss_visible == pytest.approx(view.loss_fixed * 6 / 4, rel=1e-5)
    expected = relative_distances(view.found_xy[None], item["joints"].numpy()[None], heights_px=item["height"][None])
    np.testing.assert_allclose(view.distances, expected[0], rtol=1e-4)
    right = int((expected[0] <= 0.1)[view.visibility > 0].sum())
    assert f"PCK@0.10 {right / 4:.2f} ({right} of 4)" in view.title


def marks_of(axes: Any, mark: str) -> list[tuple[float, float]]:
    points = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == mark]
    return sorted({(float(x), float(y)) for x, y in points})


def test_a_row_a_network_shows_the_crop_and_each_heatmap_with_its_target(coco: CocoFile) -> None:
    person = dataclasses.replace(coco.persons[0], visibility=np.array([2, 1, 0, 2, 2, 2]))
    views = [view_of(coco, person, targets_of(coco, person)), view_of(coco, person, np.zeros((6, 64, 48), np.float32))]
    figure = panel_figure(views, title="person 1 of a.png")
    assert len(figure.axes) == 2 * 7
    photo, *maps = figure.axes[7:]
    assert photo.images[0].get_array() is not None
    visible = [tuple(view_xy) for view_xy in views[1].true_xy[[0, 3, 4, 5]]]
    assert set(visible) <= set(marks_of(photo, "o"))
    assert marks_of(photo, "s") == [tuple(views[1].true_xy[1])]
    for joint, axes in enumerate(maps):
        expected = [] if joint == 2 else [tuple(views[1].true_xy[joint])]
        assert marks_of(axes, "+") == expected
        assert tuple(views[1].found_xy[joint]) in marks_of(axes, "o")
        assert list(axes.images[1].get_extent()) == [-0.5, 191.5, 255.5, -0.5]
        assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 191.5), (255.5, -0.5))
    assert maps[2].get_title() == "left knee\npeak 0.00, not labelled"
    written = [text.get_text() for text in figure.texts]
    assert written[0] == "person 1 of a.png"
    assert written[1].startswith("toy    loss 1/6 0.00000, visible 0.00000    PCK@0.05 1.00 (5 of 5)")
    assert "PCK@0.05 0.00 (0 of 5)" in written[2]


def test_texts_do_not_cover_one_another(coco: CocoFile) -> None:
    person = dataclasses.replace(coco.persons[0], visibility=np.array([2, 1, 0, 0, 2, 2]))
    views = [view_of(coco, person, targets_of(coco, person))] * 2
    figure = panel_figure(views, title="person 900000000188 of 000000581781.jpg, 4 of 6 joints labelled")
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [*figure.texts, *(axes.title for axes in figure.axes)]
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]
    boxes += [(axes.get_label(), axes.get_window_extent()) for axes in figure.axes]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for _, box in boxes)
    assert [(a, b) for (a, first), (b, second) in itertools.combinations(boxes, 2) if first.overlaps(second)] == []


def test_a_person_without_labelled_joints_is_drawn_and_said_to_be(coco: CocoFile) -> None:
    person = dataclasses.replace(coco.persons[0], visibility=np.zeros(6, np.int64), joints_xy=np.zeros((6, 2)))
    view = view_of(coco, person, np.zeros((6, 64, 48), np.float32))
    assert view.title == "loss and PCK: not labelled"
    for axes in panel_figure([view], title="").axes[1:]:
        assert marks_of(axes, "+") == []
        assert axes.get_title().endswith("not labelled")


def test_joints_beyond_the_crop_count_in_pck_and_have_no_loss(coco: CocoFile) -> None:
    person = dataclasses.replace(coco.persons[0], joints_xy=coco.persons[0].joints_xy + 10_000.0)
    view = view_of(coco, person, np.zeros((6, 64, 48), np.float32))
    assert view.title.startswith("loss: no labelled joint inside the crop    PCK@0.05 0.00 (0 of 6)")
    assert panel_figure([view], title="").axes[1].get_title().endswith("not in the crop")


def test_a_box_outside_the_picture_is_refused(coco: CocoFile) -> None:
    person = dataclasses.replace(coco.persons[0], box_xyxy=np.array([9000.0, 9000.0, 9100.0, 9100.0]))
    with pytest.raises(BoxError, match="outside the image"):
        view_of(coco, person, np.zeros((6, 64, 48), np.float32))


def test_persons_are_found_by_id_or_by_chance(coco: CocoFile) -> None:
    assert [person.ann_id for person in find_persons(coco, [5, 2, 5])] == [5, 2]
    drawn = [[person.ann_id for person in random_persons(coco, count, seed=4)] for count in (3, 6, 6)]
    assert drawn[1] == drawn[2]
    assert drawn[1][:3] == drawn[0]
    assert len(set(drawn[1])) == 6
    with pytest.raises(InputError, match="has 8 persons with a labelled joint, and 9 are asked for"):
        random_persons(coco, 9, seed=0)


def test_unknown_ids_are_named_with_what_may_have_been_meant(tmp_path: Path) -> None:
    person = {"image_id": 70, "bbox": [0, 0, 5, 5], "category_id": 1}
    content = {
        "images": [{"id": 70, "file_name": "a.jpg"}, {"id": 71, "file_name": "b.jpg"}],
        "annotations": [{"id": 12345, **person}, {"id": 99, **person}, {"id": 8, **person, "bbox": [0, 0, 0, 0]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    coco = read_coco(tmp_path / "a.json")
    cases = {
        12354: "no person has the annotation id 12354; close ones are 12345; choose among its 2 ids",
        70: "the annotation id 70, but an image has, and its persons are 12345, 99",
        71: "its persons are none",
        8: r"annotation 8 cannot be used \(no box with an area\)",
        -6: "no person has the annotation id -6; choose among its 2 ids",
    }
    for ann_id, message in cases.items():
        with pytest.raises(AnnotationError, match=message):
            find_persons(coco, [99, ann_id])
    with pytest.raises(AnnotationError, match=r"id 12354; .*id 71, but"):
        find_persons(coco, [12354, 71])


def run_command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_the_command_draws_a_picture_a_person(figure_data: Path, checkpoint: Path, tmp_path: Path) -> None:
    common = (checkpoint, checkpoint, "--annotations", figure_data / "annotations.json", "--images", figure_data)
    common = (*common, "--output", tmp_path)
    assert run_command(*common, "--person", 3, "--person", 1)[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"person-3.png", "person-1.png"}
    height, width = cv2.imread(str(tmp_path / "person-3.png")).shape[:2]
    assert width > 1500
    assert 800 < height < width
    code, output = run_command(*common, "--person", 2, "--person", 1)
    assert code == 1
    assert "give --force" in output
    assert not (tmp_path / "person-2.png").exists()
    assert run_command(*common, "--random", 1, "--seed", 3, "--force")[0] == 0
    for wrong in ((), ("--person", 1, "--random", 1)):
        code, output = run_command(*common, *wrong)
        assert code == 2
        assert "give either --person" in output


def test_a_missing_picture_is_reported_and_the_others_are_drawn(
    figure_data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    for index in (0, 2):
        name = f"figure-{index:03}.png"
        (tmp_path / name).write_bytes((figure_data / name).read_bytes())
    arguments = (checkpoint, "--annotations", figure_data / "annotations.json", "--images", tmp_path)
    people = ("--person", 1, "--person", 2, "--person", 3)
    code, output = run_command(*arguments, "--output", tmp_path / "panels", *people)
    assert code == 1
    assert "figure-001.png: person 2: no such file" in output
    assert {path.name for path in (tmp_path / "panels").iterdir()} == {"person-1.png", "person-3.png"}
