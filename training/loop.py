"""The training loop: steps, validation, curves, checkpoints."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lbkit.core.codec import decode_heatmaps
from lbkit.core.contract import ModelContract
from lbkit.core.files import remove_leftovers
from lbkit.core.pipeline import single_threaded_opencv
from lbkit.core.records import record_to_mapping
from lbkit.errors import ConfigError, InputError, LbkitError, MissingDependencyError, OutputError
from lbkit.evaluation.pck import relative_distances
from lbkit.models.checkpoint import Checkpoint, checkpoint_state, save_checkpoint, state_sha256
from lbkit.scale.sole_use import sole_use
from training.config import Recipe
from training.curve_figures import refresh_curve_figures
from training.curves import EventLog, Tally, write_row
from training.dataset import CropDataset, DrawnBatches, plain_batches
from training.distributed import ALONE, Processes
from training.learner import Learner
from training.people import SourcePeople, people_sha256
from training.schedule import learning_rate
from training.state import Progress, RunState, load_state, read_settings, save_state

log = logging.getLogger(__name__)

T = TypeVar("T")

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

    @property
    def events(self) -> Path:
        """The folder of TensorBoard's files."""
        return self.folder / "tensorboard"

    def clear_leftovers(self) -> None:
        """Remove the halves of files that a killed run left."""
        for path in (self.state, self.best, self.last, self.curves):
            remove_leftovers(path)


