"""`lbkit export`: a trained network to a verified ONNX file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lbkit.cli.options import DECODER_CHOICES, NearestChoice, force_option, is_quiet, json_option, output_option
from lbkit.cli.reduction import REDUCED_CHOICES, make_options, record, reduction_options, summary

if TYPE_CHECKING:
    from lbkit.export.pipeline import ExportReport
    from lbkit.export.verification import BatchAgreement

INPUT_CHOICES = ("uint8", "float32")
NO_DECODER = "none"
FULL_PRECISION = "fp32"
EXPORT_NAMES = ("input_dtype", "decode", "keep_heatmaps", "simplify", "subpixel", "opset")
"""Options of the export itself; the others are the reduction's."""


@click.command()
@click.option("--model", required=True, metavar="NAME", help="The network: baseline, fpn or cnn.")
@click.option(
    "--checkpoint",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Its weights.  [default: NAME.safetensors in LBKIT_CHECKPOINTS, then in training/checkpoints]",
)
@click.option(
    "--input",
    "input_dtype",
    type=NearestChoice(INPUT_CHOICES),
    default="uint8",
    show_default=True,
    help="uint8 takes RGB crops and normalises them in the graph; float32 takes the bare network's input.",
)
@click.option(
    "--decode",
    type=NearestChoice((NO_DECODER, *DECODER_CHOICES)),
    default=NO_DECODER,
    show_default=True,
    help="Fold a decoder into the graph, which then gives keypoints in input pixels.",
)
@click.option("--keep-heatmaps", is_flag=True, help="Give the heatmaps beside the keypoints.")
@click.option("--simplify/--no-simplify", default=True, show_default=True, help="Run onnxsim over the graph.")
@click.option(
    "--subpixel",
    is_flag=True,
    help="Write deconvolutions as exact convolutions: faster on ONNX Runtime's CPU, slower in OpenVINO.",
)
@click.option("--opset", type=int, metavar="N", help="ONNX operator set, 18 to 23.  [default: 18]")
@click.option(
    "--precision",
    type=NearestChoice((FULL_PRECISION, *REDUCED_CHOICES)),
    default=FULL_PRECISION,
    show_default=True,
    help="Arithmetic of the network. What follows is for int8 and fp16, as of `lbkit quantize`.",
)
@reduction_options
@click.option(
    "--triton",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write model repositories for NVIDIA Triton there too, with a client that checks a running server.",
)
@output_option
@force_option
@json_option
def export(
    *,
    model: str,
    checkpoint: Path | None,
    triton: Path | None,
    output: Path | None,
    force: bool,
    as_json: bool,
    precision: str,
    **chosen: Any,
) -> None:
    """Export a trained network to ONNX and verify the file against PyTorch.

    The file is written to --output (exported/NAME.onnx, or exported/NAME-int8.onnx, unless given) with a JSON of golden
    vectors beside it, and appears only once it agrees with PyTorch at batches of 1, 2 and 5. An int8 or fp16 file is
    made of such a file, and appears only once its measured loss is within --max-drop.
    """
    from lbkit.export.triton import BUILD_FILE, CLIENT_FILE, check_triton_folder, write_triton_repository

    if triton is not None:
        check_triton_folder(triton, force=force)
    if precision == FULL_PRECISION:
        path, told = _export_full(model, checkpoint=checkpoint, output=output, force=force, as_json=as_json, **chosen)
    else:
        path, told = _export_reduced(
            model, precision, checkpoint=checkpoint, output=output, force=force, as_json=as_json, **chosen
        )
    click.echo(told)
    if triton is not None:
        *ready, plan = map(str, write_triton_repository(path, triton, force=force))
        where = f"{', '.join(ready)} or, after {triton / BUILD_FILE}, {plan}"
        click.echo(f"triton: {where}; check it with {triton / CLIENT_FILE}", err=as_json)
    if not is_quiet():
        click.echo(f"next: lbkit infer IMAGES --model {path}", err=as_json)


