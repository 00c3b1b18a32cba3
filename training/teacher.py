"""A teacher's second opinion on labels: joints nobody labelled are filled in, labels it contradicts are taken out.

Crowd-sourced sets confuse left and right, and sets labelled by agreeing networks lack their hard joints. A teacher that
is asked twice, the second time about the mirror image, shows how sure it is: on photographs labelled by hand its two
answers lie close together where they are right.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lbkit.core.coco import CocoFile, CocoPerson, is_outside, read_coco
from lbkit.core.files import atomic_path, refuse_overwrite
from lbkit.core.geometry import CropTransform, FloatArray, ImageArray, ImageSize
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.errors import AnnotationError, ImageReadError, ModelError, OutputError
from lbkit.evaluation.pck import box_heights_px
from lbkit.runtime.providers import open_session
from training.pictures import read_annotated

log = logging.getLogger(__name__)

TEACHER_KEY = "lbkit_teacher"

MOVENET_PADDING = 1.1
"""A square around the person a tenth larger than the box is what MoveNet finds people best in."""


@dataclass(frozen=True, slots=True)
class Strictness:
    """When a teacher's answers count; distances are in heights of the 4:3 box.

    Attributes:
        score: Least score of both answers to fill a joint in.
        spread: Largest distance between the two answers to fill a joint in.
        sure_score: Least score of both answers to contradict a label.
        sure_spread: Largest distance between the two answers to contradict a label.
        contradiction: A label farther than this from a sure teacher is taken out.
    """

    score: float = 0.2
    spread: float = 0.06
    sure_score: float = 0.4
    sure_spread: float = 0.03
    contradiction: float = 0.15


class Teacher(Protocol):
    """A network that is asked about one person."""

    def __call__(self, image: ImageArray, box_xyxy: FloatArray) -> NDArray[np.float64]:
        """Return (2, K, 3) answers x, y, score in image pixels: about the picture, and about its mirror image."""
        ...


class MoveNet:
    """MoveNet single pose as an ONNX file: int32 (1, S, S, 3) RGB in, (1, 1, 17, 3) y, x, score in shares of S out.

    Args:
        path: The ONNX file.
        threads: Threads of the session.

    Raises:
        ModelError: The file is another model.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self._session = open_session(path, threads=threads).session
        (first, *_), (output, *_) = self._session.get_inputs(), self._session.get_outputs()
        shape = tuple(first.shape)
        is_square = len(shape) == 4 and shape[0] == 1 and shape[1] == shape[2] and shape[3] == 3
        if first.type != "tensor(int32)" or not is_square or tuple(output.shape)[-2:] != (17, 3):
            raise ModelError(
                f"is not a MoveNet: takes {first.type} {list(shape)}, gives {list(output.shape)}",
                where=path,
                remedy="give an int32 (1, S, S, 3) to (1, 1, 17, 3) single-pose file",
            )
        self._name, self._size = first.name, ImageSize(shape[1], shape[2])

    def __call__(self, image: ImageArray, box_xyxy: FloatArray) -> NDArray[np.float64]:
        """Return (2, 6, 3) answers x, y, score in image pixels."""
        return np.stack([self._ask(image, box_xyxy, flip=flip) for flip in (False, True)])

    def _ask(self, image: ImageArray, box_xyxy: FloatArray, *, flip: bool) -> NDArray[np.float64]:
        transform = CropTransform.from_box(box_xyxy, self._size, padding=MOVENET_PADDING, flip=flip)
        crop = transform.warp(image, border_value=(0, 0, 0)).astype(np.int32)
        (output,) = self._session.run(None, {self._name: crop[None]})
        joints = np.asarray(output, dtype=np.float64).reshape(17, 3)[list(LOWER_BODY_6.coco_indices)]
        if flip:
            joints = joints[list(LOWER_BODY_6.flip_order)]
        input_xy = joints[:, 1::-1] * [self._size.width, self._size.height] - 0.5
        return np.concatenate([transform.to_image(input_xy), joints[:, 2:]], axis=1)


