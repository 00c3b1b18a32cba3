"""The whole walk: checkpoint, graph, ONNX, simplification, verification, and only then the file under its name."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from lbkit.core.contract import ModelContract, OutputName
from lbkit.core.files import atomic_path, refuse_overwrite
from lbkit.core.sidecar import sidecar_path, write_sidecar
from lbkit.errors import CheckpointError, OutputError
from lbkit.export.figures import figure_crops
from lbkit.export.golden import golden_record
from lbkit.export.graph import DeploymentGraph
from lbkit.export.metadata import embed_contract, sidecar_record
from lbkit.export.onnx_export import drop_outputs, export_graph
from lbkit.export.options import ExportOptions
from lbkit.export.simplify import simplify_graph
from lbkit.export.subpixel import rewrite_deconvolutions
from lbkit.export.verification import (
    BATCHES,
    BatchAgreement,
    check_agreement,
    check_structure,
    reference_outputs,
)
from lbkit.models.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from lbkit.models.registry import find_architecture
from lbkit.runtime.wheels import import_onnxruntime

log = logging.getLogger(__name__)

OUTPUT_FOLDER = Path("exported")


@dataclass(frozen=True, slots=True)
class ExportReport:
    """A verified file and how it came to be.

    Attributes:
        path: The ONNX file.
        sidecar: The JSON beside it.
        checkpoint: The file of the weights.
        contract: The contract inside.
        sha256: Hash of the ONNX file.
        size_bytes: Its size.
        opset: Its version of the ONNX operators.
        nodes: Number of its nodes.
        agreement: How well it agrees with PyTorch, one record a batch.
        seconds: Time of each stage, in order.
    """

    path: Path
    sidecar: Path
    checkpoint: Path
    contract: ModelContract
    sha256: str
    size_bytes: int
    opset: int
    nodes: int
    agreement: tuple[BatchAgreement, ...]
    seconds: Mapping[str, float]


def export_model(
    name: str,
    *,
    checkpoint: Path | None = None,
    output: Path | None = None,
    options: ExportOptions | None = None,
    force: bool = False,
) -> ExportReport:
    """Export a trained network to a verified ONNX file, with a JSON of golden vectors beside it.

    Neither file appears under its name before the exported graph agrees with PyTorch.

    Args:
        name: Name of the network in the registry.
        checkpoint: Its weights; found by `find_checkpoint` when None.
        output: The ONNX file to write; `exported/NAME.onnx` of the working folder when None.
        options: What the file takes and gives; the defaults when None.
        force: Replace files that are there.

    Raises:
        ModelNotFoundError: There is no network of that name.
        CheckpointError: There is no checkpoint, it is broken, or it is of another network.
        OutputError: A file is there already, or cannot be written.
        ExportError: The graph cannot be made, or disagrees with PyTorch.
        MissingDependencyError: ONNX Runtime is not installed, or onnxsim where simplification is asked for.
    """
    options = options or ExportOptions()
    path = output or OUTPUT_FOLDER / f"{name}.onnx"
    _check_beforehand(name, path, force=force)
    source = checkpoint or find_checkpoint(name)
    clock = _Stopwatch()
    with clock.stage("load"):
        loaded = _checkpoint_of(name, source)
        network, contract = loaded.to_module(), options.deployed_contract(loaded.contract)
        crops = figure_crops(contract.input.size, max(BATCHES))
        reference = reference_outputs(network, crops, contract)
    # both temporary files are made now, so that an unwritable folder is found before the work is done
    with atomic_path(path) as onnx_file, atomic_path(sidecar_path(path)) as json_file:
        model = _graph(network, contract, options, clock)
        onnx.save(model, onnx_file)
        with clock.stage("verify"):
            check_structure(onnx_file, contract)
            agreement = check_agreement(onnx_file, reference, crops=crops, contract=contract)
        written = onnx_file.read_bytes()
        report = ExportReport(
            path=path,
            sidecar=sidecar_path(path),
            checkpoint=source,
            contract=contract,
            sha256=hashlib.sha256(written).hexdigest(),
            size_bytes=len(written),
            opset=options.opset,
            nodes=len(model.graph.node),
            agreement=agreement,
            seconds=clock.seconds,
        )
        write_sidecar(json_file, _sidecar(report, options, golden_record(crops, reference, contract.heatmap)))
    return report


def _check_beforehand(name: str, path: Path, *, force: bool) -> None:
    """Find what would stop the export at its end before its slow part begins."""
    import_onnxruntime()
    find_architecture(name)
    if path.suffix != ".onnx":
        remedy = f"name it {path.stem or name}.onnx"
        raise OutputError("the name of an exported file should end in .onnx", where=path, remedy=remedy)
    for file in (path, sidecar_path(path)):
        refuse_overwrite(file, force=force)


def _checkpoint_of(name: str, path: Path) -> Checkpoint:
    checkpoint = load_checkpoint(path)
    if checkpoint.contract.model != name:
        found = checkpoint.contract.model
        raise CheckpointError(
            f"is a checkpoint of {found}, and {name} was asked for",
            where=path,
            remedy=f"export it with --model {found}, or give a checkpoint of {name}",
        )
    return checkpoint


def _graph(network: nn.Module, contract: ModelContract, options: ExportOptions, clock: _Stopwatch) -> onnx.ModelProto:
    """Return the finished graph.

    The heatmaps are put out until the graph is simplified, so that their tensor keeps its name even in a file that
    gives keypoints only: verification looks at it there.
    """
    outputs: tuple[OutputName, ...] = ("keypoints", "heatmaps") if contract.heatmap.decoded_in_graph else ("heatmaps",)
    traced = contract.replace(outputs=outputs)
    with clock.stage("export"):
        graph = DeploymentGraph(network, traced).eval()
        model = export_graph(graph, traced, opset=options.opset)
    if options.simplify:
        with clock.stage("simplify"):
            model = simplify_graph(model)
    if options.subpixel and not rewrite_deconvolutions(model):
        log.warning("%s has no deconvolution, so subpixel changes nothing", contract.model)
    drop_outputs(model, keep=contract.outputs)
    embed_contract(model, contract)
    return model


def _sidecar(report: ExportReport, options: ExportOptions, golden: Mapping[str, Any]) -> dict[str, Any]:
    file = {
        "file": report.path.name,
        "sha256": report.sha256,
        "size_bytes": report.size_bytes,
        "agreement": [dataclasses.asdict(agreement) for agreement in report.agreement],
    }
    return sidecar_record(report.contract, options, file=file, golden=golden)


class _Stopwatch:
    """Seconds by stage, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        log.info("%s ...", name)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
