"""`lbkit info`: what a model file says of itself."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from lbkit.cli.options import DEFAULT_MODEL, json_option

if TYPE_CHECKING:
    from lbkit.core.contract import Figure, ModelContract
    from lbkit.evaluation.card import ModelDescription

Section = tuple[str, list[tuple[str, str]]]


@click.command()
@click.argument("model", metavar="[MODEL]", default=DEFAULT_MODEL)
@json_option
def info(*, model: str, as_json: bool) -> None:
    """Show the contract and the measured figures of MODEL: a name, an ONNX file, or a checkpoint (.safetensors)."""
    from lbkit.evaluation.card import describe_model

    description = describe_model(model)
    if as_json:
        click.echo(json.dumps(_record(description), indent=2))
    elif sys.stdout.isatty():
        _print_table(_sections(description))
    else:
        for title, rows in _sections(description):
            for name, text in rows:
                click.echo(f"{title}\t{name}\t{text}")


def _record(description: ModelDescription) -> dict[str, Any]:
    from lbkit.core.records import record_to_mapping

    return {
        "path": str(description.path),
        "kind": description.kind,
        "size_bytes": description.size_bytes,
        "sha256": description.sha256,
        "contract": record_to_mapping(description.contract),
        "training": dict(description.training),
    }


def _sections(description: ModelDescription) -> list[Section]:
    contract = description.contract
    return [
        ("file", _file_rows(description)),
        ("joints", [(str(number), name) for number, name in enumerate(contract.keypoints.names)]),
        ("input", _input_rows(contract)),
        ("output", _output_rows(contract)),
        ("weights", [("sha256", contract.weights_sha256), ("trained on", ", ".join(contract.training_data) or "-")]),
        ("training", [(name, _short(value)) for name, value in description.training.items()]),
        ("figures", [(figure.metric, _figure_text(figure)) for figure in contract.evaluation] or [("none", "-")]),
    ]


def _file_rows(description: ModelDescription) -> list[tuple[str, str]]:
    contract = description.contract
    return [
        ("path", str(description.path)),
        ("kind", description.kind),
        ("size", f"{description.size_bytes / 1e6:.2f} MB"),
        ("sha256", description.sha256),
        ("model", contract.model),
        ("precision", contract.precision),
        ("contract", f"version {contract.contract_version}"),
    ]


def _input_rows(contract: ModelContract) -> list[tuple[str, str]]:
    given, crop = contract.input, contract.crop
    return [
        ("tensor", f"{given.name}: {given.dtype} {given.color_order} {given.layout}, {given.size}, any batch"),
        ("mean", _numbers(given.mean)),
        ("std", _numbers(given.std)),
        ("crop", f"box made {given.size.height}:{given.size.width}, times {crop.padding:g}, {crop.resampling}"),
        ("outside", f"RGB {_numbers(crop.border_value)}"),
        ("pixels", f"{crop.pixel_convention}: the centre of the top-left pixel is (0, 0)"),
    ]


def _output_rows(contract: ModelContract) -> list[tuple[str, str]]:
    heatmap = contract.heatmap
    place = "in the graph" if heatmap.decoded_in_graph else "on the host"
    return [
        ("tensors", ", ".join(contract.outputs)),
        ("heatmap", f"{heatmap.size}, {heatmap.stride} input pixels a cell, sigma {heatmap.sigma:g} cells"),
        ("decoder", f"{heatmap.decoder}, {place}"),
        ("oks sigmas", _numbers(contract.keypoints.oks_sigmas)),
    ]


def _figure_text(figure: Figure) -> str:
    bounds = "" if figure.interval is None else f" [{figure.interval[0]:.4f}, {figure.interval[1]:.4f}]"
    data = figure.data if figure.data_sha256 is None else f"{figure.data} (sha256 {figure.data_sha256[:12]})"
    return f"{figure.value:.4f}{bounds}, {data}, {figure.persons} people, {figure.date}"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _print_table(sections: list[Section]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for title, rows in sections:
        for index, (name, text) in enumerate(rows):
            table.add_row(Text(title if index == 0 else "", style="bold"), Text(name), Text(text))
    Console().print(table)
