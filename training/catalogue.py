"""Rewrite the tables of shipped models in the READMEs from the files themselves: `python -m training.catalogue`.

No figure in them is typed by hand: each comes from the contract inside the model's own file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lbkit.core.contract import MODEL_NAMES, ModelContract
from lbkit.core.files import atomic_path
from lbkit.errors import InputError
from lbkit.models.checkpoint import Checkpoint, load_checkpoint
from lbkit.runtime.ort_backend import OrtBackend
from training.endings import errors_as_lines
from training.ship import figure_rows

EXPORTED_SUFFIXES = (".onnx", "-int8.onnx", "-fp16.onnx")
"""What files of an exported model end in, after its name."""


def model_rows(exported: Path) -> list[str]:
    """Return the Markdown table of the ONNX files in a folder, header first.

    Raises:
        ModelError: A file there is not one of lbkit's.
    """
    rows = [
        "| model | precision | file | size | sha256 | PCK@0.05, v > 0 | v = 2 | measured on |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in [path for suffix in EXPORTED_SUFFIXES for path in _by_name(exported, suffix)]:
        contract = OrtBackend(path, threads=1).contract
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        size = f"{path.stat().st_size / 1e6:.1f} MB"
        first, second, where = _figures(contract)
        name = f"{contract.model} | {contract.precision}"
        rows.append(f"| {name} | `{path.name}` | {size} | `{digest}` | {first} | {second} | {where} |")
    return rows


def training_rows(checkpoints: Path) -> list[str]:
    """Return the Markdown table of how the checkpoints in a folder were trained.

    Raises:
        CheckpointError: A file there is not a checkpoint.
    """
    rows = ["| model | stages | crops seen | minutes | validation PCK@0.05 |", "|---|---|---|---|---|"]
    return rows + [_training_row(load_checkpoint(path)) for path in _by_name(checkpoints, ".safetensors")]


def shipped_figures(checkpoints: Path) -> list[str]:
    """Return the Markdown table of the figures inside the checkpoints in a folder, as `training.ship` measured them.

    Raises:
        CheckpointError: A file there is not a checkpoint.
    """
    return figure_rows([load_checkpoint(path) for path in _by_name(checkpoints, ".safetensors")])


def _training_row(checkpoint: Checkpoint) -> str:
    stages = _stages(checkpoint.training)
    sizes = ", ".join(f"{stage['epochs']} at {_size(stage)}" for stage in stages)
    seen = sum(stage["seen"] for stage in stages)
    minutes = sum(stage["seconds"] for stage in stages) / 60
    score = stages[-1]["validation"].get("val_pck@0.05", float("nan"))
    return f"| {checkpoint.contract.model} | epochs: {sizes} | {seen:,} | {minutes:.0f} | {score:.3f} |"


def _stages(story: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a training's stages, the first one first."""
    earlier = story.get("started_from")
    return [*(_stages(earlier) if earlier else []), story]


def _size(stage: Mapping[str, Any]) -> str:
    return f"{stage['recipe']['input_height']} x {stage['recipe']['input_width']}"


def _by_name(folder: Path, suffix: str) -> list[Path]:
    known = [folder / f"{name}{suffix}" for name in MODEL_NAMES]
    return [path for path in known if path.exists()]


def _figures(contract: ModelContract) -> tuple[str, str, str]:
    figures = {figure.metric: figure for figure in contract.evaluation}
    if "pck@0.05 v>0" not in figures:
        return "not measured", "", ""
    first, second = figures["pck@0.05 v>0"], figures["pck@0.05 v=2"]
    return f"{first.value:.3f}", f"{second.value:.3f}", f"{first.data}, {first.persons} persons, {first.date}"


def rewrite_section(path: Path, name: str, *, lines: list[str]) -> None:
    """Replace what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` in a document.

    Raises:
        InputError: The document has no such section.
    """
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    if not pattern.search(text):
        raise InputError(f"has no section {name}", where=path, remedy=f"put <!-- {name}:begin --> and :end --> in it")
    body = "\n".join(lines) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(pattern.sub(lambda found: found[1] + body + found[2], text), encoding="utf-8")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--root", default=".", type=click.Path(file_okay=False, exists=True, path_type=Path), help="The checkout."
)
def main(root: Path) -> None:
    """Rewrite the tables of shipped models in README.md, exported/README.md and training/README.md."""
    with errors_as_lines(on_interrupt="each table is either the old or the new one"):
        models = model_rows(root / "exported")
        for document in (root / "README.md", root / "exported" / "README.md"):
            rewrite_section(document, "models", lines=models)
        training, checkpoints = root / "training" / "README.md", root / "training" / "checkpoints"
        rewrite_section(training, "shipped", lines=training_rows(checkpoints))
        rewrite_section(training, "figures", lines=shipped_figures(checkpoints))


if __name__ == "__main__":
    main()
