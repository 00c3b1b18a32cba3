"""What a check found, as tables, JSON and one page with histograms and the people whose joints moved most."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit._version import __version__
from lbkit.core.geometry import ImageArray
from lbkit.core.records import record_to_mapping
from lbkit.errors import ImageReadError
from lbkit.evaluation.portraits import draw_pair
from lbkit.parity.check import Checked
from lbkit.parity.definitions import (
    MEASURE_STAGES,
    STAGE_TEXTS,
    CandidateReport,
    NodeFinding,
    ParityReport,
)
from lbkit.parity.samples import Samples
from lbkit.parity.tally import Answers
from lbkit.parity.verdict import CONTRACT, MEASURE_NAMES, value_text
from lbkit.reporting.page import Cell, Page

HISTOGRAM_DECADES = (-7, 2)
MAX_PICTURES = 8
KEY = (
    "Discs with the skeleton are the file's answer, rings the reference's; white lines join the two. Left is orange "
    "and right is blue; left is the person's own."
)


def verdict_text(report: ParityReport) -> str:
    """Say in one line what came out."""
    failed = [item for item in report.candidates if not item.passed]
    count = len(report.candidates)
    checked = f"{count} file{'' if count == 1 else 's'} checked on {report.samples.persons} {report.samples.text}"
    if failed:
        blamed = "; ".join(f"{item.name} on {item.provider}: {culprit_text(item)}" for item in failed)
        return f"{len(failed)} of {checked}: {blamed}"
    if report.problems:
        return f"{len(report.problems)} could not be checked; {checked}"
    return f"{checked}, every stage within its limits"


def culprit_text(report: CandidateReport) -> str:
    """Name the stage to blame, the limits that it breaks, and the first node where one was looked for."""
    if report.culprit == CONTRACT:
        return f"its contract differs: {'; '.join(map(str, report.contract_differences))}"
    broken = [item for item in report.findings if item.stage == report.culprit and not item.passed]
    words = [
        f"{MEASURE_NAMES[item.measure]} {value_text(item.measure, item.value)}"
        + ("" if item.at_most is None else f", at most {limit_text(item.measure, item.at_most)}")
        for item in broken
    ]
    text = f"stage {report.culprit} ({'; '.join(words)})"
    if report.contract_differences:
        text += f"; its contract differs: {'; '.join(map(str, report.contract_differences))}"
    return text if report.node is None else f"{text}; {node_text(report.node)}"


def node_text(node: NodeFinding) -> str:
    """Say which node leaves tolerance first."""
    compared = f"{node.compared} of {node.nodes} nodes compared"
    if node.node is None:
        return f"no node leaves tolerance ({node.difference:.2g} of {node.tolerance:g} at most, {compared})"
    place = node.module or "the deployed module itself"
    return (
        f"the first node out of tolerance is {node.node} ({node.op_type}), PyTorch's {place}: "
        f"{node.difference:.2g} of the greatest value, at most {node.tolerance:g} ({compared})"
    )


def summary_rows(report: ParityReport) -> tuple[list[str], list[list[Cell]]]:
    """Return header and rows of the table of files: what ran where, the main figures, and the verdict."""
    header = ["file", "runs on", "limits", "verdict", "heatmaps max", "input px max", "image px median", "p99", "max"]
    header += ["knee p99", "peaks moved", "undecided", "PCK@0.05", "OKS AP", "ms a crop"]
    rows: list[list[Cell]] = [_summary_row(item) for item in report.candidates]
    gap: list[Cell] = [None] * (len(header) - 4)
    rows += [[problem.model, problem.provider, None, "could not run", *gap] for problem in report.problems]
    return header, rows


def terminal_rows(report: ParityReport) -> list[list[str]]:
    """Return the table for a terminal: a row a figure, a column a file, and the walk's stages below."""
    header, rows = summary_rows(report)
    table = [[name, *("-" if row[column] is None else str(row[column]) for row in rows)]
             for column, name in enumerate(header)]  # fmt: skip
    for index, stage in enumerate(STAGE_TEXTS):
        cells = [item.stages[index].status for item in report.candidates]
        table.append([f"stage {stage}", *cells, *("-" for _ in report.problems)])
    return table


def parity_document(checked: Checked) -> dict[str, Any]:
    """Return everything as JSON values; what is not finite is null."""
    report = checked.report
    document = {
        "lbkit": __version__,
        "passed": report.passed,
        "text": verdict_text(report),
        "samples": record_to_mapping(report.samples),
        "reference_seconds": report.reference_seconds,
        "models": [item.to_dict() for item in report.candidates],
        "problems": [record_to_mapping(problem) for problem in report.problems],
    }
    finite: dict[str, Any] = _finite(document)
    return finite


def parity_page(checked: Checked) -> Page:
    """Return the page."""
    report = checked.report
    page = Page(f"Parity of {', '.join(dict.fromkeys(item.name for item in report.candidates)) or 'nothing'}")
    page.verdict(report.passed, verdict_text(report))
    page.paragraph(
        "The reference is the PyTorch checkpoint in single precision through lbkit's own preprocessing and decoder. "
        f"Compared on {report.samples.persons} {report.samples.text}, {report.samples.images} photographs."
    )
    page.table(*summary_rows(report))
    if report.problems:
        page.table(["could not run", "on", "because"], [[p.model, p.provider, p.text] for p in report.problems])
    if report.samples.left_out:
        page.table(["left out", "how often"], list(report.samples.left_out.items()))
    for item, answers in zip(report.candidates, checked.answers, strict=True):
        _add_candidate(page, item, answers, checked.samples)
    return page


