"""From an image and boxes to poses: the one walk that Python, the command line, parity and evaluation share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lbkit.core.backend import Backend, ModelOutput
from lbkit.core.boxes import box_iou, checked_boxes, person_box_from_joints, whole_image_box
from lbkit.core.codec import decode_heatmaps
from lbkit.core.contract import DecoderName, ModelContract
from lbkit.core.geometry import CropTransform, FloatArray, ImageArray, ImageSize
from lbkit.core.poses import Poses
from lbkit.core.preprocess import crop_person
from lbkit.errors import InputError, ModelError

MAX_SEARCHES = 3
"""How often a person without a box is looked for: on the whole image, then twice in a better box."""

SETTLED_IOU = 0.9
"""A search ends early when the box it leads to overlaps the box it came from by this much."""

DEFAULT_BATCH_SIZE = 8


class PoseEstimator:
    """A loaded model that finds people's joints in images.

    Args:
        backend: The model in its runtime.
        decoder: Decodes heatmaps on the host; the contract's decoder when None. A model that decodes in its graph
            accepts only its own.
        batch_size: People that run through the model at once.

    Raises:
        ModelError: Another decoder is asked for than the one inside the graph.
    """

    def __init__(
        self, backend: Backend, *, decoder: DecoderName | None = None, batch_size: int = DEFAULT_BATCH_SIZE
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        heatmap = backend.contract.heatmap
        has_heatmaps = "heatmaps" in backend.contract.outputs
        if decoder not in (None, heatmap.decoder) and not has_heatmaps:
            raise ModelError(
                f"the model decodes inside its graph with {heatmap.decoder}, so {decoder} cannot be had from it",
                remedy=f"export it with `--decode none` or `--decode {decoder}`",
            )
        self.backend = backend
        self.decoder: DecoderName = decoder or heatmap.decoder
        self.batch_size = batch_size

    @property
    def contract(self) -> ModelContract:
        """The model's contract."""
        return self.backend.contract

    def __call__(self, image: ImageArray, boxes_xyxy: ArrayLike | None = None) -> Poses:
        """Find the joints of the people in an image.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes_xyxy: (N, 4) boxes in edge coordinates; None looks for one person on the whole image.

        Raises:
            InputError: The image is not (H, W, 3) uint8.
            BoxError: A box cannot be used.
        """
        image = _checked_image(image)
        if boxes_xyxy is None:
            return self.find_person(image)
        size = ImageSize.of(image)
        boxes = checked_boxes(boxes_xyxy, size)
        if not len(boxes):
            return Poses.empty(size, self.contract.keypoints)
        cut = [crop_person(image, box, contract=self.contract) for box in boxes]
        keypoints = self.predict([crop for crop, _ in cut], [transform for _, transform in cut])
        return self.poses(keypoints, boxes, image_size=size)

    def find_person(self, image: ImageArray) -> Poses:
        """Find one person without a box: on the whole image first, then in a box about the joints found.

        The search whose joints score highest wins.

        Args:
            image: (H, W, 3) uint8 RGB.
        """
        size = ImageSize.of(image)
        box = whole_image_box(size)
        found: list[Poses] = []
        for _ in range(MAX_SEARCHES):
            crop, transform = crop_person(image, box, contract=self.contract)
            found.append(self.poses(self.predict([crop], [transform]), box[None], image_size=size))
            next_box = person_box_from_joints(found[-1].xy[0].astype(np.float64), size)
            settled = box_iou(next_box, box) >= SETTLED_IOU
            box = next_box
            if settled:
                break
        return max(found, key=lambda poses: float(poses.person_scores[0]))

    def predict(self, crops: Sequence[ImageArray], transforms: Sequence[CropTransform]) -> NDArray[np.float64]:
        """Run the model on crops, from any number of images, and map its joints back.

        Args:
            crops: N crops (H, W, 3) uint8 RGB.
            transforms: Their N transforms.

        Returns:
            (N, K, 3) float64: x, y in image pixels, and score.
        """
        keypoints = self.predict_input(crops)
        for joints, transform in zip(keypoints, transforms, strict=True):
            joints[:, :2] = transform.to_image(joints[:, :2])
        return keypoints

    def predict_input(self, crops: Sequence[ImageArray]) -> NDArray[np.float64]:
        """Run the model on crops and decode: (N, K, 3) float64 of x, y in input pixels and score."""
        starts = range(0, len(crops), self.batch_size)
        batches = [self.decode(self.backend.run(np.stack(crops[i : i + self.batch_size]))) for i in starts]
        return np.concatenate(batches).astype(np.float64)

    def decode(self, output: ModelOutput) -> NDArray[np.float32]:
        """Return (N, K, 3) float32 of x, y in input pixels and score, from whichever output the model has."""
        if output.keypoints is not None and self.decoder == self.contract.heatmap.decoder:
            return output.keypoints
        assert output.heatmaps is not None  # checked in __init__ against the contract
        return decode_heatmaps(output.heatmaps, spec=self.contract.heatmap, decoder=self.decoder)

    def poses(self, keypoints: FloatArray, boxes_xyxy: FloatArray, *, image_size: ImageSize) -> Poses:
        """Wrap (N, K, 3) image keypoints and their (N, 4) boxes into the result type."""
        return Poses(
            xy=keypoints[..., :2].astype(np.float32),
            scores=keypoints[..., 2].astype(np.float32),
            boxes_xyxy=boxes_xyxy.astype(np.float32),
            image_size=image_size,
            keypoints=self.contract.keypoints,
        )


def _checked_image(image: ImageArray) -> ImageArray:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(
            f"an image is a uint8 RGB array of shape (H, W, 3), got {found}",
            remedy="read files with lbkit.read_image",
        )
    return image
