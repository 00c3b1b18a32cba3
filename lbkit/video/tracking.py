"""People followed from frame to frame: where the next box is, who is lost, and who is who."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lbkit.core.boxes import box_iou, leg_length_px, person_box_from_joints, whole_image_box
from lbkit.core.contract import ModelContract
from lbkit.core.detections import PersonDetector
from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import FloatArray, ImageArray, ImageSize
from lbkit.core.preprocess import crop_person
from lbkit.core.search import PersonSearch

LOST_SCORE = 0.2
"""Joints that score less on average are nobody's, for a model that nothing is known of (see `person_score_limit`)."""

LOST_SCORE_PER_PCK = 0.5
LOST_SCORES = (0.1, 0.25)
"""The same from a model's PCK@0.05, within these limits. On 80 pictures of people and 56 of empty rooms and grounds,
fpn (PCK 0.51) gives people 0.43 to 1.01 and the rest a median of 0.21, cnn (0.27) 0.11 to 0.66 and 0.16."""

LEG_MEMORY_S = 4.0
"""How slowly a leg that looked long is forgotten: its length falls to a third in this time, unless it is seen again."""

SETTLED_IOU = 0.6
"""A box that leads to joints whose own box overlaps it by less is looked at once more."""

ONE_PERSON_ID = 1

DEATH_S = 1.0
"""Somebody whom the detector has not confirmed for so long is forgotten."""

MATCH_OKS = 0.2
"""Skeletons this alike, from one frame to the next, may be the same person's."""

MATCH_IOU = 0.4
"""So may boxes that overlap this much, when the person moved far between two frames."""

SAME_OKS = 0.7
"""Two skeletons on one frame this alike are one person in two boxes."""

PERSON_PER_BOX = 0.53


@dataclass(frozen=True, slots=True, eq=False)
class Sightings:
    """The people of one frame.

    Attributes:
        keypoints: (N, K, 3) float64: x, y in image pixels, and score.
        boxes_xyxy: (N, 4) float64, the boxes that were looked at.
        ids: Each person's number, the same through the whole video.
    """

    keypoints: NDArray[np.float64]
    boxes_xyxy: NDArray[np.float64]
    ids: tuple[int, ...]

    @classmethod
    def none(cls, joints: int) -> Sightings:
        """Return nobody, whose skeletons would have so many joints."""
        return cls(np.zeros((0, joints, 3)), np.zeros((0, 4)), ())

    @classmethod
    def one(cls, joints: NDArray[np.float64], box_xyxy: FloatArray) -> Sightings:
        """Return one person's (K, 3) joints and (4,) box."""
        return cls(joints[None], np.asarray(box_xyxy, dtype=np.float64)[None], (ONE_PERSON_ID,))


class Tracker(Protocol):
    """Finds people on one frame after the other."""

    def step(self, image: ImageArray, time_s: float) -> Sightings:
        """Find the people of the next frame.

        Args:
            image: (H, W, 3) uint8 RGB.
            time_s: Its time in seconds, later than the one before.
        """
        ...


def person_score_limit(contract: ModelContract) -> float:
    """Return the mean score below which a model's joints are taken to be nobody's.

    How high the peaks of a model's heatmaps are goes with how often it is right, so its measured PCK@0.05 gives the
    limit.

    Args:
        contract: The model's contract, with its figures if it was measured.
    """
    figures = [figure.value for figure in contract.evaluation if figure.metric == "pck@0.05 v>0"]
    if not figures:
        return LOST_SCORE
    return float(np.clip(LOST_SCORE_PER_PCK * min(figures), *LOST_SCORES))


def look_at(estimator: PoseEstimator, image: ImageArray, boxes_xyxy: FloatArray) -> NDArray[np.float64]:
    """Return (N, K, 3) joints found in (N, 4) boxes: x, y in image pixels, and score."""
    if not len(boxes_xyxy):
        return np.zeros((0, len(estimator.contract.keypoints), 3))
    cut = [crop_person(image, box, contract=estimator.contract) for box in boxes_xyxy]
    return estimator.predict([crop for crop, _ in cut], [transform for _, transform in cut])


class WholeImage:
    """One person who fills the picture: nothing is followed.

    Args:
        estimator: The model.
    """

    def __init__(self, estimator: PoseEstimator) -> None:
        self._estimator = estimator

    def step(self, image: ImageArray, time_s: float) -> Sightings:  # noqa: ARG002
        """Look at the whole picture (see `Tracker.step`)."""
        box = whole_image_box(ImageSize.of(image))
        return Sightings.one(look_at(self._estimator, image, box[None])[0], box)


