"""The page of an evaluation: verdict, table, curves, joints, slices, and the worst people drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lbkit._version import __version__
from lbkit.evaluation.evaluate import Judged
from lbkit.evaluation.pck import INTERVAL_PERCENT, NORM_TEXTS, RESAMPLES
from lbkit.evaluation.portraits import KEY, worst_portraits
from lbkit.evaluation.scoring import (
    MAIN_RULE,
    MAIN_THRESHOLD,
    RULE_TEXTS,
    RULES,
    TABLE_THRESHOLDS,
    AngleError,
    Estimate,
    Evaluation,
)
from lbkit.evaluation.truth import Truth
from lbkit.reporting.page import Cell, Page

COUNT_TEXT = (
    "A person's score is the mean of its joints' scores, times its box's score where the boxes come from a detector. "
    "OKS AP counts the six joints alone: people without a labelled leg joint are ignored, and every annotated image is "
    "scored."
)


def summary_rows(judged: Sequence[Judged]) -> tuple[list[str], list[list[Cell]]]:
    """Return header and rows of the table of models: PCK by t and rule with interval, OKS AP and AR, knee, time."""
    header = ["model", "runs on"]
    header += [f"PCK@{t:.2f} {rule}" for t in TABLE_THRESHOLDS for rule in RULES]
    header += ["OKS AP", "OKS AR", "knee error", "ms a crop"]
    return header, [_summary_row(item.evaluation) for item in judged]


def evaluation_page(judged: Sequence[Judged], truth: Truth, *, verdict: tuple[bool, str] | None) -> Page:
    """Return the page.

    Args:
        judged: The models, at least one.
        truth: The people they were judged on.
        verdict: Whether the limits asked for hold, and in words; None where none was asked for.
    """
    first = judged[0].evaluation
    page = Page(f"Evaluation of {', '.join(item.evaluation.subject.name for item in judged)}")
    if verdict is not None:
        page.verdict(*verdict)
    for line in rule_lines(first):
        page.paragraph(line)
    page.table(*summary_rows(judged))
    page.heading("PCK by threshold")
    page.line_chart(
        {name: curve for item in judged for name, curve in _curves(item.evaluation, several=len(judged) > 1)},
        x_label="t",
        y_label="PCK@t",
        caption=f"Measured by {NORM_TEXTS[first.norm]}.",
    )
    _add_joints(page, judged)
    _add_slices(page, judged)
    _add_skipped(page, first)
    for item in judged:
        page.heading(f"The worst people of {item.evaluation.subject.name}")
        page.paragraph(KEY)
        page.pictures(worst_portraits(item, truth))
    return page


def terminal_rows(judged: Sequence[Judged]) -> list[list[str]]:
    """Return the table for a terminal: a row a figure, a column a model, the names first."""
    header, rows = summary_rows(judged)
    table = [[name, *(_plain(row[column]) for row in rows)] for column, name in enumerate(header)]
    main = f"{MAIN_THRESHOLD:.2f}"
    for index, first in enumerate(judged[0].evaluation.slices):
        estimates = [item.evaluation.slices[index].pck[main] for item in judged]
        name = f"{first.kind}: {first.name} ({first.persons})"
        table.append([name, *(_plain(estimate_text(estimate)) for estimate in estimates)])
    return table


def evaluation_document(judged: Sequence[Judged], *, verdict: tuple[bool, str] | None) -> dict[str, Any]:
    """Return all figures as JSON values: the verdict, what was counted in words, and each model's evaluation."""
    return {
        "lbkit": __version__,
        "verdict": None if verdict is None else {"passed": verdict[0], "text": verdict[1]},
        "rules": rule_lines(judged[0].evaluation),
        "models": [item.evaluation.to_dict() for item in judged],
    }


