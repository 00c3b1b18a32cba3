"""Models by runners by batch sizes: answers compared with the reference first, then timed."""

from __future__ import annotations

import itertools
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit.bench.cold import ColdStart, cold_start, to_dict
from lbkit.bench.pictures import readable_pictures, rendered_pictures, run_once
from lbkit.bench.runners import TORCH_RUNNERS, arithmetic_of, load_runner
from lbkit.bench.timing import STAGES, SideBySide, StageTimes, time_side_by_side, time_stages
from lbkit.core.backend import Backend, ModelOutput, RuntimeBackend
from lbkit.core.boxes import whole_image_box
from lbkit.core.contract import ModelContract
from lbkit.core.estimator import MAX_BATCH_SIZE, PoseEstimator
from lbkit.core.geometry import ImageSize
from lbkit.core.images import read_image
from lbkit.core.pipeline import single_threaded_opencv
from lbkit.core.preprocess import crop_person
from lbkit.core.threads import checked_threads
from lbkit.errors import ConfigError, LbkitError
from lbkit.runtime.agreement import disagreement, person_crops
from lbkit.runtime.backends import load_backend
from lbkit.runtime.loading import find_model
from lbkit.runtime.streams import SIDE_BY_SIDE, checked_streams

logger = logging.getLogger(__name__)

DEFAULT_BATCHES = (1, 8, 32)
COMPARED = 4
"""Pictures whose crops the answers are compared on, besides as many rendered people."""

MOST_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What to measure.

    Attributes:
        models: Names or files.
        runners: Providers, and PyTorch's ways (`lbkit.bench.runners`).
        batches: People in a batch.
        seconds: How long each row is timed, about; once more so long in streams.
        threads: Threads of the model; what CPU affinity and cgroup grant when None.
        pictures: A folder of photographs; rendered figures when None.
        cold: Whether to start a process of its own for each model and runner.
    """

    models: tuple[str, ...]
    runners: tuple[str, ...] = ("cpu",)
    batches: tuple[int, ...] = DEFAULT_BATCHES
    seconds: float = 2.0
    threads: int | None = None
    pictures: Path | None = None
    cold: bool = True

    def __post_init__(self) -> None:
        if not self.models or not self.runners or not self.batches:
            raise ConfigError("there is nothing to measure", remedy="give models, runners and batch sizes")
        if not all(1 <= batch <= MAX_BATCH_SIZE for batch in self.batches):
            raise ConfigError(f"batches must be at least 1 and at most {MAX_BATCH_SIZE}, got {self.batches}")
        if not 0 < self.seconds <= MOST_SECONDS:
            raise ConfigError(f"seconds must be above 0 and at most {MOST_SECONDS:g}, got {self.seconds}")


@dataclass(frozen=True, slots=True, eq=False)
class BenchRow:
    """One model on one runner with one batch size, or why it was not measured.

    Attributes:
        model: The model as asked for.
        precision: Arithmetic of the file.
        runner: What ran it; for "auto" what that chose.
        batch: People in a batch.
        times: What the stages took; None if there is a problem.
        cold: What a fresh process needed; None where it was not measured.
        side_by_side: The model in several streams of the same threads; None where it takes one alone.
        problem: Why it was not measured; empty if it was.
        is_wrong: Whether the problem is that the answers are not the reference's.
    """

    model: str
    precision: str
    runner: str
    batch: int
    times: StageTimes | None
    cold: ColdStart | None = None
    side_by_side: SideBySide | None = None
    problem: str = ""
    is_wrong: bool = False

    def __post_init__(self) -> None:
        if (self.times is None) != bool(self.problem):
            raise ValueError("a row has either times or a problem")

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON can hold it."""
        record: dict[str, Any] = {
            "model": self.model,
            "precision": self.precision,
            "runner": self.runner,
            "batch": self.batch,
            "problem": self.problem or None,
        }
        if self.times is None:
            return record
        record |= {
            f"{stage}_ms": {f"p{percent}": self.times.percentile_ms(stage, percent) for percent in (50, 95, 99)}
            for stage in (*STAGES, "total")
        }
        return record | {
            "runs": self.times.runs,
            "model_people_per_s": self.times.people_per_second("model"),
            "total_people_per_s": self.times.people_per_second("total"),
            "drift": self.times.drift,
            "cold": to_dict(self.cold),
            "side_by_side": None if self.side_by_side is None else asdict(self.side_by_side),
        }