class Trainer:
    """One training run on one device, alone or as one of several processes.

    Args:
        recipe: The recipe.
        module: The network at its start.
        contract: The bare network's contract, with the data of an earlier stage if there was one.
        sources: The people.
        folder: Where the run's files go.
        device: A PyTorch device.
        facts: What else the checkpoint should tell of its making.
        processes: This process among those of the run.

    Raises:
        ConfigError: The batch cannot be shared equally by the processes, or is larger than an epoch.
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
        processes: Processes = ALONE,
    ) -> None:
        self.recipe, self.contract, self.sources, self.processes = recipe, contract, sources, processes
        self.paths, self.facts = RunPaths(folder), dict(facts)
        self.learner = Learner(recipe, module, contract=contract, device=device, processes=processes)
        self.progress, self.tally = Progress(), Tally()
        people = [person for part in sources for person in part.training]
        self.repeats = np.array([part.source.repeat for part in sources for _ in part.training])
        self._check_batch()
        self._people_sha256 = people_sha256(sources)
        self.training = CropDataset(people, contract, recipe=recipe, augmentation=recipe.augmentation)
        held = [person for part in sources for person in part.validation]
        self.validation = CropDataset(held, contract, recipe=recipe, augmentation=None)
        self._events: EventLog | None = None
        self._last_log = self._last_save = time.monotonic()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch, by the recipe's shares."""
        return int(self.repeats.sum()) // self.recipe.batch_size

    @property
    def is_over(self) -> bool:
        """Whether the recipe's epochs are done, or validation has not improved for its patience."""
        stale = self.progress.epoch - self.progress.best_epoch
        is_stale = bool(self.recipe.patience) and len(self.validation) > 0 and stale >= self.recipe.patience
        return self.progress.epoch >= self.recipe.epochs or is_stale

    def _check_batch(self) -> None:
        size, count = self.recipe.batch_size, self.processes.count
        if size % count:
            raise ConfigError(
                f"a batch of {size} cannot be shared equally by {count} processes",
                remedy=f"--set batch_size={-(-size // count) * count}",
            )
        if not self.steps_per_epoch:
            raise ConfigError(
                f"a batch of {size} is more than an epoch's {self.repeats.sum():g} crops",
                remedy="lower batch_size, or raise a source's repeat",
            )

    def resume(self) -> bool:
        """Go on from the run's state file if there is one; it may come from another number of processes."""
        if not self.paths.state.exists():
            return False
        learner = self.learner
        self._check_settings(read_settings(self.paths.state))
        state = load_state(
            self.paths.state, learner.module, average=learner.average.module, optimizer=learner.optimizer
        )
        self.progress = state.progress
        # What was counted is shared out by one process alone, so that nothing is counted twice.
        self.tally = Tally.from_arrays(state.tally) if self.processes.is_first else Tally()
        learner.average.steps = self.progress.step
        if state.settings["precision"]:
            learner.use_precision(state.settings["precision"])
            learner.scaler.load_state_dict(state.settings["scaler"])
        log.info("resumed at epoch %d, step %d", self.progress.epoch, self.progress.step)
        return True

    def run(self, *, max_minutes: float | None = None, save_minutes: float = 5.0) -> Path | None:
        """Train until the recipe's epochs or the minutes are over; return the best checkpoint, if there is one yet.

        Raises:
            OutputError: The folder cannot be written to, another run is at work in it, or it holds checkpoints without
                the state that they came from.
        """
        if not self.processes.is_first:
            return self._run(max_minutes, save_minutes)
        with sole_use(self.paths.folder, work="training", option="--output"):
            self.paths.clear_leftovers()
            if not self.paths.state.exists():
                self._begin()
            return self._run(max_minutes, save_minutes)

    def _begin(self) -> None:
        """Write the state of step 0: a disk that takes nothing shows at once, and no checkpoint lacks a state."""
        for path in (self.paths.best, self.paths.last):
            if path.exists():
                remedy = "move it away, or give another --output"
                raise OutputError("is there, and no state to go on from", where=path, remedy=remedy)
        self._write_state(self.tally)

    def _run(self, max_minutes: float | None, save_minutes: float) -> Path | None:
        deadline = time.monotonic() + max_minutes * 60 if max_minutes else float("inf")
        self._last_save = time.monotonic()
        if self.is_over:
            done, wanted = self.progress.epoch, self.recipe.epochs
            log.info("nothing to do: %d epochs are done, and the recipe asks for %d", done, wanted)
        while not self.is_over:
            if not self._train_epoch(deadline, save_minutes * 60):
                break
            self._finish_epoch()
        if self.progress.epoch < self.recipe.epochs and self.is_over:
            log.info("stopped early: no better validation for %d epochs", self.recipe.patience)
        return self.paths.best if self.paths.best.exists() else None

    def _train_epoch(self, deadline: float, save_seconds: float) -> bool:
        """Train on what is left of the epoch; return whether it came to its end."""
        progress = self.progress
        batches = DrawnBatches(
            self.repeats,
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            epoch=progress.epoch,
            skip=progress.batch,
            processes=self.processes,
        )
        self.learner.module.train()
        loader = self._loader(self.training, batches)
        for _ in range(len(batches)):
            before = time.monotonic()
            batch = next(loader)
            waited = time.monotonic() - before
            self._step(batch)
            progress.count(seconds=time.monotonic() - before, waited=waited, images=self.recipe.batch_size)
            self._report()
            if self._pause(deadline, save_seconds):
                log.info("time is up at epoch %d, batch %d", progress.epoch, progress.batch)
                return False
        return True

    def _step(self, batch: Mapping[str, Tensor]) -> None:
        rate = learning_rate(self.recipe, self.progress.step, steps=self.recipe.epochs * self.steps_per_epoch)
        self._count(batch, self.learner.step(batch, rate=rate), self.tally)
        # In half precision single steps may overflow; the scaler leaves them out.
        if not (math.isfinite(self.tally.loss_fixed[-1]) or self.learner.scaler.is_enabled()):
            raise ConfigError(
                f"the loss is not a finite number any more (epoch {self.progress.epoch}, batch {self.progress.batch})",
                where=self.paths.folder,
                remedy="start anew with a lower learning_rate or with clip_norm",
            )

    def _pause(self, deadline: float, save_seconds: float) -> bool:
        """Save the state when it is due, and return whether the time is up; the first process's clock decides."""
        now = time.monotonic()
        is_late, is_due = now > deadline, now - self._last_save > save_seconds
        if self.processes.count > 1:
            told = self.processes.told_by_first(2 * is_late + is_due)
            is_late, is_due = bool(told & 2), bool(told & 1)
        if is_late or is_due:
            self._save_state()
        return is_late

    def _count(self, batch: Mapping[str, Tensor], heatmaps: Tensor, tally: Tally) -> None:
        found = decode_heatmaps(heatmaps.cpu().numpy(), spec=self.training.spec)
        heights = batch["height"].numpy()
        distances = relative_distances(found[..., :2], batch["joints"].numpy(), heights_px=heights)
        unread = int((~batch["is_read"]).sum())
        tally.add(self.learner.losses(heatmaps, batch), distances, batch["labelled"].numpy(), unread=unread)

    def validate(self) -> dict[str, float]:
        """Return losses and PCK of the averaged network on the people kept for validation, over all processes."""
        tally = Tally()
        batches = plain_batches(len(self.validation), self.recipe.batch_size)
        for batch in self._loader(self.validation, self.processes.share_of(batches)):
            self._count(batch, self.learner.answer(batch), tally)
        return self._gathered(tally, "validation").row("val")

    def _gathered(self, tally: Tally, part: str) -> Tally:
        """Return all processes' tallies of an epoch as one, and say how many of its crops are blank."""
        whole = Tally.merged(self.processes.gathered(tally))
        if whole.unread and self.processes.is_first:
            log.warning("%d of %d crops in %s are blank", whole.unread, len(whole.loss_fixed), part)
        return whole

    def _finish_epoch(self) -> None:
        progress = self.progress
        progress.epoch, progress.batch = progress.epoch + 1, 0
        figures = self.validate() if len(self.validation) else {}
        counted = self._gathered(self.tally, "training")
        row = {**self._epoch_facts(), **counted.row("train"), **figures}
        self.tally = Tally()
        score = float(np.nan_to_num(figures.get("val_pck@0.05", 0.0)))
        is_best = score >= progress.best_pck
        if score > progress.best_pck:
            progress.best_pck, progress.best_epoch = score, progress.epoch
        progress.start_epoch()
        if self.processes.is_first:
            self._write_epoch(row, is_best=is_best)
        self._save_state()
        log.info("epoch %d: %s", progress.epoch, json.dumps({k: round(v, 5) for k, v in row.items()}))

    def _epoch_facts(self) -> dict[str, float]:
        progress = self.progress
        steps = self.recipe.epochs * self.steps_per_epoch
        return {
            "epoch": progress.epoch,
            "seen": progress.seen,
            "seconds": round(progress.seconds, 1),
            "images_per_s": round(progress.epoch_images / max(progress.epoch_seconds, 1e-9), 2),
            "waiting": round(progress.epoch_waited / max(progress.epoch_seconds, 1e-9), 4),
            "learning_rate": learning_rate(self.recipe, progress.step - 1, steps=steps),
        }

    def _write_epoch(self, row: Mapping[str, float], *, is_best: bool) -> None:
        write_row(self.paths.curves, row)
        try:
            refresh_curve_figures(self.paths.folder)
        except (InputError, MissingDependencyError, OutputError) as error:  # figures are no reason to lose a training
            log.warning("no figures of the curves: %s", error)
        self._events = self._events or EventLog(self.paths.events, epoch=self.progress.epoch - 1)
        self._events.add(row)
        checkpoint = self._checkpoint({name: value for name, value in row.items() if name.startswith("val_")})
        save_checkpoint(self.paths.last, checkpoint)
        if is_best:
            save_checkpoint(self.paths.best, checkpoint)

    def _checkpoint(self, figures: Mapping[str, float]) -> Checkpoint:
        state = checkpoint_state(self.learner.average.module, half=True)
        names = (*self.contract.training_data, *(part.source.name for part in self.sources))
        data = tuple(dict.fromkeys(names))
        contract = self.contract.replace(weights_sha256=state_sha256(state), training_data=data)
        training = {
            **self.facts,
            "recipe": _portable(record_to_mapping(self.recipe)),
            "precision": self.learner.precision,
            "people": {part.source.name: len(part.training) for part in self.sources},
            "left_out": {part.source.name: dict(part.left_out) for part in self.sources},
            "epochs": self.progress.epoch,
            "seen": self.progress.seen,
            "seconds": round(self.progress.seconds, 1),
            "validation": dict(figures),
        }
        return Checkpoint(contract, state, training)

    def _settings(self) -> dict[str, Any]:
        learner = self.learner
        return {
            "recipe": record_to_mapping(self.recipe),
            "precision": learner.precision,
            "scaler": learner.scaler.state_dict(),
            "people_sha256": self._people_sha256,
        }

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        """Refuse to go on by another recipe or on other people; only the number of epochs may change."""
        own = self._settings()
        before, now = settings["recipe"], own["recipe"]
        changed = [key for key in now if key != "epochs" and before.get(key) != now[key]]
        if changed:
            raise ConfigError(
                f"the run was started by a recipe that differs in {', '.join(changed)}",
                where=self.paths.state,
                remedy="give the same recipe and --set, or another --output",
            )
        if settings.get("people_sha256", own["people_sha256"]) != own["people_sha256"]:
            raise ConfigError(
                "the run was started on other people: an annotation file or the pictures there are have changed",
                where=self.paths.state,
                remedy="give the same data, or another --output",
            )

    def _save_state(self) -> None:
        tally = Tally.merged(self.processes.gathered(self.tally))
        self._last_save = time.monotonic()
        if self.processes.is_first:
            self._write_state(tally)

    def _write_state(self, tally: Tally) -> None:
        learner = self.learner
        state = RunState(
            learner.module,
            learner.average.module,
            learner.optimizer,
            self.progress,
            tally.to_arrays(),
            self._settings(),
        )
        save_state(self.paths.state, state)

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._last_log < LOG_SECONDS:
            return
        self._last_log = now
        progress = self.progress
        loss, score = self.tally.recent(50 * self.recipe.batch_size // self.processes.count)
        log.info(
            "epoch %d batch %d/%d loss %.6f pck@0.05 %.3f, %.1f images/s, %.0f%% waiting for data",
            progress.epoch,
            progress.batch,
            self.steps_per_epoch,
            loss,
            score,
            progress.epoch_images / progress.epoch_seconds,
            100 * progress.epoch_waited / progress.epoch_seconds,
        )

    def _loader(
        self, dataset: CropDataset, batches: DrawnBatches | Sequence[list[tuple[int, int]]]
    ) -> Iterator[dict[str, Tensor]]:
        loader = DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=self.recipe.workers,
            pin_memory=self.learner.device.type == "cuda",
            worker_init_fn=_one_thread,
            prefetch_factor=4 if self.recipe.workers else None,
        )
        return _with_own_errors(loader)


def _with_own_errors(batches: Iterable[T]) -> Iterator[T]:
    """Pass batches on; what a worker raised comes with its traceback as text, and is raised again in its own words."""
    try:
        # A worker forked while OpenCV has threads would wait for threads that it does not have.
        with single_threaded_opencv():
            yield from batches
    except LbkitError as error:
        lines = str(error).splitlines()
        if len(lines) == 1:
            raise
        raise type(error)(lines[-1].partition(": ")[2]) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        problem = f"a process that prepares crops came to an end ({str(error).splitlines()[0]})"
        raise InputError(problem, remedy="give it memory and /dev/shm, or fewer workers") from error


def _portable(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe whose files are named without the folders of this machine."""
    return recipe | {key: Path(recipe[key]).name for key in ("backbone_weights", "init_from")}


def _one_thread(worker: int) -> None:  # noqa: ARG001
    """Keep a worker to one thread: the cores belong to the network."""
    import cv2

    if cv2.getNumThreads() != 1:  # a spawned worker's own; a forked one must not touch its parent's threads
        cv2.setNumThreads(1)
    torch.set_num_threads(1)
