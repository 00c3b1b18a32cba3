"""What batches add up to: a few numbers a person are kept, heatmaps are counted into a histogram and let go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit.core.angles import knee_flexion_deg
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.parity.definitions import Measures, Preset, TieCounts, WorstPerson
from lbkit.parity.measures import BatchComparison

WORST_PEOPLE = 12

_LEGS = np.array(
    [[LOWER_BODY_6.names.index(f"{side}_{joint}") for joint in ("hip", "knee", "ankle")] for side in ("left", "right")]
)
_LOWEST, _STEPS_A_DECADE, _STEPS = -10, 200, 200 * 13
"""Differences are counted in steps of 1.2 % from 1e-10 to 1e3."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Where both paths put the joints of N people.

    Attributes:
        rows: (N,) rows of the samples.
        reference: (N, K, 3) image pixels and score.
        found: (N, K, 3) image pixels and score.
        input_px: (N, K) distances in input pixels.
        image_px: (N, K) distances in image pixels.
        undecided: (N, K) joints that their own map leaves undecided.
    """

    rows: NDArray[np.int64]
    reference: NDArray[np.float64]
    found: NDArray[np.float64]
    input_px: NDArray[np.float64]
    image_px: NDArray[np.float64]
    undecided: NDArray[np.bool_]


@dataclass(slots=True, eq=False)
class Tally:
    """Adds up the batches of one candidate."""

    unfinite: int = 0
    tensor_is_pixels: bool = False
    crop_levels: float = 0.0
    tensor: float | None = None
    decode_px: float | None = None
    mapping_px: float = 0.0
    cells_max: float | None = None
    cell_counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_STEPS + 1, np.int64))
    moved: list[NDArray[np.bool_]] = field(default_factory=list)
    margins: list[NDArray[np.float32]] = field(default_factory=list)
    shortfalls: list[NDArray[np.float32]] = field(default_factory=list)
    parts: list[Answers] = field(default_factory=list)

    def add(self, batch: BatchComparison) -> None:
        """Count one batch."""
        self.unfinite += batch.unfinite
        self.tensor_is_pixels |= batch.tensor_is_pixels
        self.crop_levels = max(self.crop_levels, float(batch.crop_levels.max()))
        self.tensor = _greater(self.tensor, batch.tensor)
        self.decode_px = _greater(self.decode_px, batch.decode_px)
        self.mapping_px = max(self.mapping_px, float(batch.mapping_px.max()))
        if batch.cells is not None:
            self.cells_max = _greater(self.cells_max, batch.cells)
            self.cell_counts += _counts(batch.cells)
        self.moved.append(batch.moved)
        self.margins.append(batch.margins)
        self.shortfalls.append(batch.shortfalls)
        self.parts.append(
            Answers(batch.rows, batch.reference, batch.found, batch.input_px, batch.image_px, batch.undecided)
        )

    @property
    def persons(self) -> int:
        """How many people were counted."""
        return sum(len(part.rows) for part in self.parts)

    def answers(self) -> Answers:
        """Return where both paths put the joints, in order of row."""
        rows = np.concatenate([part.rows for part in self.parts])
        order = np.argsort(rows)
        joined = {
            name: np.concatenate([getattr(part, name) for part in self.parts])[order]
            for name in ("rows", "reference", "found", "input_px", "image_px", "undecided")
        }
        return Answers(**joined)

    def measures(self, preset: Preset, **others: float | None) -> Measures:
        """Return the figures.

        Args:
            preset: Says how far below the highest cell a peak that moved counts.
            others: Those that are not counted here: `pck_change`, `ap_change`, `batch_max`.
        """
        answers = self.answers()
        decided = ~answers.undecided
        undecided = np.concatenate([part.undecided for part in self.parts])
        moved = np.concatenate(self.moved) & (np.concatenate(self.shortfalls) > preset.near_tie_margin.at_most)
        input_px, image_px = answers.input_px[decided], answers.image_px[decided]
        knee = knee_changes_deg(answers)
        return Measures(
            unfinite=float(self.unfinite),
            crop_levels_max=self.crop_levels,
            tensor_max=self.tensor,
            heatmaps_max=self.cells_max,
            heatmaps_p99=self._cells_p99(),
            decode_px_max=self.decode_px,
            input_px_median=_percentile(input_px, 50),
            input_px_p99=_percentile(input_px, 99),
            input_px_max=_percentile(input_px, 100),
            moved_share=float((moved & ~undecided).mean()),
            undecided_share=float(undecided.mean()),
            mapping_px_max=self.mapping_px,
            image_px_median=_percentile(image_px, 50),
            image_px_p99=_percentile(image_px, 99),
            image_px_max=_percentile(image_px, 100),
            knee_deg_median=_percentile(knee, 50),
            knee_deg_p99=_percentile(knee, 99),
            **others,
        )

    def ties(self, preset: Preset) -> TieCounts:
        """Return the peaks that moved, ties and near-ties apart."""
        moved, fallen = np.concatenate(self.moved), np.concatenate(self.shortfalls)
        answers = self.answers()
        far = answers.input_px[answers.undecided]
        return TieCounts(
            joints=int(moved.size),
            moved=int(moved.sum()),
            ties=int((moved & (fallen == 0)).sum()),
            near_ties=int((moved & (fallen > 0) & (fallen <= preset.near_tie_margin.at_most)).sum()),
            undecided=int(answers.undecided.sum()),
            undecided_px_max=_percentile(far, 100),
        )

    def worst(self, names: Mapping[int, str], image_of: Callable[[int], int]) -> tuple[WorstPerson, ...]:
        """Return the people whose farthest joint is farthest in input pixels, decided joints before undecided ones.

        Args:
            names: Name of each photograph by its id.
            image_of: Gives the photograph's id of a row.
        """
        answers = self.answers()
        key = np.where(answers.undecided, -1.0, answers.input_px)
        order = np.argsort(-key.max(axis=1), kind="stable")[:WORST_PEOPLE]
        return tuple(_worst_person(answers, int(index), key, names, image_of) for index in order)

    def _cells_p99(self) -> float | None:
        total = int(self.cell_counts.sum())
        if not total:
            return None
        step = int(np.searchsorted(np.cumsum(self.cell_counts), 0.99 * total))
        return float(10.0 ** (_LOWEST + step / _STEPS_A_DECADE)) if step else 0.0


def knee_changes_deg(answers: Answers) -> NDArray[np.float64]:
    """Return (M,) absolute changes of knee flexion, of legs without an undecided joint and with an angle in both."""
    pair = [knee_flexion_deg(points[..., :2]) for points in (answers.found, answers.reference)]
    changes = np.abs(pair[0] - pair[1])
    decided = ~answers.undecided[:, _LEGS].any(axis=-1)
    return np.asarray(changes[decided & ~np.isnan(changes)])


def _worst_person(
    answers: Answers, index: int, key: NDArray[np.float64], names: Mapping[int, str], image_of: Callable[[int], int]
) -> WorstPerson:
    joint, row = int(key[index].argmax()), int(answers.rows[index])
    return WorstPerson(
        row=row,
        image=names[image_of(row)],
        joint=LOWER_BODY_6.names[joint],
        image_px=float(answers.image_px[index, joint]),
        input_px=float(answers.input_px[index, joint]),
        undecided=bool(answers.undecided[index, joint]),
    )


def _counts(cells: NDArray[np.float32]) -> NDArray[np.int64]:
    """Count differences by the upper end of their step; place 0 is equality, or less than the lowest step."""
    with np.errstate(divide="ignore"):
        steps = np.ceil((np.log10(cells.ravel()) - _LOWEST) * _STEPS_A_DECADE)
    return np.bincount(np.clip(steps, 0, _STEPS).astype(np.int64), minlength=_STEPS + 1)


def _greater(known: float | None, values: NDArray[np.floating[Any]] | None) -> float | None:
    return known if values is None else max(known or 0.0, float(values.max()))


def _percentile(values: NDArray[np.float64], percent: float) -> float | None:
    if not len(values):
        return None
    return float(np.percentile(values, percent, method="higher"))
