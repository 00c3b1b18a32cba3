from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lbkit.core.detections import Detections
from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.runtime.ort_backend import OrtBackend
from lbkit.video.company import FIRST_S
from lbkit.video.similarity import keypoint_similarity
from lbkit.video.tracking import (
    DEATH_S,
    DOUBT_EVERY_S,
    FOUND_PER_LOST,
    LOST_SCORE,
    LOST_SCORES,
    THOROUGH_S,
    Crowd,
    LegMemory,
    OnePerson,
    WholeImage,
    person_score_limit,
)

SIZE = ImageSize(300, 520)
PERSON = np.array([[70.0, 120], [10, 124], [72, 180], [8, 186], [75, 240], [14, 236]])
"""Joints of a standing person 75 px wide, to be moved about."""

Scene = Callable[[Sequence[tuple[float, float]]], ImageArray]


@pytest.fixture
def estimator(toy_model: Path) -> PoseEstimator:
    return PoseEstimator(OrtBackend(toy_model, threads=1))


@pytest.fixture
def scene(toys: ModuleType) -> Scene:
    """Draw people moved by offsets."""

    def draw(offsets: Sequence[tuple[float, float]]) -> ImageArray:
        image = np.zeros((SIZE.height, SIZE.width, 3), np.uint8)
        for offset in offsets:
            image = np.maximum(image, toys.spotted_image(SIZE, PERSON + np.array(offset), spread_px=5))
        return image

    return draw


class Counting:
    """A backend that counts the crops it is given."""

    def __init__(self, backend: OrtBackend) -> None:
        self._backend = backend
        self.contract = backend.contract
        self.looks = 0

    def run(self, crops: np.ndarray) -> object:
        self.looks += len(crops)
        return self._backend.run(crops)


def test_the_box_follows_the_joints(estimator: PoseEstimator, scene: Scene) -> None:
    tracker = OnePerson(estimator)
    for number in range(24):
        offset = (10 + 16 * number, 20 * np.sin(number / 3))
        seen = tracker.step(scene([offset]), number / 30)
        assert seen.ids == (1,)
        np.testing.assert_allclose(seen.keypoints[0, :, :2], PERSON + offset, atol=1.0)
        if number:  # the box is the person's own, not the whole picture
            left, _, right, _ = seen.boxes_xyxy[0]
            assert right - left < 0.6 * SIZE.width
            assert left < (PERSON + offset)[:, 0].min() < (PERSON + offset)[:, 0].max() < right


def test_a_followed_person_costs_one_look_a_frame(toy_model: Path, scene: Scene) -> None:
    counting = Counting(OrtBackend(toy_model, threads=1))
    tracker = OnePerson(PoseEstimator(counting))
    tracker.step(scene([(100, 0)]), 0.0)
    first = counting.looks
    assert 1 < first <= 3
    for number in range(1, 6):
        tracker.step(scene([(100 + number, 0)]), number / 30)
    assert counting.looks == first + 5


def test_a_lost_person_is_searched_again_on_the_same_frame(estimator: PoseEstimator, scene: Scene) -> None:
    tracker = OnePerson(estimator)
    tracker.step(scene([(20, 0)]), 0.0)
    jumped = tracker.step(scene([(400, 10)]), 1 / 30)
    np.testing.assert_allclose(jumped.keypoints[0, :, :2], PERSON + np.array([400, 10]), atol=1.0)


def test_an_empty_picture_has_nobody_and_costs_one_look(toy_model: Path, scene: Scene) -> None:
    counting = Counting(OrtBackend(toy_model, threads=1))
    tracker = OnePerson(PoseEstimator(counting))
    tracker.step(scene([(20, 0)]), 0.0)
    assert tracker.step(scene([]), 0.1).ids == ()
    assert tracker.step(scene([]), 0.1 + THOROUGH_S).ids == ()
    before = counting.looks
    for number in range(6):
        seen = tracker.step(scene([]), 0.2 + THOROUGH_S + number / 10)
        assert seen.ids == ()
        assert seen.keypoints.shape == (0, 6, 3)
    assert counting.looks == before + 6
    back = [tracker.step(scene([(300, 0)]), 2.0 + number / 10).ids for number in range(4)]
    assert back[-1] == (1,)


def test_somebody_doubtful_is_given_up_for_somebody_surer(estimator: PoseEstimator, scene: Scene) -> None:
    """Faint spots are followed until the next search of the whole picture meets bright ones."""
    faint = (scene([(10, 0)]) * 0.5).astype(np.uint8)
    both = np.maximum(faint, scene([(400, 0)]))
    score = float(OnePerson(estimator, lost_score=0.01).step(faint, 0.0).keypoints[0, :, 2].mean())
    tracker = OnePerson(estimator, lost_score=0.6 * score)
    tracker.step(faint, 0.0)
    np.testing.assert_allclose(tracker.step(both, 0.1).keypoints[0, :, :2], PERSON + np.array([10, 0]), atol=1.5)
    surer = tracker.step(both, DOUBT_EVERY_S + 0.1)
    np.testing.assert_allclose(surer.keypoints[0, :, :2], PERSON + np.array([400, 0]), atol=1.5)


