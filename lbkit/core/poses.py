"""The result type: people's joints in one image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.core.keypoints import KeypointSchema


@dataclass(frozen=True, slots=True, eq=False)
class Poses:
    """The joints of N people in one image.

    Attributes:
        xy: (N, K, 2) float32 image pixels; the centre of the top-left pixel is (0, 0).
        scores: (N, K) float32, the height of each joint's heatmap peak, about 0 to 1.
        boxes_xyxy: (N, 4) float32, the boxes the people were looked for in, edge coordinates.
        image_size: Size of the image.
        keypoints: The K joints.
    """

    xy: NDArray[np.float32]
    scores: NDArray[np.float32]
    boxes_xyxy: NDArray[np.float32]
    image_size: ImageSize
    keypoints: KeypointSchema

    def __post_init__(self) -> None:
        for name in ("xy", "scores", "boxes_xyxy"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.float32))
        count, joints = len(self.xy), len(self.keypoints)
        expected = {"xy": (count, joints, 2), "scores": (count, joints), "boxes_xyxy": (count, 4)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} should have shape {shape}, got {getattr(self, name).shape}")

    @classmethod
    def empty(cls, image_size: ImageSize, keypoints: KeypointSchema) -> Poses:
        """Return the poses of nobody."""
        joints = len(keypoints)
        return cls(
            xy=np.zeros((0, joints, 2), np.float32),
            scores=np.zeros((0, joints), np.float32),
            boxes_xyxy=np.zeros((0, 4), np.float32),
            image_size=image_size,
            keypoints=keypoints,
        )

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def person_scores(self) -> NDArray[np.float32]:
        """(N,) mean of each person's joint scores."""
        return np.asarray(self.scores.mean(axis=1), dtype=np.float32)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dict a person: box, score, and the named joints with x, y and score."""
        return [self._person(index) for index in range(len(self))]

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the people as a JSON list (see `to_dicts`)."""
        return json.dumps(self.to_dicts(), indent=indent)

    def draw(self, image: ImageArray, *, min_score: float = 0.2) -> ImageArray:
        """Return a copy of the image with the skeletons drawn on it.

        Args:
            image: (H, W, 3) uint8 RGB, of `image_size`.
            min_score: Joints below this score are left out.
        """
        from lbkit.core.draw import draw_poses

        return draw_poses(image, self, min_score=min_score)

    def _person(self, index: int) -> dict[str, Any]:
        joints = zip(self.keypoints.names, self.xy[index], self.scores[index], strict=True)
        return {
            "box_xyxy": [round(float(edge), 2) for edge in self.boxes_xyxy[index]],
            "score": round(float(self.person_scores[index]), 4),
            "keypoints": {
                name: {"x": round(float(x), 3), "y": round(float(y), 3), "score": round(float(score), 4)}
                for name, (x, y), score in joints
            },
        }
