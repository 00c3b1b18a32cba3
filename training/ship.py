"""Measure checkpoints on a COCO root and write them, with their figures inside, where lbkit looks for them.

`python -m training.ship runs/fpn/best.safetensors --coco ROOT --output training/checkpoints`
"""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import click

from lbkit.core.contract import Figure
from lbkit.core.estimator import PoseEstimator
from lbkit.core.files import refuse_overwrite
from lbkit.errors import LbkitError
from lbkit.evaluation.persons import CocoRoot, EvaluatedPersons, evaluate_persons
from lbkit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lbkit.models.torch_backend import TorchBackend

log = logging.getLogger(__name__)


def measure(checkpoint: Checkpoint, root: CocoRoot, *, data_name: str) -> Checkpoint:
    """Return the checkpoint with its PCK on a COCO root, annotated boxes, in the contract.

    Args:
        checkpoint: The checkpoint.
        root: The COCO root.
        data_name: Name of the data in the figures.

    Raises:
        LbkitError: The data or the checkpoint cannot be used.
    """
    persons = evaluate_persons(PoseEstimator(TorchBackend(checkpoint), batch_size=32), root)
    figures = tuple(_figures(persons, data_name))
    return Checkpoint(checkpoint.contract.replace(evaluation=figures), checkpoint.state, checkpoint.training)


def _figures(persons: EvaluatedPersons, data_name: str) -> list[Figure]:
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    count = len(persons.image_ids)
    measured = {
        f"pck@{threshold:.2f} {rule}": persons.pck(threshold, min_visibility=visibility)
        for threshold in (0.05, 0.10)
        for rule, visibility in (("v>0", 1), ("v=2", 2))
    }
    return [Figure(metric, round(value, 4), data_name, count, today) for metric, value in measured.items()]


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
    """Measure CHECKPOINTS and, with --output, write them there by their model's name."""
    root = CocoRoot(coco, split)
    try:
        for path in checkpoints:
            measured = measure(load_checkpoint(path), root, data_name=data_name or coco.resolve().name)
            for figure in measured.contract.evaluation:
                click.echo(f"{path}  {figure.metric}  {figure.value:.4f}  ({figure.persons} persons, {figure.data})")
            if output:
                target = output / f"{measured.contract.model}.safetensors"
                refuse_overwrite(target, force=force)
                save_checkpoint(target, measured)
                click.echo(f"wrote {target}")
    except LbkitError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
