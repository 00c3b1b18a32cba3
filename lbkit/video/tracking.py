"""People followed from frame to frame: where the next box is, who is lost, and who is who."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lbkit.core.boxes import box_iou, leg_length_px, person_box_from_joints, whole_image_box
from lbkit.core.detections import PersonDetector
from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import FloatArray, ImageArray, ImageSize
from lbkit.core.preprocess import crop_person
from lbkit.core.search import PersonSearch

LOST_SCORE = 0.25
"""A person whose joints score less on average is lost."""

LEG_MEMORY_S = 4.0
"""How slowly a leg that looked long is forgotten: its length falls to a third in this time, unless it is seen again."""

SETTLED_IOU = 0.6
"""A box that leads to joints whose own box overlaps it by less is looked at once more."""

ONE_PERSON_ID = 1


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
        lost_score: Joints that score less on average are nobody's.
    """

    def __init__(self, estimator: PoseEstimator, *, lost_score: float = LOST_SCORE) -> None:
        self._estimator = estimator
        self._lost_score = lost_score
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
        self._box_xyxy = person_box_from_joints(
            joints[:, :2], size, leg_px=self._leg.update(joints[:, :2], time_s)
        )
        return Sightings.one(joints, box)

    def _follow(
        self, image: ImageArray, box: FloatArray
    ) -> tuple[NDArray[np.float64], FloatArray] | tuple[None, None]:
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
        return look_at(self._estimator, image, np.asarray(box)[None])[0]


class Crowd:
    """Several people in a detector's boxes."""

    def __init__(self, estimator: PoseEstimator, detector: PersonDetector) -> None:
        raise NotImplementedError
