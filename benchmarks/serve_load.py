"""What serving costs: throughput and latency of `lbkit serve` under load, against calling the library directly.

    python benchmarks/serve_load.py --photos FOLDER

The load stays on loopback and is bounded in count and time. What each figure means is in the README of this folder.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import describe_machine
from measures import Measure
from picture_set import chosen_pictures
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
from whole_process import environment, lbkit_command

from lbkit.core.boxes import whole_image_box
from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import ImageSize
from lbkit.core.images import decode_image
from lbkit.core.pipeline import run_inference
from lbkit.runtime.loading import find_model, load_model

MARKS = "serve_load"
CLIENTS = (1, 8, 32)
PICTURES = 40
ROUND_S = 60.0
"""No measurement of a round asks for longer, so that a slow machine does not take an hour."""

START_S = 60.0
SAME_PX = 0.01


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        requests: In each round, for each number of clients.
        rounds: How often.
    """

    requests: int
    rounds: int


FULL = Scale(requests=96, rounds=5)
QUICK = Scale(requests=8, rounds=1)


@dataclass(frozen=True, slots=True)
class Load:
    """What a number of clients saw.

    Attributes:
        seconds: From the first request to the last answer.
        latencies_ms: Of each request.
        answers: Each request's picture and answer.
    """

    seconds: float
    latencies_ms: tuple[float, ...]
    answers: tuple[tuple[int, dict[str, Any]], ...]

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies_ms) / self.seconds


@dataclass(frozen=True, slots=True)
class Round:
    """One round.

    Attributes:
        single: The library's pictures a second, one by one.
        bulk: Those of `run_inference`.
        loads: By number of clients.
    """

    single: float
    bulk: float
    loads: dict[int, Load]


@contextmanager
def running_server(model: Path) -> Iterator[int]:
    """Start `lbkit serve` on a free port of loopback, give the port, and end it."""
    command = lbkit_command("serve", model, "--port", "0")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stderr is not None
        try:
            yield _port(process.stderr)
        finally:
            process.terminate()
            if process.wait(START_S) != 0:
                raise click.ClickException(f"the server ended with {process.returncode}")


def _port(lines: Iterator[str]) -> int:
    for line in lines:
        if found := re.match(r"serving \S+ on http://127\.0\.0\.1:(\d+) ", line):
            return int(found.group(1))
        click.echo(line, err=True, nl=False)
    raise click.ClickException("the server did not start")


async def apply_load(port: int, files: Sequence[bytes], *, clients: int, requests: int) -> Load:
    """Ask for the joints on pictures, each client one after the other over one connection."""
    order = iter(list(islice(cycle(range(len(files))), requests)))
    latencies: list[float] = []
    answers: list[tuple[int, dict[str, Any]]] = []
    start = time.perf_counter()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for index in order:
            if time.perf_counter() - start > ROUND_S:
                break
            asked = time.perf_counter()
            answers.append((index, await _ask(reader, writer, files[index])))
            latencies.append(1000 * (time.perf_counter() - asked))
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return Load(time.perf_counter() - start, tuple(latencies), tuple(answers))


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> dict[str, Any]:
    head = f"POST /v1/keypoints?boxes=whole HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    found = re.search(r"content-length: (\d+)", answer)
    body = await reader.readexactly(int(found.group(1)) if found else 0)
    if not answer.startswith("http/1.1 200 "):
        raise click.ClickException(f"the server answers {answer.splitlines()[0]}: {body.decode()}")
    record: dict[str, Any] = json.loads(body)
    return record


def run_single(estimator: PoseEstimator, files: Sequence[bytes], count: int) -> float:
    """Return how many pictures a second the library takes, each decoded, warped and run by itself."""
    start = time.perf_counter()
    done = 0
    for data in islice(cycle(files), count):
        _joints(estimator, data)
        done += 1
        if time.perf_counter() - start > ROUND_S:
            break
    return done / (time.perf_counter() - start)


def run_bulk(estimator: PoseEstimator, paths: Sequence[Path], count: int) -> float:
    """Return how many pictures a second `run_inference` takes, as `lbkit infer` calls it."""
    start = time.perf_counter()
    done = sum(1 for _ in run_inference(islice(cycle(paths), count), estimator, boxes="whole"))
    return done / (time.perf_counter() - start)


