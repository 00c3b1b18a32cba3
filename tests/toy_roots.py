"""COCO roots for the toy models: one person a picture, whose joints are coloured spots, annotated where one likes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lbkit.core.geometry import ImageSize
from lbkit.core.images import write_image

SIZE = ImageSize(300, 220)
SPOTS = np.array([[130.0, 120], [90, 124], [135, 180], [88, 186], [128, 240], [94, 236]])
BOX_XYWH = (50.0, 30.0, 120.0, 250.0)


@dataclass(frozen=True)
class RootPerson:
    """One annotated person; `joints` are hips, knees and ankles in image pixels."""

    image_id: int
    joints: np.ndarray = field(default_factory=SPOTS.copy)
    visibility: Sequence[int] = (2,) * 6
    bbox: Sequence[float] = BOX_XYWH
    area: float = 15000.0
    iscrowd: int = 0
    shoulders: np.ndarray | None = None


def annotation(ann_id: int, person: RootPerson) -> dict[str, Any]:
    """Return COCO's entry."""
    triples = np.zeros((17, 3))
    triples[11:17, 2] = person.visibility
    triples[11:17, :2] = np.where((np.array(person.visibility) > 0)[:, None], person.joints, 0)
    if person.shoulders is not None:
        triples[5:7, :2], triples[5:7, 2] = person.shoulders, 2
    return {
        "id": ann_id,
        "image_id": person.image_id,
        "category_id": 1,
        "bbox": list(person.bbox),
        "area": person.area,
        "iscrowd": person.iscrowd,
        "num_keypoints": int((triples[:, 2] > 0).sum()),
        "keypoints": [int(value) if index % 3 == 2 else float(value) for index, value in enumerate(triples.ravel())],
    }


def write_root(folder: Path, toys: ModuleType, persons: Sequence[RootPerson], *, images: Sequence[int] = ()) -> Path:
    """Write a root with a picture of one toy person for each image id of the persons and of `images`.

    Annotations are numbered from 100.
    """
    ids = sorted({person.image_id for person in persons} | set(images))
    for image_id in ids:
        path = folder / "val2017" / f"{image_id:06d}.png"
        write_image(path, toys.spotted_image(SIZE, SPOTS, spread_px=5, background=60))
    content = {
        "images": [
            {"id": image_id, "file_name": f"{image_id:06d}.png", "height": SIZE.height, "width": SIZE.width}
            for image_id in ids
        ],
        "annotations": [annotation(100 + number, person) for number, person in enumerate(persons)],
        "categories": [{"id": 1, "name": "person"}],
    }
    path = folder / "annotations" / "person_keypoints_val2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return folder
