"""Looking for one person without a box: where to look next, and when to stop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lbkit.core.boxes import box_iou, person_box_from_joints, whole_image_box
from lbkit.core.geometry import FloatArray, ImageSize

MAX_SEARCHES = 3
"""How often a person without a box is looked for: on the whole image, then twice in a better box."""

SETTLED_IOU = 0.9
"""A search ends early when the box it leads to overlaps the box it came from by this much."""


class PersonSearch:
    """The search for one person on one image, told the model's answer round by round.

    The first round looks at the whole image or at the part to start with, each further one at a box about the joints
    just found; of all rounds the one whose joints score highest wins.

    Attributes:
        image_size: Size of the image.
        box_xyxy: (4,) box in edge coordinates to look at next.
        is_over: Whether there is nothing more to look at.
        joints: (K, 3) float64 of the best round: x, y in image pixels, and score.
        joints_box_xyxy: (4,) box that the best round looked at.
    """

    def __init__(self, image_size: ImageSize, *, start_xyxy: FloatArray | None = None) -> None:
        self.image_size = image_size
        self.box_xyxy: FloatArray = whole_image_box(image_size) if start_xyxy is None else start_xyxy
        self.is_over = False
        self.joints: NDArray[np.float64] = np.zeros((0, 3))
        self.joints_box_xyxy: FloatArray = self.box_xyxy
        self._rounds = 0

    def record(self, joints: NDArray[np.float64]) -> bool:
        """Take the model's answer on `box_xyxy` and move on.

        Args:
            joints: (K, 3) x, y in image pixels, and score.

        Returns:
            Whether this round is the best so far.
        """
        is_best = not len(self.joints) or joints[:, 2].mean() > self.joints[:, 2].mean()
        if is_best:
            self.joints, self.joints_box_xyxy = joints, self.box_xyxy
        next_box = person_box_from_joints(joints[:, :2], self.image_size)
        self._rounds += 1
        self.is_over = self._rounds == MAX_SEARCHES or box_iou(next_box, self.box_xyxy) >= SETTLED_IOU
        self.box_xyxy = next_box
        return bool(is_best)
