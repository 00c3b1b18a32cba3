"""How the cost grows with the people in a batch, with threads and with pictures; and a start against importing torch.

    python benchmarks/growth.py --readme

What each figure means is in the README of this folder.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import describe_machine
from measures import Measure
from picture_set import rendered_figures, repeat_pictures
from publication import (
    model_option,
    output_option,
    publish,
    quick_option,
    readme_option,
    refuse_partial_readme,
    run_record,
    shown_command,
)
from whole_process import ProcessCost, lbkit_command, run_process

from lbkit.core.backend import Backend
from lbkit.core.threads import thread_limits
from lbkit.runtime.agreement import sample_crops
from lbkit.runtime.backends import load_backend
from lbkit.runtime.loading import find_model

MARKS = "growth"

SETTLE_S = 0.01
"""Between runs, so that one session's threads have stopped spinning when the next one's begin."""

TOLERATED_GROWTH = 1.1
"""A picture among many may cost this many times what one of the fewest costs."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        batches: People in a batch, rising from 1.
        rounds: Rounds over all of them, and over the numbers of threads.
        pictures: Numbers of pictures, rising.
        starts: Processes of each kind.
    """

    batches: tuple[int, ...]
    rounds: int
    pictures: tuple[int, ...]
    starts: int


FULL = Scale(batches=(1, 2, 4, 8, 16, 32, 64), rounds=9, pictures=(100, 1000, 10_000), starts=5)
QUICK = Scale(batches=(1, 3), rounds=2, pictures=(3, 6), starts=1)


@dataclass(frozen=True, slots=True)
class Bench:
    """What all sections work with.

    Attributes:
        model: An ONNX file.
        provider: Where it runs.
        scale: How much is measured.
        folder: Holds temporary files.
    """

    model: Path
    provider: str
    scale: Scale
    folder: Path


def measure_batches(bench: Bench) -> list[Measure]:
    """Measure the model alone with more and more people a batch, all sizes in turn in each round."""
    backend = load_backend(bench.model, provider=bench.provider)
    crops = {size: sample_crops(backend.contract, size) for size in bench.scale.batches}
    seconds = {size: list[float]() for size in crops}
    for index in range(bench.scale.rounds + 1):
        for size, batch in crops.items():
            took = _time_run(backend, batch)
            if index:  # the first round allocates memory
                seconds[size].append(took)
    one = np.array(seconds[1])
    rows = [
        Measure("batch", f"{size} people, ms a person", "ms", tuple(1e3 * took / size for took in seconds[size]))
        for size in crops
    ]
    ratios = [
        Measure("batch", f"{size} people, share of a batch of 1", "", tuple(np.array(seconds[size]) / size / one))
        for size in list(crops)[1:]
    ]
    return [*rows, *ratios]


def _time_run(backend: Backend, crops: Any) -> float:
    time.sleep(SETTLE_S)
    started = time.perf_counter()
    backend.run(crops)
    return time.perf_counter() - started


def measure_threads(bench: Bench) -> list[Measure]:
    """Measure the model alone with one thread and with more, in turn in each round."""
    counts = sorted({1, min(2, thread_limits().threads), thread_limits().threads})
    backends = {count: load_backend(bench.model, provider=bench.provider, threads=count) for count in counts}
    crops = sample_crops(backends[1].contract, min(8, bench.scale.batches[-1]))
    seconds = {count: list[float]() for count in counts}
    for index in range(bench.scale.rounds + 1):
        for count, backend in backends.items():
            took = _time_run(backend, crops)
            if index:
                seconds[count].append(took)
    one = np.array(seconds[1])
    rows = [
        Measure(
            "threads", f"{count} threads, batch of {len(crops)}", "ms", tuple(1e3 * took for took in seconds[count])
        )
        for count in counts
    ]
    return [
        *rows,
        *(
            Measure("threads", f"{count} threads, times faster", "", tuple(one / seconds[count]))
            for count in counts[1:]
        ),
    ]


def measure_pictures(bench: Bench) -> list[Measure]:
    """Measure `lbkit infer`, one box a picture, over more and more pictures: time and work a picture, and memory."""
    pictures = rendered_figures(bench.folder / "figures", min(50, bench.scale.pictures[0]))
    costs = {count: _infer_cost(bench, pictures.paths, count) for count in bench.scale.pictures}
    rows = []
    for count, cost in costs.items():
        rows.append(Measure("pictures", f"{count}: ms a picture", "ms", (1e3 * cost.seconds / count,)))
        rows.append(Measure("pictures", f"{count}: ms of work a picture", "ms", (1e3 * cost.cpu_seconds / count,)))
        rows.append(Measure("pictures", f"{count}: peak memory", "MB", (cost.peak_bytes / 1e6,)))
    fewest, most = min(costs), max(costs)
    work = (costs[most].cpu_seconds / most) / (costs[fewest].cpu_seconds / fewest)
    name = f"work a picture, {most} against {fewest}"
    return [*rows, Measure("pictures", name, "", (work,), TOLERATED_GROWTH)]


def _infer_cost(bench: Bench, pictures: Sequence[Path], count: int) -> ProcessCost:
    click.echo(f"pictures: {count}", err=True)
    folder, output = bench.folder / f"pictures-{count}", bench.folder / f"pictures-{count}.jsonl"
    repeat_pictures(pictures, folder, count)
    options = ["--model", bench.model, "--provider", bench.provider, "--boxes", "whole", "--output", output]
    cost = run_process(lbkit_command("infer", folder, *options))
    with output.open(encoding="utf-8") as lines:
        found = sum(1 for _ in lines)
    if found != count:
        raise click.ClickException(f"the results are wrong: {count} pictures gave {found} lines")
    return cost


def measure_cold(bench: Bench) -> list[Measure]:
    """Measure whole processes: `lbkit infer` on one picture, and importing torch, where it is installed."""
    (picture,) = rendered_figures(bench.folder / "one", 1).paths
    infer = lbkit_command("infer", picture, "--model", bench.model, "--provider", bench.provider)
    commands = {"lbkit infer one.jpg": infer}
    if find_spec("torch") is not None:
        commands["python -c 'import torch'"] = [sys.executable, "-c", "import torch"]
    costs: dict[str, list[ProcessCost]] = {name: [] for name in commands}
    for index in range(bench.scale.starts + 1):
        for name, command in commands.items():
            cost = run_process(command)
            if index:  # the first fills the system's cache
                costs[name].append(cost)
    rows = []
    for name, each in costs.items():
        rows.append(Measure("cold", f"{name}: time", "s", tuple(cost.seconds for cost in each)))
        rows.append(Measure("cold", f"{name}: work", "s", tuple(cost.cpu_seconds for cost in each)))
        rows.append(Measure("cold", f"{name}: peak memory", "MB", tuple(cost.peak_bytes / 1e6 for cost in each)))
    return rows


SECTIONS: dict[str, Callable[[Bench], list[Measure]]] = {
    "batch": measure_batches,
    "threads": measure_threads,
    "pictures": measure_pictures,
    "cold": measure_cold,
}


@click.command()
@model_option
@click.option("--provider", default="cpu", show_default=True, help="Where it runs.")
@output_option("growth")
@click.option(
    "--section", "sections", multiple=True, type=click.Choice(list(SECTIONS)), help="Measure only this; repeatable."
)
@quick_option
@readme_option
def main(*, model: str, provider: str, output: Path, sections: tuple[str, ...], quick: bool, readme: bool) -> None:
    """Measure how the cost grows with people, threads and pictures, and what a start costs."""
    chosen = [name for name in SECTIONS if not sections or name in sections]
    refuse_partial_readme(readme=readme, quick=quick, section=len(chosen) < len(SECTIONS))
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="lbkit-growth-") as folder:
        bench = Bench(find_model(model).resolve(), provider, QUICK if quick else FULL, Path(folder))
        measures = [measure for name in chosen for measure in SECTIONS[name](bench)]
    command = shown_command(
        "growth", model=model, provider=None if provider == "cpu" else provider, section=sections, quick=quick
    )
    settings = {"model": bench.model.name, "provider": provider}
    notes = [f"Model {bench.model.name} on {provider}."]
    record = run_record(command, machine, settings=settings)
    publish(record, measures, output=output, readme=readme, name=MARKS, notes=notes)


if __name__ == "__main__":
    main()
