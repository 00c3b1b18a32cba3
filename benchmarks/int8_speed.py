"""What int8 and lbkit's fp32 files gain over what else runs the same networks: all ways in turns, on the same crops.

    python benchmarks/int8_speed.py --calibration TRAIN --coco ROOT

Each ratio is taken within a round and then its median, so that what else the machine does slows all alike. Before a
time is taken, every way of lbkit's must agree with PyTorch on drawn figures: fp32 to a median of 0.01 px, bfloat16 and
int8 to one of 1 px. What reduced arithmetic costs in PCK is measured on the same annotated people for all.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import click
import numpy as np
import onnx
from machine import describe_machine
from measures import Measure, grid, table
from nncf_int8 import quantize_by_nncf
from numpy.typing import NDArray
from publication import (
    output_option,
    publish,
    quick_option,
    readme_option,
    refuse_partial_readme,
    run_record,
    shown_command,
)

from lbkit.bench.runners import load_runner
from lbkit.core.backend import Backend, ModelOutput
from lbkit.core.codec import decode_heatmaps
from lbkit.core.contract import MODEL_NAMES, ModelContract
from lbkit.core.estimator import PoseEstimator
from lbkit.core.preprocess import normalize_crops
from lbkit.core.threads import thread_limits
from lbkit.errors import LbkitError, MissingDependencyError, ModelError, ProviderError
from lbkit.export.figures import POSES, figure_crops
from lbkit.export.options import ExportOptions
from lbkit.export.pipeline import export_model
from lbkit.export.subpixel import rewrite_deconvolutions
from lbkit.quantization.comparison import Judge, find_joints
from lbkit.quantization.options import DEFAULT_MAX_DROP, DEFAULT_SAMPLES, ReductionOptions
from lbkit.quantization.roles import Roles, cast_roles
from lbkit.runtime.loading import find_model
from lbkit.runtime.wheels import import_onnxruntime, installed_version

MARKS = "int8"

EAGER, COMPILED = "PyTorch eager", "torch.compile"
PLAIN = "plain ONNX Runtime fp32"
FP32, SUBPIXEL = "lbkit fp32", "lbkit fp32 --subpixel"
FP32_OPENVINO, BF16 = "lbkit fp32, openvino", "lbkit fp32, openvino-bf16"
INT8, INT8_OPENVINO = "lbkit int8", "lbkit int8, openvino"
NNCF = "NNCF int8, openvino"
REDUCED = (BF16, INT8, INT8_OPENVINO, NNCF)

RATIOS: tuple[tuple[str, str, float | None], ...] = (
    (INT8, EAGER, 2.5),
    (INT8, COMPILED, None),
    (INT8, PLAIN, 2.0),
    (INT8, NNCF, 1.0),
    (INT8_OPENVINO, NNCF, None),
    (INT8_OPENVINO, INT8, None),
    (FP32, PLAIN, 1.0),
    (SUBPIXEL, FP32, None),
)
"""Who is compared with whom, and how many times as fast it should be."""

BATCHES = (1, 8)
DEFAULT_ROUNDS = 30
QUICK_SAMPLES = 4
QUIET_LOAD = 1.0
BUSY = (
    "Other programs ran meanwhile, as the load average says: read the ratios between ways in one runtime, not the"
    " times. PyTorch's threads wait for each other and suffer most, so its ratios are too high."
)
TIMES = 6

SAME_PX = 0.01
NEAR_PX = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and on whom.

    Attributes:
        rounds: Rounds at a batch of 1; a third as many, at least one, at 8.
        compiled: Whether torch.compile takes part.
        calibration: People that NNCF is calibrated on; a part of `coco` when None.
        coco: Annotated people that PCK is measured on; no PCK and no NNCF when None.
        samples: People to calibrate on.
        folder: Holds temporary files.
    """

    rounds: int
    compiled: bool
    calibration: Path | None
    coco: Path | None
    samples: int
    folder: Path