def limit_text(measure: str, at_most: float) -> str:
    """Return a limit with its measure's unit and no sign."""
    return value_text(measure, at_most).removeprefix("+")


def _summary_row(item: CandidateReport) -> list[Cell]:
    measures = item.measures
    shown = (
        *("heatmaps_max", "input_px_max", "image_px_median", "image_px_p99", "image_px_max"),
        *("knee_deg_p99", "moved_share", "undecided_share", "pck_change", "ap_change"),
    )
    texts: list[Cell] = [
        None if getattr(measures, name) is None else value_text(name, getattr(measures, name)) for name in shown
    ]
    milliseconds = f"{1000 * item.model_seconds / item.persons:.1f}" if item.persons else None
    verdict = "passed" if item.passed else f"failed: {item.culprit}"
    return [item.name, item.provider, item.preset.name, verdict, *texts, milliseconds]


def _add_candidate(page: Page, item: CandidateReport, answers: Answers, samples: Samples) -> None:
    page.heading(f"{item.name} on {item.provider}")
    page.verdict(item.passed, "every stage keeps its limits" if item.passed else culprit_text(item))
    page.paragraph(
        f"{item.file} (sha256 {item.file_sha256[:12]}), {item.precision}, takes {item.input_dtype}, decodes "
        f"{item.decoder}; against {item.checkpoint}, by the limits {item.preset.name}: {item.preset.description}"
    )
    page.table(
        ["stage", "what it does", "verdict", "greatest differences"],
        [[stage.name, STAGE_TEXTS[stage.name], stage.status, stage.text] for stage in item.stages],
    )
    if item.contract_differences:
        page.table(
            ["contract field", "file", "checkpoint"],
            [[d.field, str(d.found), str(d.expected)] for d in item.contract_differences],
        )
    page.table(["measure", "found", "limit", "verdict", "measured when set", "why"], _limit_rows(item))
    page.table(
        ["batch", "greatest difference from single crops"],
        [[finding.batch, f"{finding.difference:.2g}"] for finding in item.batches],
    )
    page.paragraph(ties_text(item))
    if item.node is not None:
        page.paragraph(f"{node_text(item.node)}.".capitalize())
    page.histogram(
        _log_distances(answers.image_px),
        bins=list(np.linspace(*HISTOGRAM_DECADES, 37)),
        x_label="distance from the reference in image pixels, power of ten",
        caption=f"All {answers.image_px.size} joints; 1e{HISTOGRAM_DECADES[0]} px and less stand at the left end.",
        log_counts=True,
    )
    page.paragraph(f"The people whose joints moved most. {KEY}")
    page.pictures(_worst_pictures(item, answers, samples))


def ties_text(item: CandidateReport) -> str:
    """Say how many peaks moved, and how many of them their own map leaves open."""
    ties = item.ties
    text = (
        f"{ties.moved} of {ties.joints} peaks lie in another cell; {ties.ties} of them are ties and {ties.near_ties} "
        f"near-ties (margin at most {item.preset.near_tie_margin.at_most:g}) of the reference's own map. "
        f"{ties.undecided} undecided joints are left out of distances and angles"
    )
    far = ties.undecided_px_max
    return f"{text}." if far is None else f"{text}; the farthest lies {far:.2g} px off in the input."


def _limit_rows(item: CandidateReport) -> list[list[Cell]]:
    limits = {field.name: getattr(item.preset.limits, field.name) for field in fields(item.preset.limits)}
    return [
        [
            f"{MEASURE_STAGES[found.measure]}: {MEASURE_NAMES[found.measure]}",
            value_text(found.measure, found.value),
            None if found.at_most is None else limit_text(found.measure, found.at_most),
            ("passed" if found.passed else "failed") if found.at_most is not None or not found.passed else "no limit",
            limits[found.measure].measured if limits[found.measure] else "",
            limits[found.measure].reason if limits[found.measure] else "",
        ]
        for found in item.findings
    ]


def _log_distances(distances_px: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = HISTOGRAM_DECADES
    with np.errstate(divide="ignore"):
        return np.asarray(np.clip(np.log10(distances_px), low + 1e-6, high - 1e-6))


def _worst_pictures(item: CandidateReport, answers: Answers, samples: Samples) -> Iterator[tuple[ImageArray, str]]:
    targets = {target.row: target for target in samples.targets}
    places = {int(row): index for index, row in enumerate(answers.rows)}
    for worst in item.worst[:MAX_PICTURES]:
        target, place = targets[worst.row], places[worst.row]
        try:
            image = samples.read(target.image_id)
        except ImageReadError:
            continue
        found, reference = answers.found[place, :, :2], answers.reference[place, :, :2]
        if not np.isfinite(found).all():
            continue
        note = ", undecided" if worst.undecided else ""
        caption = (
            f"{worst.image}, person {worst.row}: {worst.joint} {worst.image_px:.2g} px in the photograph, "
            f"{worst.input_px:.2g} px in the input{note}"
        )
        yield draw_pair(image, target.box_xyxy, found_xy=found, reference_xy=reference), caption


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
