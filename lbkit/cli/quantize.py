"""`lbkit quantize`: an exported fp32 file to int8 or fp16, measured against it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from lbkit.cli.options import NearestChoice, force_option, is_quiet, json_option, output_option
from lbkit.cli.reduction import REDUCED_CHOICES, make_options, record, reduction_options, summary


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "--precision",
    type=NearestChoice(REDUCED_CHOICES),
    default=REDUCED_CHOICES[0],
    show_default=True,
    help="int8 for CPUs with VNNI or AMX, fp16 for GPUs.",
)
@reduction_options
@output_option
@force_option
@json_option
def quantize(*, model: str, precision: str, output: Path | None, force: bool, as_json: bool, **chosen: Any) -> None:
    """Make a smaller, faster file of MODEL, an exported fp32 file or its name, and measure what that costs.

    The file is written to --output (NAME-PRECISION.onnx beside MODEL unless given), with its report and golden vectors
    in a JSON beside it. Exit code 3 says that it loses more than --max-drop, or gains less than --require-speedup;
    then nothing is written. Nobody that it is measured on is calibrated on.
    """
    options = make_options(precision, chosen)
    from lbkit.quantization.pipeline import reduce_model
    from lbkit.runtime.loading import find_model

    reduction = reduce_model(find_model(model), options=options, output=output, force=force)
    click.echo(json.dumps(record(reduction), indent=2) if as_json else summary(reduction))
    if not is_quiet():
        click.echo(f"next: lbkit eval {shlex.join((model, str(reduction.path)))} --coco ROOT", err=as_json)