def rule_lines(evaluation: Evaluation) -> list[str]:
    """Return in words what was counted, and by which rules."""
    data, subject = evaluation.data, evaluation.subject
    low, high = INTERVAL_PERCENT
    boxes = "the annotated boxes" if subject.boxes == "gt" else subject.boxes
    return [
        f"{data.persons} people on {data.images} images of {data.name}, {data.split} "
        f"(annotations sha256 {data.annotations_sha256[:12]}), looked for in {boxes}; {subject.matching}.",
        f"PCK@t: a joint is right within t times {NORM_TEXTS[evaluation.norm]} (rule {evaluation.norm}). "
        + " ".join(f"{rule}: {RULE_TEXTS[rule]}." for rule in RULES)
        + f" Brackets: {high - low:g} % bootstrap interval over images, {RESAMPLES} draws.",
        COUNT_TEXT,
    ]


def estimate_text(estimate: Estimate) -> str | None:
    """Return "0.253 [0.218, 0.289]", None where nothing is counted."""
    if estimate.value is None:
        return None
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _summary_row(evaluation: Evaluation) -> list[Cell]:
    subject, oks = evaluation.subject, evaluation.oks
    place = f"{subject.backend} {subject.provider}" if subject.provider else subject.backend
    estimates = [evaluation.pck(t, rule=rule) for t in TABLE_THRESHOLDS for rule in RULES]
    seconds, crops = evaluation.model_seconds, evaluation.crops
    return [
        subject.name,
        f"{place}{' flip' if subject.flip else ''}",
        *(estimate_text(estimate) for estimate in estimates),
        _share_text(oks.ap),
        _share_text(oks.ar),
        _knee_text(evaluation.knee),
        None if seconds is None or not crops else f"{1000 * seconds / crops:.1f}",
    ]


def _curves(evaluation: Evaluation, *, several: bool) -> list[tuple[str, tuple[list[float], list[float]]]]:
    """Return the curve of each rule, or of the main one where several models share the chart."""
    rules = (MAIN_RULE,) if several else RULES
    thresholds = list(evaluation.thresholds)
    return [
        (f"{evaluation.subject.name} {rule}", (thresholds, [_number(e.value) for e in evaluation.curve[rule]]))
        for rule in rules
    ]


def _add_joints(page: Page, judged: Sequence[Judged]) -> None:
    page.heading("By joint")
    names = [item.evaluation.subject.name for item in judged]
    rows: list[list[Cell]] = []
    for joint, first in judged[0].evaluation.joints.items():
        for t in first:
            estimates = [item.evaluation.joints[joint][t] for item in judged]
            rows.append([joint, t, first[t].joints, *(estimate_text(estimate) for estimate in estimates)])
    page.table(["joint", "t", "joints", *names], rows, caption=f"PCK@t, {RULE_TEXTS[MAIN_RULE]}.")


def _add_slices(page: Page, judged: Sequence[Judged]) -> None:
    page.heading("By kind of person")
    page.paragraph(
        "Legs only: upright people with both hips labelled, on their photographs with everything above the hips cut "
        "away and in the rest of their box; t is measured by the whole person's length in both. Knee flexion is that "
        "of the annotated knee that is bent more. Crowding is the largest share of the box that another one covers."
    )
    main = f"{MAIN_THRESHOLD:.2f}"
    header = ["by", "group", "people", "joints"]
    for item in judged:
        header += [f"{item.evaluation.subject.name} PCK@{main}", "knee error"]
    rows: list[list[Cell]] = []
    for index, first in enumerate(judged[0].evaluation.slices):
        row: list[Cell] = [first.kind, first.name, first.persons, first.pck[main].joints]
        for item in judged:
            figures = item.evaluation.slices[index]
            row += [estimate_text(figures.pck[main]), _knee_text(figures.knee)]
        rows.append(row)
    page.table(header, rows, caption="Knee error: median and 90th percentile of the absolute difference in flexion.")


def _add_skipped(page: Page, evaluation: Evaluation) -> None:
    page.heading("Left out")
    if not evaluation.data.skipped:
        page.paragraph("Nothing: every image and annotation could be used.")
        return
    page.table(["reason", "how often"], list(evaluation.data.skipped.items()))


def _plain(cell: Cell) -> str:
    return "-" if cell is None else str(cell)


def _knee_text(knee: AngleError) -> str | None:
    return None if knee.median_deg is None or knee.p90_deg is None else f"{knee.median_deg:.1f}° ({knee.p90_deg:.1f}°)"


def _share_text(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
