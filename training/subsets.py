"""Subsets of a COCO keypoint file by rule: whom a rule keeps, and why not the others.

A rule acts on the annotations alone. What is kept is kept as it was in the file, so that any reader of COCO's format
reads the subset; a record of what was done goes into its `info` under `lbkit_subset`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TextIO, get_args

import numpy as np

from lbkit import __version__
from lbkit.core.coco import CocoImage, annotation_problem, image_entries, is_finite_number, is_outside, load_coco_json
from lbkit.core.files import atomic_path, refuse_overwrite
from lbkit.core.keypoints import COCO_JOINTS, LOWER_BODY_6
from lbkit.errors import AnnotationError, ConfigError, InputError, OutputError
from lbkit.synthetic.annotations import COCO_JOINT_NAMES
from training.pictures import is_there

log = logging.getLogger(__name__)

RuleName = Literal["full", "mini", "lower-body", "lower-body-visible"]
RULES: Final[tuple[RuleName, ...]] = get_args(RuleName)
SUBSET_KEY: Final = "lbkit_subset"
MINI_PERSONS: Final = 20_000

CROWD: Final = "crowd"
NO_KEYPOINT: Final = "no labelled keypoint"
NO_PICTURE: Final = "picture missing"
NOT_JSON: Final = "NaN or infinity beside box and keypoints"
SAMPLED_OUT: Final = "sampled out"

OUTSIDE_JOINTS: Final = "labelled joints outside their image"
OUTSIDE_PERSONS: Final = "persons with a joint outside their image"
UNSIZED_IMAGES: Final = "images without a width and height to check joints by"
DIFFERENT_COUNT: Final = "persons whose num_keypoints is not the number of labelled joints"

_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class SubsetRule:
    """Whom a subset keeps.

    Attributes:
        name: "full" keeps persons with a labelled keypoint among COCO's 17, "mini" a sample of them, "lower-body" those
            with all six lower-body joints labelled (v > 0), "lower-body-visible" those with all six visible (v = 2).
        persons: Size of the sample; "mini" alone reads it.
        seed: Of the sample; "mini" alone reads it.
    """

    name: RuleName
    persons: int = MINI_PERSONS
    seed: int = 1

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise ConfigError(f"there is no rule {self.name!r}", remedy=f"give one of {', '.join(RULES)}")
        if self.persons < 1:
            raise ConfigError(f"a sample of {self.persons} persons is none", remedy="give at least 1")

    @property
    def samples(self) -> bool:
        """Whether the rule keeps a sample only."""
        return self.name == "mini"

    @property
    def least_visibility(self) -> int:
        """The v that all six lower-body joints must have at least; 0 asks nothing of them."""
        return {"lower-body": 1, "lower-body-visible": 2}.get(self.name, 0)


@dataclass(frozen=True, slots=True)
class JointCount:
    """How often one of COCO's joints is labelled among the kept persons.

    Attributes:
        labelled: v > 0.
        visible: v = 2.
        hidden: v = 1.
        outside: Labelled and off the image, which reaches from (-0.5, -0.5) to (W - 0.5, H - 0.5) in pixel-centre
            coordinates.
    """

    labelled: int
    visible: int
    hidden: int
    outside: int


@dataclass(frozen=True, slots=True)
class SubsetReport:
    """What a rule kept of a file, and why not the rest.

    Attributes:
        rule: The rule.
        source: Name of the annotation file, without its folder.
        source_sha256: Hash of that file.
        annotations: Annotations in the file.
        persons: Annotations kept.
        left_out: Annotations left out, by reason, the most frequent first; they and `persons` make `annotations`.
        source_images: Images in the file.
        images: Images kept.
        images_left_out: Images left out, by reason; they and `images` make `source_images`.
        joints: Label counts of the 17 joints among the kept persons, by name, in COCO's order.
        warnings: What the kept entries hold that a reader should know, by kind; nothing is left out for it.
        earlier: The record that the file itself carries where it is a subset.
    """

    rule: SubsetRule
    source: str
    source_sha256: str
    annotations: int
    persons: int
    left_out: Mapping[str, int]
    source_images: int
    images: int
    images_left_out: Mapping[str, int]
    joints: Mapping[str, JointCount]
    warnings: Mapping[str, int] = field(default_factory=dict)
    earlier: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as it stands in the file: plain values, the sample's size and seed where there is one."""
        sample = {"asked_persons": self.rule.persons, "seed": self.rule.seed} if self.rule.samples else {}
        record = {
            "lbkit": __version__,
            "rule": self.rule.name,
            **sample,
            "source": {"file": self.source, "sha256": self.source_sha256},
            "annotations": self.annotations,
            "persons": self.persons,
            "left_out": dict(self.left_out),
            "source_images": self.source_images,
            "images": self.images,
            "images_left_out": dict(self.images_left_out),
            "joints": {name: asdict(count) for name, count in self.joints.items()},
            "warnings": dict(self.warnings),
        }
        return record if self.earlier is None else {**record, "earlier": dict(self.earlier)}


