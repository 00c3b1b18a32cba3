from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("pycocotools")

from lbkit.core.draw import LEFT_COLOR, RIGHT_COLOR
from lbkit.evaluation.evaluate import Judged, evaluate_results
from lbkit.evaluation.persons import CocoRoot
from lbkit.evaluation.portraits import PICTURE_HEIGHT_PX, draw_person, worst_portraits
from lbkit.evaluation.truth import Truth, read_truth


@pytest.fixture
def judged(roots: ModuleType, toys: ModuleType, tmp_path: Path) -> tuple[Judged, Truth]:
    persons = [roots.RootPerson(1), roots.RootPerson(2)]
    truth = read_truth(CocoRoot(roots.write_root(tmp_path / "root", toys, persons)))
    triples = np.concatenate([roots.SPOTS + np.array([10.0, 25]), np.ones((6, 1))], axis=1)
    rows = f'[{{"image_id": 1, "keypoints": {triples.ravel().tolist()}, "score": 1}}]'
    (tmp_path / "rows.json").write_text(rows)
    return evaluate_results(tmp_path / "rows.json", truth)


def near(image: np.ndarray, xy: np.ndarray, color: tuple[int, int, int]) -> bool:
    x, y = np.rint(xy).astype(int)
    part = image[y - 1 : y + 2, x - 1 : x + 2].astype(int)
    return bool((np.abs(part - color).max(axis=-1) < 60).any())


def test_found_and_annotated_joints_are_drawn_where_they_are(judged: tuple[Judged, Truth], roots: ModuleType) -> None:
    grey = np.full((300, 220, 3), 90, np.uint8)
    picture = draw_person(grey, judged[0], 0)
    box = np.array([50, 30, 170, 280])
    left, top = np.floor(box[:2] - 0.12 * np.array([120, 250])).clip(0)
    bottom = min(300, np.ceil(280 + 0.12 * 250))
    scale = PICTURE_HEIGHT_PX / (bottom - top)
    assert picture.shape[0] == PICTURE_HEIGHT_PX
    for joint in range(6):
        color = RIGHT_COLOR if joint % 2 else LEFT_COLOR
        true = (roots.SPOTS[joint] - [left, top] + 0.5) * scale - 0.5
        found = true + np.array([10.0, 25]) * scale
        assert near(picture, found, color)
        assert near(picture, true + np.array([0.0, 6.0]), color)
        assert not near(picture, true + np.array([0.0, -20.0]), color)


def test_worst_people_have_captions_and_those_not_found_a_picture_too(judged: tuple[Judged, Truth]) -> None:
    pictures = list(worst_portraits(*judged))
    assert [caption for _, caption in pictures] == [
        "1. not found over 6 joints, 000002.png, annotation 101",
        "2. mean distance 0.11 over 6 joints, 000001.png, annotation 100",
    ]


def test_a_photograph_that_is_gone_is_left_out(judged: tuple[Judged, Truth]) -> None:
    judged[1].image_path(2).unlink()
    assert len(list(worst_portraits(*judged))) == 1
