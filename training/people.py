"""Who is trained on and who is validated on: the people of a recipe's sources, read from COCO-style files."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lbkit.core.boxes import box_problem
from lbkit.core.coco import CocoImage, CocoPerson, is_outside, read_coco
from lbkit.core.geometry import FloatArray
from lbkit.errors import AnnotationError, ConfigError
from training.config import SYNTHETIC, Recipe, Source
from training.pictures import is_there

log = logging.getLogger(__name__)


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
        hidden_weight: Weight in the loss of joints with v = 1.
    """

    source: str
    image_path: Path | None
    image_id: int
    box_xyxy: FloatArray
    joints_xy: FloatArray
    visibility: NDArray[np.int64]
    hidden_weight: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class SourcePeople:
    """The people of one source, parted into training and validation by image.

    Attributes:
        source: The recipe's entry.
        training: People to train on.
        validation: People to choose checkpoints by.
        left_out: How many people, joints or pictures are not used, by reason.
    """

    source: Source
    training: Sequence[Annotated]
    validation: Sequence[Annotated]
    left_out: Mapping[str, int] = field(default_factory=dict)


def load_sources(recipe: Recipe, data: Path) -> list[SourcePeople]:
    """Read every source of a recipe; what cannot be used is counted by reason and left out.

    Args:
        recipe: The recipe.
        data: The folder that sources' paths are relative to.

    Raises:
        AnnotationError: A file cannot be read, or a source has nobody left.
        ConfigError: The same picture is trained on and validated on, or nobody is trained on.
    """
    loaded = [_load(source, data) for source in recipe.sources]
    _refuse_overlap(loaded)
    if not any(part.training for part in loaded):
        raise ConfigError("every source is kept for validation", remedy="give one with validation below 1")
    return loaded


def people_sha256(sources: Sequence[SourcePeople]) -> str:
    """Return the hash of who is trained and validated on, with every label and in order."""
    digest = hashlib.sha256()
    for part in sources:
        for person in (*part.training, *part.validation):
            digest.update(f"{person.source}/{person.image_id};".encode())
            for values in (person.box_xyxy, person.joints_xy, person.visibility):
                digest.update(values.tobytes())
    return digest.hexdigest()


def _load(source: Source, data: Path) -> SourcePeople:
    left_out: Counter[str] = Counter()
    people = _figures(source) if source.name == SYNTHETIC else _annotated(source, data, left_out)
    if not people:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.items())
        raise AnnotationError(
            f"has nobody with a labelled joint and a picture ({reasons or 'there are no annotations'})",
            where=data / source.annotations,
            remedy=f"check the source {source.name} and its pictures in {data / source.images}",
        )
    held = [person for person in people if _is_held_out(person, source.validation)]
    kept = [person for person in people if not _is_held_out(person, source.validation)]
    log.info("%s: %d people to train on, %d to validate", source.name, len(kept), len(held))
    return SourcePeople(source, kept, held, dict(left_out))


def _annotated(source: Source, data: Path, left_out: Counter[str]) -> list[Annotated]:
    coco = read_coco(data / source.annotations)
    folder = data / source.images
    paths = {image_id: folder / image.file_name for image_id, image in coco.images.items()}
    present = {image_id: is_there(path) for image_id, path in paths.items()}
    left_out.update(coco.skipped)
    left_out["picture without a person"] = len(coco.images.keys() - {person.image_id for person in coco.persons})
    people = []
    for person in coco.persons:
        image = coco.images[person.image_id]
        visibility = _visibility_inside(person, image)
        left_out["joint outside its picture"] += int((visibility != person.visibility).sum())
        if person.is_crowd or not visibility.any():
            left_out["crowd" if person.is_crowd else "no labelled joint"] += 1
        elif not present[person.image_id]:
            left_out["picture missing"] += 1
        elif image.size and box_problem(person.box_xyxy, image.size):
            left_out["box off its picture"] += 1
        else:
            path, box, joints = paths[person.image_id], person.box_xyxy, person.joints_xy
            people.append(Annotated(source.name, path, person.image_id, box, joints, visibility, source.hidden_weight))
    for reason in [reason for reason, count in left_out.items() if not count]:
        del left_out[reason]
    if left_out:
        log.info("%s: left out %s", source.name, dict(left_out))
    return people


def _visibility_inside(person: CocoPerson, image: CocoImage) -> NDArray[np.int64]:
    """Return v with 0 for joints outside the picture, where the file tells the picture's size."""
    if image.size is None:
        return person.visibility
    size_xy = np.array([image.size.width, image.size.height], dtype=np.float64)
    return np.where(is_outside(person.joints_xy, size_xy), 0, person.visibility)


def _figures(source: Source) -> list[Annotated]:
    nowhere = np.zeros((6, 2))
    return [
        Annotated(SYNTHETIC, None, number, np.zeros(4), nowhere, np.zeros(6, dtype=np.int64))
        for number in range(source.persons)
    ]


def _is_held_out(person: Annotated, share: float) -> bool:
    digest = hashlib.sha256(f"{person.source}/{person.image_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def _refuse_overlap(loaded: Sequence[SourcePeople]) -> None:
    """Raise when a picture is both trained and validated on: the same file, or a copy with its id, name and size."""
    trained = {key: person.source for part in loaded for person in part.training for key in _identities(person)}
    twice = {
        person.image_id: (trained[key], person.source)
        for part in loaded
        for person in part.validation
        for key in _identities(person)
        if key in trained
    }
    if twice:
        image_id, (first, second) = next(iter(twice.items()))
        raise ConfigError(
            f"{len(twice)} pictures are both trained on ({first}) and validated on ({second}), as image id {image_id}",
            remedy="give each root once, or keep validation = 0 in one and 1 in the other with other pictures",
        )


def _identities(person: Annotated) -> Iterator[tuple[object, ...]]:
    if person.image_path is None:
        return
    yield (person.image_path.resolve(),)
    yield (person.image_id, person.image_path.name, person.image_path.stat().st_size)
