"""What inference costs: the start of the command, a picture's way through it, and memory as the pictures grow many.

    python benchmarks/infer_cost.py --photos FOLDER

What each figure means is in the README of this folder. A missed target is told and the exit code stays 0; wrong
results are an error.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from inference_parts import Apart, Spent, Whole, measure_apart, measure_whole, warm_up
from machine import describe_machine, machine_words
from measures import Measure
from numpy.typing import NDArray
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
from whole_process import ProcessCost, lbkit_command, run_process

from lbkit.core.estimator import PoseEstimator
from lbkit.core.pipeline import default_readers
from lbkit.runtime.loading import find_model, load_model

HELP_TARGET_S = 0.2
START_TARGET_S = 1.0
RATIO_TARGET = 1.15
MODEL_SHARE_TARGET = 0.85
GROWTH_TARGET_PERCENT = 5.0

MEMORY_PICTURES = 100
"""So many different pictures are repeated in the memory section, so that its first count has already seen them all."""

SAME_PX = 0.01
"""Joints and scores that are this near are the same: JSON lines are rounded to a thousandth."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        starts: Processes of each kind for the start.
        pictures: Pictures for the throughput.
        rounds: Rounds of the throughput.
        memory: Numbers of pictures for the memory, rising.
    """

    starts: int
    pictures: int
    rounds: int
    memory: tuple[int, ...]


FULL = Scale(starts=10, pictures=500, rounds=5, memory=(100, 1000, 5000))
QUICK = Scale(starts=2, pictures=10, rounds=1, memory=(4, 12))


@dataclass(frozen=True, slots=True)
class Bench:
    """What all sections work with.

    Attributes:
        model: An ONNX file.
        pictures: What is measured on.
        scale: How much is measured.
        folder: Holds temporary files.
    """

    model: Path
    pictures: PictureSet
    scale: Scale
    folder: Path


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """One round of the throughput.

    Attributes:
        apart: The parts by themselves.
        in_process: `run_inference` with the whole picture as the box.
        command: `lbkit infer`, less its start.
        auto: `run_inference` looking for the person.
    """

    apart: Apart
    in_process: Whole
    command: Spent
    auto: Whole

    @property
    def in_process_ratio(self) -> Spent:
        """The library over the sum of the parts."""
        return self.in_process.spent / self.apart.sum

    @property
    def command_ratio(self) -> Spent:
        """The command over the sum of the parts."""
        return self.command / self.apart.sum

    @property
    def auto_ratio(self) -> Spent:
        """The search over reading once, and warping and model as often as it looked."""
        looks = self.auto.looks / len(self.auto.results)
        return self.auto.spent / (self.apart.reading + (self.apart.warping + self.apart.model) * looks)


def measure_start(bench: Bench) -> list[Measure]:
    """Measure processes from start to exit, one of each kind after the other; the first of each only fills caches."""
    one = bench.pictures.paths[0]
    commands: dict[str, tuple[list[str], float | None]] = {
        "lbkit --help": (lbkit_command("--help"), HELP_TARGET_S),
        "lbkit infer one.jpg": (lbkit_command("infer", one, "--model", bench.model), START_TARGET_S),
        "python -c pass": ([sys.executable, "-c", "pass"], None),
    }
    if find_spec("torch") is not None:
        commands["python -c 'import torch'"] = ([sys.executable, "-c", "import torch"], None)
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for index in range(bench.scale.starts + 1):
        for name, (command, _) in commands.items():
            cost = run_process(command)
            _check_start(name, cost)
            if index:
                seconds[name].append(cost.seconds)
    return [Measure("start", name, "s", tuple(seconds[name]), target) for name, (_, target) in commands.items()]


def _check_start(name: str, cost: ProcessCost) -> None:
    if name == "lbkit --help":
        _require("infer" in cost.stdout, "`lbkit --help` does not list infer")
    elif name == "lbkit infer one.jpg":
        _require(len(cost.stdout.splitlines()) == 1, f"one picture should give one line, got {cost.stdout!r}")


def measure_throughput(bench: Bench) -> list[Measure]:
    """Measure the parts, the library and the command in turn, in an order that turns round after each round."""
    paths = repeat_pictures(bench.pictures.paths, bench.folder / "throughput", bench.scale.pictures)
    estimator = load_model(bench.model, streams=None)
    warm_up(estimator)
    rounds = []
    for index in range(bench.scale.rounds):
        click.echo(f"throughput: round {index + 1} of {bench.scale.rounds}", err=True)
        rounds.append(_run_round(bench, paths, estimator, backwards=index % 2 == 1))
    return _throughput_measures(rounds, len(paths))


def _run_round(bench: Bench, paths: Sequence[Path], estimator: PoseEstimator, *, backwards: bool) -> Round:
    output = bench.folder / "throughput.jsonl"
    steps: dict[str, Callable[[], Any]] = {
        "apart": lambda: measure_apart(paths, estimator),
        "in_process": lambda: measure_whole(paths, estimator, boxes="whole"),
        "command": lambda: _measure_command(bench, paths, output),
        "auto": lambda: measure_whole(paths, estimator, boxes="auto"),
    }
    done = {name: steps[name]() for name in (reversed(steps) if backwards else steps)}
    finished = Round(**done)
    _check_round(finished, paths, output)
    return finished


def _measure_command(bench: Bench, paths: Sequence[Path], output: Path) -> Spent:
    """Return what `lbkit infer` takes for the pictures beyond what it takes for the first alone, scaled to all."""
    options = ["--model", str(bench.model), "--boxes", "whole", "--output", str(output), "--force"]
    one = run_process(lbkit_command("infer", paths[0], *options))
    every = run_process(lbkit_command("infer", paths[0].parent, *options))
    beyond = Spent(every.seconds, every.cpu_seconds) - Spent(one.seconds, one.cpu_seconds)
    return beyond * (len(paths) / (len(paths) - 1))


def _check_round(finished: Round, paths: Sequence[Path], output: Path) -> None:
    """Require that the parts, the library and the command found the same joints on the same pictures."""
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    library = finished.in_process.results
    _require([record["path"] for record in records] == [str(path) for path in paths], "the command lost pictures")
    _require([result.path for result in library] == list(paths), "the library lost pictures")
    _require(len(finished.auto.results) == len(paths), "the search lost pictures")
    _require(finished.in_process.looks == len(paths), "a picture with one box should be looked at once")
    joints = np.stack([_joints_of_result(result.poses) for result in library])
    _require_same(joints, finished.apart.joints, "the library and the parts")
    _require_same(joints, np.stack([_joints_of_record(record) for record in records]), "the library and the command")


def _joints_of_result(poses: Any) -> NDArray[np.float64]:
    """Return (K, 3) x, y and score of a picture's one person."""
    _require(poses is not None and len(poses) == 1, "a picture should have one person")
    return np.concatenate([poses.xy[0], poses.scores[0][:, None]], axis=1).astype(np.float64)


