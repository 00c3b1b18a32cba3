"""Options and words that `lbkit quantize` and `lbkit export --precision` share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lbkit.cli.options import NearestChoice, threads_option

if TYPE_CHECKING:
    from lbkit.quantization.options import ReductionOptions
    from lbkit.quantization.pipeline import Reduction

REDUCED_CHOICES = ("int8", "fp16")
METHOD_CHOICES = ("auto", "minmax", "entropy", "percentile")
"""Spelled out to keep NumPy out of `--help`; a test keeps them equal to the library's."""

MAX_BATCH = 1024
SHOWN_LAYERS = 8

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--calibration",
        type=click.Path(path_type=Path),
        metavar="DIR|FILE",
        help="People to calibrate int8 on: a COCO folder or JSON, a CSV of boxes, or a folder of photographs.",
    ),
    click.option(
        "--coco",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="LBKIT_COCO",
        show_envvar=True,
        metavar="ROOT",
        help="Annotated people to measure PCK on; without --calibration a part of them is calibrated on instead.",
    ),
    click.option("--split", metavar="NAME", help="Which part of --coco.  [default: the first]"),
    click.option(
        "--samples",
        type=click.IntRange(1, 10_000),
        default=128,
        show_default=True,
        metavar="N",
        help="People to calibrate on.",
    ),
    click.option(
        "--method",
        type=NearestChoice(METHOD_CHOICES),
        default=METHOD_CHOICES[0],
        show_default=True,
        help="How the range of an activation is taken; auto measures all three and takes the best.",
    ),
    click.option(
        "--max-drop",
        type=click.FloatRange(min=0),
        default=0.5,
        show_default=True,
        metavar="POINTS",
        help="Write nothing (exit 3) if PCK@0.05 falls by more percentage points; without annotations, agreement PCK: "
        "with the fp32 file's own joints, where it is sure of them, for labels.",
    ),
    click.option(
        "--require-speedup",
        type=click.FloatRange(min=0),
        metavar="RATIO",
        help="Write nothing (exit 3) unless the file is so many times as fast as the fp32 one at every batch size.",
    ),
    click.option(
        "--time-batch",
        "batches",
        type=click.IntRange(1, MAX_BATCH),
        multiple=True,
        metavar="N",
        help="People at once when times are taken; repeatable.  [default: 1 and 8]",
    ),
    threads_option,
)


def reduction_options(command: CommandT) -> CommandT:
    """Add the options of a reduction to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def make_options(precision: str, given: dict[str, Any]) -> ReductionOptions:
    """Return the library's options for what the command line gave."""
    from lbkit.quantization.options import ReductionOptions

    chosen = dict(given)
    method, batches = chosen.pop("method"), chosen.pop("batches")
    if batches:
        chosen["batches"] = batches
    return ReductionOptions(precision=precision, method=None if method == "auto" else method, **chosen)  # type: ignore[arg-type]


def record(reduction: Reduction) -> dict[str, Any]:
    """Return a reduction as JSON values."""
    return {
        "path": str(reduction.path),
        "sidecar": str(reduction.sidecar),
        "source": str(reduction.source),
        "sha256": reduction.sha256,
        "size_bytes": reduction.size_bytes,
        "reduction": reduction.report(),
    }


def summary(reduction: Reduction) -> str:
    """Return what was made and measured, for people."""
    size = f"{reduction.size_bytes / 1e6:.1f} MB"
    lines = [
        f"{reduction.path}  {size} of {reduction.source_bytes / 1e6:.1f} MB, {reduction.contract.precision}",
        *(f"  {verb:<10}on {whom}" for verb, whom in reduction.people.items()),
        *_int8_lines(reduction),
        *_pck_lines(reduction),
        *_shift_lines(reduction),
        *_speed_lines(reduction),
    ]
    return "\n".join(lines)


def _int8_lines(reduction: Reduction) -> list[str]:
    graph = reduction.int8
    if graph is None:
        return []
    tried = ", ".join(f"{method} {score:.4f}" for method, score in graph.tried.items())
    kept = [cost.layer for cost in graph.costs if cost.is_kept]
    lines = [
        f"  ranges by {graph.method} ({tried})",
        f"  {graph.in_8_bits} of {graph.layers} layers in 8 bits"
        f"{', in fp32: ' + ', '.join(kept) if kept else ''}; {graph.deconvolutions} deconvolutions rewritten",
        "  a layer alone in 8 bits moves joints by, on average:",
    ]
    lines += [f"    {cost.mean_px:7.3f} px  {cost.layer}" for cost in graph.costs[:SHOWN_LAYERS]]
    hidden = len(graph.costs) - SHOWN_LAYERS
    return [*lines, f"    {hidden} more, all less (in {reduction.sidecar.name})"] if hidden > 0 else lines


def _pck_lines(reduction: Reduction) -> list[str]:
    change = reduction.pck
    if change is None:
        return ["  PCK       not measured: nobody is annotated; give --coco ROOT", *_agreement_lines(reduction)]
    by_joint = ", ".join(f"{name} {each.drop_points:+.2f}" for name, each in reduction.joints.items())
    return [
        f"  PCK@0.05  {change.before:.4f} to {change.after:.4f}: {change.drop_points:+.2f} points lost "
        f"(95 % interval {change.low:+.2f} to {change.high:+.2f}, {change.joints} joints)",
        f"            by joint {by_joint}",
    ]


def _agreement_lines(reduction: Reduction) -> list[str]:
    agreement = reduction.agreement
    if agreement is None:
        return ["            nor agreement PCK: the fp32 file is sure of no joint"]
    text = f"{agreement.drop_points:.2f} points lost ({agreement.lost} of {agreement.joints} joints"
    text += " that the fp32 file is sure of)"
    return [f"  agreement PCK@0.05: {text}"]


def _shift_lines(reduction: Reduction) -> list[str]:
    shift = dataclasses.asdict(reduction.shift)
    lines = ["  joints    moved by {median_px} px (median), {p99_px} (99 %), {max_px} (most)".format(**shift)]
    if shift["knee_median_deg"] is not None:
        lines.append("  knees     moved by {knee_median_deg}° (median), {knee_p99_deg}° (99 %)".format(**shift))
    return lines


def _speed_lines(reduction: Reduction) -> list[str]:
    speed = reduction.speed
    sets = ", ".join(speed.instruction_sets) or "none of the sets that speed 8 bits"
    lines = [
        f"  batch {each.batch:<3} {each.before_ms:.1f} ms to {each.after_ms:.1f} ms: {each.ratio:.2f} times as fast"
        for each in speed.batches
    ]
    lines.append(f"            on {speed.cpu} ({sets}), {speed.threads} threads")
    if speed.least < 1:
        lines.append("  SLOWER on this machine than the fp32 file; --require-speedup would have refused it")
    return lines
