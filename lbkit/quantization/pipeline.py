"""The whole walk: an exported fp32 file, its reduced graph, the measurements, the gates, and only then the file."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from lbkit._version import __version__
from lbkit.core.contract import ModelContract
from lbkit.core.estimator import DEFAULT_BATCH_SIZE, PoseEstimator
from lbkit.core.files import atomic_path, refuse_overwrite
from lbkit.core.records import record_to_mapping
from lbkit.core.sidecar import sidecar_path, write_sidecar
from lbkit.errors import ExportError, InputError, ModelError, OutputError, VerdictError
from lbkit.export.figures import figure_crops
from lbkit.export.golden import golden_record
from lbkit.export.metadata import embed_contract
from lbkit.export.simplify import interface
from lbkit.export.verification import BATCHES, DeployedFile, check_agreement
from lbkit.quantization.comparison import (
    SURE_SCORE,
    AgreementPck,
    Joints,
    Judge,
    PckChange,
    Shift,
    find_joints,
    measure_agreement,
    measure_shift,
)
from lbkit.quantization.half import to_half
from lbkit.quantization.int8 import QuantizedGraph, quantize_model
from lbkit.quantization.options import ReducedPrecision, ReductionOptions
from lbkit.quantization.people import Crops
from lbkit.quantization.roles import Roles, cast_roles
from lbkit.quantization.speed import Speed, measure_speed
from lbkit.runtime.ort_backend import OrtBackend
from lbkit.runtime.wheels import import_onnxruntime

log = logging.getLogger(__name__)

TOLERANCES: Mapping[ReducedPrecision, Mapping[str, float]] = {
    "fp16": {"heatmaps": 5e-3, "keypoints_px": 0.5},
    "int8": {"heatmaps": 2e-2, "keypoints_px": 1.0},
}
"""What another runtime may differ by from the golden vectors of a reduced file: it may round elsewhere."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """A reduced file, and everything measured of it against the fp32 file.

    Attributes:
        path: The file.
        sidecar: The JSON beside it.
        source: The fp32 file.
        contract: The contract inside.
        sha256: Hash of the file.
        size_bytes: Its size.
        source_bytes: Size of the fp32 file.
        people: Whom it was calibrated, chosen and measured on, in words.
        int8: How an int8 graph was chosen; None for fp16.
        shift: How far joints and knees moved.
        pck: Change of PCK@0.05; None where nobody measured on is annotated.
        joints: The same joint by joint.
        agreement: PCK@0.05 with the fp32 file's own joints for labels; None where it is sure of none.
        speed: Times of both files on this machine.
    """

    path: Path
    sidecar: Path
    source: Path
    contract: ModelContract
    sha256: str
    size_bytes: int
    source_bytes: int
    people: Mapping[str, str]
    int8: QuantizedGraph | None
    shift: Shift
    pck: PckChange | None
    joints: Mapping[str, PckChange]
    agreement: AgreementPck | None
    speed: Speed

    def report(self) -> dict[str, Any]:
        """Return what the JSON beside the file tells of the reduction."""
        return {
            "precision": self.contract.precision,
            "people": dict(self.people),
            "pck@0.05 v>0": None if self.pck is None else dataclasses.asdict(self.pck),
            "joints": {name: dataclasses.asdict(change) for name, change in self.joints.items()},
            "agreement pck@0.05": None if self.agreement is None else dataclasses.asdict(self.agreement),
            "shift": dataclasses.asdict(self.shift),
            "size_bytes": {"fp32": self.source_bytes, self.contract.precision: self.size_bytes},
            "speed": dataclasses.asdict(self.speed),
            "int8": None if self.int8 is None else _int8_record(self.int8),
        }


def reduce_model(
    source: Path, *, options: ReductionOptions, output: Path | None = None, force: bool = False
) -> Reduction:
    """Reduce an exported fp32 file, measure the result against it, and write it with a JSON beside it.

    Args:
        source: An fp32 file that `lbkit export` made.
        options: Precision, people, limits.
        output: The file to write; NAME-PRECISION.onnx beside the source when None.
        force: Replace files that are there.

    Raises:
        ModelError: The source is no fp32 file of lbkit's, or cannot be reduced.
        InputError: There is nobody to calibrate on.
        AnnotationError: Annotations cannot be read.
        OutputError: A file is there already, or cannot be written.
        VerdictError: The file drops more, or is less fast, than was asked for; nothing is written.
    """
    path = output or source.with_name(f"{source.stem}-{options.precision}.onnx")
    _check_target(path, source, force=force)
    reference = PoseEstimator(OrtBackend(source, threads=options.threads))
    if reference.contract.precision != "fp32":
        precision = reference.contract.precision
        raise ModelError(f"is {precision} already", where=source, remedy="reduce the fp32 file it was made of")
    roles = cast_roles(options, reference)
    with (
        atomic_path(path) as onnx_file,
        atomic_path(sidecar_path(path)) as json_file,
        tempfile.TemporaryDirectory(prefix="lbkit-") as folder,
    ):
        desk = _Desk(source, Path(folder), onnx_file, options, reference, roles)
        reduction = desk.reduction(path)
        _check_limits(reduction, options)
        golden = desk.golden(reduction.contract)
        write_sidecar(json_file, _sidecar(reduction, golden))
    return reduction


class _Desk:
    """What the steps of one reduction share."""

    def __init__(
        self,
        source: Path,
        folder: Path,
        target: Path,
        options: ReductionOptions,
        reference: PoseEstimator,
        roles: Roles,
    ) -> None:
        self._source, self._folder, self._target = source, folder, target
        self._options, self._reference, self._roles = options, reference, roles
        self._contract = reference.contract.replace(precision=options.precision, evaluation=())

    def reduction(self, path: Path) -> Reduction:
        """Make the file at the target and measure it."""
        original = onnx.load(self._source)
        quantized = self._quantized(original) if self._options.precision == "int8" else None
        model = to_half(original) if quantized is None else quantized.model
        if interface(model) != interface(original):
            raise ExportError("the reduced graph has other inputs or outputs than the fp32 one", where=self._source)
        before, after, judge = self._joints_of(model)
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        contract = self._contract.replace(evaluation=() if judge is None else judge.figures(after, date=today))
        self._save(model, contract, self._target)
        onnx.checker.check_model(self._target)
        pixels = self._roles.measuring.pixels
        written = self._target.read_bytes()
        return Reduction(
            path=path,
            sidecar=sidecar_path(path),
            source=self._source,
            contract=contract,
            sha256=hashlib.sha256(written).hexdigest(),
            size_bytes=len(written),
            source_bytes=self._source.stat().st_size,
            people=self._people(),
            int8=quantized,
            shift=measure_shift(before, after),
            pck=None if judge is None else judge.change(before, after),
            joints={} if judge is None else judge.changes_by_joint(before, after),
            agreement=measure_agreement(before, after, source=self._roles.measuring.source),
            speed=measure_speed(
                self._source,
                self._target,
                pixels=pixels,
                batches=self._options.batches,
                threads=self._options.threads,
            ),
        )

    def golden(self, contract: ModelContract) -> dict[str, Any]:
        """Return golden vectors of the finished file, whose batches must agree with single crops."""
        crops = figure_crops(contract.input.size, max(BATCHES))
        outputs = DeployedFile(self._target, contract).run(crops)
        check_agreement(self._target, outputs, crops=crops, contract=contract)
        return golden_record(crops, outputs, contract.heatmap, tolerance=dict(TOLERANCES[self._options.precision]))

    def _quantized(self, original: onnx.ModelProto) -> QuantizedGraph:
        return quantize_model(
            original,
            spec=self._contract.input,
            roles=self._roles,
            find=self._find,
            reference=find_joints(self._reference, self._roles.choosing),
            options=self._options,
        )

    def _joints_of(self, model: onnx.ModelProto) -> tuple[Joints, Joints, Judge | None]:
        crops = self._roles.measuring
        judge = None if crops.source.people is None else Judge(crops.source)
        return find_joints(self._reference, crops), self._find(model, crops), judge

    def _find(self, model: onnx.ModelProto, crops: Crops) -> Joints:
        path = self._folder / "candidate.onnx"
        self._save(model, self._contract, path)
        backend = OrtBackend(path, threads=self._options.threads)
        return find_joints(PoseEstimator(backend, batch_size=DEFAULT_BATCH_SIZE), crops)

    def _save(self, model: onnx.ModelProto, contract: ModelContract, path: Path) -> None:
        embed_contract(model, contract)
        onnx.save(model, path)

    def _people(self) -> dict[str, str]:
        roles = {"calibrated": self._roles.calibrating, "chosen": self._roles.choosing}
        roles = {} if self._options.precision == "fp16" else roles
        return {
            verb: f"{len(crops)} people of {crops.source.name}"
            for verb, crops in (roles | {"measured": self._roles.measuring}).items()
        }


def _check_target(path: Path, source: Path, *, force: bool) -> None:
    if path.suffix != ".onnx":
        raise OutputError(
            "the name of a reduced file should end in .onnx", where=path, remedy=f"name it {path.stem}.onnx"
        )
    if path.resolve() == source.resolve():
        raise OutputError("is the fp32 file itself", where=path, remedy="give another --output")
    for file in (path, sidecar_path(path)):
        refuse_overwrite(file, force=force)


def _check_limits(reduction: Reduction, options: ReductionOptions) -> None:
    """Raise unless the file keeps the limits that were asked for."""
    misses = [] if options.max_drop is None else _drop_misses(reduction, options.max_drop)
    wanted = options.require_speedup
    if wanted is not None and reduction.speed.least < wanted:
        misses.append(f"it is {reduction.speed.least:.2f} times as fast as the fp32 file, and {wanted:g} is asked for")
    if misses:
        remedy = "nothing was written; another --calibration, or a looser limit"
        raise VerdictError("; ".join(misses), where=reduction.path, remedy=remedy)


def _drop_misses(reduction: Reduction, max_drop: float) -> list[str]:
    """Say what is lost beyond the limit: by labels, or else by the fp32 file's own joints."""
    change, agreement = reduction.pck, reduction.agreement
    if change is not None:
        text = f"PCK@0.05 drops by {change.drop_points:.2f} points, and {max_drop:g} is the most that may be lost"
        return [text] if change.drop_points > max_drop else []
    if agreement is None and max_drop < 100:
        raise InputError(
            f"the fp32 file scores no joint {SURE_SCORE} or more on {reduction.people['measured']}, and nobody is "
            "annotated: what the reduced file loses cannot be told",
            remedy="give --coco ROOT, or other people; --max-drop 100 takes any loss",
        )
    if agreement is None or not agreement.exceeds(max_drop):
        return []
    return [
        f"agreement PCK@0.05 drops by {agreement.drop_points:.2f} points, {agreement.lost} of the {agreement.joints} "
        f"joints that the fp32 file is sure of, and {max_drop:g} is the most that may be lost, chance apart"
    ]