class LegMemory:
    """How long a person's leg is in the picture, remembered over frames where it looks short.

    Args:
        memory_s: How slowly a length that is not seen again is forgotten.
    """

    def __init__(self, memory_s: float = LEG_MEMORY_S) -> None:
        self._memory_s = memory_s
        self._leg_px = 0.0
        self._time_s = 0.0

    def update(self, xy: FloatArray, time_s: float) -> float:
        """Return the length in pixels after (6, 2) joints were seen at a time in seconds."""
        kept = math.exp(-max(0.0, time_s - self._time_s) / self._memory_s)
        self._leg_px = max(leg_length_px(xy), self._leg_px * kept)
        self._time_s = time_s
        return self._leg_px


class OnePerson:
    """One person, found without a box and then followed by the joints.

    The first frame is searched as a photograph is. Afterwards each frame is looked at in the box that the last joints
    lead to. When the joints score low, the person is lost and the frame is searched again; while that fails, one look
    a frame goes on searching, so that frames without anybody cost no more than others.

    Args:
        estimator: The model.
        lost_score: Joints that score less on average are nobody's; from the contract when None.
    """

    def __init__(self, estimator: PoseEstimator, *, lost_score: float | None = None) -> None:
        self._estimator = estimator
        self._lost_score = person_score_limit(estimator.contract) if lost_score is None else lost_score
        self._box_xyxy: FloatArray | None = None
        self._search: PersonSearch | None = None
        self._leg = LegMemory()

    def step(self, image: ImageArray, time_s: float) -> Sightings:
        """Find the person (see `Tracker.step`)."""
        joints, box = self._follow(image, self._box_xyxy) if self._box_xyxy is not None else (None, None)
        if joints is None or box is None:
            joints, box = self._look_for(image)
        if joints is None or box is None:
            return Sightings.none(len(self._estimator.contract.keypoints))
        size = ImageSize.of(image)
        self._box_xyxy = person_box_from_joints(joints[:, :2], size, leg_px=self._leg.update(joints[:, :2], time_s))
        return Sightings.one(joints, box)

    def _follow(self, image: ImageArray, box: FloatArray) -> tuple[NDArray[np.float64], FloatArray] | tuple[None, None]:
        """Look where the person should be, and once more where that leads if it leads elsewhere."""
        joints = self._look(image, box)
        led_to = person_box_from_joints(joints[:, :2], ImageSize.of(image))
        if box_iou(led_to, box) < SETTLED_IOU:
            again = self._look(image, led_to)
            if again[:, 2].mean() > joints[:, 2].mean():
                joints, box = again, led_to
        if joints[:, 2].mean() >= self._lost_score:
            return joints, box
        self._box_xyxy = None
        return None, None

    def _look_for(self, image: ImageArray) -> tuple[NDArray[np.float64], FloatArray] | tuple[None, None]:
        """Search: on the frame where the search begins to its end, on later ones a look each."""
        is_new = self._search is None
        search = self._search or PersonSearch(ImageSize.of(image))
        self._search = search
        while not search.is_over:
            joints, box = self._look(image, search.box_xyxy), search.box_xyxy
            search.record(joints)
            if not is_new:
                break
        if is_new:
            joints, box = search.joints, search.joints_box_xyxy
        if joints[:, 2].mean() >= self._lost_score:
            self._search = None
            return joints, box
        if search.is_over:
            self._search = PersonSearch(ImageSize.of(image))
        return None, None

    def _look(self, image: ImageArray, box: FloatArray) -> NDArray[np.float64]:
        joints: NDArray[np.float64] = look_at(self._estimator, image, np.asarray(box)[None])[0]
        return joints


