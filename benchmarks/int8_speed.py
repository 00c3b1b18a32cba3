"""What int8 gains: PyTorch eager, torch.compile, ONNX Runtime in fp32 and in int8, in turns on the same crops.

    python benchmarks/int8_speed.py

Each ratio is taken within a round and then its median, so that what else the machine does slows all alike. Before a
time is taken, every way must agree with PyTorch on drawn figures: fp32 to a median of 0.01 px, int8 to one of 1 px.
"""

from __future__ import annotations

import datetime
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from machine import describe_machine, machine_words
from measures import Measure, replace_figures, table, write_json
from numpy.typing import NDArray

from lbkit.core.codec import decode_heatmaps
from lbkit.core.contract import MODEL_NAMES, ModelContract
from lbkit.core.preprocess import normalize_crops
from lbkit.core.threads import thread_limits
from lbkit.export.figures import figure_crops
from lbkit.models.checkpoint import find_checkpoint, load_checkpoint
from lbkit.runtime.loading import find_model
from lbkit.runtime.ort_backend import OrtBackend

README = Path(__file__).with_name("README.md")
MARKS = "int8"

AGAINST_TORCH = 2.5
AGAINST_ORT = 2.0
TORCH, COMPILED, FP32, INT8 = "PyTorch eager", "torch.compile", "ONNX Runtime fp32", "ONNX Runtime int8"

DEFAULT_ROUNDS = 30
QUIET_LOAD = 1.0
BUSY = (
    "Other programs ran meanwhile, as the load average says: read the ratios between the two ONNX Runtime files, not"
    " the times. PyTorch's threads wait for each other and suffer most, so its ratios are too high."
)
TIMES = 6

