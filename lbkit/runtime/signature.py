"""Whether a graph's inputs and outputs are what its contract says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lbkit.core.contract import ModelContract
from lbkit.errors import ContractError


def output_shape(contract: ModelContract, name: str) -> tuple[int, ...]:
    """Return an output's shape without its batch axis: (K, h, w) for heatmaps, (K, 3) for keypoints."""
    joints, cells = len(contract.keypoints), contract.heatmap.size
    return (joints, cells.height, cells.width) if name == "heatmaps" else (joints, 3)


def input_shape(contract: ModelContract) -> tuple[int, ...]:
    """Return the input's shape without its batch axis: (H, W, 3) for NHWC, (3, H, W) for NCHW."""
    size = contract.input.size
    return (size.height, size.width, 3) if contract.input.layout == "NHWC" else (3, size.height, size.width)


def check_signature(session: Any, contract: ModelContract, *, where: Path) -> None:
    """Raise unless a session's inputs and outputs agree with the contract.

    Args:
        session: An `onnxruntime.InferenceSession`.
        contract: What the file says of itself.
        where: The file, for the message.

    Raises:
        ContractError: A name, dtype, shape or the batch axis differs; the message names all that do.
    """
    differences = list(_differences(session, contract))
    if differences:
        raise ContractError(
            f"the graph contradicts its contract: {'; '.join(differences)}",
            where=where,
            remedy="export it again with `lbkit export`",
        )


def _differences(session: Any, contract: ModelContract) -> Iterator[str]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    yield from _name_differences("inputs", inputs, [contract.input.name])
    yield from _name_differences("outputs", outputs, list(contract.outputs))
    for node in inputs:
        if node.name == contract.input.name:
            yield from _tensor_differences(node, contract.input.dtype, input_shape(contract))
    for node in outputs:
        if node.name in contract.outputs:
            yield from _tensor_differences(node, "float32", output_shape(contract, node.name))


def _name_differences(kind: str, nodes: list[Any], expected: list[str]) -> Iterator[str]:
    found = [node.name for node in nodes]
    if found != expected:
        yield f"{kind} are {', '.join(found)}, expected {', '.join(expected)}"


def _tensor_differences(node: Any, dtype: str, shape: tuple[int, ...]) -> Iterator[str]:
    expected_type = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}[dtype]
    if node.type != expected_type:
        yield f"{node.name} is {node.type}, expected {expected_type}"
    found = list(node.shape)
    if len(found) != len(shape) + 1 or any(
        isinstance(size, int) and size != wanted for size, wanted in zip(found[1:], shape, strict=True)
    ):
        yield f"{node.name} has shape {_shape_text(found)}, expected {_shape_text(['N', *shape])}"
    elif isinstance(found[0], int):
        yield f"{node.name} has a fixed batch of {found[0]}, expected a dynamic one"


def _shape_text(sizes: list[Any]) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in sizes) + ")"