def test_to_be_found_somebody_must_score_more_than_to_be_followed(estimator: PoseEstimator, scene: Scene) -> None:
    bright = scene([(10, 0)])
    faint = (bright * 0.5).astype(np.uint8)
    score = float(OnePerson(estimator, lost_score=0.01).step(faint, 0.0).keypoints[0, :, 2].mean())
    limit = 2 * score / (1 + FOUND_PER_LOST)  # faint scores more than this, and less than a search demands
    assert OnePerson(estimator, lost_score=limit).step(faint, 0.0).ids == ()
    tracker = OnePerson(estimator, lost_score=limit)
    assert tracker.step(bright, 0.0).ids == (1,)
    assert tracker.step(faint, 0.1).ids == (1,)


@pytest.mark.parametrize(("other", "has_company"), [((400, 10), True), (None, False)])
def test_company_is_looked_for_beside_the_person_a_look_a_frame(
    toy_model: Path, scene: Scene, other: tuple[float, float] | None, has_company: bool
) -> None:
    counting = Counting(OrtBackend(toy_model, threads=1))
    tracker = OnePerson(PoseEstimator(counting), lost_score=0.2)
    tracker.step(scene([(100, 0)]), 0.0)
    told = []
    for number in range(1, 60):
        before = counting.looks
        image = scene([(100, 0)] if other is None else [(100, 0), other])
        seen = tracker.step(image, number / 30)
        np.testing.assert_allclose(seen.keypoints[0, :, :2], PERSON + np.array([100, 0]), atol=1.5)
        assert counting.looks - before <= 2
        told.append(seen.has_company)
    assert {answer for answer in told if answer is not None} == {has_company}
    assert told[: round(30 * FIRST_S) - 1] == [None] * (round(30 * FIRST_S) - 1)
    assert 1 <= sum(answer is not None for answer in told) <= 2


def test_the_whole_picture_is_no_tracking(estimator: PoseEstimator, scene: Scene) -> None:
    seen = WholeImage(estimator).step(scene([(200, 0)]), 0.0)
    np.testing.assert_allclose(seen.boxes_xyxy, [[0, 0, SIZE.width, SIZE.height]])
    np.testing.assert_allclose(
        seen.keypoints[0, :, :2], PERSON + np.array([200, 0]), atol=2.5
    )  # small spots in a wide box


class Scripted:
    """A detector that finds what a test put there."""

    def __init__(self) -> None:
        self.offsets: Sequence[tuple[float, float]] = ()

    def detect(self, image: ImageArray) -> Detections:  # noqa: ARG002
        boxes = [[x - 20, y + 20, x + 100, y + 270] for x, y in self.offsets]
        return Detections(np.array(boxes, dtype=float).reshape(-1, 4), np.full(len(boxes), 0.9))


class Play:
    """Frames of people, seen by a crowd tracker whose detector finds all of them or those told."""

    def __init__(self, estimator: PoseEstimator, scene: Scene) -> None:
        self.detector = Scripted()
        self.crowd = Crowd(estimator, self.detector)
        self._scene = scene
        self._time_s = 0.0

    def step(
        self, people: Sequence[tuple[float, float]], *, found: Sequence[tuple[float, float]] | None = None
    ) -> dict[int, np.ndarray]:
        self.detector.offsets = people if found is None else found
        seen = self.crowd.step(self._scene(people), self._time_s)
        self._time_s += 0.1
        return dict(zip(seen.ids, seen.keypoints[:, :, :2], strict=True))


@pytest.fixture
def play(estimator: PoseEstimator, scene: Scene) -> Play:
    return Play(estimator, scene)


def test_ids_stay_while_the_detectors_order_changes(play: Play) -> None:
    for number in range(8):
        people = [(30 + 5 * number, 0), (380 - 5 * number, 10)]
        seen = play.step(people, found=people if number % 2 else people[::-1])
        assert sorted(seen) == [1, 2]
        left, right = (1, 2) if seen[1][0, 0] < seen[2][0, 0] else (2, 1)
        if number == 0:
            first_left = left
        assert left == first_left
        np.testing.assert_allclose(seen[left], PERSON + people[0], atol=1.0)
        np.testing.assert_allclose(seen[right], PERSON + people[1], atol=1.0)