def _export_full(
    model: str, *, checkpoint: Path | None, output: Path | None, force: bool, as_json: bool, **chosen: Any
) -> tuple[Path, str]:
    """Return where the file is, and what is to be told of it."""
    from lbkit.export.pipeline import export_model

    _, exporting = _apart(chosen)
    report = export_model(model, checkpoint=checkpoint, output=output, options=_options(**exporting), force=force)
    return report.path, json.dumps(_record(report), indent=2) if as_json else _summary(report)


def _export_reduced(
    model: str,
    precision: str,
    *,
    checkpoint: Path | None,
    output: Path | None,
    force: bool,
    as_json: bool,
    **chosen: Any,
) -> tuple[Path, str]:
    """Return where the file is, and what is to be told of it."""
    import tempfile

    from lbkit.core.files import refuse_overwrite
    from lbkit.export.pipeline import OUTPUT_FOLDER, export_model
    from lbkit.quantization.pipeline import reduce_model

    reducing, exporting = _apart(chosen)
    options = make_options(precision, reducing)
    path = output or OUTPUT_FOLDER / f"{model}-{precision}.onnx"
    refuse_overwrite(path, force=force)
    with tempfile.TemporaryDirectory(prefix="lbkit-") as folder:
        full = Path(folder, f"{model}.onnx")
        export_model(model, checkpoint=checkpoint, output=full, options=_options(**exporting))
        reduction = reduce_model(full, options=options, output=path, force=force)
    return path, json.dumps(record(reduction), indent=2) if as_json else summary(reduction)


def _apart(chosen: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what concerns the reduction, and what concerns the export."""
    exporting = {name: value for name, value in chosen.items() if name in EXPORT_NAMES}
    return {name: value for name, value in chosen.items() if name not in EXPORT_NAMES}, exporting


def _options(*, decode: str, opset: int | None, **others: Any) -> Any:
    from lbkit.export.options import ExportOptions

    given = others | ({} if opset is None else {"opset": opset})
    return ExportOptions(decoder=None if decode == NO_DECODER else decode, **given)  # type: ignore[arg-type]


def _record(report: ExportReport) -> dict[str, Any]:
    return {
        "path": str(report.path),
        "sidecar": str(report.sidecar),
        "checkpoint": str(report.checkpoint),
        "sha256": report.sha256,
        "size_bytes": report.size_bytes,
        "opset": report.opset,
        "nodes": report.nodes,
        "outputs": list(report.contract.outputs),
        "agreement": [dataclasses.asdict(agreement) for agreement in report.agreement],
        "seconds": {stage: round(seconds, 3) for stage, seconds in report.seconds.items()},
    }


def _summary(report: ExportReport) -> str:
    contract = report.contract
    given = contract.input
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.seconds.items())
    lines = [
        f"{report.path}  {report.size_bytes / 1e6:.1f} MB, opset {report.opset}, {report.nodes} nodes",
        f"  from      {report.checkpoint}",
        f"  takes     {given.name}: {given.dtype} {given.color_order} {given.layout}, {given.size}, any batch",
        f"  gives     {', '.join(contract.outputs)} (decoder {contract.heatmap.decoder}"
        f", {'in the graph' if contract.heatmap.decoded_in_graph else 'on the host'})",
        f"  sha256    {report.sha256}",
        f"  took      {stages}",
        "agrees with PyTorch, at most apart:",
    ]
    return "\n".join([*lines, *(_agreement_line(agreement) for agreement in report.agreement)])


def _agreement_line(agreement: BatchAgreement) -> str:
    ties = f", {agreement.near_ties} of {agreement.joints} joints near ties" if agreement.near_ties else ""
    return (
        f"  batch {agreement.batch}   heatmaps {agreement.heatmaps:.1e}, keypoints {agreement.keypoints_px:.1e} px"
        + ties
    )