def _joints_of_record(record: dict[str, Any]) -> NDArray[np.float64]:
    _require(len(record["people"]) == 1, f"{record['path']} should have one person")
    joints = record["people"][0]["keypoints"].values()
    return np.array([[joint["x"], joint["y"], joint["score"]] for joint in joints])


def _require_same(joints: NDArray[np.float64], others: NDArray[np.float64], who: str) -> None:
    difference = float(np.abs(joints - others).max()) if joints.shape == others.shape else float("inf")
    _require(difference <= SAME_PX, f"{who} differ by {difference:.4f} px")


def _throughput_measures(rounds: Sequence[Round], count: int) -> list[Measure]:
    def measure(
        name: str, unit: str, value: Callable[[Round], float], target: float | None = None, *, is_least: bool = False
    ) -> Measure:
        return Measure("throughput", name, unit, tuple(value(each) for each in rounds), target, is_least)

    return [
        measure("reading", "s", lambda each: each.apart.reading.wall),
        measure("warping", "s", lambda each: each.apart.warping.wall),
        measure("model", "s", lambda each: each.apart.model.wall),
        measure("sum of these three", "s", lambda each: each.apart.sum.wall),
        measure("decoding (not in the sum)", "s", lambda each: each.apart.decoding.wall),
        measure("run_inference", "s", lambda each: each.in_process.spent.wall),
        measure("lbkit infer, less its start", "s", lambda each: each.command.wall),
        measure("run_inference, rate", "images/s", lambda each: count / each.in_process.spent.wall),
        measure("run_inference / sum", "", lambda each: each.in_process_ratio.wall, RATIO_TARGET),
        measure(
            "run_inference, share of the model's own rate",
            "",
            lambda each: each.apart.model.wall / each.in_process.spent.wall,
            MODEL_SHARE_TARGET,
            is_least=True,
        ),
        measure("lbkit infer / sum", "", lambda each: each.command_ratio.wall, RATIO_TARGET),
        measure("processor time: sum", "s", lambda each: each.apart.sum.processor),
        measure("processor time: run_inference / sum", "", lambda each: each.in_process_ratio.processor),
        measure("processor time: lbkit infer / sum", "", lambda each: each.command_ratio.processor),
        measure("search: run_inference", "s", lambda each: each.auto.spent.wall),
        measure("search: looks a picture", "", lambda each: each.auto.looks / count),
        measure("search: run_inference / its own sum", "", lambda each: each.auto_ratio.wall),
    ]


