"""Limits that an evaluation must keep: yes or no, and by which figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lbkit.evaluation.scoring import MAIN_RULE, MAIN_THRESHOLD, Evaluation

PCK_NAME = f"PCK@{MAIN_THRESHOLD:.2f} {MAIN_RULE}"
AP_NAME = "OKS AP"


@dataclass(frozen=True, slots=True)
class Limits:
    """What every model must reach.

    Attributes:
        min_pck: Least PCK at 0.05 over labelled joints; no limit when None.
        min_ap: Least OKS AP; no limit when None.
    """

    min_pck: float | None = None
    min_ap: float | None = None

    def verdict(self, evaluations: Sequence[Evaluation]) -> tuple[bool, str] | None:
        """Return whether all models keep the limits and the answer in words; None where there is no limit.

        A figure that cannot be counted keeps no limit.
        """
        wanted = [(PCK_NAME, self.min_pck), (AP_NAME, self.min_ap)]
        limits = [(name, least) for name, least in wanted if least is not None]
        if not limits:
            return None
        misses = [
            f"{evaluation.subject.name} has {name} {_text(value)}, and {least:g} is asked for"
            for evaluation in evaluations
            for (name, least), value in zip(limits, _values(evaluation, limits), strict=True)
            if value is None or value < least
        ]
        kept = " and ".join(f"{name} of at least {least:g}" for name, least in limits)
        return not misses, "; ".join(misses) if misses else f"{kept} for every model"


def _values(evaluation: Evaluation, limits: Sequence[tuple[str, float]]) -> list[float | None]:
    values = {PCK_NAME: evaluation.pck().value, AP_NAME: evaluation.oks.ap}
    return [values[name] for name, _ in limits]


def _text(value: float | None) -> str:
    return "of nothing to count" if value is None else f"{value:.4f}"
