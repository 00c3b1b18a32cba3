"""Measures against limits, stage by stage, and the stage to blame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Literal

from lbkit.parity.definitions import (
    MEASURE_STAGES,
    MEASURE_UNITS,
    STAGES,
    ContractDifference,
    Finding,
    Measures,
    Preset,
    StageFinding,
    StageName,
)

CONTRACT = "contract"
_MAIN: dict[StageName, tuple[str, ...]] = {
    "crop": ("crop_levels_max",),
    "tensor": ("tensor_max",),
    "heatmaps": ("heatmaps_max", "heatmaps_p99"),
    "input keypoints": ("decode_px_max", "input_px_median", "input_px_max", "moved_share"),
    "image keypoints": ("mapping_px_max", "image_px_median", "image_px_p99", "image_px_max"),
    "batch": ("batch_max",),
}
"""The measures that a stage's line shows."""

MEASURE_NAMES = {
    "unfinite": "not finite",
    "crop_levels_max": "max",
    "tensor_max": "max",
    "heatmaps_max": "max",
    "heatmaps_p99": "p99",
    "decode_px_max": "decoder alone max",
    "input_px_median": "median",
    "input_px_p99": "p99",
    "input_px_max": "max",
    "moved_share": "peaks moved",
    "undecided_share": "undecided",
    "mapping_px_max": "mapping alone max",
    "image_px_median": "median",
    "image_px_p99": "p99",
    "image_px_max": "max",
    "knee_deg_median": "knee median",
    "knee_deg_p99": "knee p99",
    "pck_change": "PCK@0.05",
    "ap_change": "OKS AP",
    "batch_max": "max",
}
"""Names for tables, within a stage's line."""


def findings_of(measures: Measures, preset: Preset) -> tuple[Finding, ...]:
    """Return what was measured against the preset's limits; a number that is not finite fails.

    Args:
        measures: What was measured.
        preset: The limits.
    """
    findings = []
    for field in fields(measures):
        value, limit = getattr(measures, field.name), getattr(preset.limits, field.name)
        if value is None:
            continue
        passed = math.isfinite(value) and (limit is None or abs(value) <= limit.at_most)
        at_most = None if limit is None else limit.at_most
        findings.append(Finding(field.name, MEASURE_STAGES[field.name], value, at_most, passed))
    return tuple(findings)


def stage_findings(
    measures: Measures, findings: Sequence[Finding], *, tensor_is_pixels: bool, images: tuple[int, int]
) -> tuple[StageFinding, ...]:
    """Return a line a stage.

    Args:
        measures: What was measured.
        findings: The measures against their limits.
        tensor_is_pixels: Whether the network takes pixels that it normalises itself.
        images: How many photographs were read, and how many there are.
    """
    file = StageFinding("file", "passed", f"{images[0]} of {images[1]} photographs read, once for both paths")
    lines = [file]
    for stage in STAGES[1:]:
        own = [finding for finding in findings if finding.stage == stage]
        status: Literal["passed", "failed", "not seen"] = "passed" if all(item.passed for item in own) else "failed"
        text = ", ".join(
            f"{MEASURE_NAMES[name]} {value_text(name, getattr(measures, name))}"
            for name in _MAIN[stage]
            if getattr(measures, name) is not None
        )
        if stage == "heatmaps" and measures.unfinite:
            text = f"{measures.unfinite:.0f} numbers are not finite, {text}"
        if not text:
            status, text = ("not seen" if status == "passed" else status), "the file keeps it inside"
        if stage == "tensor" and tensor_is_pixels:
            text += " (pixels; the network normalises them itself)"
        lines.append(StageFinding(stage, status, text))
    return tuple(lines)


def culprit_of(stages: Sequence[StageFinding], differences: Sequence[ContractDifference]) -> str | None:
    """Return the first stage that fails; "contract" where only the contracts differ; None where nothing does."""
    failed = next((stage.name for stage in stages if stage.status == "failed"), None)
    return failed or (CONTRACT if differences else None)


def value_text(measure: str, value: float | None) -> str:
    """Return a measure's value with its unit."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "not finite"
    if measure.endswith("_share"):
        return f"{100 * value:.2f} %"
    if measure.endswith("_change"):
        return f"{value:+.4f}"
    unit = MEASURE_UNITS.get(measure, "")
    return f"{value:.2g}{'' if unit in ('', '°') else ' '}{unit}"
