"""From an image and boxes to poses: the one walk that Python, the command line, parity and evaluation share."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lbkit.core.backend import Backend, ModelOutput
from lbkit.core.boxes import checked_boxes
from lbkit.core.codec import decode_heatmaps
from lbkit.core.contract import DECODERS, DecoderName, ModelContract
from lbkit.core.geometry import CropTransform, FloatArray, ImageArray, ImageSize
from lbkit.core.poses import Poses
from lbkit.core.preprocess import crop_person
from lbkit.core.search import PersonSearch
from lbkit.errors import InputError, ModelError, ModelMemoryError

logger = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = 8

STREAM_BATCH_SIZE = 4
"""Batches of 4 and 8 side by side were equally fast with the shipped int8 models, those of 1 and 2 slower; smaller ones
need less memory, which every stream has for itself."""

MAX_BATCH_SIZE = 1024
"""Beyond it nothing is won on any processor, and the crops read ahead for one batch would fill the memory."""


def default_batch_size(streams: int) -> int:
    """Return how many people should run through the model at once, where so many batches run side by side."""
    return DEFAULT_BATCH_SIZE if streams == 1 else STREAM_BATCH_SIZE


class PoseEstimator:
    """A loaded model that finds people's joints in images.

    Args:
        backend: The model in its runtime.
        decoder: Decodes heatmaps on the host; the contract's decoder when None. A model that decodes in its graph
            accepts only its own.
        batch_size: People that run through the model at once; halved when the memory does not hold them.
        streams: Batches that the backend runs side by side, when they come from as many threads.

    Raises:
        InputError: There is no such decoder, the batch size is below 1 or above `MAX_BATCH_SIZE`, or streams below 1.
        ModelError: Another decoder is asked for than the one inside the graph.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        decoder: DecoderName | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        streams: int = 1,
    ) -> None:
        if not 1 <= batch_size <= MAX_BATCH_SIZE:
            problem = f"batch_size must be at least 1 and at most {MAX_BATCH_SIZE}, got {batch_size}"
            raise InputError(problem, remedy="8 is a good one")
        if streams < 1:
            raise InputError(f"streams must be at least 1, got {streams}", remedy="1 runs batch after batch")
        if decoder not in (None, *DECODERS):
            raise InputError(f"no decoder {decoder!r}", remedy=f"choose one of {', '.join(DECODERS)}")
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
        self.streams = streams
        self._places = threading.BoundedSemaphore(streams)
        self._alone = threading.Lock()

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
            ModelError: The model put out something that is not a finite number.
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
        return self.find_persons([image])[0]

    def find_persons(self, images: Sequence[ImageArray]) -> list[Poses]:
        """Find one person without a box in each image (see `PersonSearch`), all images' rounds in shared batches.

        Args:
            images: (H, W, 3) uint8 RGB each, of any sizes.
        """
        searches = [PersonSearch(ImageSize.of(image)) for image in images]
        while open_indices := [index for index, search in enumerate(searches) if not search.is_over]:
            cut = [
                crop_person(images[index], searches[index].box_xyxy, contract=self.contract) for index in open_indices
            ]
            keypoints = self.predict([crop for crop, _ in cut], [transform for _, transform in cut])
            for index, joints in zip(open_indices, keypoints, strict=True):
                searches[index].record(joints)
        return [
            self.poses(search.joints[None], search.joints_box_xyxy[None], image_size=search.image_size)
            for search in searches
        ]

    def predict(self, crops: Sequence[ImageArray], transforms: Sequence[CropTransform]) -> NDArray[np.float64]:
        """Run the model on crops, from any number of images, and map its joints back.

        Args:
            crops: N crops (H, W, 3) uint8 RGB.
            transforms: Their N transforms.

        Returns:
            (N, K, 3) float64: x, y in image pixels, and score.
        """
        keypoints = self.predict_input(crops)
        _to_image(keypoints, transforms)
        return keypoints

    def predict_batch(
        self, crops: Sequence[ImageArray], transforms: Sequence[CropTransform]
    ) -> tuple[NDArray[np.float64], ModelOutput]:
        """Run the model once, on at most `batch_size` crops, and keep what it put out.

        Args:
            crops: N crops (H, W, 3) uint8 RGB.
            transforms: Their N transforms.

        Returns:
            (N, K, 3) float64 of x, y in image pixels and score, and the model's own output.
        """
        output = self.run(crops)
        keypoints = self.decode(output).astype(np.float64)
        _to_image(keypoints, transforms)
        return keypoints, output

    def predict_input(self, crops: Sequence[ImageArray]) -> NDArray[np.float64]:
        """Run the model on crops and decode: (N, K, 3) float64 of x, y in input pixels and score."""
        batches: list[NDArray[np.float32]] = []
        done = 0
        while done < len(crops):
            part = crops[done : done + self.batch_size]  # which shrinks where the memory is short
            batches.append(self.decode(self.run(part)))
            done += len(part)
        return np.concatenate(batches).astype(np.float64)

    def run(self, crops: Sequence[ImageArray]) -> ModelOutput:
        """Run the model on crops; where the memory does not hold them at once, in halves, from then on always.

        A single crop that does not fit beside what other streams run is run once more when they have ended.

        Args:
            crops: N crops (H, W, 3) uint8 RGB, N >= 1.

        Raises:
            ModelMemoryError: The memory does not hold a single crop's run.
        """
        if len(crops) > self.batch_size:  # which has shrunk since they were gathered
            return _joined(self.run(crops[: self.batch_size]), self.run(crops[self.batch_size :]))
        try:
            with self._places if self.streams > 1 else nullcontext():
                return self.backend.run(np.stack(crops))
        except (ModelMemoryError, MemoryError) as error:
            if len(crops) == 1 and self.streams > 1:
                return self._run_alone(crops)
            if len(crops) == 1:
                raise _no_memory(error, self.contract.model) from error
        half = (len(crops) + 1) // 2
        self.batch_size = min(self.batch_size, half)
        logger.warning("out of memory with a batch of %d: going on with %d", len(crops), half)
        return _joined(self.run(crops[:half]), self.run(crops[half:]))

    def _run_alone(self, crops: Sequence[ImageArray]) -> ModelOutput:
        with ExitStack() as held:
            held.enter_context(self._alone)  # two that take places one by one would wait for each other
            for _ in range(self.streams):
                held.enter_context(self._places)
            try:
                return self.backend.run(np.stack(crops))
            except (ModelMemoryError, MemoryError) as error:
                raise _no_memory(error, self.contract.model) from error

    def decode(self, output: ModelOutput) -> NDArray[np.float32]:
        """Return (N, K, 3) float32 of x, y in input pixels and score, from whichever output the model has.

        Raises:
            ModelError: The model put out something that is not a finite number.
        """
        keypoints = output.keypoints if self.decoder == self.contract.heatmap.decoder else None
        if keypoints is None:
            assert output.heatmaps is not None  # checked in __init__ against the contract
            keypoints = decode_heatmaps(output.heatmaps, spec=self.contract.heatmap, decoder=self.decoder)
        if not np.isfinite(keypoints).all():
            raise ModelError(
                f"the model {self.contract.model} put out numbers that are not finite",
                remedy="run `lbkit doctor`, or use its fp32 file on the CPU",
            )
        return keypoints

    def poses(self, keypoints: FloatArray, boxes_xyxy: FloatArray, *, image_size: ImageSize) -> Poses:
        """Wrap (N, K, 3) image keypoints and their (N, 4) boxes into the result type."""
        return Poses(
            xy=keypoints[..., :2].astype(np.float32),
            scores=keypoints[..., 2].astype(np.float32),
            boxes_xyxy=boxes_xyxy.astype(np.float32),
            image_size=image_size,
            keypoints=self.contract.keypoints,
        )


def _no_memory(error: Exception, model: str) -> ModelMemoryError:
    if isinstance(error, ModelMemoryError):
        problem, where = error.problem, error.where
    else:
        problem, where = "out of memory while running a single crop", model
    return ModelMemoryError(problem, where=where, remedy="end other programs, or take a smaller model")


def _joined(first: ModelOutput, second: ModelOutput) -> ModelOutput:
    def both(name: str) -> NDArray[np.float32] | None:
        parts = [getattr(output, name) for output in (first, second)]
        return None if parts[0] is None else np.concatenate(parts)

    return ModelOutput(heatmaps=both("heatmaps"), keypoints=both("keypoints"))


def _to_image(keypoints: NDArray[np.float64], transforms: Sequence[CropTransform]) -> None:
    """Map (N, K, 3) keypoints from input to image pixels, in place."""
    for joints, transform in zip(keypoints, transforms, strict=True):
        joints[:, :2] = transform.to_image(joints[:, :2])


def _checked_image(image: ImageArray) -> ImageArray:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(
            f"an image is a uint8 RGB array of shape (H, W, 3), got {found}",
            remedy="read files with lbkit.read_image",
        )
    return image
