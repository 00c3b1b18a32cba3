"""Whether somebody else is in the picture beside the one person who is followed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lbkit.core.boxes import box_iou, person_box_from_joints
from lbkit.core.contract import ModelContract
from lbkit.core.geometry import FloatArray, ImageArray, ImageSize
from lbkit.core.search import PersonSearch
from lbkit.video.similarity import keypoint_similarity, person_area_px

FIRST_S, LONGEST_S = 0.5, 8.0
"""When a person is first looked beside, and how long the wait between two rounds grows, doubling each time."""

NARROWEST = 0.15
"""A strip beside the person that is narrower than this share of the picture's height has no room for another."""

OTHER_OKS, OTHER_IOU = 0.2, 0.4
"""A skeleton less like the person's, in a box that overlaps the person's less, is another's. Of 38 rounds on clips of
one person and 16 on clips of two, set side by side, these and the score put every one right."""


class CompanyWatch:
    """Looks beside a followed person from time to time, one look a frame.

    A round searches the strip of the picture on either side of the person as a photograph is searched.

    Args:
        look: Gives (K, 3) joints found in a (4,) box of an image.
        contract: The model's.
        least_score: Joints that score less on average are nobody's.
    """

    def __init__(
        self,
        look: Callable[[ImageArray, FloatArray], NDArray[np.float64]],
        *,
        contract: ModelContract,
        least_score: float,
    ) -> None:
        self._look = look
        self._keypoints = contract.keypoints
        self._least_score = least_score
        self._next_s: float | None = None
        self._wait_s = FIRST_S
        self._strips: list[FloatArray] = []
        self._search: PersonSearch | None = None

    def step(self, image: ImageArray, joints: NDArray[np.float64], time_s: float) -> bool | None:
        """Take one look if it is time for one.

        Args:
            image: (H, W, 3) uint8 RGB.
            joints: (K, 3) of the person who is followed, on this image.
            time_s: Its time in seconds.

        Returns:
            Whether somebody else was seen when a round ends with this look, None on other frames.
        """
        size = ImageSize.of(image)
        box = person_box_from_joints(joints[:, :2], size)
        if self._next_s is None:
            self._next_s = time_s + FIRST_S
        if self._search is None:
            if time_s < self._next_s:
                return None
            self._strips = _strips(box, size)
            if not self._strips:
                return None
            self._search = PersonSearch(size, start_xyxy=self._strips.pop())
        self._search.record(self._look(image, self._search.box_xyxy))
        if not self._search.is_over:
            return None
        is_other = self._is_other(self._search.joints, joints, box, size)
        if not is_other and self._strips:
            self._search = PersonSearch(size, start_xyxy=self._strips.pop())
            return None
        self._search = None
        self._wait_s = min(2 * self._wait_s, LONGEST_S)
        self._next_s = time_s + self._wait_s
        return is_other

    def _is_other(
        self, found: NDArray[np.float64], own: NDArray[np.float64], own_box: FloatArray, size: ImageSize
    ) -> bool:
        box = person_box_from_joints(found[:, :2], size)
        if found[:, 2].mean() < self._least_score or box_iou(box, own_box) > OTHER_IOU:
            return False
        sides = (found, found[list(self._keypoints.flip_order)])  # the same person with left and right exchanged
        sigmas, area_px = np.array(self._keypoints.oks_sigmas), person_area_px(own_box)
        return all(
            keypoint_similarity(side[:, :2], own[:, :2], area_px=area_px, sigmas=sigmas) < OTHER_OKS for side in sides
        )


def _strips(box: FloatArray, size: ImageSize) -> list[FloatArray]:
    """Return (4,) boxes of the picture left and right of a person that are wide enough, the wider last."""
    left, right = float(box[0]), float(box[2])
    strips = [np.array([0.0, 0.0, left, size.height]), np.array([right, 0.0, size.width, size.height])]
    wide = [strip for strip in strips if strip[2] - strip[0] >= NARROWEST * size.height]
    return sorted(wide, key=lambda strip: float(strip[2] - strip[0]))
