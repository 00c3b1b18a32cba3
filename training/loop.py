"""The training loop: steps, validation, curves, checkpoints."""

from __future__ import annotations

import csv
import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lbkit.core.codec import decode_heatmaps
from lbkit.core.contract import ModelContract
from lbkit.core.files import atomic_path
from lbkit.core.preprocess import normalization_coefficients
from lbkit.core.records import record_to_mapping
from lbkit.errors import ConfigError
from lbkit.evaluation.pck import pck, relative_distances
from lbkit.models.checkpoint import Checkpoint, checkpoint_state, save_checkpoint, state_sha256
from training.config import Recipe
from training.dataset import CropDataset, DrawnBatches, SourcePeople, plain_batches
from training.ema import MovingAverage
from training.losses import JointsMSELoss
from training.precision import DTYPES, choose_precision
from training.state import Progress, RunState, load_state, save_state

log = logging.getLogger(__name__)

LOG_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The files of a run, all in one folder.

    Attributes:
        folder: The run's folder.
    """

    folder: Path

    @property
    def state(self) -> Path:
        """What a run resumes from."""
        return self.folder / "state.safetensors"

    @property
    def best(self) -> Path:
        """The averaged network with the best validation PCK."""
        return self.folder / "best.safetensors"

    @property
    def last(self) -> Path:
        """The averaged network after the last epoch."""
        return self.folder / "last.safetensors"

    @property
    def curves(self) -> Path:
        """One row an epoch."""
        return self.folder / "curves.csv"


CURVE_FIELDS = (
    "epoch",
    "seen",
    "seconds",
    *(
        f"{part}_{figure}"
        for part in ("train", "val")
        for figure in ("loss_fixed", "loss_visible", "pck@0.05", "pck@0.10")
    ),
)
"""The columns of the curve file."""


@dataclass(slots=True)
class Tally:
    """Losses a batch and relative distances a joint over the batches of one epoch."""

    loss_fixed: list[float] = field(default_factory=list)
    loss_visible: list[float] = field(default_factory=list)
    distances: list[NDArray[np.float64]] = field(default_factory=list)
    counted: list[NDArray[np.bool_]] = field(default_factory=list)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays by name, so that a stopped epoch's figures are not lost."""
        if not self.distances:
            return {}
        return {
            "losses": np.array([self.loss_fixed, self.loss_visible]),
            "distances": np.concatenate(self.distances),
            "counted": np.concatenate(self.counted),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Tally:
        """Return what `to_arrays` told."""
        if not arrays:
            return cls()
        fixed, visible = arrays["losses"].tolist()
        return cls(fixed, visible, [arrays["distances"]], [arrays["counted"]])

    def row(self, prefix: str) -> dict[str, float]:
        """Return the means as part of a row of the curve file."""
        distances, counted = np.concatenate(self.distances), np.concatenate(self.counted)
        return {
            f"{prefix}_loss_fixed": float(np.mean(self.loss_fixed)),
            f"{prefix}_loss_visible": float(np.mean(self.loss_visible)),
            f"{prefix}_pck@0.05": pck(distances, counted, threshold=0.05),
            f"{prefix}_pck@0.10": pck(distances, counted, threshold=0.10),
        }


class Trainer:
    """One training run on one device.

    Args:
        recipe: The recipe.
        module: The network at its start.
        contract: The bare network's contract, with the data of an earlier stage if there was one.
        sources: The people.
        folder: Where the run's files go.
        device: A PyTorch device.
        facts: What else the checkpoint should tell of its making.
    """

    def __init__(
        self,
        recipe: Recipe,
        module: nn.Module,
        *,
        contract: ModelContract,
        sources: Sequence[SourcePeople],
        folder: Path,
        device: torch.device,
        facts: Mapping[str, Any],
    ) -> None:
        self.recipe, self.contract, self.sources, self.device = recipe, contract, sources, device
        self.paths, self.facts = RunPaths(folder), dict(facts)
        self.module = module.to(device).to(memory_format=torch.channels_last)
        self.average = MovingAverage(self.module, decay=recipe.ema_decay)
        self.loss = JointsMSELoss(reduction=recipe.loss_reduction)
        self.optimizer = _optimizer(recipe, self.module)
        self.progress, self.tally = Progress(), Tally()
        people = [person for part in sources for person in part.training]
        self.repeats = np.array([part.source.repeat for part in sources for _ in part.training])
        plan = recipe.augmentation
        self.training = CropDataset(people, contract, recipe=recipe, augmentation=plan)
        held = [person for part in sources for person in part.validation]
        self.validation = CropDataset(held, contract, recipe=recipe, augmentation=None)
        scale, offset = normalization_coefficients(contract.input)
        self._scale = torch.from_numpy(scale).view(3, 1, 1).to(device)
        self._offset = torch.from_numpy(offset).view(3, 1, 1).to(device)
        self._dtype: torch.dtype | None = None
        self._last_log = self._last_save = time.monotonic()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch, by the recipe's shares."""
        return max(1, int(self.repeats.sum()) // self.recipe.batch_size)

    def resume(self) -> bool:
        """Go on from the run's state file if there is one."""
        if not self.paths.state.exists():
            return False
        state = load_state(self.paths.state, self.module, average=self.average.module, optimizer=self.optimizer)
        self._check_settings(state.settings)
        self.progress, self.tally = state.progress, Tally.from_arrays(state.tally)
        self.average.steps = self.progress.step
        self._dtype = DTYPES.get(state.settings["precision"])
        log.info("resumed at epoch %d, step %d", self.progress.epoch, self.progress.step)
        return True

    def run(self, *, max_minutes: float | None = None, save_minutes: float = 5.0) -> Path | None:
        """Train until the recipe's epochs or the minutes are over; return the best checkpoint, if there is one yet."""
        deadline = time.monotonic() + max_minutes * 60 if max_minutes else float("inf")
        self._last_save = time.monotonic()
        while self.progress.epoch < self.recipe.epochs:
            if not self._train_epoch(deadline, save_minutes * 60):
                break
            self._finish_epoch()
        return self.paths.best if self.paths.best.exists() else None

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step: linear rise, then a half cosine to a hundredth, or constant."""
        total = self.recipe.epochs * self.steps_per_epoch
        rise = max(1, int(total * self.recipe.warmup))
        if step < rise:
            return self.recipe.learning_rate * (step + 1) / rise
        if self.recipe.schedule == "constant":
            return self.recipe.learning_rate
        share = min(1.0, (step - rise) / max(1, total - rise))
        return float(self.recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * share))))

    def _train_epoch(self, deadline: float, save_seconds: float) -> bool:
        """Train on what is left of the epoch; return whether it came to its end."""
        progress = self.progress
        batches = DrawnBatches(
            self.repeats,
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            epoch=progress.epoch,
            skip=progress.batch,
        )
        waited, start = 0.0, time.monotonic()
        self.module.train()
        loader = iter(self._loader(self.training, batches))
        for done in range(1, len(batches) + 1):
            before = time.monotonic()
            batch = next(loader)
            waited += time.monotonic() - before
            self._step(batch)
            progress.seconds += time.monotonic() - before
            self._report(done, time.monotonic() - start, waited)
            is_late = time.monotonic() > deadline
            if is_late or time.monotonic() - self._last_save > save_seconds:
                self._save_state()
            if is_late:
                log.info("time is up at epoch %d, batch %d", progress.epoch, progress.batch)
                return False
        return True

    def _step(self, batch: Mapping[str, Tensor]) -> None:
        images, target = self._images(batch), batch["target"].to(self.device)
        weight = batch["weight"].to(self.device)
        if self._dtype is None:
            self._dtype = choose_precision(self.recipe.precision, self.module, images=images, targets=target)
        heatmaps = self._forward(self.module, images)
        loss = self.loss(heatmaps, target, weight)
        self.optimizer.zero_grad(set_to_none=True)
        (loss * self.recipe.loss_scale).backward()
        if self.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.progress.step)
        self.optimizer.step()
        self.average.update(self.module)
        self.progress.batch += 1
        self.progress.step += 1
        self.progress.seen += len(images)
        self._count(batch, heatmaps.detach(), self.tally)

    def _forward(self, module: nn.Module, images: Tensor) -> Tensor:
        dtype = self._dtype or torch.float32
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            heatmaps: Tensor = module(images)
        return heatmaps.float()

    def _images(self, batch: Mapping[str, Tensor]) -> Tensor:
        pixels = batch["image"].to(self.device, non_blocking=True).float()
        return (pixels * self._scale + self._offset).contiguous(memory_format=torch.channels_last)

    def _count(self, batch: Mapping[str, Tensor], heatmaps: Tensor, tally: Tally) -> None:
        target, weight = batch["target"].to(self.device), batch["weight"].to(self.device)
        with torch.no_grad():
            tally.loss_fixed.append(float(JointsMSELoss()(heatmaps, target, weight)))
            tally.loss_visible.append(float(JointsMSELoss(reduction="visible")(heatmaps, target, weight)))
        found = decode_heatmaps(heatmaps.cpu().numpy(), spec=self.training.spec)
        heights = batch["height"].numpy()
        distances = relative_distances(found[..., :2], batch["joints"].numpy(), heights_px=heights)
        tally.distances.append(distances)
        tally.counted.append(batch["labelled"].numpy())

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Return losses and PCK of the averaged network on the people kept for validation."""
        tally = Tally()
        batches = plain_batches(len(self.validation), self.recipe.batch_size)
        for batch in self._loader(self.validation, batches):
            self._count(batch, self._forward(self.average.module, self._images(batch)), tally)
        return tally.row("val")

    def _finish_epoch(self) -> None:
        progress = self.progress
        progress.epoch, progress.batch = progress.epoch + 1, 0
        row: dict[str, float] = {"epoch": progress.epoch, "seen": progress.seen, "seconds": round(progress.seconds, 1)}
        figures = self.validate() if len(self.validation) else {}
        row |= self.tally.row("train") | figures
        self.tally = Tally()
        self._write_curves(row)
        checkpoint = self._checkpoint(figures)
        save_checkpoint(self.paths.last, checkpoint)
        score = float(np.nan_to_num(figures.get("val_pck@0.05", 0.0)))
        if score >= progress.best_pck:
            progress.best_pck = score
            save_checkpoint(self.paths.best, checkpoint)
        self._save_state()
        log.info("epoch %d: %s", progress.epoch, json.dumps({k: round(v, 5) for k, v in row.items()}))

    def _checkpoint(self, figures: Mapping[str, float]) -> Checkpoint:
        state = checkpoint_state(self.average.module, half=True)
        names = (*self.contract.training_data, *(part.source.name for part in self.sources))
        data = tuple(dict.fromkeys(names))
        contract = self.contract.replace(weights_sha256=state_sha256(state), training_data=data)
        training = {
            **self.facts,
            "recipe": _portable(record_to_mapping(self.recipe)),
            "people": {part.source.name: len(part.training) for part in self.sources},
            "epochs": self.progress.epoch,
            "seen": self.progress.seen,
            "seconds": round(self.progress.seconds, 1),
            "validation": dict(figures),
        }
        return Checkpoint(contract, state, training)

    def _write_curves(self, row: Mapping[str, float]) -> None:
        """Add an epoch's row; a row of the same or a later epoch, left by a run that was killed, is replaced."""
        rows: list[Mapping[str, Any]] = []
        if self.paths.curves.exists():
            with self.paths.curves.open(newline="", encoding="utf-8") as file:
                rows = [old for old in csv.DictReader(file) if int(old["epoch"]) < row["epoch"]]
        with atomic_path(self.paths.curves) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=CURVE_FIELDS)
            writer.writeheader()
            writer.writerows([*rows, row])

    def _settings(self) -> dict[str, Any]:
        precision = next((name for name, dtype in DTYPES.items() if dtype == self._dtype), "")
        return {"recipe": record_to_mapping(self.recipe), "precision": precision}

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        """Refuse to go on by another recipe; only its number of epochs may change."""
        before, now = settings["recipe"], self._settings()["recipe"]
        changed = [key for key in now if key != "epochs" and before.get(key) != now[key]]
        if changed:
            raise ConfigError(
                f"the run was started by a recipe that differs in {', '.join(changed)}",
                where=self.paths.state,
                remedy="give the same recipe and --set, or another --output",
            )

    def _save_state(self) -> None:
        state = RunState(
            self.module, self.average.module, self.optimizer, self.progress, self.tally.to_arrays(), self._settings()
        )
        save_state(self.paths.state, state)
        self._last_save = time.monotonic()

    def _report(self, batches: int, seconds: float, waited: float) -> None:
        tally, now = self.tally, time.monotonic()
        if now - self._last_log < LOG_SECONDS:
            return
        self._last_log = now
        recent = slice(-50, None)
        near = np.concatenate(tally.distances[recent])
        score = pck(near, np.concatenate(tally.counted[recent]), threshold=0.05)
        log.info(
            "epoch %d batch %d/%d loss %.6f pck@0.05 %.3f rate %.2g, %.1f images/s, %.0f%% waiting for data",
            self.progress.epoch,
            self.progress.batch,
            self.steps_per_epoch,
            float(np.mean(tally.loss_fixed[recent])),
            score,
            self.learning_rate(self.progress.step),
            batches * self.recipe.batch_size / seconds,
            100 * waited / seconds,
        )

    def _loader(
        self, dataset: CropDataset, batches: DrawnBatches | list[list[tuple[int, int]]]
    ) -> Iterable[dict[str, Tensor]]:
        return DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=self.recipe.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_one_thread,
            prefetch_factor=4 if self.recipe.workers else None,
        )


def _portable(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe whose files are named without the folders of this machine."""
    return recipe | {key: Path(recipe[key]).name for key in ("backbone_weights", "init_from")}


def _one_thread(worker: int) -> None:  # noqa: ARG001
    """Keep a worker to one thread: the cores belong to the network."""
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _optimizer(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