def run_bench(plan: BenchPlan) -> Iterator[BenchRow]:
    """Measure, giving each row as it is done; a runner that cannot run or answers wrongly is a row with its problem.

    Raises:
        LbkitError: A model cannot be loaded on the CPU, which gives the reference, or there are no pictures.
    """
    with tempfile.TemporaryDirectory(prefix="lbkit-bench-") as folder, single_threaded_opencv():
        given = plan.pictures
        pictures = rendered_pictures(Path(folder)) if given is None else readable_pictures(given)
        for model in plan.models:
            yield from _model_rows(plan, model, pictures)


def _model_rows(plan: BenchPlan, model: str, pictures: Sequence[Path]) -> Iterator[BenchRow]:
    path = find_model(model)
    reference = load_backend(path, threads=plan.threads)
    crops = _compared_crops(reference.contract, pictures)
    expected = reference.run(crops)
    contract = reference.contract
    del reference  # its threads would spin beside those that are timed
    for runner in plan.runners:
        try:
            backend = load_runner(path, runner, threads=plan.threads)
            name = str(getattr(backend, "provider", runner)) if runner not in TORCH_RUNNERS else runner
            _require_agreement(backend, name, crops, expected)
            cold = cold_start(path, name, batch=max(plan.batches), threads=plan.threads) if plan.cold else None
        except LbkitError as error:
            wrong = isinstance(error, _WrongAnswerError)
            yield BenchRow(model, contract.precision, runner, 0, None, problem=str(error), is_wrong=wrong)
            continue
        streamed = _load_streams(path, name, threads=plan.threads)
        for batch in plan.batches:
            row = partial(BenchRow, model, contract.precision, name, batch)
            try:
                times = _time_batches(backend, pictures, batch=batch, seconds=plan.seconds)
            except LbkitError as error:  # out of memory, for example
                yield row(None, problem=str(error))
            else:
                yield row(times, cold, _time_streams(streamed, crops, batch=batch, seconds=plan.seconds))


def _time_batches(backend: Backend, pictures: Sequence[Path], *, batch: int, seconds: float) -> StageTimes:
    estimator = PoseEstimator(backend, batch_size=batch)
    first = itertools.count(step=batch)

    def run() -> tuple[float, ...]:
        return run_once(estimator, pictures, first=next(first), count=batch)

    return time_stages(run, people=batch, seconds=seconds)


def _load_streams(path: Path, runner: str, *, threads: int | None) -> RuntimeBackend | None:
    """Return the model as `lbkit infer` runs it over many pictures, if that is in more than one stream."""
    if runner not in SIDE_BY_SIDE or checked_streams(None, provider=runner, threads=checked_threads(threads)) == 1:
        return None
    return load_backend(path, provider=runner, threads=threads, streams=None)


def _time_streams(
    backend: RuntimeBackend | None, crops: NDArray[np.uint8], *, batch: int, seconds: float
) -> SideBySide | None:
    """Time the model alone in streams; None where there are none or the memory does not hold so many batches."""
    if backend is None:
        return None
    run = partial(backend.run, np.resize(crops, (batch, *crops.shape[1:])))
    try:
        return time_side_by_side(run, streams=backend.streams, people=batch, seconds=seconds)
    except LbkitError as error:
        logger.warning("%d batches of %d side by side were not timed: %s", backend.streams, batch, error)
        return None


class _WrongAnswerError(LbkitError):
    """A runner's answers are not the reference's."""


def _require_agreement(backend: Backend, runner: str, crops: NDArray[np.uint8], expected: ModelOutput) -> None:
    contract = backend.contract
    output = backend.run(crops)
    problem = disagreement(output, expected, contract=contract, arithmetic=arithmetic_of(contract, runner))
    if problem is not None:
        raise _WrongAnswerError(f"{runner} was not timed: {problem}", remedy="run `lbkit doctor`")


def _compared_crops(contract: ModelContract, pictures: Sequence[Path]) -> NDArray[np.uint8]:
    crops = []
    for path in pictures[:COMPARED]:
        image = read_image(path)
        crops.append(crop_person(image, whole_image_box(ImageSize.of(image)), contract=contract)[0])
    return np.concatenate([np.stack(crops), person_crops(contract, COMPARED)])