SAME_PX = 0.01
NEAR_PX = 1.0

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""(N, H, W, 3) uint8 RGB crops to (N, K, h, w) heatmaps."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        rounds: Rounds of all ways, by batch size.
        compiled: Whether torch.compile takes part.
    """

    rounds: dict[int, int]
    compiled: bool


def torch_run(name: str, contract: ModelContract, *, compiled: bool) -> Run:
    """Return the bare network in PyTorch, fp32, with the host's normalisation, which is part of every way."""
    import torch

    torch.set_num_threads(thread_limits().threads)
    module: Any = load_checkpoint(find_checkpoint(name)).to_module().eval()
    module = torch.compile(module) if compiled else module

    def run(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            heatmaps: NDArray[np.float32] = module(torch.from_numpy(normalize_crops(crops, contract.input))).numpy()
        return heatmaps

    return run


def ort_run(path: Path) -> Run:
    """Return a file in ONNX Runtime on the CPU."""
    backend = OrtBackend(path)

    def run(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        heatmaps = backend.run(crops).heatmaps
        assert heatmaps is not None  # the shipped files put out heatmaps
        return heatmaps

    return run


def ways(name: str, *, compiled: bool) -> tuple[dict[str, Run], ModelContract]:
    """Return every way to run a network, by name, and its contract."""
    contract = OrtBackend(find_model(name)).contract
    found = {TORCH: torch_run(name, contract, compiled=False)}
    if compiled:
        found[COMPILED] = torch_run(name, contract, compiled=True)
    return found | {FP32: ort_run(find_model(name)), INT8: ort_run(find_model(f"{name}-int8"))}, contract


def check_agreement(runs: dict[str, Run], contract: ModelContract) -> None:
    """Require that every way finds the same joints on drawn figures.

    Raises:
        ClickException: One does not.
    """
    crops = figure_crops(contract.input.size, 5)
    joints = {way: decode_heatmaps(run(crops), spec=contract.heatmap)[..., :2] for way, run in runs.items()}
    for way, found in joints.items():
        apart = np.linalg.norm(found - joints[TORCH], axis=-1)
        limit = NEAR_PX if way == INT8 else SAME_PX
        if not np.median(apart) <= limit:
            raise click.ClickException(f"{contract.model}: {way} is {np.median(apart):.3f} px (median) from {TORCH}")


def measure(name: str, scale: Scale) -> list[Measure]:
    """Measure one network at every batch size."""
    runs, contract = ways(name, compiled=scale.compiled)
    check_agreement(runs, contract)
    measures = []
    for batch, rounds in scale.rounds.items():
        click.echo(f"{name}, batch {batch}", err=True)
        crops = np.resize(
            figure_crops(contract.input.size, 5), (batch, *figure_crops(contract.input.size, 1).shape[1:])
        )
        for run in runs.values():
            run(crops)  # the first run compiles and allocates
        seconds = _rounds(runs, crops, rounds)
        measures += _measures(f"{name}, batch {batch}", seconds)
    return measures


def _rounds(runs: dict[str, Run], crops: NDArray[np.uint8], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each way, round by round; the order turns round after each.

    In a round each way runs `TIMES` times in a row, and the median counts without the first, during which the threads
    of the way before still spin for more work.
    """
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    for index in range(rounds):
        for way in list(runs) if index % 2 == 0 else list(reversed(runs)):
            seconds[way].append(statistics.median([_seconds(runs[way], crops) for _ in range(TIMES)][1:]))
    return seconds


def _seconds(run: Run, crops: NDArray[np.uint8]) -> float:
    begin = time.perf_counter()
    run(crops)
    return time.perf_counter() - begin


def _measures(section: str, seconds: dict[str, list[float]]) -> list[Measure]:
    times = [Measure(section, way, "ms", tuple(1e3 * each for each in values)) for way, values in seconds.items()]
    targets = {TORCH: AGAINST_TORCH, FP32: AGAINST_ORT, COMPILED: None}
    ratios = [
        Measure(
            section,
            f"int8 over {way}",
            "times",
            tuple(other / own for other, own in zip(seconds[way], seconds[INT8], strict=True)),
            targets[way],
            is_least=True,
        )
        for way in seconds
        if way != INT8
    ]
    return [*times, *ratios]


def _readme_block(document: dict[str, Any], measures: list[Measure]) -> str:
    machine = document["machine"]
    parts = [f"`{document['command']}`, {document['date']}", f"{machine_words(machine)}.", table(measures)]
    return "\n\n".join([*parts, BUSY] if machine["load_average"] > QUIET_LOAD else parts)


@click.command()
@click.option("--model", "models", multiple=True, type=click.Choice(MODEL_NAMES), help="Only this; repeatable.")
@click.option("--compile", "compiled", is_flag=True, help="Measure torch.compile too; it compiles for minutes.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.json",
    default=Path("build/int8_speed.json"),
    show_default=True,
    help="Where all values go; an older file is replaced.",
)
@click.option(
    "--rounds",
    type=click.IntRange(3, 1000),
    default=DEFAULT_ROUNDS,
    show_default=True,
    metavar="N",
    help="Rounds at a batch of 1; a third as many at 8.",
)
@click.option("--quick", is_flag=True, help="One round, to see that it runs and agrees; the times mean nothing.")
@click.option("--readme", is_flag=True, help="Put the figures into the README of this folder.")
def main(*, models: tuple[str, ...], compiled: bool, output: Path, rounds: int, quick: bool, readme: bool) -> None:
    """Measure what int8 gains over PyTorch and ONNX Runtime in fp32, at batches of 1 and 8."""
    if readme and (quick or models):
        raise click.UsageError("--readme needs the whole run, without --quick and --model.")
    machine = describe_machine()
    scale = Scale({1: 1, 8: 1} if quick else {1: rounds, 8: rounds // 3}, compiled)
    chosen = models or MODEL_NAMES
    measures = [each for name in chosen for each in measure(name, scale)]
    flags = [f" --model {name}" for name in models]
    flags += [" --compile"] * compiled + [" --quick"] * quick + [f" --rounds {rounds}"] * (rounds != DEFAULT_ROUNDS)
    document = {
        "command": f"python benchmarks/int8_speed.py{''.join(flags)}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine,
        "figures": [each.to_dict() for each in measures],
    }
    click.echo(table(measures))
    write_json(output, document)
    click.echo(f"wrote {output}", err=True)
    if readme:
        replace_figures(README, _readme_block(document, measures), name=MARKS)
        click.echo(f"wrote {README}", err=True)


if __name__ == "__main__":
    main()