def _sidecar(reduction: Reduction, golden: Mapping[str, Any]) -> dict[str, Any]:
    source = sidecar_path(reduction.source)
    made_from = {
        "file": reduction.source.name,
        "sha256": hashlib.sha256(reduction.source.read_bytes()).hexdigest(),
    }
    versions = {"lbkit": __version__, "onnx": onnx.__version__, "onnxruntime": import_onnxruntime().__version__}
    return {
        "file": reduction.path.name,
        "sha256": reduction.sha256,
        "size_bytes": reduction.size_bytes,
        "made_from": made_from | _export_of(source),
        "versions": versions,
        "contract": record_to_mapping(reduction.contract),
        "reduction": reduction.report(),
        "golden": golden,
    }


def _export_of(sidecar: Path) -> dict[str, Any]:
    """Return opset and options of the fp32 export, as far as the JSON beside it tells."""
    try:
        record = json.loads(sidecar.read_bytes())
    except (OSError, ValueError):
        return {}
    return {key: record[key] for key in ("opset", "options") if isinstance(record, dict) and key in record}


def _int8_record(graph: QuantizedGraph) -> dict[str, Any]:
    return {
        "method": graph.method,
        "tried": dict(graph.tried),
        "layers": graph.layers,
        "in_8_bits": graph.in_8_bits,
        "deconvolutions_rewritten": graph.deconvolutions,
        "takes_bytes": graph.takes_bytes,
        "weights": "7 bits, signed, symmetric, a scale a channel",
        "activations": "8 bits, unsigned",
        "kept_in_fp32": [cost.layer for cost in graph.costs if cost.is_kept],
        "layer_costs_px": {cost.layer: {"mean": cost.mean_px, "max": cost.max_px} for cost in graph.costs},
    }
