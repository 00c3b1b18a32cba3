"""How fast `lbkit squat` is against the clip's own time, and how its memory grows with the clip's length.

    python benchmarks/squat_speed.py
    python benchmarks/squat_speed.py --clip squats.mp4

A clip of a rendered person who squats is made, 1280x720 at 30 frames/s. In each round the whole command, from the start
of its process to its end, runs over it with each model in turn, and once more drawing the video. Then the same clip
repeated to so many minutes tells what memory grows by. A missed target is told and the exit code stays 0, because times
are the machine's; a wrong number of frames is an error.
"""

from __future__ import annotations

import csv
import datetime
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import describe_machine, machine_words
from measures import Measure, replace_figures, table, write_json
from whole_process import ProcessCost, lbkit_command, run_process

from lbkit.core.geometry import ImageSize
from lbkit.motion.clip import ClipPlan, random_squats, rendered_frames
from lbkit.video.files import VideoFile, import_av
from lbkit.video.sink import VideoWriter

README = Path(__file__).with_name("README.md")
MARKS = "squat"
FRAMES_PER_S = 30.0
TARGETS = {"fpn-int8": 1.0, "cnn-int8": 3.0}
"""Times the clip's own speed, on two cores."""

MEMORY_MODEL = "cnn-int8"
MOST_GROWTH_MB = 150.0
"""Megabytes an hour of video at 30 frames/s: the joints and what is told of each frame, and not one picture."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip that is measured on.

    Attributes:
        path: The file.
        frames: How many it has.
        seconds: How long it plays.
        words: What it is.
    """

    path: Path
    frames: int
    seconds: float
    words: str


@dataclass(slots=True)
class Costs:
    """What one model cost in each round: with and without drawing."""

    plain: list[ProcessCost] = field(default_factory=list)
    drawn: list[ProcessCost] = field(default_factory=list)


def rendered_clip(path: Path, *, size: ImageSize, squats: int) -> Clip:
    """Write a clip of a rendered person who squats so many times, from the side."""
    plan = ClipPlan(
        random_squats(np.random.default_rng(2), count=squats), "side", size, seed=2, frames_per_s=FRAMES_PER_S
    )
    with VideoWriter(path, size=size, frames_per_s=FRAMES_PER_S, force=True) as writer:
        for time_s, figure in rendered_frames(plan):
            writer.write(time_s, figure.image)
    return known_clip(path, f"a rendered clip of {squats} squats")


def known_clip(path: Path, words: str) -> Clip:
    """Return what is to be known of a clip."""
    with VideoFile(path) as video:
        size, rate = video.info.size, video.info.frames_per_s
        times = [time_s for time_s, _ in video.late_frames()]
    if len(times) < 2:
        raise click.ClickException(f"{path} has {len(times)} frames, and no speed of its own")
    seconds = (times[-1] - times[0]) * len(times) / (len(times) - 1)
    rate_words = "" if rate is None else f" at {rate:.3g} frames/s"
    return Clip(path, len(times), seconds, f"{words}, {size.width}x{size.height}{rate_words}, {seconds:.1f} s")


def repeated(clip: Clip, path: Path, *, times: int) -> Path:
    """Write a file in which a clip's packets stand so many times one after the other, without encoding them again."""
    av = import_av()
    with av.open(str(path), "w") as target:
        stream = None
        for number in range(times):
            with av.open(str(clip.path)) as source:
                video = source.streams.video[0]
                stream = stream or target.add_stream_from_template(video)
                shift = round(number * clip.seconds / video.time_base)
                for packet in source.demux(video):
                    if packet.dts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    target.mux(packet)
    return path


def squat_cost(clip: Path, model: str, *options: str | Path, frames: int) -> ProcessCost:
    """Run `lbkit squat` as a process of its own and see that it looked at every frame."""
    rows = clip.with_name("frames.csv")
    cost = run_process(lbkit_command("-q", "squat", clip, "--model", model, "--frames", rows, "--force", *options))
    with rows.open(encoding="utf-8") as stream:
        found = sum(1 for _ in csv.reader(stream)) - 1
    if found != frames:
        raise click.ClickException(f"{frames} frames gave {found} rows")
    return cost


def speed(clip: Clip, models: Sequence[str], *, rounds: int) -> list[Measure]:
    """Measure how many times the clip's own speed each model reaches, in turns."""
    costs = {model: Costs() for model in models}
    drawn = clip.path.with_name("drawn.mp4")
    for number in range(rounds):
        for model in models:
            click.echo(f"{model}: round {number + 1} of {rounds}", err=True)
            costs[model].plain.append(squat_cost(clip.path, model, frames=clip.frames))
            costs[model].drawn.append(squat_cost(clip.path, model, "--draw", drawn, frames=clip.frames))
    return [measure for model, cost in costs.items() for measure in _speed_measures(model, cost, clip)]