class Crowd:
    """Several people in a detector's boxes, told apart by how alike their skeletons are from frame to frame.

    Every frame is given to the detector. Whoever it overlooks is looked for where the last joints lead to, and is
    forgotten when it has overlooked him for `DEATH_S`; only what the detector finds becomes a new person.

    Args:
        estimator: The model.
        detector: Finds the boxes.
        lost_score: Joints that score less on average are nobody's; from the contract when None.
    """

    def __init__(self, estimator: PoseEstimator, detector: PersonDetector, *, lost_score: float | None = None) -> None:
        self._estimator = estimator
        self._detector = detector
        self._lost_score = person_score_limit(estimator.contract) if lost_score is None else lost_score
        self._sigmas = np.array(estimator.contract.keypoints.oks_sigmas)
        self._people: list[_Person] = []
        self._next_id = 1

    def step(self, image: ImageArray, time_s: float) -> Sightings:
        """Find the people (see `Tracker.step`)."""
        size = ImageSize.of(image)
        boxes = self._detector.detect(image).boxes_xyxy
        found = self._distinct(look_at(self._estimator, image, boxes), boxes)
        self._people = [person for person in self._people if time_s - person.confirmed_s <= DEATH_S]
        matched = self._match(found, size)
        for person, sight in matched:
            person.see(sight, time_s, is_confirmed=True)
        self._bridge(image, [person for person, _ in matched], time_s)
        taken = {id(sight) for _, sight in matched}
        for sight in found:
            if id(sight) not in taken:
                self._people.append(_Person(self._next_id, sight, time_s))
                self._next_id += 1
        present = sorted((person for person in self._people if person.seen_s == time_s), key=lambda one: one.id)
        if not present:
            return Sightings.none(len(self._sigmas))
        return Sightings(
            np.stack([person.sight.joints for person in present]),
            np.stack([person.sight.box_xyxy for person in present]),
            tuple(person.id for person in present),
        )

    def _distinct(self, keypoints: NDArray[np.float64], boxes: FloatArray) -> list[_Sight]:
        """Return the sightings that are somebody's; of two of the same person, the one that scores higher."""
        order = np.argsort(-keypoints[..., 2].mean(axis=1), kind="stable")
        kept: list[_Sight] = []
        for index in order:
            sight = _Sight(keypoints[index], np.asarray(boxes[index], dtype=np.float64))
            if sight.score >= self._lost_score and not self._repeats(sight, kept):
                kept.append(sight)
        return kept

    def _repeats(self, sight: _Sight, others: list[_Sight]) -> bool:
        return any(self._likeness(sight, other) > SAME_OKS for other in others)

    def _likeness(self, first: _Sight, second: _Sight) -> float:
        area = float(np.sqrt(first.area_px * second.area_px))
        return keypoint_similarity(first.joints[:, :2], second.joints[:, :2], area_px=area, sigmas=self._sigmas)

    def _match(self, found: list[_Sight], size: ImageSize) -> list[tuple[_Person, _Sight]]:
        """Pair people with sightings, the likest first; where skeletons are too far apart, boxes that overlap count."""
        pairs: list[tuple[float, int, int]] = []
        for row, person in enumerate(self._people):
            expected = person.next_box(size)
            for column, sight in enumerate(found):
                likeness = self._likeness(person.sight, sight)
                overlap = box_iou(expected, sight.box_xyxy)
                if likeness >= MATCH_OKS or overlap >= MATCH_IOU:
                    pairs.append((likeness + MATCH_OKS * overlap, row, column))
        matched: list[tuple[_Person, _Sight]] = []
        rows, columns = set[int](), set[int]()
        for _, row, column in sorted(pairs, reverse=True):
            if row not in rows and column not in columns:
                rows.add(row)
                columns.add(column)
                matched.append((self._people[row], found[column]))
        return matched

    def _bridge(self, image: ImageArray, seen: list[_Person], time_s: float) -> None:
        """Look for those whom the detector overlooked where their last joints lead to."""
        missing = [person for person in self._people if person not in seen]
        if not missing:
            return
        boxes = np.stack([person.next_box(ImageSize.of(image)) for person in missing])
        present = [person.sight for person in seen]
        for person, box, joints in zip(missing, boxes, look_at(self._estimator, image, boxes), strict=True):
            sight = _Sight(joints, box)
            is_near = self._likeness(person.sight, sight) >= MATCH_OKS
            if sight.score >= self._lost_score and is_near and not self._repeats(sight, present):
                person.see(sight, time_s, is_confirmed=False)
                present.append(sight)


@dataclass(frozen=True, slots=True, eq=False)
class _Sight:
    """One person on one frame: (K, 3) joints and the (4,) box that was looked at."""

    joints: NDArray[np.float64]
    box_xyxy: FloatArray

    @property
    def score(self) -> float:
        return float(self.joints[:, 2].mean())

    @property
    def area_px(self) -> float:
        """About the area of the person, from the box (COCO's people cover 0.53 of theirs)."""
        left, top, right, bottom = self.box_xyxy
        return max(1.0, PERSON_PER_BOX * float((right - left) * (bottom - top)))


class _Person:
    """Somebody who is followed.

    Attributes:
        id: The number, from 1.
        sight: How the person was seen last.
        seen_s: When that was.
        confirmed_s: When the detector saw the person last.
    """

    def __init__(self, number: int, sight: _Sight, time_s: float) -> None:
        self.id = number
        self._leg = LegMemory()
        self.see(sight, time_s, is_confirmed=True)

    def see(self, sight: _Sight, time_s: float, *, is_confirmed: bool) -> None:
        self.sight = sight
        self.seen_s = time_s
        self._leg_px = self._leg.update(sight.joints[:, :2], time_s)
        if is_confirmed:
            self.confirmed_s = time_s

    def next_box(self, size: ImageSize) -> FloatArray:
        return person_box_from_joints(self.sight.joints[:, :2], size, leg_px=self._leg_px)


def keypoint_similarity(
    first_xy: FloatArray, second_xy: FloatArray, *, area_px: float, sigmas: NDArray[np.float64]
) -> float:
    """Return the object keypoint similarity of two skeletons, 0 to 1 (COCO keypoint evaluation, 2017).

    Args:
        first_xy: (K, 2) joints in pixels.
        second_xy: (K, 2) joints in pixels.
        area_px: Area of the person in square pixels.
        sigmas: (K,) the joints' constants.
    """
    squared = ((first_xy - second_xy) ** 2).sum(axis=1)
    return float(np.exp(-squared / (2 * area_px * (2 * sigmas) ** 2)).mean())