def measure(model: Path, paths: Sequence[Path], scale: Scale) -> list[Round]:
    """Measure the library and the server in turn, in an order that turns round after each round."""
    files = [path.read_bytes() for path in paths]
    estimator, in_streams = load_model(model), load_model(model, streams=None)
    expected = [_joints(estimator, data) for data in files]
    rounds = []
    with running_server(model) as port:
        asyncio.run(apply_load(port, files, clients=8, requests=min(16, scale.requests)))  # warms up
        for index in range(scale.rounds):
            click.echo(f"round {index + 1} of {scale.rounds}", err=True)
            steps: dict[str, Callable[[], Any]] = {
                "single": lambda: run_single(estimator, files, scale.requests),
                "bulk": lambda: run_bulk(in_streams, paths, scale.requests),
            }
            for clients in CLIENTS:
                steps[str(clients)] = lambda clients=clients: asyncio.run(
                    apply_load(port, files, clients=clients, requests=scale.requests)
                )
            done = {name: steps[name]() for name in (reversed(steps) if index % 2 else steps)}
            loads = {clients: done[str(clients)] for clients in CLIENTS}
            for load in loads.values():
                _check(load, expected)
            rounds.append(Round(done["single"], done["bulk"], loads))
    return rounds


def _joints(estimator: PoseEstimator, data: bytes) -> np.ndarray[Any, Any]:
    image = decode_image(data, where="picture")
    return estimator(image, whole_image_box(ImageSize.of(image))).xy[0]


def _check(load: Load, expected: Sequence[np.ndarray[Any, Any]]) -> None:
    for index, record in load.answers:
        (person,) = record["people"]
        found = np.array([[joint["x"], joint["y"]] for joint in person["keypoints"].values()])
        difference = float(np.abs(found - expected[index]).max())
        if not difference <= SAME_PX:
            raise click.ClickException(f"the server's answer differs by {difference:.4f} px from the library's")


def measures_of(rounds: Sequence[Round]) -> list[Measure]:
    """Return the figures."""

    def row(section: str, name: str, unit: str, value: Callable[[Round], float]) -> Measure:
        return Measure(section, name, unit, tuple(value(each) for each in rounds))

    rows = [
        row("library", "one by one", "people/s", lambda each: each.single),
        row("library", "run_inference", "people/s", lambda each: each.bulk),
    ]
    for clients in CLIENTS:
        section = f"{clients} client{'s' if clients > 1 else ''}"

        def load(each: Round, clients: int = clients) -> Load:
            return each.loads[clients]

        rows += [
            row(section, "rate", "people/s", lambda each, load=load: load(each).rate),
            row(section, "rate / library one by one", "", lambda each, load=load: load(each).rate / each.single),
            row(section, "rate / run_inference", "", lambda each, load=load: load(each).rate / each.bulk),
            row(section, "p50", "ms", lambda each, load=load: float(np.percentile(load(each).latencies_ms, 50))),
            row(section, "p99", "ms", lambda each, load=load: float(np.percentile(load(each).latencies_ms, 99))),
        ]
    return rows


@click.command()
@model_option
@photos_option
@output_option("serve_load")
@quick_option
@readme_option
def main(*, model: str, photos: Path | None, output: Path, quick: bool, readme: bool) -> None:
    """Measure what `lbkit serve` costs at 1, 8 and 32 clients on loopback."""
    refuse_partial_readme(readme=readme, quick=quick)
    machine = describe_machine()
    scale = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="lbkit-serve-load-") as folder:
        count = min(PICTURES, scale.requests)
        pictures = chosen_pictures(photos, Path(folder), count)
        path = find_model(model).resolve()
        rows = measures_of(measure(path, pictures.paths, scale))
    command = shown_command("serve_load", model=model, photos=photos, quick=quick)
    settings = {"model": path.name, "pictures": str(pictures), "requests": scale.requests, "rounds": scale.rounds}
    notes = [f"Model {path.name}; {pictures}; {scale.rounds} rounds of {scale.requests} requests."]
    publish(run_record(command, machine, **settings), rows, output=output, readme=readme, name=MARKS, notes=notes)


if __name__ == "__main__":
    main()
