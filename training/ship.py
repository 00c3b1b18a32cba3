"""Measure checkpoints on a COCO root and write them, with their figures inside, where lbkit looks for them.

`python -m training.ship training/checkpoints/*.safetensors --coco ROOT` prints the table of figures again;
`python -m training.ship runs/fpn/best.safetensors --coco ROOT --output training/checkpoints` ships a new one.
"""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import click

from lbkit.core.backend import Backend
from lbkit.core.contract import Figure
from lbkit.core.estimator import PoseEstimator
from lbkit.core.files import refuse_overwrite
from lbkit.errors import ConfigError
from lbkit.evaluation.flip import FlipAveraged
from lbkit.evaluation.persons import CocoRoot, EvaluatedPersons, evaluate_persons
from lbkit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lbkit.models.torch_backend import TorchBackend
from training.endings import errors_as_lines

log = logging.getLogger(__name__)

COLUMNS = ("pck@0.05 v>0", "pck@0.05 v=2", "pck@0.05 all six", "pck@0.05 v>0 flip", "pck@0.05 v=2 flip")
"""The figures of the table; those with "flip" average over the mirror image and cost twice the time."""


def measure(checkpoint: Checkpoint, root: CocoRoot, *, data_name: str) -> Checkpoint:
    """Return the checkpoint with its PCK on a COCO root, annotated boxes, in the contract.

    Args:
        checkpoint: The checkpoint.
        root: The COCO root.
        data_name: Name of the data in the figures.

    Raises:
        LbkitError: The data or the checkpoint cannot be used.
    """
    backend = TorchBackend(checkpoint)
    figures = (
        *_figures(_evaluated(backend, root), data_name, suffix=""),
        *_figures(_evaluated(FlipAveraged(backend), root), data_name, suffix=" flip"),
    )
    return Checkpoint(checkpoint.contract.replace(evaluation=figures), checkpoint.state, checkpoint.training)


def _evaluated(backend: Backend, root: CocoRoot) -> EvaluatedPersons:
    return evaluate_persons(PoseEstimator(backend, batch_size=32), root)


def _figures(persons: EvaluatedPersons, data_name: str, *, suffix: str) -> list[Figure]:
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    rules = {"v>0": persons, "v=2": persons, "all six": persons.fully_labelled()}
    figures = []
    for threshold in (0.05, 0.10):
        for rule, counted in rules.items():
            value = counted.pck(threshold, min_visibility=2 if rule == "v=2" else 1)
            metric = f"pck@{threshold:.2f} {rule}{suffix}"
            figures.append(Figure(metric, round(value, 4), data_name, len(counted.image_ids), today))
    return figures


def figure_rows(measured: list[Checkpoint]) -> list[str]:
    """Return the Markdown table of measured checkpoints, header first."""
    rows = ["| model | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for checkpoint in measured:
        values = {figure.metric: figure.value for figure in checkpoint.contract.evaluation}
        cells = [f"{values[name]:.3f}" if name in values else "not measured" for name in COLUMNS]
        rows.append("| " + " | ".join([checkpoint.contract.model, *cells]) + " |")
    return rows


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--coco", required=True, envvar="LBKIT_COCO", type=click.Path(file_okay=False, path_type=Path))
@click.option("--split", default="val2017", show_default=True)
@click.option("--data-name", help="Name of the data in the figures; the root folder's name by default.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Folder to write NAME.safetensors to.")
@click.option("--force", is_flag=True, help="Replace what is there.")
def main(
    checkpoints: tuple[Path, ...],
    coco: Path,
    *,
    split: str,
    data_name: str | None,
    output: Path | None,
    force: bool,
) -> None:
    """Measure CHECKPOINTS, print the table and, with --output, write them there by their model's name."""
    root, measured = CocoRoot(coco, split), []
    with errors_as_lines(on_interrupt="what was written is whole"):
        loaded = [load_checkpoint(path) for path in checkpoints]
        if output:  # before minutes of measuring
            _refuse_targets(loaded, output, force=force)
        for checkpoint in loaded:
            measured.append(measure(checkpoint, root, data_name=data_name or coco.resolve().name))
            if output:
                _write(measured[-1], output, force=force)
    click.echo("\n".join(figure_rows(measured)))


def _refuse_targets(checkpoints: list[Checkpoint], folder: Path, *, force: bool) -> None:
    targets = [_target(checkpoint, folder) for checkpoint in checkpoints]
    for target in targets:
        if targets.count(target) > 1:
            raise ConfigError(f"{targets.count(target)} checkpoints would be written", where=target, remedy="give one")
        refuse_overwrite(target, force=force)


def _target(checkpoint: Checkpoint, folder: Path) -> Path:
    return folder / f"{checkpoint.contract.model}.safetensors"


def _write(checkpoint: Checkpoint, folder: Path, *, force: bool) -> None:
    target = _target(checkpoint, folder)
    refuse_overwrite(target, force=force)  # once more: measuring takes minutes
    save_checkpoint(target, checkpoint)
    click.echo(f"wrote {target}", err=True)


if __name__ == "__main__":
    main()
