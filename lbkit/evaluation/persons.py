"""A model run over every annotated person of a COCO root, as arrays that metrics are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lbkit.core.coco import CocoFile, CocoPerson, read_coco
from lbkit.core.estimator import PoseEstimator
from lbkit.core.images import read_image
from lbkit.errors import AnnotationError
from lbkit.evaluation.pck import box_heights_px, pck, relative_distances


@dataclass(frozen=True, slots=True)
class CocoRoot:
    """A folder in COCO's layout: `annotations/person_keypoints_SPLIT.json` and `SPLIT/*.jpg`.

    Attributes:
        folder: The root.
        split: Name of the split, for example "val2017".
    """

    folder: Path
    split: str = "val2017"

    @property
    def annotations(self) -> Path:
        """The annotation file."""
        return self.folder / "annotations" / f"person_keypoints_{self.split}.json"

    @property
    def images(self) -> Path:
        """The folder of pictures."""
        return self.folder / self.split


@dataclass(frozen=True, slots=True, eq=False)
class EvaluatedPersons:
    """Found and annotated joints of N persons, in image pixels.

    Attributes:
        found_xy: (N, K, 2) float64.
        scores: (N, K) float64.
        true_xy: (N, K, 2) float64.
        visibility: (N, K) COCO's v.
        boxes_xyxy: (N, 4) annotated boxes, edge coordinates.
        image_ids: (N,) COCO image ids.
    """

    found_xy: NDArray[np.float64]
    scores: NDArray[np.float64]
    true_xy: NDArray[np.float64]
    visibility: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float64]
    image_ids: NDArray[np.int64]

    @property
    def distances(self) -> NDArray[np.float64]:
        """(N, K) joint errors as fractions of the 4:3 box height."""
        heights = box_heights_px(self.boxes_xyxy)
        return relative_distances(self.found_xy, self.true_xy, heights_px=heights)

    def pck(self, threshold: float, *, min_visibility: int = 1) -> float:
        """Return PCK at a threshold over joints with v of at least `min_visibility`."""
        return pck(self.distances, self.visibility >= min_visibility, threshold=threshold)

    def fully_labelled(self) -> EvaluatedPersons:
        """Return the persons all of whose joints are labelled."""
        whole = (self.visibility > 0).all(axis=1)
        return EvaluatedPersons(
            self.found_xy[whole],
            self.scores[whole],
            self.true_xy[whole],
            self.visibility[whole],
            self.boxes_xyxy[whole],
            self.image_ids[whole],
        )


def evaluate_persons(estimator: PoseEstimator, root: CocoRoot) -> EvaluatedPersons:
    """Run a model with the annotated boxes over every person who has a labelled joint.

    Raises:
        AnnotationError: The annotation file cannot be read, or nobody in it has a labelled joint.
        ImageReadError: A picture is missing or broken.
    """
    coco = read_coco(root.annotations)
    groups = _scored_groups(coco)
    if not groups:
        raise AnnotationError("has nobody with a labelled joint", where=root.annotations)
    found, people = [], []
    for image_id, persons in groups.items():
        image = read_image(root.images / coco.images[image_id].file_name)
        poses = estimator(image, np.stack([person.box_xyxy for person in persons]))
        found.append(np.concatenate([poses.xy, poses.scores[..., None]], axis=-1))
        people.extend(persons)
    joints = np.concatenate(found).astype(np.float64)
    return EvaluatedPersons(
        found_xy=joints[..., :2],
        scores=joints[..., 2],
        true_xy=np.stack([person.joints_xy for person in people]),
        visibility=np.stack([person.visibility for person in people]),
        boxes_xyxy=np.stack([person.box_xyxy for person in people]),
        image_ids=np.array([person.image_id for person in people]),
    )


def _scored_groups(coco: CocoFile) -> dict[int, list[CocoPerson]]:
    groups: dict[int, list[CocoPerson]] = {}
    for person in coco.persons:
        if person.labelled_joints and not person.is_crowd:
            groups.setdefault(person.image_id, []).append(person)
    return groups