@dataclass(frozen=True, slots=True, eq=False)
class _Selection:
    """The kept annotations as JSON texts and as they were read, and the others by reason."""

    kept: list[dict[str, Any]]
    texts: list[str]
    left_out: Counter[str]
    missing: set[str]


def write_subset(
    annotations: Path, output: Path, *, rule: SubsetRule, images: Path | None = None, force: bool = False
) -> SubsetReport:
    """Write the part of a COCO keypoint file that a rule keeps, and return what was kept and why not the rest.

    Kept annotations and images are written as they were and in the file's order, an entry a line; `licenses`,
    `categories` and whatever else the file holds stay. A sample depends on the ids and the seed alone, not on the
    order; a smaller sample of a seed is part of a larger one.

    Args:
        annotations: The COCO file.
        output: The file to write; it appears whole or not at all.
        rule: Whom to keep.
        images: Folder of the pictures; persons whose picture is not there are left out. None asks for no pictures.
        force: Whether a file at `output` may be replaced.

    Raises:
        AnnotationError: The file cannot be read, is not COCO, or nobody is left.
        InputError: `images` is no folder.
        OutputError: `output` is there already, is the annotation file itself, or cannot be written.
    """
    _refuse_output(output, annotations, force=force)
    if images is not None and not images.is_dir():
        raise InputError("no such folder of pictures", where=images, remedy="check --images")
    content = load_coco_json(annotations)
    table = image_entries(content, annotations)
    info = _info(content, annotations)
    selection = _select(content["annotations"], table, rule=rule, folder=images)
    if not selection.kept:
        raise AnnotationError(
            f"nobody is left by the rule {rule.name} ({_spelled(selection.left_out) or 'there are no annotations'})",
            where=annotations,
            remedy="give another rule or file",
        )
    kept_images = _kept_images(content["images"], selection.kept)
    report = SubsetReport(
        rule=rule,
        source=annotations.name,
        source_sha256=_sha256(annotations),
        annotations=len(content["annotations"]),
        persons=len(selection.kept),
        left_out=dict(selection.left_out.most_common()),
        source_images=len(content["images"]),
        images=len(kept_images),
        images_left_out=_images_left_out(content, kept_images, selection.missing),
        earlier=info.get(SUBSET_KEY),
        **_label_counts(selection.kept, kept_images),
    )
    _write(output, content, info={**info, SUBSET_KEY: report.to_dict()}, images=kept_images, texts=selection.texts)
    _log_findings(report, selection.missing)
    return report


def _refuse_output(output: Path, annotations: Path, *, force: bool) -> None:
    if output.exists() and annotations.exists() and output.samefile(annotations):
        raise OutputError("is the annotation file itself", where=output, remedy="give another --output")
    refuse_overwrite(output, force=force)