@dataclass(frozen=True, slots=True, eq=False)
class Ways:
    """Every way to run one network.

    Attributes:
        name: The network.
        backends: What runs here, by name, in the order of the table.
        skipped: What does not, and why.
        roles: Who is calibrated on and who is measured; None without `--coco`.
    """

    name: str
    backends: dict[str, Backend] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    roles: Roles | None = None

    @property
    def contract(self) -> ModelContract:
        """The contract of the shipped fp32 file."""
        return self.backends[FP32].contract

    def add(self, way: str, load: Callable[[], Backend], *excused: type[LbkitError]) -> None:
        """Load a way; one that fails with an excused error is skipped, and that is said."""
        try:
            self.backends[way] = load()
        except excused as error:
            self.skipped[way] = str(error)
            click.echo(f"{self.name}: {way} is not measured: {error}", err=True)


class NotApplicableError(LbkitError):
    """A way does not apply to this network, or to these options."""


class PlainOrt:
    """The bare network in ONNX Runtime as its own pages show it, with the host's normalisation before it.

    Args:
        path: A file that takes normalised float32 crops.
        contract: Its contract.
    """

    def __init__(self, path: Path, contract: ModelContract) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_limits().threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.contract = contract

    def run(self, crops: NDArray[np.uint8]) -> ModelOutput:
        """Return (N, K, h, w) heatmaps of (N, H, W, 3) uint8 RGB crops."""
        spec = self.contract.input
        (heatmaps,) = self._session.run(None, {spec.name: normalize_crops(crops, spec)})
        return ModelOutput(heatmaps=heatmaps, keypoints=None)


def load_ways(name: str, plan: Plan) -> Ways:
    """Load every way to run a network; what is not installed is skipped."""
    full, reduced = find_model(name), find_model(f"{name}-int8")
    roles = None if plan.coco is None else _cast(full, plan)
    ways = Ways(name, roles=roles)
    on = partial(load_runner, threads=None)
    ways.add(EAGER, lambda: on(full, "torch"))
    if plan.compiled:
        ways.add(COMPILED, lambda: _compiled(full), ModelError)
    ways.add(PLAIN, lambda: _plain(name, plan.folder))
    ways.add(FP32, lambda: on(full, "cpu"))
    ways.add(SUBPIXEL, lambda: on(_rewritten(full, plan.folder), "cpu"), NotApplicableError)
    absent = (MissingDependencyError, ProviderError)
    ways.add(FP32_OPENVINO, lambda: on(full, "openvino"), *absent)
    ways.add(BF16, lambda: on(full, "openvino-bf16"), *absent)
    ways.add(INT8, lambda: on(reduced, "cpu"))
    ways.add(INT8_OPENVINO, lambda: on(reduced, "openvino"), *absent)
    ways.add(NNCF, lambda: _nncf(full, roles, plan.folder), NotApplicableError, *absent)
    return ways


def _cast(full: Path, plan: Plan) -> Roles:
    options = ReductionOptions(calibration=plan.calibration, coco=plan.coco, samples=plan.samples)
    return cast_roles(options, PoseEstimator(load_runner(full, "cpu", threads=None)))


def _compiled(full: Path) -> Backend:
    backend = load_runner(full, "torch-compile", threads=None)
    for batch in BATCHES:
        click.echo(f"{full.stem}: compiling for a batch of {batch}", err=True)
        backend.run(_crops(backend.contract, batch))  # compiles, or says what is in the way
    return backend


def _plain(name: str, folder: Path) -> Backend:
    report = export_model(name, output=folder / f"{name}-bare.onnx", options=ExportOptions(input_dtype="float32"))
    return PlainOrt(report.path, report.contract)


def _rewritten(full: Path, folder: Path) -> Path:
    """Write what `lbkit export --subpixel` writes."""
    model = onnx.load(full)
    if not rewrite_deconvolutions(model):
        raise NotApplicableError("the network has no deconvolution")
    target = folder / f"{full.stem}-subpixel.onnx"
    onnx.save(model, target)
    return target


