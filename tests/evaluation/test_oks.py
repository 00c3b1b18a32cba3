from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycocotools")

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.evaluation.oks import Detections, oks_figures, similarities
from lbkit.evaluation.persons import CocoRoot
from lbkit.evaluation.truth import Truth, read_truth

Make = Callable[..., Truth]


@pytest.fixture
def make(roots: ModuleType, toys: ModuleType, tmp_path: Path) -> Make:
    def build(*persons: Any, images: tuple[int, ...] = ()) -> Truth:
        return read_truth(CocoRoot(roots.write_root(tmp_path / "root", toys, persons, images=images)))

    return build


def perfect(truth: Truth) -> Detections:
    people = truth.people
    return Detections(people.image_ids, people.joints_xy.copy(), np.linspace(0.9, 0.5, len(people)), people.boxes_xyxy)


def several(roots: ModuleType, count: int = 8) -> list[Any]:
    """People on four images, two each, far apart, with one joint or more unlabelled on some."""
    persons = []
    for number in range(count):
        shift = np.array([200.0 * (number % 2), 3.0 * number])
        visibility = (2, 1, 2, 2, 0 if number % 3 else 2, 2)
        persons.append(roots.RootPerson(number // 2 + 1, roots.SPOTS + shift, visibility, area=9000 + 500 * number))
    return persons


def test_perfect_predictions_are_1_and_say_nothing(
    make: Make, roots: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = make(*several(roots))
    figures = oks_figures(truth, perfect(truth))
    assert (figures.ap, figures.ap50, figures.ar) == (pytest.approx(1.0), pytest.approx(1.0), 1.0)
    assert (figures.persons, figures.ignored, figures.images, figures.detections) == (8, 0, 4, 8)
    assert capsys.readouterr() == ("", "")


def test_half_of_the_people_missing_is_half_of_the_recall(make: Make, roots: ModuleType) -> None:
    truth = make(*several(roots))
    figures = oks_figures(truth, perfect(truth).take(np.arange(0, 8, 2)))
    assert figures.ar == pytest.approx(0.5)
    assert figures.ap == pytest.approx(51 / 101)  # precision 1 at recall 0, 0.01, ... 0.50


def test_images_on_which_nobody_was_found_count(make: Make, roots: ModuleType) -> None:
    truth = make(*several(roots))
    on_two_images = perfect(truth).take(np.isin(truth.people.image_ids, [1, 2]))
    assert oks_figures(truth, on_two_images).ar == pytest.approx(0.5)
    nobody = perfect(truth).take(np.zeros(0, np.int64))
    figures = oks_figures(truth, nobody)
    assert (figures.ap, figures.ar, figures.detections) == (0.0, 0.0, 0)


def test_people_without_labelled_legs_and_crowds_are_ignored(make: Make, roots: ModuleType) -> None:
    persons = several(roots)
    upper_body = roots.RootPerson(
        1, roots.SPOTS + np.array([400, 0]), (0,) * 6, shoulders=np.array([[10.0, 10], [30, 10]])
    )
    crowd = roots.RootPerson(2, roots.SPOTS + np.array([400, 0]), iscrowd=1)
    truth = make(*persons, upper_body, crowd, images=(77,))
    figures = oks_figures(truth, perfect(truth))
    assert (figures.ap, figures.ar) == (pytest.approx(1.0), 1.0)
    assert (figures.persons, figures.ignored, figures.images) == (8, 2, 5)


def test_someone_found_where_nobody_is_costs_precision(make: Make, roots: ModuleType) -> None:
    truth = make(*several(roots), images=(77,))
    right = perfect(truth)
    wrong = Detections(
        np.concatenate([[77], right.image_ids]),
        np.concatenate([right.joints_xy[:1], right.joints_xy]),
        np.concatenate([[0.99], right.scores]),
        np.concatenate([right.boxes_xyxy[:1], right.boxes_xyxy]),
    )
    figures = oks_figures(truth, wrong)
    assert figures.ar == 1.0
    assert figures.ap == pytest.approx(8 / 9)


def test_figures_are_pycocotools_own_on_hand_made_files(make: Make, roots: ModuleType, tmp_path: Path) -> None:
    truth = make(*several(roots))
    rng = np.random.default_rng(4)
    exact = perfect(truth)
    noisy = replace(exact, joints_xy=exact.joints_xy + rng.normal(0, 9, exact.joints_xy.shape), scores=rng.random(8))

    content = json.loads(truth.root.annotations.read_text())
    for entry in content["annotations"]:
        entry["keypoints"] = entry["keypoints"][33:51]
        entry["num_keypoints"] = sum(v > 0 for v in entry["keypoints"][2::3])
    rows = [
        {
            "image_id": int(image_id),
            "category_id": 1,
            "keypoints": [number for x, y in joints.tolist() for number in (x, y, 1.0)],
            "score": float(score),
        }
        for image_id, joints, score in zip(noisy.image_ids, noisy.joints_xy, noisy.scores, strict=True)
    ]
    (tmp_path / "six.json").write_text(json.dumps(content))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    expected = COCO(str(tmp_path / "six.json"))
    counting = COCOeval(expected, expected.loadRes(str(tmp_path / "rows.json")), "keypoints")
    counting.params.kpt_oks_sigmas = np.array([0.107, 0.107, 0.087, 0.087, 0.089, 0.089])
    counting.evaluate()
    counting.accumulate()
    counting.summarize()

    figures = oks_figures(truth, noisy)
    found = [figures.ap, figures.ap50, figures.ap75, figures.ap_medium, figures.ap_large]
    found += [figures.ar, figures.ar50, figures.ar75, figures.ar_medium, figures.ar_large]
    np.testing.assert_allclose([-1.0 if value is None else value for value in found], counting.stats)
    assert 0.1 < (figures.ap or 0) < 0.95


def test_average_precision_equals_plain_loops(make: Make, roots: ModuleType) -> None:
    """One person and one answer an image, so that matching is no question."""
    persons = [roots.RootPerson(number + 1, area=12000.0) for number in range(6)]
    truth = make(*persons)
    rng = np.random.default_rng(2)
    exact = perfect(truth)
    joints = exact.joints_xy + rng.normal(0, 1, (6, 6, 2)) * np.array([2, 6, 9, 12, 16, 25])[:, None, None]
    scores = np.array([0.7, 0.9, 0.8, 0.3, 0.6, 0.4])
    figures = oks_figures(truth, replace(exact, joints_xy=joints, scores=scores))

    oks = []
    for row in range(6):
        terms = []
        for joint, sigma in enumerate(LOWER_BODY_6.oks_sigmas):
            square = ((joints[row, joint] - roots.SPOTS[joint]) ** 2).sum()
            terms.append(np.exp(-square / (2 * 12000.0 * (2 * sigma) ** 2)))
        oks.append(sum(terms) / 6)
    precisions = []
    for step in range(10):
        limit = 0.5 + 0.05 * step
        hits = [oks[row] >= limit for row in np.argsort(-scores)]
        points = [(sum(hits[: n + 1]) / 6, sum(hits[: n + 1]) / (n + 1)) for n in range(6)]
        above = [max((p for r, p in points if r >= recall / 100 - 1e-12), default=0.0) for recall in range(101)]
        precisions.append(sum(above) / 101)
    assert figures.ap == pytest.approx(np.mean(precisions), abs=1e-6)
    assert figures.ap50 == pytest.approx(precisions[0], abs=1e-6)
    for row in range(6):
        found = similarities(joints[row : row + 1], roots.SPOTS, labelled=np.ones(6, bool), area=12000.0)
        assert found[0] == pytest.approx(oks[row])
