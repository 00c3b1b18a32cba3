"""What `lbkit infer clip.mp4 --draw drawn.mp4` costs beyond the model: frames per second and the model's share.

    python benchmarks/video_speed.py --model fpn --model cnn

A clip of a rendered person is made, 1280x720 at 30 frames/s. In each round the model alone looks at as many crops, one
by one, as the clip has frames, and the command decodes, follows, draws and encodes the clip; the command's start,
measured on a clip of two frames, is taken off. A missed target is told and the exit code stays 0; a wrong number of
frames is an error.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from machine import describe_machine, machine_words
from measures import Measure
from publication import output_option, publish, run_record, shown_command
from whole_process import lbkit_command, run_process

from lbkit.core.boxes import person_box_from_joints
from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.core.preprocess import crop_person
from lbkit.runtime.loading import load_model
from lbkit.synthetic.figures import random_figure
from lbkit.video.files import VideoFile
from lbkit.video.sink import VideoWriter

SIZE = ImageSize(720, 1280)
MARGIN_PX = 60
"""How far the camera sways to either side, so that every frame differs from the one before."""

FRAMES_PER_S = 30.0
SHARE_TARGET = 0.85
"""Of the speed that the model alone allows."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round: seconds on the clock and of all threads' work, for as many frames as the clip has."""

    model_s: float
    model_cpu_s: float
    command_s: float
    command_cpu_s: float


def write_clip(path: Path, picture: ImageArray, frames: int) -> None:
    """Write a clip of a camera that sways before a picture larger than a frame by `MARGIN_PX` on each side."""
    with VideoWriter(path, size=SIZE, frames_per_s=FRAMES_PER_S, force=True) as writer:
        for number in range(frames):
            phase = 2 * np.pi * number / (2 * FRAMES_PER_S)
            left = MARGIN_PX + round(MARGIN_PX * float(np.sin(phase)))
            top = MARGIN_PX + round(MARGIN_PX * float(np.sin(2 * phase)))
            writer.write(number / FRAMES_PER_S, picture[top : top + SIZE.height, left : left + SIZE.width])


def measure(model: str, clip: Path, start_clip: Path, *, frames: int, rounds: int) -> list[Round]:
    """Measure the model alone and the command in turn."""
    estimator = load_model(model)
    with VideoFile(clip) as video:
        image = next(video.frames()).image
    box = person_box_from_joints(estimator(image).xy[0].astype(np.float64), SIZE)
    crop, transform = crop_person(image, box, contract=estimator.contract)
    done = []
    for number in range(rounds):
        click.echo(f"{model}: round {number + 1} of {rounds}", err=True)
        started, worked = time.perf_counter(), time.process_time()
        for _ in range(frames):
            estimator.predict([crop], [transform])
        model_s, model_cpu_s = time.perf_counter() - started, time.process_time() - worked
        command_s, command_cpu_s = _command(model, clip, start_clip, frames=frames)
        done.append(Round(model_s, model_cpu_s, command_s, command_cpu_s))
    return done


def _command(model: str, clip: Path, start_clip: Path, *, frames: int) -> tuple[float, float]:
    drawn, output = clip.with_name("drawn.mp4"), clip.with_name("out.jsonl")
    options = ["--model", model, "--draw", drawn, "--output", output, "--force"]
    start = run_process(lbkit_command("infer", start_clip, *options))
    whole = run_process(lbkit_command("infer", clip, *options))
    records = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    with VideoFile(drawn) as video:
        written = sum(1 for _ in video.late_frames())
    if len(records) != frames or written != frames or not all(record["people"] for record in records):
        raise click.ClickException(f"{frames} frames gave {len(records)} lines and {written} drawn frames")
    return whole.seconds - start.seconds, whole.cpu_seconds - start.cpu_seconds


def measures(model: str, rounds: list[Round], frames: int) -> list[Measure]:
    """Return the figures of one model."""
    share = tuple(one.command_s / one.model_s for one in rounds)
    work = tuple(one.command_cpu_s / one.model_cpu_s for one in rounds)
    return [
        Measure(model, "model alone", "frames/s", tuple(frames / one.model_s for one in rounds)),
        Measure(model, "whole command, less its start", "frames/s", tuple(frames / one.command_s for one in rounds)),
        Measure(model, "command / model alone, time", "", share, round(1 / SHARE_TARGET, 3)),
        Measure(model, "command / model alone, processor time", "", work),
        Measure(
            model,
            "processor time beside the model, a frame",
            "ms",
            tuple(1000 * (one.command_cpu_s - one.model_cpu_s) / frames for one in rounds),
        ),
    ]


@click.command(help=__doc__)
@click.option("--model", "models", multiple=True, default=("fpn", "cnn"), help="A model's name or file; repeatable.")
@click.option("--seconds", type=click.FloatRange(min=0.2), default=10.0, show_default=True, help="Length of the clip.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Rounds of each model.")
@output_option("video_speed")
def main(models: tuple[str, ...], seconds: float, rounds: int, output: Path) -> None:
    """Measure, print a table and write every value."""
    frames = max(2, round(seconds * FRAMES_PER_S))
    machine = describe_machine()
    larger = ImageSize(SIZE.height + 2 * MARGIN_PX, SIZE.width + 2 * MARGIN_PX)
    picture = random_figure(np.random.default_rng(4), larger, pose="standing", view="oblique", cropped_share=0.0).image
    found: list[Measure] = []
    with tempfile.TemporaryDirectory() as folder:
        clip, start_clip = Path(folder) / "clip.mp4", Path(folder) / "start.mp4"
        write_clip(clip, picture, frames)
        write_clip(start_clip, picture, 2)
        for model in models:
            done = measure(model, clip, start_clip, frames=frames, rounds=rounds)
            found += measures(Path(model).stem, done, frames)
    click.echo(f"{SIZE.width}x{SIZE.height}, {frames} frames, {rounds} rounds\n{machine_words(machine)}\n")
    command = shown_command("video_speed", model=models, seconds=seconds, rounds=rounds)
    publish(run_record(command, machine, frames=frames), found, output=output, readme=False)


if __name__ == "__main__":
    main()
