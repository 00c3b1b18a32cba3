"""Train a network by a recipe: `python -m training.train RECIPE.toml --data DIR --output DIR`.

Several processes: `torchrun --nproc-per-node N -m training.train RECIPE.toml ...`.
"""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import click
import torch

from lbkit import __version__
from lbkit.errors import ConfigError
from lbkit.models.checkpoint import Checkpoint, load_checkpoint
from lbkit.models.registry import bare_contract, build_model, find_architecture
from lbkit.models.resnet import load_backbone
from training.config import Recipe, read_recipe
from training.distributed import ALONE, Processes, joined
from training.endings import errors_as_lines
from training.loop import Trainer
from training.people import load_sources

log = logging.getLogger(__name__)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("recipe_path", metavar="RECIPE", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--data", required=True, envvar="LBKIT_TRAIN_DATA", type=click.Path(file_okay=False, path_type=Path))
@click.option("--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the run.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe.")
@click.option("--backbone-weights", help="torchvision, none, or a safetensors file; replaces the recipe's.")
@click.option("--max-minutes", type=click.FloatRange(min=0, min_open=True), help="Stop, resumable, after this time.")
@click.option("--save-minutes", type=click.FloatRange(min=0), default=5.0, show_default=True)
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
def main(
    recipe_path: Path,
    data: Path,
    output: Path,
    *,
    settings: tuple[str, ...],
    backbone_weights: str | None,
    max_minutes: float | None,
    save_minutes: float,
    device: str,
) -> None:
    """Train by RECIPE; run the same line again to go on after a stop."""
    if backbone_weights:
        settings = (*settings, f"backbone_weights={backbone_weights}")
    with errors_as_lines(on_interrupt=f"run the same line again to go on from the last saved state in {output}"):
        recipe = read_recipe(recipe_path, settings=settings)
        with joined(device) as (processes, own_device):
            level = logging.INFO if processes.is_first else logging.WARNING
            logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
            trainer = make_trainer(recipe, data=data, output=output, device=own_device, processes=processes)
            best = trainer.run(max_minutes=max_minutes, save_minutes=save_minutes)
    if processes.is_first:
        _tell(trainer, best, output)


def _tell(trainer: Trainer, best: Path | None, output: Path) -> None:
    if not trainer.is_over:
        done = f"{trainer.progress.epoch} of {trainer.recipe.epochs} epochs"
        click.echo(f"stopped after {done}; run the same line again to go on in {output}")
    if best is not None:
        click.echo(f"{best}\nnext: lbkit export --model {trainer.recipe.model} --checkpoint {best}")


def make_trainer(recipe: Recipe, *, data: Path, output: Path, device: str, processes: Processes = ALONE) -> Trainer:
    """Return a trainer ready to run, resumed if `output` holds a state.

    Args:
        recipe: The recipe.
        data: The folder that sources' paths are relative to.
        output: The run's folder.
        device: A PyTorch device.
        processes: This process among those of the run.

    Raises:
        LbkitError: Data, weights or the state cannot be used.
    """
    torch.manual_seed(recipe.seed)
    architecture = find_architecture(recipe.model)
    module = build_model(recipe.model)
    start = _earlier_stage(recipe)
    if start:
        module.load_state_dict(start.to_module().state_dict())
    elif architecture.has_backbone:
        load_backbone(module.get_submodule("backbone"), recipe.backbone_weights)  # type: ignore[arg-type]
    sources = load_sources(recipe, data)
    trainer = Trainer(
        recipe,
        module,
        contract=bare_contract(
            recipe.model, weights_sha256="", training_data=start.contract.training_data if start else ()
        ),
        sources=sources,
        folder=output,
        device=torch.device(device),
        facts={
            "lbkit": __version__,
            "torch": torch.__version__,
            "git_commit": _git_commit(),
            "device": device,
            "processes": processes.count,
            "started_from": dict(start.training) if start else None,
        },
        processes=processes,
    )
    trainer.resume()
    log.info("%d steps an epoch, %d epochs", trainer.steps_per_epoch, recipe.epochs)
    return trainer


def _earlier_stage(recipe: Recipe) -> Checkpoint | None:
    if not recipe.init_from:
        return None
    start = load_checkpoint(Path(recipe.init_from))
    if start.contract.model != recipe.model:
        raise ConfigError(
            f"init_from is a {start.contract.model}, and the recipe trains a {recipe.model}",
            where=recipe.init_from,
            remedy=f"give a checkpoint of {recipe.model}",
        )
    return start


def _git_commit() -> str:
    try:
        command = [
            "git",
            "-C",
            str(Path(__file__).parent),
            "rev-parse",
            "HEAD",
        ]  # of this code, wherever it is run from
        line = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return line.stdout.strip()


if __name__ == "__main__":
    main()
