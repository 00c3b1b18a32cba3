"""lbkit's whole walk over a COCO root against MoveNet in a plain loop with the same boxes: accuracy beside speed.

    python benchmarks/against_movenet.py --coco ROOT --peer movenet_thunder.onnx exported/*.onnx

Both read the same files, cut the same annotated people, and run on the same threads. What each figure means is in the
README of this folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from machine import describe_machine
from measures import Measure
from numpy.typing import NDArray
from publication import output_option, publish, readme_option, refuse_partial_readme, run_record, shown_command

from lbkit.core.box_files import BoxTable, ImageBoxes, PersonBox
from lbkit.core.coco import CocoPerson, read_coco
from lbkit.core.files import atomic_path
from lbkit.core.geometry import CropTransform, ImageSize
from lbkit.core.images import read_image
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.core.pipeline import run_inference
from lbkit.core.threads import thread_limits
from lbkit.evaluation.pck import box_heights_px, pck, relative_distances
from lbkit.evaluation.persons import CocoRoot
from lbkit.runtime.loading import find_model, load_model

MARKS = "movenet"
THRESHOLD = 0.05
WARM_UP_PHOTOGRAPHS = 8
PEER_PADDING = 1.1
"""MoveNet finds people best in a square a tenth larger than the box."""

Joints = dict[int, NDArray[np.float64]]
"""(6, 2) joints in image pixels by annotation id."""


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """The people who count: annotated, no crowd, with a labelled leg joint.

    Attributes:
        by_path: Those on each photograph.
        listed: All of them, in the same order.
    """

    by_path: dict[Path, list[CocoPerson]]
    listed: list[CocoPerson]

    @classmethod
    def of(cls, root: CocoRoot, *, limit: int | None) -> People:
        """Read those of a root's first `limit` photographs that have any."""
        coco = read_coco(root.annotations)
        groups = coco.persons_by_image()
        by_path: dict[Path, list[CocoPerson]] = {}
        for image_id, image in coco.images.items():
            people = [each for each in groups[image_id] if each.labelled_joints and not each.is_crowd]
            if people and (limit is None or len(by_path) < limit):
                by_path[root.images / image.file_name] = people
        return cls(by_path, [person for people in by_path.values() for person in people])

    def first(self, photographs: int) -> People:
        """Return those on the first photographs alone."""
        few = dict(list(self.by_path.items())[:photographs])
        return People(few, [person for people in few.values() for person in people])

    def boxes(self) -> BoxTable:
        """Return their boxes as `lbkit infer --boxes` has them."""
        entries = {
            path.name: ImageBoxes(tuple(PersonBox(tuple(p.box_xyxy), f"{p.ann_id}", p.ann_id) for p in people))
            for path, people in self.by_path.items()
        }
        return BoxTable(Path("annotations"), entries)

    def pck(self, joints: Joints) -> float:
        """Return PCK@0.05 of all labelled joints."""
        found = np.stack([joints[person.ann_id] for person in self.listed])
        true = np.stack([person.joints_xy for person in self.listed])
        heights = box_heights_px(np.stack([person.box_xyxy for person in self.listed]))
        counted = np.stack([person.visibility > 0 for person in self.listed])
        return pck(relative_distances(found, true, heights_px=heights), counted, threshold=THRESHOLD)


class PlainMoveNet:
    """MoveNet driven as its pages show: a person at a time, in one loop.

    Args:
        path: int32 (1, S, S, 3) RGB in, (1, 1, 17, 3) y, x, score in shares of S out.
        threads: Threads of the session.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        (given,) = self._session.get_inputs()
        self._name, self._size = given.name, ImageSize(given.shape[1], given.shape[2])

    def __call__(self, people: People) -> Joints:
        """Return everybody's joints."""
        joints: Joints = {}
        for path, persons in people.by_path.items():
            image = read_image(path)
            for person in persons:
                transform = CropTransform.from_box(person.box_xyxy, self._size, padding=PEER_PADDING)
                crop = transform.warp(image).astype(np.int32)
                (output,) = self._session.run(None, {self._name: crop[None]})
                yx = np.asarray(output, np.float64).reshape(17, 3)[list(LOWER_BODY_6.coco_indices), :2]
                size = [self._size.width, self._size.height]
                joints[person.ann_id] = transform.to_image(yx[:, ::-1] * size - 0.5)
        return joints


def lbkit_walk(model: str, provider: str) -> Callable[[People], Joints]:
    """Return lbkit's walk with a model, as `lbkit infer` takes it."""
    estimator = load_model(model, provider=provider, streams=None)

    def walk(people: People) -> Joints:
        joints: Joints = {}
        for result in run_inference(list(people.by_path), estimator, boxes=people.boxes()):
            if result.poses is None or result.problems:
                raise click.ClickException(f"a photograph or box is not usable: {result.problems}")
            found = zip(result.person_ids, result.poses.xy, strict=True)
            joints.update({int(ann_id): xy.astype(np.float64) for ann_id, xy in found if ann_id is not None})
        return joints

    return walk


