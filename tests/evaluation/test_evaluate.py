"""Toy models on toy roots, where every joint's place is known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycocotools")

from lbkit.core.images import read_image, write_image
from lbkit.errors import AnnotationError
from lbkit.evaluation.candidates import CandidateOptions, load_candidates
from lbkit.evaluation.evaluate import Candidate, EvaluationOptions, Judged, evaluate_models, evaluate_results
from lbkit.evaluation.persons import CocoRoot
from lbkit.evaluation.report import evaluation_page
from lbkit.evaluation.truth import MISSING, Truth, read_truth
from lbkit.evaluation.walk import BOX_UNUSABLE, OTHER_SIZE, UNREADABLE

ROOM_PX = 1.0
LOOSE = EvaluationOptions(allow_missing=0.5)


@pytest.fixture
def candidates(toy_model: Path) -> list[Candidate]:
    return load_candidates([str(toy_model)], CandidateOptions(batch_size=3))


@pytest.fixture
def make(roots: ModuleType, toys: ModuleType, tmp_path: Path) -> Callable[..., Path]:
    def build(*persons: Any, images: Sequence[int] = ()) -> Path:
        return roots.write_root(tmp_path / "root", toys, persons, images=images)

    return build


def judge(candidates: list[Candidate], folder: Path, options: EvaluationOptions = LOOSE) -> tuple[Judged, Truth]:
    judged, truth = evaluate_models(candidates, read_truth(CocoRoot(folder)), options=options)
    return judged[0], truth


def test_right_annotations_are_found_exactly(
    candidates: list[Candidate], make: Callable[..., Path], roots: ModuleType
) -> None:
    folder = make(*(roots.RootPerson(number) for number in range(1, 8)))
    seen: list[int] = []
    judged, _ = evaluate_models(
        candidates, read_truth(CocoRoot(folder)), options=EvaluationOptions(), on_image=lambda: seen.append(1)
    )
    evaluation = judged[0].evaluation
    np.testing.assert_allclose(judged[0].found_xy, np.broadcast_to(roots.SPOTS, (7, 6, 2)), atol=ROOM_PX)
    assert evaluation.pck(0.02).value == 1.0
    assert evaluation.oks.ap == pytest.approx(1.0)
    assert evaluation.knee.median_deg == pytest.approx(0.0, abs=2)
    assert evaluation.data.skipped == {}
    assert len(seen) == 7
    assert json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))["data"]["persons"] == 7


def test_wrong_annotations_are_missed_by_as_much(
    candidates: list[Candidate], make: Callable[..., Path], roots: ModuleType
) -> None:
    off = roots.SPOTS.copy()
    off[:3, 0] += 25  # a tenth of the box's 250 px
    folder = make(roots.RootPerson(1), roots.RootPerson(2, off, (2, 2, 1, 2, 0, 2)))
    evaluation = judge(candidates, folder)[0].evaluation
    assert evaluation.pck(0.05).value == pytest.approx(8 / 11)
    assert evaluation.pck(0.05, rule="v=2").value == pytest.approx(8 / 10)
    assert evaluation.pck(0.05, rule="all six").value == 1.0
    assert evaluation.pck(0.12).value == 1.0


def test_legs_alone_are_found_where_they_are_on_the_whole_photograph(
    candidates: list[Candidate], make: Callable[..., Path], roots: ModuleType
) -> None:
    evaluation = judge(candidates, make(roots.RootPerson(1), roots.RootPerson(2)))[0].evaluation
    whole, legs = (figures for figures in evaluation.slices if figures.kind == "framing")
    assert (whole.persons, legs.persons) == (2, 2)
    assert whole.pck["0.05"].value == legs.pck["0.05"].value == 1.0


def test_what_cannot_be_used_is_counted_by_reason(
    candidates: list[Candidate], make: Callable[..., Path], roots: ModuleType
) -> None:
    outside = roots.RootPerson(9, bbox=(500.0, 500.0, 50.0, 50.0))
    folder = make(*(roots.RootPerson(number) for number in range(1, 9)), outside, images=(50,))
    (folder / "val2017" / "000050.png").unlink()  # nobody is looked for there
    images = folder / "val2017"
    (images / "000001.png").unlink()
    (images / "000002.png").write_bytes(b"no picture")
    write_image(images / "000003.png", read_image(images / "000003.png")[:-20])
    judged, truth = judge(candidates, folder)
    assert truth.skipped == {MISSING: 1, UNREADABLE: 1, OTHER_SIZE: 1, BOX_UNUSABLE: 1}
    assert judged.evaluation.data.persons == 5
    assert judged.evaluation.data.images == 7
    assert judged.evaluation.oks.ap == pytest.approx(1.0)
    assert judged.evaluation.oks.ignored == 1
    assert judged.evaluation.pck().value == 1.0


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"no picture")])
def test_too_many_missing_images_are_an_error(
    candidates: list[Candidate], make: Callable[..., Path], roots: ModuleType, damage: Callable[[Path], object]
) -> None:
    folder = make(*(roots.RootPerson(number) for number in range(1, 6)))
    damage(folder / "val2017" / "000002.png")
    with pytest.raises(AnnotationError, match=r"1 of 5 annotated images cannot be used .*000002.*--allow-missing"):
        judge(candidates, folder, EvaluationOptions())
    assert judge(candidates, folder, EvaluationOptions(allow_missing=0.2))[0].evaluation.data.persons == 4


def test_an_empty_folder_is_an_error_whatever_is_allowed(
    candidates: list[Candidate], make: Callable[..., Path], roots: ModuleType
) -> None:
    folder = make(roots.RootPerson(1))
    shutil.rmtree(folder / "val2017")
    with pytest.raises(AnnotationError, match="check --coco and --split"):
        judge(candidates, folder, EvaluationOptions(allow_missing=1.0))


def test_annotations_of_nobody_are_an_error(make: Callable[..., Path], roots: ModuleType) -> None:
    folder = make(roots.RootPerson(1, visibility=(0,) * 6), roots.RootPerson(2, iscrowd=1))
    with pytest.raises(AnnotationError, match="nobody with a labelled hip"):
        read_truth(CocoRoot(folder))


def test_limit_takes_images_with_people(make: Callable[..., Path], roots: ModuleType) -> None:
    folder = make(roots.RootPerson(5), roots.RootPerson(5), roots.RootPerson(7), images=(1, 2))
    assert read_truth(CocoRoot(folder)).image_ids == (1, 2, 5, 7)
    limited = read_truth(CocoRoot(folder), limit=1)
    assert (limited.image_ids, len(limited.people)) == ((5,), 2)
    np.testing.assert_array_equal(limited.people.covered, [1.0, 1.0])


def test_torso_rule_leaves_out_people_without_a_torso(
    candidates: list[Candidate], make: Callable[..., Path], roots: ModuleType
) -> None:
    shoulders = np.array([[130.0, 60], [90, 60]])  # left, right; right shoulder to left hip is 72.1 px
    off = roots.SPOTS + np.array([8.0, 0])
    folder = make(roots.RootPerson(1, off, shoulders=shoulders), roots.RootPerson(2))
    evaluation = judge(candidates, folder, EvaluationOptions(norm="torso"))[0].evaluation
    assert evaluation.pck(0.05).joints == 6
    assert (evaluation.pck(0.05).value, evaluation.pck(0.15).value) == (0.0, 1.0)
    assert evaluation.data.skipped == {"person without a length for the PCK rule": 1}


def boxes_file(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "boxes.json"
    path.write_text(json.dumps(rows))
    return path


def test_found_boxes_are_matched_and_who_is_not_found_is_wrong(
    candidates: list[Candidate], make: Callable[..., Path], roots: ModuleType, tmp_path: Path
) -> None:
    folder = make(*(roots.RootPerson(number) for number in range(1, 5)))
    good = {"category_id": 1, "bbox": list(roots.BOX_XYWH), "score": 0.9}
    rows = [
        {"image_id": 1} | good,
        {"image_id": 1} | good,  # twice
        {"image_id": 2} | good,
        {"image_id": 3} | good | {"bbox": [0.0, 0.0, 30.0, 30.0]},  # somewhere else
        {"image_id": 77} | good,  # another image
        {"image_id": 4} | good | {"bbox": [0, 0, -1, 5]},
        {"image_id": 4} | good | {"category_id": 2},
    ]
    options = EvaluationOptions(boxes=boxes_file(tmp_path, *rows))
    judged, truth = judge(candidates, folder, options)
    evaluation = judged.evaluation
    assert evaluation.pck(0.05).value == 0.5
    assert evaluation.oks.ar == pytest.approx(0.5)
    assert evaluation.oks.detections == 3
    assert evaluation.subject.boxes == "boxes.json"
    assert truth.skipped == {
        "result given twice": 1,
        "result for another image": 1,
        "broken result": 1,
        "result of another category": 1,
    }
    assert not any(figures.kind == "framing" for figures in evaluation.slices)
    (folder / "val2017" / "000002.png").unlink()
    without_an_image = judge(candidates, folder, replace(options, allow_missing=0.3))[0].evaluation
    assert without_an_image.pck(0.05).value == pytest.approx(1 / 3)
    assert without_an_image.oks.detections == 2
    assert [person.mean_distance for person in evaluation.worst[:2]] == [None, None]


def test_boxes_of_other_images_alone_are_an_error(
    candidates: list[Candidate], make: Callable[..., Path], roots: ModuleType, tmp_path: Path
) -> None:
    path = boxes_file(tmp_path, {"image_id": 77, "bbox": [1, 1, 5, 5], "score": 1.0})
    with pytest.raises(AnnotationError, match=r"no usable box .*result for another image: 1"):
        judge(candidates, make(roots.RootPerson(1)), EvaluationOptions(boxes=path))


def result_row(image_id: int, joints: np.ndarray, *, count: int, **more: Any) -> dict[str, Any]:
    triples = np.zeros((count, 3))
    triples[-6:] = np.concatenate([joints, np.ones((6, 1))], axis=1)
    return {"image_id": image_id, "category_id": 1, "keypoints": triples.ravel().tolist(), "score": 0.5} | more


@pytest.mark.parametrize("count", [17, 6])
def test_results_with_17_joints_or_6_are_judged_alike(
    make: Callable[..., Path], roots: ModuleType, tmp_path: Path, count: int
) -> None:
    folder = make(*(roots.RootPerson(number) for number in range(1, 5)))
    rows = [result_row(number, roots.SPOTS, count=count) for number in (1, 2, 3)]
    rows += [rows[0], result_row(77, roots.SPOTS, count=count)]
    path = boxes_file(tmp_path, *rows)
    judged, truth = evaluate_results(path, read_truth(CocoRoot(folder)))
    assert judged.evaluation.pck(0.01).value == 0.75
    assert judged.evaluation.oks.ar == pytest.approx(0.75)
    assert "OKS of 0.1" in judged.evaluation.subject.matching
    assert truth.skipped == {"result given twice": 1, "result for another image": 1}


def test_results_that_name_annotations_are_judged_by_them(
    make: Callable[..., Path], roots: ModuleType, tmp_path: Path
) -> None:
    folder = make(roots.RootPerson(1), roots.RootPerson(1, roots.SPOTS + 30))
    rows = [
        result_row(1, roots.SPOTS + 30, count=6, ann_id=100),
        result_row(1, roots.SPOTS, count=6, ann_id=101),
        result_row(1, roots.SPOTS + 1, count=6, ann_id=101),
    ]
    judged, truth = evaluate_results(boxes_file(tmp_path, *rows), read_truth(CocoRoot(folder)))
    assert judged.evaluation.pck(0.05).value == 0.0  # the two are mixed up
    assert judged.evaluation.oks.ap50 == pytest.approx(1.0)  # which OKS cannot see
    assert truth.skipped == {"result given twice": 1}


def test_results_with_boxes_are_matched_by_them(make: Callable[..., Path], roots: ModuleType, tmp_path: Path) -> None:
    folder = make(roots.RootPerson(1), roots.RootPerson(2))
    rows = [
        result_row(1, roots.SPOTS, count=17, bbox=list(roots.BOX_XYWH)),
        result_row(2, roots.SPOTS, count=17, bbox=[0, 0, 20, 20]),
    ]
    judged, _ = evaluate_results(boxes_file(tmp_path, *rows), read_truth(CocoRoot(folder)))
    assert judged.evaluation.pck(0.05).value == 0.5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("{", "is not JSON"),
        ("{}", "is not a COCO result list"),
        ('{"annotations": []}', "is an annotation file, not a result list"),
        ("[]", "has no keypoints, and no entry at all"),
        ('[{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]', "has no keypoints; .*--boxes"),
        ('[{"image_id": 1, "keypoints": [1, 2, 3], "score": 1}]', "17 or 6 joints, got lists of 3 numbers"),
        ('[{"image_id": 1, "keypoints": %s, "score": 1}]' % ([0] * 78), "got lists of 78 numbers"),
        ('[{"image_id": 77, "keypoints": %s, "score": 1}]' % ([0] * 18), "nobody on the scored images .*another image"),
        ('[{"image_id": 77, "ann_id": [1], "keypoints": %s, "score": 1}]' % ([0] * 18), "result for another image: 1"),
        ('[{"image_id": 1, "keypoints": %s}]' % ([0] * 18), "nobody on the scored images .*broken result: 1"),
        ('[{"image_id": 1, "keypoints": [%sNaN], "score": 1}]' % ("0," * 17), "broken result: 1"),
    ],
)
def test_a_bad_result_file_says_what_is_wrong(
    make: Callable[..., Path], roots: ModuleType, tmp_path: Path, content: str | None, words: str
) -> None:
    truth = read_truth(CocoRoot(make(roots.RootPerson(1))))
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(AnnotationError, match=rf"results\.json: .*{words}"):
        evaluate_results(path, truth)


def test_two_models_share_the_photographs_and_the_draws(
    toy_model: Path, toys: ModuleType, make: Callable[..., Path], roots: ModuleType, tmp_path: Path
) -> None:
    other = toys.save_toy_model(tmp_path / "toy.onnx", dtype="float32", outputs=("keypoints",))
    both = load_candidates([str(toy_model), str(other)], CandidateOptions())
    assert [candidate.name for candidate in both] == [str(toy_model), str(other)]
    folder = make(*(roots.RootPerson(number) for number in range(1, 4)))
    judged, truth = evaluate_models(both, read_truth(CocoRoot(folder)), options=EvaluationOptions())
    assert [item.evaluation.pck(0.05).value for item in judged] == [1.0, 1.0]
    html = evaluation_page(judged, truth, verdict=(False, "not <enough>")).to_html()
    assert html.count("<img ") == 6
    assert html.count("<polyline") == 2
    assert "Failed: not &lt;enough&gt;" in html
    assert "legs only" in html


def test_flip_averages_and_is_told(toy_model: Path, make: Callable[..., Path], roots: ModuleType) -> None:
    flipped = load_candidates([str(toy_model)], CandidateOptions(flip=True))
    evaluation = judge(flipped, make(roots.RootPerson(1)))[0].evaluation
    assert evaluation.subject.flip
    # The toy tells joints by colour alone, so the mirror image's left and right change places.
    assert evaluation.pck(0.05).value is not None
