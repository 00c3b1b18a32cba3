"""People from COCO-style files and rendered figures as training crops, the same for the same seed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lbkit.core.coco import read_coco
from lbkit.core.codec import encode_heatmaps
from lbkit.core.contract import HeatmapSpec, ModelContract
from lbkit.core.geometry import CropTransform, FloatArray, ImageArray, ImageSize
from lbkit.errors import AnnotationError, ImageReadError
from lbkit.evaluation.pck import box_heights_px
from training.augment import ColorVariation, Person, varied_transform, vary_framing
from training.config import SYNTHETIC, Augmentation, Recipe, Source

log = logging.getLogger(__name__)

FIGURE_SIZE = ImageSize(320, 240)


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """One annotated person on disk; a rendered figure has no path.

    Attributes:
        source: Name of the data set.
        image_path: The picture, or None for a figure.
        image_id: COCO's image id, or the figure's number.
        box_xyxy: (4,) edge coordinates.
        joints_xy: (K, 2) image pixels.
        visibility: (K,) COCO's v.
    """

    source: str
    image_path: Path | None
    image_id: int
    box_xyxy: FloatArray
    joints_xy: FloatArray
    visibility: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SourcePeople:
    """The people of one source, parted into training and validation by image.

    Attributes:
        source: The recipe's entry.
        training: People to train on.
        validation: People to choose checkpoints by.
    """

    source: Source
    training: Sequence[Annotated]
    validation: Sequence[Annotated]


def load_sources(recipe: Recipe, data: Path) -> list[SourcePeople]:
    """Read every source of a recipe; people without a labelled joint and missing pictures are counted and left out.

    Args:
        recipe: The recipe.
        data: The folder that sources' paths are relative to.

    Raises:
        AnnotationError: A file cannot be read, or a source has nobody left.
    """
    loaded = []
    for source in recipe.sources:
        people = _figures(source) if source.name == SYNTHETIC else _annotated(source, data)
        if not people:
            raise AnnotationError("has nobody with a labelled joint", where=data / source.annotations)
        held = [person for person in people if _is_held_out(person, source.validation)]
        kept = [person for person in people if not _is_held_out(person, source.validation)]
        log.info("%s: %d people to train on, %d to validate", source.name, len(kept), len(held))
        loaded.append(SourcePeople(source, kept, held))
    return loaded


def _annotated(source: Source, data: Path) -> list[Annotated]:
    coco = read_coco(data / source.annotations)
    folder = data / source.images
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    people, absent, unlabelled = [], 0, 0
    for person in coco.persons:
        file_name = coco.images[person.image_id].file_name
        if person.is_crowd or person.labelled_joints == 0:
            unlabelled += 1
        elif Path(file_name).name not in present:
            absent += 1
        else:
            path = folder / file_name
            box, joints = person.box_xyxy, person.joints_xy
            people.append(Annotated(source.name, path, person.image_id, box, joints, person.visibility))
    reasons = {"no labelled joint": unlabelled, "picture missing": absent, **coco.skipped}
    log.info("%s: left out %s", source.name, {reason: count for reason, count in reasons.items() if count})
    return people


def _figures(source: Source) -> list[Annotated]:
    nowhere = np.zeros((6, 2))
    return [
        Annotated(SYNTHETIC, None, number, np.zeros(4), nowhere, np.zeros(6, dtype=np.int64))
        for number in range(source.persons)
    ]


def _is_held_out(person: Annotated, share: float) -> bool:
    digest = hashlib.sha256(f"{person.source}/{person.image_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


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
            (K,) and `height`, the person's 4:3 box height in input pixels.
        """
        index, seed = address
        rng = np.random.default_rng([seed, index])
        person = self._read(self.people[index], rng)
        height_px = float(box_heights_px(person.box_xyxy)[0])
        flip = False
        padding = self.contract.crop.padding
        if self.plan is None:
            transform = CropTransform.from_box(person.box_xyxy, self.size, padding=padding)
        else:
            person = vary_framing(person, self.plan, rng=rng)
            transform, flip = varied_transform(person, self.plan, size=self.size, padding=padding, rng=rng)
        crop = transform.warp(person.image, border_value=self.contract.crop.border_value)
        image = self._colored(crop, int(rng.integers(2**62)))
        height = torch.tensor(height_px * transform.scale)
        return {"image": image, "height": height, **self._labels(person, transform, flip=flip)}

    def _colored(self, crop: ImageArray, seed: int) -> Tensor:
        if self.color is None:
            return torch.from_numpy(crop).permute(2, 0, 1)
        return self.color(crop, seed=seed)

    def _labels(self, person: Person, transform: CropTransform, *, flip: bool) -> dict[str, Tensor]:
        joints, labelled = transform.to_input(person.joints_xy), person.labelled
        if flip:
            order = list(self.contract.keypoints.flip_order)
            joints, labelled = joints[order], labelled[order]
        target, weight = encode_heatmaps(joints, labelled, spec=self.spec)
        return {
            "target": torch.from_numpy(target),
            "weight": torch.from_numpy(weight),
            "joints": torch.from_numpy(joints.astype(np.float32)),
            "labelled": torch.from_numpy(labelled),
        }

    def _read(self, entry: Annotated, rng: np.random.Generator) -> Person:
        if entry.image_path is None:
            from lbkit.synthetic.figures import random_figure

            figure = random_figure(rng, size=FIGURE_SIZE)
            return Person(figure.image, figure.box_xyxy, figure.joints_xy, figure.joints_visible > 0)
        # Orientation tags are ignored as COCO's annotators' pictures were; training files are plain JPEGs.
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imread(str(entry.image_path), flags)
        if image is None:
            raise ImageReadError("is not a picture that OpenCV reads", where=entry.image_path)
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return Person(rgb, entry.box_xyxy, entry.joints_xy, entry.visibility > 0)  # type: ignore[arg-type]


class DrawnBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (index, seed) for one epoch: each person drawn as often as its source's `repeat` says, shuffled.

    Args:
        repeats: (P,) how often each person is drawn; fractions are drawn by chance.
        batch_size: People a batch; the last, smaller batch is left out.
        seed: Of the run.
        epoch: Decides the order and the crops' seeds.
        skip: Batches already done, when a run resumes.
    """

    def __init__(self, repeats: FloatArray, *, batch_size: int, seed: int, epoch: int, skip: int = 0) -> None:
        rng = np.random.default_rng([seed, epoch])
        counts = np.floor(repeats) + (rng.random(len(repeats)) < repeats % 1.0)
        order = np.repeat(np.arange(len(repeats)), counts.astype(np.int64))
        rng.shuffle(order)
        seeds = rng.integers(2**62, size=len(order))
        pairs = list(zip(order.tolist(), seeds.tolist(), strict=True))
        full = len(pairs) // batch_size * batch_size
        self._batches = [pairs[i : i + batch_size] for i in range(skip * batch_size, full, batch_size)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self._batches)


def plain_batches(count: int, batch_size: int) -> list[list[tuple[int, int]]]:
    """Return batches of everybody in order, for validation."""
    pairs = [(index, 0) for index in range(count)]
    return [pairs[i : i + batch_size] for i in range(0, count, batch_size)]