@dataclass(frozen=True, slots=True)
class Point:
    """One program's place in the figure.

    Attributes:
        name: What it is.
        pck: PCK@0.05.
        rates: People a second in each round.
        work_ms: Milliseconds of processor time a person in each round, of all threads together.
    """

    name: str
    pck: float
    rates: tuple[float, ...]
    work_ms: tuple[float, ...]


def measure(walks: dict[str, Callable[[People], Joints]], people: People, *, rounds: int) -> list[Point]:
    """Run every walk in turn, in an order that turns round after each round, each once over a few people before."""
    count = len(people.listed)
    scores: dict[str, float] = {}
    rates: dict[str, list[float]] = {name: [] for name in walks}
    work: dict[str, list[float]] = {name: [] for name in walks}
    for walk in walks.values():
        walk(people.first(WARM_UP_PHOTOGRAPHS))
    for index in range(rounds):
        click.echo(f"round {index + 1} of {rounds}", err=True)
        for name in reversed(walks) if index % 2 else walks:
            started, worked = time.perf_counter(), time.process_time()
            joints = walks[name](people)
            seconds, work_seconds = time.perf_counter() - started, time.process_time() - worked
            scores.setdefault(name, people.pck(joints))
            rates[name].append(count / seconds)
            work[name].append(1e3 * work_seconds / count)
    return [Point(name, scores[name], tuple(rates[name]), tuple(work[name])) for name in walks]


def to_measures(points: Sequence[Point], peer: Point) -> list[Measure]:
    """Return the figures of all programs, and their ratios to the peer's within each round."""
    rows = []
    for point in points:
        rows.append(Measure(point.name, "PCK@0.05, v > 0", "", (point.pck,)))
        rows.append(Measure(point.name, "people a second", "", point.rates))
        rows.append(Measure(point.name, "work a person", "ms", point.work_ms))
        if point is not peer:
            times = tuple(np.array(point.rates) / np.array(peer.rates))
            rows.append(Measure(point.name, "people a second, times the peer's", "", times))
            less = tuple(np.array(peer.work_ms) / np.array(point.work_ms))
            rows.append(Measure(point.name, "peer's work a person, times this", "", less))
    return rows


def draw(points: Sequence[Point], peer: Point, path: Path) -> None:
    """Draw accuracy against speed, speed as times the peer's people a second.

    Args:
        points: All programs.
        peer: The one that speed is measured by.
        path: An .svg or .png; an older one is replaced.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lbkit", "font.size": 10}):
        figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
        for point in points:
            times = float(np.median(np.array(point.rates) / np.array(peer.rates)))
            axes.plot(times, point.pck, "D" if point is peer else "o", color="#d55e00" if point is peer else "#0072b2")
            axes.annotate(point.name, (times, point.pck), xytext=(0, 8), textcoords="offset points", ha="center")
        axes.set_xscale("log")
        for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            ticks(lambda value, _: f"{value:g}")
        axes.margins(0.25)
        axes.set_xlabel("people a second, times the peer's (whole walk, files to joints)")
        axes.set_ylabel("PCK@0.05, v > 0")
        axes.grid(visible=True, which="both", alpha=0.3)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL[@PROVIDER]...")
@click.option(
    "--coco",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="A root in COCO's layout.",
)
@click.option(
    "--peer",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE.onnx",
    help="MoveNet, single pose.",
)
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True, help="How often each is timed.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N photographs.")
@output_option("against_movenet")
@click.option(
    "--figure",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.svg|FILE.png",
    help="Draw accuracy against speed.",
)
@readme_option
def main(
    *,
    models: tuple[str, ...],
    coco: Path,
    peer: Path,
    rounds: int,
    limit: int | None,
    output: Path,
    figure: Path | None,
    readme: bool,
) -> None:
    """Measure lbkit's MODELs against MoveNet over a COCO root; a model may name its provider, as fpn@openvino."""
    refuse_partial_readme(readme=readme, limit=limit)
    machine = describe_machine()
    people = People.of(CocoRoot(coco), limit=limit)
    walks: dict[str, Callable[[People], Joints]] = {peer.stem: PlainMoveNet(peer, threads=thread_limits().threads)}
    for model in models:
        name, _, provider = model.partition("@")
        label = find_model(name).stem + (f" {provider}" if provider else "")
        walks[label] = lbkit_walk(name, provider or "cpu")
    points = measure(walks, people, rounds=rounds)
    measures = to_measures(points, points[0])
    command = shown_command("against_movenet", *models, coco=coco, peer=peer, rounds=rounds, limit=limit, figure=figure)
    settings = {"people": len(people.listed), "photographs": len(people.by_path), "rounds": rounds, "data": coco.name}
    if figure is not None:
        draw(points, points[0], figure)
    notes = [
        f"{settings['people']} people on {settings['photographs']} photographs of {coco.name}, {rounds} rounds.",
        *([] if figure is None else [f"![accuracy against speed]({figure.name})"]),
    ]
    record = run_record(command, machine, settings=settings)
    publish(record, measures, output=output, readme=readme, name=MARKS, notes=notes)


if __name__ == "__main__":
    main()
