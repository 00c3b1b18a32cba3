"""People from COCO-style files and rendered figures as training crops, the same for the same seed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lbkit.core.codec import encode_heatmaps
from lbkit.core.contract import HeatmapSpec, ModelContract
from lbkit.core.geometry import CropTransform, FloatArray, ImageArray, ImageSize
from lbkit.errors import ImageReadError
from lbkit.evaluation.pck import box_heights_px
from training.augment import ColorVariation, Person, varied_transform, vary_framing
from training.bystanders import add_bystander
from training.config import Augmentation, Recipe
from training.distributed import ALONE, Processes
from training.people import Annotated
from training.pictures import is_there, read_annotated

log = logging.getLogger(__name__)

FIGURE_SIZE = ImageSize(320, 240)

NOBODY = Person(
    np.full((8, 6, 3), 127, dtype=np.uint8),
    np.array([0.0, 0.0, 6.0, 8.0]),
    np.zeros((6, 2)),
    np.zeros(6, dtype=np.bool_),
)
"""What stands for a person whose picture is broken: nothing labelled, so that it adds nothing to a loss or a PCK."""


class CropDataset(Dataset[dict[str, Tensor]]):
    """Training or validation crops, addressed by (index, seed); equal addresses give equal crops.

    Args:
        people: Whom to cut out.
        contract: The network's contract, for padding and border.
        recipe: Input size and sigma while training.
        augmentation: How crops vary; None for the plain crop of inference.
    """

    def __init__(
        self,
        people: Sequence[Annotated],
        contract: ModelContract,
        *,
        recipe: Recipe,
        augmentation: Augmentation | None,
    ) -> None:
        self.people = people
        self.contract = contract
        self.size = recipe.input_size
        self.plan = augmentation
        self.color = None if augmentation is None else ColorVariation(augmentation)
        stride = contract.heatmap.stride
        cells = ImageSize(self.size.height // stride, self.size.width // stride)
        self.spec = HeatmapSpec(cells, stride, recipe.sigma, contract.heatmap.decoder, decoded_in_graph=False)

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, address: tuple[int, int]) -> dict[str, Tensor]:
        """Return one crop and its labels.

        Args:
            address: Index of the person, and the seed of everything random about the crop.

        Returns:
            `image` (3, H, W) uint8, `target` (K, h, w), `weight` (K,), `joints` (K, 2) in input pixels, `labelled`
            (K,), `height`, the person's 4:3 box height in input pixels, and `is_read`, false for a blank crop in place
            of a broken picture.

        Raises:
            ImageReadError: The picture has gone since the sources were loaded.
        """
        index, seed = address
        rng = np.random.default_rng([seed, index])
        entry = self.people[index]
        person = self._read(entry, rng)
        is_read = torch.tensor(person is not NOBODY)
        height_px = float(box_heights_px(person.box_xyxy)[0])
        flip = False
        padding = self.contract.crop.padding
        if self.plan is None:
            transform = CropTransform.from_box(person.box_xyxy, self.size, padding=padding)
        else:
            person = self._in_company(person, rng)
            person = vary_framing(person, self.plan, rng=rng)
            transform, flip = varied_transform(person, self.plan, size=self.size, padding=padding, rng=rng)
        crop = transform.warp(person.image, border_value=self.contract.crop.border_value)
        image = self._colored(crop, int(rng.integers(2**62)))
        height = torch.tensor(height_px * transform.scale)
        importance = np.where(entry.visibility == 1, entry.hidden_weight, 1.0)
        labels = self._labels(person, transform, importance, flip=flip)
        return {"image": image, "height": height, "is_read": is_read, **labels}

    def _in_company(self, person: Person, rng: np.random.Generator) -> Person:
        """Paste somebody else of the training people in now and then."""
        if self.plan is None or not self.plan.bystander or rng.random() >= self.plan.bystander or person is NOBODY:
            return person
        other = self._read(self.people[int(rng.integers(len(self.people)))], rng)
        return person if other is NOBODY else add_bystander(person, other, rng=rng)

    def _colored(self, crop: ImageArray, seed: int) -> Tensor:
        if self.color is None:
            return torch.from_numpy(crop).permute(2, 0, 1)
        return self.color(crop, seed=seed)

    def _labels(
        self, person: Person, transform: CropTransform, importance: FloatArray, *, flip: bool
    ) -> dict[str, Tensor]:
        joints, labelled = transform.to_input(person.joints_xy), person.labelled
        if flip:
            order = list(self.contract.keypoints.flip_order)
            joints, labelled, importance = joints[order], labelled[order], importance[order]
        target, weight = encode_heatmaps(joints, labelled, spec=self.spec)
        return {
            "target": torch.from_numpy(target),
            "weight": torch.from_numpy(weight * importance.astype(np.float32)),
            "joints": torch.from_numpy(joints.astype(np.float32)),
            "labelled": torch.from_numpy(labelled),
        }

    def _read(self, entry: Annotated, rng: np.random.Generator) -> Person:
        if entry.image_path is None:
            from lbkit.synthetic.figures import random_figure

            figure = random_figure(rng, size=FIGURE_SIZE)
            return Person(figure.image, figure.box_xyxy, figure.joints_xy, figure.joints_visible > 0)
        try:
            rgb = read_annotated(entry.image_path)
        except ImageReadError as error:
            if not is_there(entry.image_path):  # a folder that has gone would make every crop blank
                raise
            log.warning("left out: %s", error)
            return NOBODY
        return Person(rgb, entry.box_xyxy, entry.joints_xy, entry.visibility > 0)


class DrawnBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (index, seed) for one epoch: each person drawn as often as its source's `repeat` says, shuffled.

    Args:
        repeats: (P,) how often each person is drawn; fractions are drawn by chance.
        batch_size: People a batch; the last, smaller batch is left out.
        seed: Of the run.
        epoch: Decides the order and the crops' seeds.
        skip: Batches already done, when a run resumes.
        processes: Of each batch this process draws its share; all processes draw the same batches.
    """

    def __init__(
        self,
        repeats: FloatArray,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        skip: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        rng = np.random.default_rng([seed, epoch])
        counts = np.floor(repeats) + (rng.random(len(repeats)) < repeats % 1.0)
        order = np.repeat(np.arange(len(repeats)), counts.astype(np.int64))
        rng.shuffle(order)
        seeds = rng.integers(2**62, size=len(order))
        pairs = list(zip(order.tolist(), seeds.tolist(), strict=True))
        full = len(pairs) // batch_size * batch_size
        starts = range(skip * batch_size, full, batch_size)
        self._batches = [list(processes.share_of(pairs[i : i + batch_size])) for i in starts]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self._batches)


def plain_batches(count: int, batch_size: int) -> list[list[tuple[int, int]]]:
    """Return batches of everybody in order, for validation."""
    pairs = [(index, 0) for index in range(count)]
    return [pairs[i : i + batch_size] for i in range(0, count, batch_size)]
