"""What is compared, by which measure and at which stage, and what a check tells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from lbkit.core.contract import Precision
from lbkit.core.records import record_to_mapping

StageName = Literal["file", "crop", "tensor", "heatmaps", "input keypoints", "image keypoints", "batch"]
STAGES: tuple[StageName, ...] = get_args(StageName)
STAGE_TEXTS: dict[StageName, str] = {
    "file": "the photograph is read; once, for both paths",
    "crop": "a person's box becomes the crop, as each contract says",
    "tensor": "the same crop becomes the network's normalised input",
    "heatmaps": "the same crop becomes heatmaps",
    "input keypoints": "heatmaps become joints in pixels of the input",
    "image keypoints": "joints become pixels of the photograph",
    "batch": "a batch gives what its crops give one at a time",
}

DYNAMIC_BATCHES = (1, 2, 7, 64)


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that a measure may be.

    Attributes:
        at_most: The limit, in the measure's unit; 0 asks for equality.
        reason: Why it is what it is.
        measured: What was measured where it was set, with the circumstances.
    """

    at_most: float
    reason: str = ""
    measured: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.at_most) or self.at_most < 0:
            raise ValueError(f"at_most must be a number from 0 on, got {self.at_most}")


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured of one candidate; None where it could not be. Changes are the candidate minus the reference.

    Distances and angles leave undecided joints out (see `Preset`), which `undecided_share` counts.

    Attributes:
        unfinite: Numbers among the outputs that are NaN or infinite.
        crop_levels_max: Greatest difference of a crop's value, in levels of 0 to 255.
        tensor_max: Greatest difference of the normalised input.
        heatmaps_max: Greatest difference of a heatmap's cell.
        heatmaps_p99: Its 99th percentile over all cells.
        decode_px_max: Greatest distance, in input pixels, between the candidate's joints and those that the
            reference's decoder reads from the candidate's own heatmaps.
        input_px_median: Median distance of a joint from the reference's, in input pixels.
        input_px_p99: Its 99th percentile.
        input_px_max: The greatest.
        moved_share: Share of joints whose highest cell is another one, ties and near-ties left out.
        undecided_share: Share of joints that moved far to where their own reference map is as high.
        mapping_px_max: Greatest distance, in image pixels, between the candidate's joints as each path maps them.
        image_px_median: Median distance of a joint from the reference's, in image pixels.
        image_px_p99: Its 99th percentile.
        image_px_max: The greatest.
        knee_deg_median: Median absolute change of knee flexion.
        knee_deg_p99: Its 99th percentile.
        pck_change: Change of PCK@0.05 over labelled joints.
        ap_change: Change of the six joints' OKS AP.
        batch_max: Greatest difference of an output between a batch and its crops one at a time.
    """

    unfinite: float | None = None
    crop_levels_max: float | None = None
    tensor_max: float | None = None
    heatmaps_max: float | None = None
    heatmaps_p99: float | None = None
    decode_px_max: float | None = None
    input_px_median: float | None = None
    input_px_p99: float | None = None
    input_px_max: float | None = None
    moved_share: float | None = None
    undecided_share: float | None = None
    mapping_px_max: float | None = None
    image_px_median: float | None = None
    image_px_p99: float | None = None
    image_px_max: float | None = None
    knee_deg_median: float | None = None
    knee_deg_p99: float | None = None
    pck_change: float | None = None
    ap_change: float | None = None
    batch_max: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """A limit for each of `Measures`; None sets none. Changes are limited in both directions."""

    unfinite: Limit | None = None
    crop_levels_max: Limit | None = None
    tensor_max: Limit | None = None
    heatmaps_max: Limit | None = None
    heatmaps_p99: Limit | None = None
    decode_px_max: Limit | None = None
    input_px_median: Limit | None = None
    input_px_p99: Limit | None = None
    input_px_max: Limit | None = None
    moved_share: Limit | None = None
    undecided_share: Limit | None = None
    mapping_px_max: Limit | None = None
    image_px_median: Limit | None = None
    image_px_p99: Limit | None = None
    image_px_max: Limit | None = None
    knee_deg_median: Limit | None = None
    knee_deg_p99: Limit | None = None
    pck_change: Limit | None = None
    ap_change: Limit | None = None
    batch_max: Limit | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, field.name) is None for field in fields(self)):
            raise ValueError("a preset needs at least one limit")


MEASURE_STAGES: dict[str, StageName] = {
    "unfinite": "heatmaps",
    "crop_levels_max": "crop",
    "tensor_max": "tensor",
    "heatmaps_max": "heatmaps",
    "heatmaps_p99": "heatmaps",
    "decode_px_max": "input keypoints",
    "input_px_median": "input keypoints",
    "input_px_p99": "input keypoints",
    "input_px_max": "input keypoints",
    "moved_share": "input keypoints",
    "undecided_share": "input keypoints",
    "mapping_px_max": "image keypoints",
    "image_px_median": "image keypoints",
    "image_px_p99": "image keypoints",
    "image_px_max": "image keypoints",
    "knee_deg_median": "image keypoints",
    "knee_deg_p99": "image keypoints",
    "pck_change": "image keypoints",
    "ap_change": "image keypoints",
    "batch_max": "batch",
}
"""The stage that each measure judges."""

MEASURE_UNITS: dict[str, str] = {
    "crop_levels_max": "levels",
    "knee_deg_median": "°",
    "knee_deg_p99": "°",
} | {name: "px" for name in MEASURE_STAGES if "_px_" in name}


@dataclass(frozen=True, slots=True)
class Preset:
    """What a candidate of one precision is judged by.

    Attributes:
        name: Its name.
        description: What it is for.
        near_tie_margin: Cells of the reference's map that lie no more than this below its highest are as good as it. A
            joint beyond `input_px_max` is undecided only if it lands near one of them, and either its peak is one or a
            disturbance of the map by no more than this moves it as far.
        node_relative: For `--bisect`: how far a node's output may differ, relative to its greatest value.
        limits: The limits.
    """

    name: str
    description: str
    near_tie_margin: Limit
    node_relative: Limit
    limits: Limits


@dataclass(frozen=True, slots=True)
class Finding:
    """One measure against its limit.

    Attributes:
        measure: Name of the measure.
        stage: What it judges.
        value: What was measured.
        at_most: The limit, or None where the preset sets none.
        passed: Whether it keeps the limit.
    """

    measure: str
    stage: StageName
    value: float
    at_most: float | None
    passed: bool


@dataclass(frozen=True, slots=True)
class StageFinding:
    """One stage of the walk.

    Attributes:
        name: The stage.
        status: "passed", "failed", or "not seen" where the file keeps it inside.
        text: What was found.
    """

    name: StageName
    status: Literal["passed", "failed", "not seen"]
    text: str


@dataclass(frozen=True, slots=True)
class ContractDifference:
    """A field in which a file's contract differs from its checkpoint's though export does not change it.

    Attributes:
        field: Dotted name.
        found: The file's value.
        expected: The checkpoint's value.
    """

    field: str
    found: Any
    expected: Any

    def __str__(self) -> str:
        return f"{self.field} is {self.found!r}, the checkpoint has {self.expected!r}"


@dataclass(frozen=True, slots=True)
class TieCounts:
    """Joints whose peak is another cell than the reference's, and those that their own map leaves open.

    Attributes:
        joints: All joints compared.
        moved: Joints whose highest cell is another, whatever the reason.
        ties: Of those, joints whose reference map is as high there as at its highest cell.
        near_ties: Of those, joints whose reference map is lower there by the preset's margin at most.
        undecided: Joints left out of distances (see `Preset.near_tie_margin`).
        undecided_px_max: The farthest of them, in input pixels; None without one.
    """

    joints: int
    moved: int
    ties: int
    near_ties: int
    undecided: int
    undecided_px_max: float | None


@dataclass(frozen=True, slots=True)
class WorstPerson:
    """A person whose joints moved far.

    Attributes:
        row: Row among the samples.
        image: The photograph.
        joint: The joint that moved most.
        image_px: How far, in image pixels.
        input_px: How far, in input pixels.
        undecided: Whether its map leaves it undecided.
    """

    row: int
    image: str
    joint: str
    image_px: float
    input_px: float
    undecided: bool


@dataclass(frozen=True, slots=True)
class BatchFinding:
    """A batch against its crops one at a time.

    Attributes:
        batch: How many crops.
        difference: Greatest difference of an output.
    """

    batch: int
    difference: float


@dataclass(frozen=True, slots=True)
class NodeFinding:
    """The first node of a graph that leaves tolerance.

    Attributes:
        node: Its name; None where none leaves tolerance.
        op_type: Its operator.
        output: The tensor.
        module: The PyTorch module that computes it.
        difference: Greatest difference relative to the expected tensor's greatest value; of the worst node where none
            leaves tolerance.
        tolerance: What was allowed.
        compared: How many nodes were compared.
        nodes: How many there are.
    """

    node: str | None
    op_type: str | None
    output: str | None
    module: str | None
    difference: float
    tolerance: float
    compared: int
    nodes: int


@dataclass(frozen=True, slots=True)
class CandidateReport:
    """What is known of one file on one provider.

    Attributes:
        name: How tables call it.
        file: The ONNX file.
        file_sha256: Its hash.
        provider: Where it really ran.
        precision: Its contract's.
        decoder: What decodes, and where.
        input_dtype: What it takes.
        checkpoint: The reference's file.
        preset: What it is judged by.
        persons: How many people were compared.
        contract_differences: Fields that contradict the checkpoint.
        measures: What was measured.
        findings: The measures against their limits.
        stages: The walk.
        ties: Peaks that moved.
        batches: The dynamic batch.
        worst: The people whose joints moved most, worst first.
        node: What `--bisect` found; None where it was not asked for.
        culprit: The first stage that fails, or "contract"; None where all passed.
        model_seconds: Time inside the candidate.
    """

    name: str
    file: Path
    file_sha256: str
    provider: str
    precision: Precision
    decoder: str
    input_dtype: str
    checkpoint: Path
    preset: Preset
    persons: int
    contract_differences: tuple[ContractDifference, ...]
    measures: Measures
    findings: tuple[Finding, ...]
    stages: tuple[StageFinding, ...]
    ties: TieCounts
    batches: tuple[BatchFinding, ...]
    worst: tuple[WorstPerson, ...]
    node: NodeFinding | None
    culprit: str | None
    model_seconds: float

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return self.culprit is None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        plain = {"file": str(self.file), "checkpoint": str(self.checkpoint)}
        return {"passed": self.passed, **record_to_mapping(self), **plain}


@dataclass(frozen=True, slots=True)
class Problem:
    """A model that could not be checked.

    Attributes:
        model: As it was asked for.
        provider: Where it should have run.
        text: Why not.
    """

    model: str
    provider: str
    text: str


@dataclass(frozen=True, slots=True)
class SampleSummary:
    """What was compared on.

    Attributes:
        text: In words.
        images: Photographs used.
        persons: Boxes used.
        left_out: What was not, by reason.
    """

    text: str
    images: int
    persons: int
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ParityReport:
    """A whole check.

    Attributes:
        samples: What was compared on.
        candidates: The files that ran.
        problems: Those that did not.
        reference_seconds: Time inside PyTorch.
    """

    samples: SampleSummary
    candidates: tuple[CandidateReport, ...]
    problems: tuple[Problem, ...]
    reference_seconds: float

    @property
    def passed(self) -> bool:
        """Whether every model was checked and nothing failed."""
        return bool(self.candidates) and not self.problems and all(report.passed for report in self.candidates)