def second_opinion(
    person: CocoPerson, answers: NDArray[np.float64], *, strictness: Strictness, size_xy: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], Counter[str]]:
    """Return a person's joints and v after hearing a teacher, and what was done.

    Filled joints get v = 1, so that a recipe's `hidden_weight` decides what they weigh; contradicted ones v = 0.

    Args:
        person: The person as labelled.
        answers: (2, K, 3) the teacher's answers in image pixels.
        strictness: When they count.
        size_xy: (2,) width and height of the picture.
    """
    height = float(box_heights_px(person.box_xyxy)[0])
    mean, score = answers[..., :2].mean(axis=0), answers[..., 2].min(axis=0)
    spread = np.linalg.norm(answers[0, :, :2] - answers[1, :, :2], axis=-1) / height
    distance = np.linalg.norm(mean - person.joints_xy, axis=-1) / height
    is_labelled = person.visibility > 0
    agrees = (score > strictness.score) & (spread < strictness.spread) & ~is_outside(mean, size_xy)
    filled = ~is_labelled & agrees
    is_sure = (score > strictness.sure_score) & (spread < strictness.sure_spread)
    contradicted = is_labelled & is_sure & (distance > strictness.contradiction)
    joints = np.where(filled[:, None], mean, np.where(contradicted[:, None], 0.0, person.joints_xy))
    visibility = np.where(filled, 1, np.where(contradicted, 0, person.visibility))
    done = {"filled": filled, "contradicted": contradicted, "kept": is_labelled & ~contradicted}
    return joints, visibility, Counter({name: int(mask.sum()) for name, mask in done.items()})


def teach(
    annotations: Path,
    output: Path,
    *,
    images: Path,
    teacher: Teacher,
    teacher_name: str,
    strictness: Strictness = Strictness(),
    force: bool = False,
    watch: Callable[[int, int], object] | None = None,
) -> Mapping[str, int]:
    """Write a COCO file again with a teacher's second opinion in it, and return how many joints it changed.

    Args:
        annotations: The COCO file.
        output: The file to write.
        images: Folder of the pictures.
        teacher: Whom to ask.
        teacher_name: What the file should call it.
        strictness: When its answers count.
        force: Whether a file at `output` may be replaced.
        watch: Called with how many of how many people are done.

    Raises:
        AnnotationError: The file cannot be read, is not COCO, or has a teacher's opinion in it already.
        OutputError: `output` is there already, is the labels' own file or cannot be written.
    """
    _refuse_own_labels(annotations, output)
    refuse_overwrite(output, force=force)
    coco, content = read_coco(annotations), json.loads(annotations.read_bytes())
    _refuse_taught(content, annotations)
    changed, done = _opinions(coco, images, teacher, strictness, watch)
    for entry in content["annotations"]:
        if isinstance(entry, dict) and entry.get("id") in changed:
            _put(entry, *changed.pop(entry["id"]))
    info = content.get("info")
    content["info"] = {**(info if isinstance(info, dict) else {}), TEACHER_KEY: {"teacher": teacher_name, **done}}
    with atomic_path(output) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
    return dict(done)


def _refuse_own_labels(annotations: Path, output: Path) -> None:
    if output.exists() and annotations.exists() and output.samefile(annotations):
        raise OutputError("the labels would be lost", where=output, remedy="give --output another name")


def _refuse_taught(content: Mapping[str, Any], path: Path) -> None:
    info = content.get("info")
    if isinstance(info, dict) and TEACHER_KEY in info:
        raise AnnotationError("has a teacher's opinion in it already", where=path, remedy="give the file it came from")


def _opinions(
    coco: CocoFile, images: Path, teacher: Teacher, strictness: Strictness, watch: Callable[[int, int], object] | None
) -> tuple[dict[int, tuple[NDArray[np.float64], NDArray[np.int64]]], Counter[str]]:
    changed, done, asked = {}, Counter[str](), 0
    for image_id, everybody in coco.persons_by_image().items():
        persons = [person for person in everybody if not person.is_crowd]
        path = images / coco.images[image_id].file_name
        try:
            image = read_annotated(path) if persons else None
        except ImageReadError as error:
            log.warning("%s", error)
            image = None
            done["people without a picture"] += len(persons)
        for person in persons if image is not None else ():
            assert image is not None
            size_xy = np.array(image.shape[1::-1], dtype=np.float64)
            joints, visibility, counts = second_opinion(
                person, teacher(image, person.box_xyxy), strictness=strictness, size_xy=size_xy
            )
            changed[person.ann_id] = joints, visibility
            done.update(counts)
        asked += len(everybody)
        if watch:
            watch(asked, len(coco.persons))
    return changed, done


def _put(entry: dict[str, Any], joints: NDArray[np.float64], visibility: NDArray[np.int64]) -> None:
    keypoints = list(entry.get("keypoints") or [0] * 51)
    for index, (x, y), v in zip(LOWER_BODY_6.coco_indices, joints.tolist(), visibility.tolist(), strict=True):
        if v != keypoints[3 * index + 2]:
            keypoints[3 * index : 3 * index + 3] = [round(x, 2), round(y, 2), v]
    entry["keypoints"] = keypoints
    entry["num_keypoints"] = sum(v > 0 for v in keypoints[2::3])