def measure_memory(bench: Bench) -> list[Measure]:
    """Measure the peak memory of `lbkit infer`, which looks for the person, over more and more pictures."""
    pictures = bench.pictures.paths[: min(MEMORY_PICTURES, bench.scale.memory[0])]
    peaks = []
    for count in bench.scale.memory:
        click.echo(f"memory: {count} pictures", err=True)
        peaks.append(_peak_megabytes(bench, pictures, count))
    growth = 100 * (max(peaks[1:]) / peaks[0] - 1)
    rows = [
        Measure("memory", f"peak over {count} pictures", "MB", (peak,))
        for count, peak in zip(bench.scale.memory, peaks, strict=True)
    ]
    return [*rows, Measure("memory", "growth from the first", "%", (growth,), GROWTH_TARGET_PERCENT)]


def _peak_megabytes(bench: Bench, pictures: Sequence[Path], count: int) -> float:
    folder, output = bench.folder / f"memory-{count}", bench.folder / f"memory-{count}.jsonl"
    repeat_pictures(pictures, folder, count)
    cost = run_process(lbkit_command("infer", folder, "--model", bench.model, "--output", output))
    with output.open(encoding="utf-8") as lines:
        found = sum(1 for _ in lines)
    _require(found == count, f"{count} pictures gave {found} lines")
    return cost.peak_bytes / 1e6


def _require(condition: bool, problem: str) -> None:  # noqa: FBT001
    if not condition:
        raise click.ClickException(f"the results are wrong: {problem}")


SECTIONS: dict[str, Callable[[Bench], list[Measure]]] = {
    "start": measure_start,
    "throughput": measure_throughput,
    "memory": measure_memory,
}


def _settings(bench: Bench) -> dict[str, Any]:
    estimator = load_model(bench.model, streams=None)
    return {
        "model": bench.model.name,
        "weights": estimator.contract.weights_sha256[:12],
        "decoder": estimator.decoder,
        "batch_size": estimator.batch_size,
        "streams": estimator.streams,
        "readers": default_readers(),
        "pictures": str(bench.pictures),
        "throughput_pictures": bench.scale.pictures,
        "rounds": bench.scale.rounds,
        "starts": bench.scale.starts,
        "memory_pictures": list(bench.scale.memory),
    }


def _notes(settings: Mapping[str, Any]) -> list[str]:
    return [
        f"Model {settings['model']} (weights {settings['weights']}, decoder {settings['decoder']}), batches of "
        f"{settings['batch_size']}, {settings['streams']} side by side, {settings['readers']} reading threads; "
        f"{settings['pictures']}; {settings['rounds']} rounds over {settings['throughput_pictures']} pictures."
    ]


@click.command()
@model_option
@photos_option
@output_option("infer_cost")
@click.option(
    "--section", "sections", multiple=True, type=click.Choice(list(SECTIONS)), help="Measure only this; repeatable."
)
@quick_option
@readme_option
def main(
    *, model: str, photos: Path | None, output: Path, sections: tuple[str, ...], quick: bool, readme: bool
) -> None:
    """Measure what `lbkit infer` costs: start, throughput against its parts, memory."""
    chosen = [name for name in SECTIONS if not sections or name in sections]
    refuse_partial_readme(readme=readme, quick=quick, section=len(chosen) < len(SECTIONS))
    machine = describe_machine()
    click.echo(f"{machine_words(machine)}\n", err=True)
    with tempfile.TemporaryDirectory(prefix="lbkit-infer-cost-") as folder:
        bench = _prepare(model, photos, Path(folder), scale=QUICK if quick else FULL)
        measures = [measure for name in chosen for measure in SECTIONS[name](bench)]
        settings = _settings(bench)
    command = shown_command("infer_cost", model=model, photos=photos, section=sections, quick=quick)
    by_section = {name: [each.to_dict() for each in measures if each.section == name] for name in chosen}
    record = run_record(command, machine, settings=settings, sections=by_section)
    publish(record, measures, output=output, readme=readme, notes=_notes(settings))


def _prepare(model: str, photos: Path | None, folder: Path, *, scale: Scale) -> Bench:
    click.echo("preparing pictures", err=True)
    pictures = chosen_pictures(photos, folder, scale.pictures)
    return Bench(find_model(model).resolve(), pictures, scale, folder)


if __name__ == "__main__":
    main()
