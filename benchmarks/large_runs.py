"""What large runs cost: plain inference, a run in parts, and a Ray cluster with two sessions, over the same pictures.

    python benchmarks/large_runs.py --photos FOLDER

What each figure means is in the README of this folder.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from machine import describe_machine
from measures import Measure
from picture_set import PictureSet, chosen_pictures, repeat_pictures
from publication import (
    model_option,
    output_option,
    photos_option,
    publish,
    quick_option,
    readme_option,
    refuse_partial_readme,
    run_record,
    shown_command,
)

from lbkit.core.pipeline import run_inference
from lbkit.core.results import ImageResult
from lbkit.runtime.loading import find_model, load_model
from lbkit.scale.ray_job import RayPlan, Work, ray_inference
from lbkit.scale.run import RunPlan, opened_run, run_parts

MARKS = "large_runs"
DIFFERENT = 60
WORKERS = 2
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        pictures: In each round, each way.
        rounds: How often.
        chunk: Pictures a Ray actor does at a time.
    """

    pictures: int
    rounds: int
    chunk: int


FULL = Scale(pictures=960, rounds=3, chunk=64)
QUICK = Scale(pictures=24, rounds=1, chunk=6)


@dataclass(frozen=True, slots=True)
class Timing:
    """One way in one round.

    Attributes:
        seconds: All of it.
        first_s: Until the first result.
        steady_rate: Pictures a second from the first result on.
    """

    seconds: float
    first_s: float
    steady_rate: float


def timed(infer: Callable[[Iterator[Path]], Iterator[ImageResult]], plan: RunPlan, pictures: list[Path]) -> Timing:
    """Do a run in parts and time it, and the results as they come."""
    times: list[float] = []

    def watched(listed: Iterator[Path]) -> Iterator[ImageResult]:
        for result in infer(listed):
            times.append(time.perf_counter())
            yield result

    started = time.perf_counter()
    with opened_run(plan, sources=lambda: pictures, resume=False) as manifest:
        done = run_parts(plan, manifest, infer=watched)
    if not done.is_complete or done.failures:
        raise click.ClickException(f"{plan.folder}: {done.done} of {done.pictures} pictures, {done.failures} failures")
    seconds = time.perf_counter() - started
    # Results of Ray come a chunk at a time: the rate begins after the first chunk.
    first = next((index for index, at in enumerate(times) if at - times[0] > 0.01), 0)
    return Timing(seconds, times[0] - started, (len(times) - first) / (times[-1] - times[max(first - 1, 0)]))


def measure(model: Path, pictures: PictureSet, scale: Scale, folder: Path) -> list[Measure]:
    """Run all ways in turns and return the figures."""
    links = repeat_pictures(pictures.paths, folder / "pictures", scale.pictures)
    estimator = load_model(model, streams=None)
    plain: list[float] = []
    parts: list[Timing] = []
    spread: list[Timing] = []
    list(run_inference(links[: scale.chunk], estimator, boxes="whole"))  # warm
    work = Work(model, "whole")
    for number in range(scale.rounds):
        started = time.perf_counter()
        for _ in run_inference(links, estimator, boxes="whole"):
            pass
        plain.append(time.perf_counter() - started)
        plans = [RunPlan(folder / f"{way}-{number}", {}, estimator.contract.keypoints) for way in ("parts", "ray")]
        parts.append(timed(lambda listed: run_inference(listed, estimator, boxes="whole"), plans[0], links))
        with ray_inference(work, RayPlan(actors=WORKERS, chunk=scale.chunk)) as infer:
            spread.append(timed(infer, plans[1], links))
        _compare(plans[0].folder, plans[1].folder)
    return _figures(scale, plain, parts, spread)


def _compare(one: Path, many: Path) -> None:
    for part in one.glob("part-*"):
        if part.read_text() != (many / part.name).read_text():
            raise click.ClickException(f"{part.name}: the cluster's results are not those of one machine")


def _figures(scale: Scale, plain: list[float], parts: list[Timing], spread: list[Timing]) -> list[Measure]:
    rates = tuple(scale.pictures / seconds for seconds in plain)
    ray_rates = tuple(timing.steady_rate for timing in spread)
    # Both ways use the whole machine, so the difference of their times a picture is what Ray costs.
    overhead = tuple(1000 * (1 / ray - 1 / alone) for ray, alone in zip(ray_rates, rates, strict=True))
    return [
        Measure("one machine", "run_inference", "pictures/s", rates),
        Measure("one machine", "a run in parts", "pictures/s", tuple(scale.pictures / run.seconds for run in parts)),
        Measure(
            "one machine",
            "a run in parts ÷ run_inference, time",
            "",
            tuple(run.seconds / alone for run, alone in zip(parts, plain, strict=True)),
            target=1.05,
        ),
        Measure("Ray", "until the first result, cluster there", "s", tuple(timing.first_s for timing in spread)),
        Measure("Ray", "two sessions of one thread, from then on", "pictures/s", ray_rates),
        Measure("Ray", "overhead a picture", "ms", overhead),
        Measure("cost", "a million pictures, one machine", "h", tuple(MILLION / rate / 3600 for rate in rates)),
        Measure("cost", "a million pictures, Ray", "h", tuple(MILLION / rate / 3600 for rate in ray_rates)),
    ]


@click.command()
@model_option
@photos_option
@output_option("large_runs")
@quick_option
@readme_option
def main(*, model: str, photos: Path | None, output: Path, quick: bool, readme: bool) -> None:
    """Measure what a run in parts and a Ray cluster cost."""
    refuse_partial_readme(readme=readme, quick=quick)
    machine, scale = describe_machine(), QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="lbkit-large-runs-") as folder:
        count = min(DIFFERENT, scale.pictures)
        pictures = chosen_pictures(photos, Path(folder), count)
        rows = measure(find_model(model).resolve(), pictures, scale, Path(folder))
    command = shown_command("large_runs", model=model, photos=photos, quick=quick)
    record = run_record(
        command,
        machine,
        model=find_model(model).name,
        pictures=str(pictures),
        rounds=scale.rounds,
        count=scale.pictures,
    )
    notes = [
        f"Model {record['model']}, whole picture as the box; {pictures}, repeated to {scale.pictures}; "
        f"{scale.rounds} rounds."
    ]
    publish(record, rows, output=output, readme=readme, name=MARKS, notes=notes)


if __name__ == "__main__":
    main()