def _nncf(full: Path, roles: Roles | None, folder: Path) -> Backend:
    if roles is None:
        raise NotApplicableError("there is nobody to calibrate on", remedy="give --coco")
    target = folder / f"{full.stem}-nncf.xml"
    click.echo(f"{full.stem}: NNCF calibrates on {len(roles.calibrating)} people", err=True)
    quantize_by_nncf(full, roles.calibrating.pixels, target=target)
    return load_runner(target, "openvino", threads=None)


def _crops(contract: ModelContract, count: int) -> NDArray[np.uint8]:
    figures = figure_crops(contract.input.size, len(POSES))
    return np.resize(figures, (count, *figures.shape[1:]))


def _heatmaps(backend: Backend, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    heatmaps = backend.run(crops).heatmaps
    assert heatmaps is not None  # the shipped files put out heatmaps
    return heatmaps


def check_agreement(ways: Ways) -> None:
    """Require that every way of lbkit's finds the same joints on drawn figures as PyTorch.

    Raises:
        ClickException: One does not.
    """
    crops, spec = _crops(ways.contract, max(BATCHES)), ways.contract.heatmap
    expected = decode_heatmaps(_heatmaps(ways.backends[EAGER], crops), spec=spec)[..., :2]
    for way, backend in ways.backends.items():
        if way == NNCF:  # not ours to vouch for: its PCK is told beside its time
            continue
        found = decode_heatmaps(_heatmaps(backend, crops), spec=spec)[..., :2]
        apart = float(np.median(np.linalg.norm(found - expected, axis=-1)))
        if not apart <= (NEAR_PX if way in REDUCED else SAME_PX):
            raise click.ClickException(f"{ways.name}: {way} is {apart:.3f} px (median) from {EAGER}")


def measure_accuracy(ways: Ways) -> list[Measure]:
    """Return PCK@0.05 of the fp32 file and the points of it that every reduced way loses, on the same people."""
    if ways.roles is None or ways.roles.measuring.source.people is None:
        return []
    click.echo(f"{ways.name}: PCK on {len(ways.roles.measuring)} people", err=True)
    people, judge = ways.roles.measuring, Judge(ways.roles.measuring.source)
    before = find_joints(PoseEstimator(ways.backends[FP32]), people)
    rows = [Measure(ways.name, f"{FP32}: PCK@0.05, v > 0", "", (judge.change(before, before).after,))]
    for way in REDUCED:
        if way in ways.backends:
            lost = judge.change(before, find_joints(PoseEstimator(ways.backends[way]), people)).drop_points
            target = DEFAULT_MAX_DROP if way in (INT8, INT8_OPENVINO) else None
            rows.append(Measure(ways.name, f"{way}: points of it lost", "", (lost,), target))
    return rows


def measure_speed(ways: Ways, rounds: int) -> list[Measure]:
    """Return the times of every way at every batch size, and their ratios."""
    measures = []
    for batch in BATCHES:
        click.echo(f"{ways.name}, batch {batch}", err=True)
        crops = _crops(ways.contract, batch)
        for backend in ways.backends.values():
            backend.run(crops)  # the first run allocates
        seconds = _rounds(ways.backends, crops, rounds if batch == 1 else max(1, rounds // 3))
        measures += _measures(f"{ways.name}, batch {batch}", seconds)
    return measures


def _rounds(backends: dict[str, Backend], crops: NDArray[np.uint8], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each way, round by round; the order turns round after each.

    In a round each way runs `TIMES` times in a row, and the median counts without the first, during which the threads
    of the way before still spin for more work.
    """
    seconds: dict[str, list[float]] = {way: [] for way in backends}
    for index in range(rounds):
        for way in list(backends) if index % 2 == 0 else list(reversed(backends)):
            seconds[way].append(statistics.median([_seconds(backends[way], crops) for _ in range(TIMES)][1:]))
    return seconds


def _seconds(backend: Backend, crops: NDArray[np.uint8]) -> float:
    begin = time.perf_counter()
    backend.run(crops)
    return time.perf_counter() - begin


def _measures(section: str, seconds: dict[str, list[float]]) -> list[Measure]:
    times = [Measure(section, way, "ms", tuple(1e3 * each for each in values)) for way, values in seconds.items()]
    ratios = [
        Measure(section, f"{own} over {other}", "times", _ratios(seconds[other], seconds[own]), target, is_least=True)
        for own, other, target in RATIOS
        if own in seconds and other in seconds
    ]
    return [*times, *ratios]


def _ratios(others: Iterable[float], own: Iterable[float]) -> tuple[float, ...]:
    return tuple(other / each for other, each in zip(others, own, strict=True))


def _tables(measures: Sequence[Measure]) -> list[str]:
    """Return medians of times as a grid, and ratios and PCK with their targets."""
    times = [each for each in measures if each.unit == "ms"]
    return [grid(times, corner="ms a batch, median"), table([each for each in measures if each.unit != "ms"])]


def _notes(roles: Roles | None, skipped: Sequence[str], load_average: float) -> list[str]:
    notes = []
    if roles is not None:
        notes.append(f"PCK of {len(roles.measuring)} people of {roles.measuring.source.name}.")
        if version := installed_version("nncf"):
            given = roles.calibrating
            notes.append(f"NNCF {version}, calibrated on {len(given)} people of {given.source.name}.")
    notes += [f"Not measured: {'; '.join(skipped)}."] if skipped else []
    return [*notes, BUSY] if load_average > QUIET_LOAD else notes


@click.command()
@click.option("--model", "models", multiple=True, type=click.Choice(MODEL_NAMES), help="Only this; repeatable.")
@click.option(
    "--calibration",
    type=click.Path(exists=True, path_type=Path),
    metavar="DIR|FILE",
    help="People to calibrate NNCF on, as of `lbkit quantize`.  [default: a part of --coco]",
)
@click.option(
    "--coco",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="LBKIT_COCO",
    show_envvar=True,
    metavar="ROOT",
    help="Annotated people to measure PCK on; without it neither PCK nor NNCF is measured.",
)
@click.option("--compile/--no-compile", "compiled", default=True, help="Measure torch.compile too.  [default: yes]")
@output_option("int8_speed")
@click.option(
    "--rounds",
    type=click.IntRange(3, 1000),
    default=DEFAULT_ROUNDS,
    show_default=True,
    metavar="N",
    help="Rounds at a batch of 1; a third as many at 8.",
)
@quick_option
@readme_option
def main(
    *,
    models: tuple[str, ...],
    calibration: Path | None,
    coco: Path | None,
    compiled: bool,
    output: Path,
    rounds: int,
    quick: bool,
    readme: bool,
) -> None:
    """Measure model time at batches of 1 and 8 against PyTorch, ONNX Runtime and OpenVINO's own int8."""
    refuse_partial_readme(readme=readme, quick=quick, model=models)
    machine = describe_machine()
    measures: list[Measure] = []
    skipped: list[str] = []
    roles = None
    for name in models or MODEL_NAMES:
        with tempfile.TemporaryDirectory(prefix="lbkit-int8-speed-") as folder:
            samples = QUICK_SAMPLES if quick else DEFAULT_SAMPLES
            plan = Plan(1 if quick else rounds, compiled, calibration, coco, samples, Path(folder))
            ways = load_ways(name, plan)
            check_agreement(ways)
            measures += [*measure_speed(ways, plan.rounds), *measure_accuracy(ways)]
        skipped += [f"{name}, {way} ({reason})" for way, reason in ways.skipped.items()]
        roles = ways.roles
    command = shown_command(
        "int8_speed",
        model=models,
        calibration=calibration,
        coco=coco,
        no_compile=not compiled,
        quick=quick,
        rounds=None if rounds == DEFAULT_ROUNDS else rounds,
    )
    record = run_record(command, machine, skipped=skipped)
    notes = _notes(roles, skipped, machine["load_average"])
    publish(record, measures, output=output, readme=readme, name=MARKS, notes=notes, tables=_tables(measures))


if __name__ == "__main__":
    main()
