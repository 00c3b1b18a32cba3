"""People followed from frame to frame: where the next box is, who is lost, and who is who."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lbkit.core.boxes import box_iou, leg_length_px, person_box_from_joints, whole_image_box
from lbkit.core.contract import ModelContract
from lbkit.core.detections import PersonDetector
from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import FloatArray, ImageArray, ImageSize, fit_box
from lbkit.core.preprocess import crop_person
from lbkit.core.search import PersonSearch
from lbkit.video.company import CompanyWatch
from lbkit.video.similarity import keypoint_similarity, person_area_px

LOST_SCORE = 0.2
"""Joints that score less on average are nobody's, for a model that nothing is known of (see `person_score_limit`)."""

LOST_SCORE_PER_PCK = 0.5
LOST_SCORES = (0.1, 0.25)
"""The same from a model's PCK@0.05, within these limits. On 80 pictures of people and 56 of empty rooms and grounds,
fpn (PCK 0.51) gives people 0.43 to 1.01 and the rest a median of 0.21, cnn (0.27) 0.11 to 0.66 and 0.16."""

FOUND_PER_LOST = 1.45
"""Whom a search finds must score this many times as much as whom the following loses. Of 118 photographs of one person,
150 pieces of photographs without people and 60 rendered rooms without people, fpn-int8 then finds 98 % of the people
whose joints it has right, and somebody in 9 % of the pieces and 3 % of the rooms; with one limit for both, 99 %, 29 %
and 17 %. (A cnn-int8 of PCK 0.26: 98 %, 22 %, 17 %; with one limit, 100 %, 62 %, 43 %.)"""

LEG_MEMORY_S = 4.0
LEG_QUANTILE = 0.8
MAX_REMEMBERED = 256
"""How far back a leg's length is remembered, and which of the lengths seen counts."""

TOO_LONG = 1.3
"""A leg this many times as long as it was is a mistake, and the box stays where it was, until the new length is what is
remembered."""

ODD_SCALE = 1.15
"""A frame whose joints are such a mistake is looked at once more, in a box that is larger by this."""

SETTLED_IOU = 0.6
"""A box that leads to joints whose own box overlaps it by less is looked at once more."""

THOROUGH_S = 0.5
"""So long after a person was lost every frame is searched as the first one is."""

DOUBTFUL = 2.0
DOUBT_EVERY_S = 1.0
SURER = 1.25
"""Somebody who scores less than `DOUBTFUL` times what nobody may have is checked against a search of the whole picture
every so often, and given up for whom scores this many times as much there."""

ONE_PERSON_ID = 1

DEATH_S = 1.0
"""Somebody whom the detector has not confirmed for so long is forgotten."""

MATCH_OKS = 0.2
"""Skeletons this alike, from one frame to the next, may be the same person's."""

MATCH_IOU = 0.4
"""So may boxes that overlap this much, when the person moved far between two frames."""

SAME_OKS = 0.7
"""Two skeletons on one frame this alike are one person in two boxes."""


@dataclass(frozen=True, slots=True, eq=False)
class Sightings:
    """The people of one frame.

    Attributes:
        keypoints: (N, K, 3) float64: x, y in image pixels, and score.
        boxes_xyxy: (N, 4) float64, the boxes that were looked at.
        ids: Each person's number, the same through the whole video.
        has_company: Whether there is somebody besides one person; None where that was not looked at.
    """

    keypoints: NDArray[np.float64]
    boxes_xyxy: NDArray[np.float64]
    ids: tuple[int, ...]
    has_company: bool | None = None

    @classmethod
    def none(cls, joints: int) -> Sightings:
        """Return nobody, whose skeletons would have so many joints."""
        return cls(np.zeros((0, joints, 3)), np.zeros((0, 4)), ())

    @classmethod
    def one(cls, joints: NDArray[np.float64], box_xyxy: FloatArray, *, has_company: bool | None = None) -> Sightings:
        """Return one person's (K, 3) joints and (4,) box."""
        return cls(joints[None], np.asarray(box_xyxy, dtype=np.float64)[None], (ONE_PERSON_ID,), has_company)


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
    exactness = measured_pck(contract)
    return LOST_SCORE if exactness is None else float(np.clip(LOST_SCORE_PER_PCK * exactness, *LOST_SCORES))


def measured_pck(contract: ModelContract) -> float | None:
    """Return the model's least measured PCK@0.05, or None if it was not measured.

    Args:
        contract: The model's contract.
    """
    return min((figure.value for figure in contract.evaluation if figure.metric == "pck@0.05 v>0"), default=None)


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
    """How long a person's leg is in the picture, from the last seconds.

    Thighs that point at the camera look short, and joints gone astray make a leg long for a frame or two; so the length
    is one that `LEG_QUANTILE` of the last frames stayed below.

    Args:
        memory_s: How far back it reaches.
    """

    def __init__(self, memory_s: float = LEG_MEMORY_S) -> None:
        self._memory_s = memory_s
        self._seen: deque[tuple[float, float]] = deque()

    def note(self, xy: FloatArray, time_s: float) -> None:
        """Take (6, 2) joints that were seen at a time in seconds into account."""
        self._seen.append((time_s, leg_length_px(xy)))
        while self._seen[0][0] < time_s - self._memory_s or len(self._seen) > MAX_REMEMBERED:
            self._seen.popleft()

    def forget(self) -> None:
        """Begin anew."""
        self._seen.clear()

    def length_px(self) -> float:
        """Return the length in pixels; something must have been seen."""
        return float(np.quantile([leg_px for _, leg_px in self._seen], LEG_QUANTILE))

    def is_too_long(self, xy: FloatArray) -> bool:
        """Tell whether (6, 2) joints show a leg that the person seen so far cannot have."""
        return bool(self._seen) and leg_length_px(xy) > TOO_LONG * self.length_px()