def test_whom_the_detector_overlooks_is_bridged_for_a_while(play: Play) -> None:
    people = [(30, 0), (380, 10)]
    play.step(people)
    for _ in range(round(DEATH_S / 0.1)):
        assert sorted(play.step(people, found=people[:1])) == [1, 2]
    play.step(people, found=people[:1])
    assert len(play.step(people, found=people[:1])) == 1
    assert sorted(play.step(people))[-1] == 3  # somebody new, as far as anybody can tell


def test_one_person_in_two_boxes_is_one(play: Play) -> None:
    assert sorted(play.step([(200, 0)], found=[(200, 0), (206, 4)])) == [1]


def test_a_box_with_nobody_in_it_is_nobody(play: Play) -> None:
    assert play.step([(30, 0)], found=[(30, 0), (380, 0)]).keys() == {1}
    assert play.step([], found=[(30, 0)]) == {}


def test_the_leg_is_remembered_while_it_looks_short_or_astray() -> None:
    memory = LegMemory(memory_s=2.0)
    legs = np.array([[0.0, 0], [10, 0], [0, 50], [10, 50], [0, 100], [10, 100]])
    for number in range(5):
        memory.note(legs, number / 10)
    memory.note(legs * 0.5, 0.5)
    assert memory.length_px() == pytest.approx(100)
    assert memory.is_too_long(legs * 1.4)
    assert not memory.is_too_long(legs * 1.2)
    memory.note(legs * 2, 0.6)
    assert memory.length_px() == pytest.approx(100)
    for number in range(5):
        memory.note(legs * 0.5, 3.0 + number / 10)
    assert memory.length_px() == pytest.approx(50)
    memory.forget()
    assert not memory.is_too_long(legs * 9)


def test_joints_gone_astray_do_not_move_the_box(estimator: PoseEstimator, scene: Scene, toys: ModuleType) -> None:
    """The hips jump far above the picture's person for two frames, as they do before a barbell."""
    tracker = OnePerson(estimator)
    for number in range(4):
        before = tracker.step(scene([(200, 0)]), number / 30)
    astray = PERSON + np.array([200.0, 0])
    astray[0:2, 1] -= 100
    odd = toys.spotted_image(SIZE, astray, spread_px=5)
    boxes = [tracker.step(odd, (4 + number) / 30).boxes_xyxy[0] for number in range(2)]
    after = tracker.step(scene([(200, 0)]), 6 / 30)
    np.testing.assert_allclose(after.boxes_xyxy, before.boxes_xyxy, atol=2)
    assert all(box[1] >= before.boxes_xyxy[0, 1] - 40 for box in boxes)
    np.testing.assert_allclose(after.keypoints[0, :, :2], PERSON + np.array([200, 0]), atol=1.0)


def test_a_leg_that_stays_long_is_believed_in_the_end(estimator: PoseEstimator, scene: Scene, toys: ModuleType) -> None:
    tracker = OnePerson(estimator)
    for number in range(4):
        tracker.step(scene([(200, 0)]), number / 30)
    center = (PERSON + np.array([200.0, 0])).mean(axis=0)
    large = (PERSON + np.array([200.0, 0]) - center) * 1.5 + center - np.array([0, 30])
    image = toys.spotted_image(SIZE, large, spread_px=7)
    for number in range(18):
        seen = tracker.step(image, 0.2 + number / 30)
    left, top, right, bottom = seen.boxes_xyxy[0]
    assert left < large[:, 0].min() < large[:, 0].max() < right
    assert top < large[:, 1].min() < large[:, 1].max() < bottom
    np.testing.assert_allclose(seen.keypoints[0, :, :2], large, atol=1.5)


def test_similarity_is_cocos() -> None:
    sigmas = np.full(6, 0.1)
    moved = PERSON + np.array([3.0, 4.0])
    expected = np.exp(-25 / (2 * 900 * 0.04))
    assert keypoint_similarity(PERSON, moved, area_px=900, sigmas=sigmas) == pytest.approx(expected)
    assert keypoint_similarity(PERSON, PERSON, area_px=900, sigmas=sigmas) == 1.0


def test_the_limit_follows_the_models_figures(toys: ModuleType) -> None:
    from lbkit.core.contract import Figure

    contract = toys.toy_contract()
    assert person_score_limit(contract) == LOST_SCORE

    def measured(value: float) -> float:
        figure = Figure(metric="pck@0.05 v>0", value=value, data="somewhere", persons=9, date="2026-01-01")
        return person_score_limit(contract.replace(evaluation=(figure,)))

    assert [measured(0.01), measured(0.3), measured(0.9)] == pytest.approx([LOST_SCORES[0], 0.15, LOST_SCORES[1]])
