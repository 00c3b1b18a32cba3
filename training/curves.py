"""What a run measures epoch by epoch, and the files that show it: curves.csv, TensorBoard events and two figures."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit.core.files import atomic_path
from lbkit.errors import InputError
from lbkit.evaluation.pck import pck

log = logging.getLogger(__name__)

FIGURES = ("loss_fixed", "loss_visible", "pck@0.05", "pck@0.10")

CURVE_FIELDS = (
    "epoch",
    "seen",
    "seconds",
    "images_per_s",
    "waiting",
    "learning_rate",
    *(f"{part}_{figure}" for part in ("train", "val") for figure in FIGURES),
)


@dataclass(slots=True)
class Tally:
    """What the crops of one epoch gave.

    Attributes:
        loss_fixed: Each crop's loss with the fixed divisor: the mean over its batch.
        loss_visible: The same with the divisor of the labelled joints.
        distances: (N, K) relative distances of each batch.
        counted: (N, K) which of them count.
        unread: How many crops were blank because their pictures are broken.
    """

    loss_fixed: list[float] = field(default_factory=list)
    loss_visible: list[float] = field(default_factory=list)
    distances: list[NDArray[np.float64]] = field(default_factory=list)
    counted: list[NDArray[np.bool_]] = field(default_factory=list)
    unread: int = 0

    def add(
        self, losses: tuple[float, float], distances: NDArray[np.float64], counted: NDArray[np.bool_], *, unread: int
    ) -> None:
        """Count a batch: its fixed and visible loss, (N, K) distances, which count, and how many crops are blank."""
        # Once a crop, because the last batch of a validation is smaller than the others.
        self.loss_fixed += [losses[0]] * len(distances)
        self.loss_visible += [losses[1]] * len(distances)
        self.distances.append(distances)
        self.counted.append(counted)
        self.unread += unread

    @classmethod
    def merged(cls, tallies: Iterable[Tally]) -> Tally:
        """Return what several processes counted as one tally."""
        whole = cls()
        for tally in tallies:
            whole.loss_fixed += tally.loss_fixed
            whole.loss_visible += tally.loss_visible
            whole.distances += tally.distances
            whole.counted += tally.counted
            whole.unread += tally.unread
        return whole

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays by name, so that a stopped epoch's figures are not lost."""
        if not self.distances:
            return {}
        return {
            "losses": np.array([self.loss_fixed, self.loss_visible]),
            "distances": np.concatenate(self.distances),
            "counted": np.concatenate(self.counted),
            "unread": np.array(self.unread),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Tally:
        """Return what `to_arrays` told."""
        if not arrays:
            return cls()
        fixed, visible = arrays["losses"].tolist()
        unread = int(arrays.get("unread", np.array(0)))  # which the states of earlier versions lack
        return cls(fixed, visible, [arrays["distances"]], [arrays["counted"]], unread)

    def row(self, prefix: str) -> dict[str, float]:
        """Return the means as part of a row of the curve file; NaN where nothing was counted."""
        if not self.distances:
            return dict.fromkeys((f"{prefix}_{figure}" for figure in FIGURES), math.nan)
        distances, counted = np.concatenate(self.distances), np.concatenate(self.counted)
        return {
            f"{prefix}_loss_fixed": float(np.mean(self.loss_fixed)),
            f"{prefix}_loss_visible": float(np.mean(self.loss_visible)),
            f"{prefix}_pck@0.05": pck(distances, counted, threshold=0.05),
            f"{prefix}_pck@0.10": pck(distances, counted, threshold=0.10),
        }

    def recent(self, crops: int) -> tuple[float, float]:
        """Return the mean fixed loss and PCK@0.05 of the last crops."""
        near = np.concatenate(self.distances[-crops:])[-crops:]
        counted = np.concatenate(self.counted[-crops:])[-crops:]
        return float(np.mean(self.loss_fixed[-crops:])), pck(near, counted, threshold=0.05)


def write_row(path: Path, row: Mapping[str, float]) -> None:
    """Add an epoch's row; a row of the same or a later epoch, left by a run that was killed, is replaced.

    Raises:
        InputError: What stands there is no curve file.
        OutputError: The file cannot be written.
    """
    rows: list[Mapping[str, Any]] = []
    try:
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [old for old in csv.DictReader(file) if int(old["epoch"]) < row["epoch"]]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        problem = "is not a curve file that the training wrote"
        raise InputError(problem, where=path, remedy="move it away and run the same line again") from error
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=CURVE_FIELDS, extrasaction="ignore")  # an older version's columns
        writer.writeheader()
        writer.writerows([*rows, row])


class EventLog:
    """TensorBoard scalars of a run; without TensorBoard, or room for its files, it says so once and does nothing more.

    Args:
        folder: Where the event files go.
        epoch: Epochs already logged; later ones, left by a run that was killed, are hidden.
    """

    def __init__(self, folder: Path, *, epoch: int) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._writer = SummaryWriter(folder, purge_step=epoch + 1)
        except ImportError:
            log.info("no TensorBoard here: pip install tensorboard to get its events beside curves.csv")
        except OSError as error:
            log.warning("no TensorBoard events: %s", error)

    def add(self, row: Mapping[str, float]) -> None:
        """Log an epoch's row: train and validation of one figure side by side."""
        if self._writer is None:
            return
        try:
            for name, value in row.items():
                part, _, figure = name.partition("_")
                tag = f"{figure}/{part}" if part in ("train", "val") else f"run/{name}"
                self._writer.add_scalar(tag, value, int(row["epoch"]))
            self._writer.flush()
        except OSError as error:  # curves.csv has the figures too: no reason to lose a training
            log.warning("no more TensorBoard events: %s", error)
            self._writer = None