def _speed_measures(model: str, costs: Costs, clip: Clip) -> list[Measure]:
    def times(runs: list[ProcessCost]) -> tuple[float, ...]:
        return tuple(clip.seconds / run.seconds for run in runs)

    work = tuple(1000 * run.cpu_seconds / clip.frames for run in costs.plain)
    return [
        Measure(model, "lbkit squat", "times real time", times(costs.plain), TARGETS.get(model), is_least=True),
        Measure(model, "lbkit squat --draw", "times real time", times(costs.drawn)),
        Measure(model, "processor time, a frame", "ms", work),
    ]


def memory(clip: Clip, *, short_s: float, long_s: float) -> list[Measure]:
    """Measure the most memory that is held over a short and a long clip, and what an hour more would add."""
    peaks, lengths = [], []
    for seconds in (short_s, long_s):
        times = max(1, round(seconds / clip.seconds))
        click.echo(f"memory: {times * clip.seconds / 60:.1f} minutes", err=True)
        path = repeated(clip, clip.path.with_name("long.mp4"), times=times)
        cost = squat_cost(path, MEMORY_MODEL, frames=times * clip.frames)
        peaks.append(cost.peak_bytes / 1e6)
        lengths.append(times * clip.seconds)
    if lengths[1] <= lengths[0]:
        raise click.ClickException("the long clip is no longer than the short one")
    growth = (peaks[1] - peaks[0]) / (lengths[1] - lengths[0]) * 3600
    held = [
        Measure("memory", f"most held over {length / 60:.1f} minutes", "MB", (peak,))
        for length, peak in zip(lengths, peaks, strict=True)
    ]
    return [*held, Measure("memory", "growth an hour", "MB", (growth,), MOST_GROWTH_MB)]


def _readme_block(document: dict[str, Any], found: list[Measure]) -> str:
    machine = machine_words(document["machine"])
    return f"`{document['command']}`, {document['date']}\n\n{machine}.\n\n{document['clip']}.\n\n{table(found)}"


@click.command(help=__doc__)
@click.option("--clip", "own", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A clip of your own.")
@click.option("--model", "models", multiple=True, default=tuple(TARGETS), help="A model's name or file; repeatable.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Rounds of each model.")
@click.option(
    "--minutes", type=click.FloatRange(min=0), default=10.0, show_default=True, help="Of the long clip; 0: none."
)
@click.option("--quick", is_flag=True, help="A small short clip, one round: does it run? The times mean nothing.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("build/squat_speed.json"), show_default=True)
@click.option("--readme", is_flag=True, help="Put the figures into the README of this folder.")
def main(
    *, own: Path | None, models: tuple[str, ...], rounds: int, minutes: float, quick: bool, output: Path, readme: bool
) -> None:
    """Measure, print a table and write every value."""
    if readme and (quick or own is not None or models != tuple(TARGETS)):
        raise click.UsageError(
            "--readme needs the whole run on the rendered clip, without --quick, --clip and --model."
        )
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        if own is not None:
            path.with_suffix(own.suffix).symlink_to(own.resolve())
            clip = known_clip(path.with_suffix(own.suffix), "a clip of one's own")
        else:
            size, squats = (ImageSize(180, 320), 1) if quick else (ImageSize(720, 1280), 5)
            clip = rendered_clip(path, size=size, squats=squats)
        found = speed(clip, models, rounds=1 if quick else rounds)
        if minutes:
            seconds = (clip.seconds, 8 * clip.seconds) if quick else (60.0, 60.0 * minutes)
            found += memory(clip, short_s=seconds[0], long_s=seconds[1])
    flags = [f" --model {model}" for model in models if models != tuple(TARGETS)]
    flags += [f" --rounds {rounds}"] * (rounds != 5) + [f" --minutes {minutes:g}"] * (minutes != 10)
    document = {
        "command": f"python benchmarks/squat_speed.py{' --quick' * quick}{''.join(flags)}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine,
        "clip": clip.words[0].upper() + clip.words[1:],
        "frames": clip.frames,
        "figures": [item.to_dict() for item in found],
    }
    click.echo(f"{document['clip']}; load average before the run {machine['load_average']:.2f}\n")
    click.echo(table(found))
    write_json(output, document)
    if readme:
        replace_figures(README, _readme_block(document, found), name=MARKS)


if __name__ == "__main__":
    main()