def _info(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the file's `info`, empty where there is none."""
    info = content.get("info") or {}
    earlier = info.get(SUBSET_KEY) if isinstance(info, dict) else None
    if not isinstance(info, dict) or not isinstance(earlier, dict | None):
        raise AnnotationError(f"its info, or {SUBSET_KEY} in it, is not a table", where=path, remedy="mend the file")
    return info


def _select(
    entries: Sequence[Any], images: Mapping[int, CocoImage], *, rule: SubsetRule, folder: Path | None
) -> _Selection:
    left_out: Counter[str] = Counter()
    seen: set[int] = set()
    kept: dict[int, tuple[dict[str, Any], str]] = {}
    pictures = _Pictures(folder, images)
    for entry in entries:
        reason = annotation_problem(entry, images, seen)
        if reason is None:
            seen.add(entry["id"])
            reason = why_left_out(entry, rule) or pictures.why_left_out(entry)
        text = None if reason else _strict_json(entry)
        if text is None:
            left_out[reason or NOT_JSON] += 1
        else:
            kept[entry["id"]] = entry, text
    if rule.samples:
        chosen = _sampled(kept, count=rule.persons, seed=rule.seed)
        left_out[SAMPLED_OUT] += len(kept) - len(chosen)
        kept = {ann_id: pair for ann_id, pair in kept.items() if ann_id in chosen}
    return _Selection(
        [entry for entry, _ in kept.values()], [text for _, text in kept.values()], +left_out, pictures.missing
    )


def why_left_out(entry: Mapping[str, Any], rule: SubsetRule) -> str | None:
    """Return why a rule leaves out an annotation that is not broken, or None if the rule keeps it.

    A keypoint counts as labelled by its v, over all 17 joints; COCO's `num_keypoints` is that number and is not read.
    """
    if entry.get("iscrowd"):
        return CROWD
    visibility = (entry.get("keypoints") or [])[2::3]
    if not any(visibility):
        return NO_KEYPOINT
    least = rule.least_visibility
    enough = sum(visibility[index] >= least for index in LOWER_BODY_6.coco_indices)
    if enough == len(LOWER_BODY_6):
        return None
    return f"only {enough} of six {'visible' if least == 2 else 'labelled'}"


class _Pictures:
    """Which pictures are on disk, each looked for once.

    Args:
        folder: Where they should be; None takes all for present.
        images: Image entries by id.
    """

    def __init__(self, folder: Path | None, images: Mapping[int, CocoImage]) -> None:
        self._folder = folder
        self._images = images
        self._found: dict[int, bool] = {}
        self.missing: set[str] = set()

    def why_left_out(self, entry: Mapping[str, Any]) -> str | None:
        """Return why a person's picture excludes it, or None."""
        if self._folder is None:
            return None
        image = self._images[entry["image_id"]]
        if image.image_id not in self._found:
            self._found[image.image_id] = is_there(self._folder / image.file_name)
            if not self._found[image.image_id]:
                self.missing.add(image.file_name)
        return None if self._found[image.image_id] else NO_PICTURE


def _strict_json(value: Any) -> str | None:
    """Return a value as JSON, or None if it holds what Python reads and JSON does not have: NaN and infinities."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return None


def _sampled(ids: Mapping[int, Any], *, count: int, seed: int) -> set[int]:
    """Choose ids by their hash, which neither the order of the file nor other ids change."""
    if len(ids) < count:
        log.warning("only %d persons to sample %d from: all are kept", len(ids), count)
    return set(sorted(ids, key=lambda ann_id: hashlib.sha256(f"{seed}/{ann_id}".encode()).digest())[:count])


def _kept_images(entries: Sequence[dict[str, Any]], persons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    ids = {person["image_id"] for person in persons}
    return [entry for entry in entries if entry["id"] in ids]


def _images_left_out(
    content: Mapping[str, Any], kept: Sequence[Mapping[str, Any]], missing: set[str]
) -> dict[str, int]:
    kept_ids = {entry["id"] for entry in kept}
    annotated = {
        entry["image_id"]
        for entry in content["annotations"]
        if isinstance(entry, dict) and isinstance(entry.get("image_id"), int | float)
    }
    reasons: Counter[str] = Counter()
    for entry in content["images"]:
        if entry["id"] in kept_ids:
            continue
        if entry["id"] not in annotated:
            reasons["without an annotation"] += 1
        elif entry["file_name"] in missing:
            reasons[NO_PICTURE] += 1
        else:
            reasons["without a kept person"] += 1
    return dict(reasons.most_common())


def _label_counts(persons: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the report's `joints` and `warnings`."""
    sizes = {entry["id"]: _size_xy(entry) for entry in images}
    points = np.array([person["keypoints"] for person in persons], dtype=np.float64).reshape(-1, COCO_JOINTS, 3)
    sizes_xy = np.array([sizes[person["image_id"]] for person in persons])[:, None]
    joints_xy, visibility = points[..., :2], points[..., 2]
    is_labelled = visibility > 0
    outside = is_labelled & is_outside(joints_xy, sizes_xy)
    masks = (is_labelled, visibility == 2, visibility == 1, outside)
    counts = np.stack([mask.sum(axis=0) for mask in masks], axis=-1).tolist()
    joints = {name: JointCount(*row) for name, row in zip(COCO_JOINT_NAMES, counts, strict=True)}
    stated = [person.get("num_keypoints") for person in persons]
    differing = sum(
        number is not None and number != count
        for number, count in zip(stated, is_labelled.sum(axis=1).tolist(), strict=True)
    )
    warnings = {
        OUTSIDE_JOINTS: int(outside.sum()),
        OUTSIDE_PERSONS: int(outside.any(axis=1).sum()),
        DIFFERENT_COUNT: differing,
        UNSIZED_IMAGES: sum(math.isnan(width) for width, _ in sizes.values()),
    }
    return {"joints": joints, "warnings": {kind: count for kind, count in warnings.items() if count}}


def _size_xy(image: Mapping[str, Any]) -> tuple[float, float]:
    width, height = image.get("width", math.nan), image.get("height", math.nan)
    if not (is_finite_number(width) and is_finite_number(height)):
        return math.nan, math.nan
    return float(width), float(height)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(
    output: Path,
    content: Mapping[str, Any],
    *,
    info: Mapping[str, Any],
    images: Sequence[Mapping[str, Any]],
    texts: Sequence[str],
) -> None:
    rest = {name: value for name, value in content.items() if name not in ("info", "images", "annotations")}
    head = {name: _strict_json(value) for name, value in {"info": info, **rest}.items()}
    image_texts = [_strict_json(entry) for entry in images]
    if None in head.values() or None in image_texts:
        raise AnnotationError("holds NaN or infinity outside its annotations", remedy="mend the file")
    with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write("{\n")
        file.writelines(f"{json.dumps(name)}: {text},\n" for name, text in head.items())
        _write_list(file, "images", image_texts)
        file.write(",\n")
        _write_list(file, "annotations", texts)
        file.write("\n}\n")


def _write_list(file: TextIO, name: str, texts: Sequence[str | None]) -> None:
    file.write(f"{json.dumps(name)}: [\n")
    file.writelines(f"{',' if index else ''}{text}\n" for index, text in enumerate(texts))
    file.write("]")


def _log_findings(report: SubsetReport, missing: set[str]) -> None:
    for kind, count in report.warnings.items():
        log.warning("%d %s", count, kind)
    if missing:
        shown = ", ".join(sorted(missing)[:_NAMES_SHOWN])
        more = f" and {len(missing) - _NAMES_SHOWN} more" if len(missing) > _NAMES_SHOWN else ""
        log.warning("%d pictures are missing: %s%s", len(missing), shown, more)


def _spelled(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