@dataclass(frozen=True, slots=True, eq=False)
class _Sight:
    """One person on one frame: (K, 3) joints and the (4,) box that was looked at."""

    joints: NDArray[np.float64]
    box_xyxy: FloatArray

    @property
    def xy(self) -> NDArray[np.float64]:
        return self.joints[:, :2]

    @property
    def score(self) -> float:
        return float(self.joints[:, 2].mean())

    @property
    def area_px(self) -> float:
        """About the area of the person."""
        return person_area_px(self.box_xyxy)


class OnePerson:
    """One person, found without a box and then followed by the joints.

    The first frame is searched as a photograph is. Afterwards each frame is looked at in the box that the last joints
    lead to. When the joints score low, the person is lost and the frame is searched again; after `THOROUGH_S` without
    anybody one look a frame goes on searching, so that empty frames cost no more than others. Somebody who scores
    little more than nobody does may be no person at all, so from time to time the whole picture is searched for a
    better one. Now and then it is looked for company beside the person (see `CompanyWatch`).

    Args:
        estimator: The model.
        lost_score: Joints that score less on average are nobody's; from the contract when None.
    """

    def __init__(self, estimator: PoseEstimator, *, lost_score: float | None = None) -> None:
        self._estimator = estimator
        self._lost_score = person_score_limit(estimator.contract) if lost_score is None else lost_score
        self._box_xyxy: FloatArray | None = None
        self._search: PersonSearch | None = None
        self._lost_s: float | None = None
        self._searched_s = 0.0
        self._is_odd = False
        self._leg = LegMemory()
        self._company = CompanyWatch(
            lambda image, box: look_at(estimator, image, np.asarray(box)[None])[0],
            contract=estimator.contract,
            least_score=self._found_score,
        )

    @property
    def _found_score(self) -> float:
        return FOUND_PER_LOST * self._lost_score

    def step(self, image: ImageArray, time_s: float) -> Sightings:
        """Find the person (see `Tracker.step`)."""
        sight = None if self._box_xyxy is None else self._follow(image, self._box_xyxy, time_s)
        if sight is None:
            self._box_xyxy = None
            self._leg.forget()
            sight = self._look_for(image, time_s)
        if sight is None:
            return Sightings.none(len(self._estimator.contract.keypoints))
        self._leg.note(sight.xy, time_s)
        if self._box_xyxy is None or not self._is_odd:
            self._box_xyxy = person_box_from_joints(sight.xy, ImageSize.of(image), leg_px=self._leg.length_px())
        self._search = self._lost_s = None
        return Sightings.one(sight.joints, sight.box_xyxy, has_company=self._company.step(image, sight.joints, time_s))

    def _follow(self, image: ImageArray, box: FloatArray, time_s: float) -> _Sight | None:
        """Look where the person should be, and once more where that leads if it leads elsewhere."""
        sight = self._look(image, box)
        if self._leg.is_too_long(sight.xy):
            again = fit_box(box, aspect=float((box[3] - box[1]) / (box[2] - box[0])), padding=ODD_SCALE)
            sight = min(self._look(image, again), sight, key=lambda one: self._leg.is_too_long(one.xy))
        else:
            leg_px = max(leg_length_px(sight.xy), self._leg.length_px())
            led_to = person_box_from_joints(sight.xy, ImageSize.of(image), leg_px=leg_px)
            if box_iou(led_to, box) < SETTLED_IOU:
                sight = max(sight, self._look(image, led_to), key=lambda one: one.score)
        self._is_odd = self._leg.is_too_long(sight.xy)
        is_doubtful = sight.score < DOUBTFUL * self._lost_score
        if is_doubtful and time_s - self._searched_s >= DOUBT_EVERY_S:
            found = self._search_all(image, time_s)
            if found.score > SURER * sight.score:
                self._leg.forget()
                self._is_odd = False
                sight = found
        return sight if sight.score >= self._lost_score else None

    def _look_for(self, image: ImageArray, time_s: float) -> _Sight | None:
        """Search the whole frame when the person was lost a short while ago, and else go on by one look."""
        self._lost_s = time_s if self._lost_s is None else self._lost_s
        if time_s - self._lost_s <= THOROUGH_S:
            sight = self._search_all(image, time_s)
        else:
            self._search = self._search or PersonSearch(ImageSize.of(image))
            sight = self._look(image, self._search.box_xyxy)
            self._search.record(sight.joints)
            self._search = None if self._search.is_over else self._search
        return sight if sight.score >= self._found_score else None

    def _search_all(self, image: ImageArray, time_s: float) -> _Sight:
        self._searched_s = time_s
        search = PersonSearch(ImageSize.of(image))
        while not search.is_over:
            search.record(self._look(image, search.box_xyxy).joints)
        return _Sight(search.joints, search.joints_box_xyxy)

    def _look(self, image: ImageArray, box: FloatArray) -> _Sight:
        return _Sight(look_at(self._estimator, image, np.asarray(box)[None])[0], box)


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
            has_company=len(present) > 1,
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
        return keypoint_similarity(first.xy, second.xy, area_px=area, sigmas=self._sigmas)

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
        self._leg.note(sight.xy, time_s)
        if is_confirmed:
            self.confirmed_s = time_s

    def next_box(self, size: ImageSize) -> FloatArray:
        return person_box_from_joints(self.sight.xy, size, leg_px=self._leg.length_px())
