"""Half precision: weights and activations in fp16, with resizing, the decoder, input and output in fp32."""

from __future__ import annotations

import copy

import onnx

from lbkit.errors import ModelError
from lbkit.quantization.graph_edit import GraphEdit
from lbkit.quantization.integer_ends import HEATMAPS

RESIZING = ("Resize", "Upsample", "GridSample")


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph in fp16 whose inputs, outputs, resizing and decoder are as they were.

    Args:
        model: A graph in fp32.

    Raises:
        ModelError: ONNX Runtime's converter cannot take the graph.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    half = copy.deepcopy(model)
    GraphEdit(half)  # names every node
    try:
        converted: onnx.ModelProto = convert_float_to_float16(
            half,
            keep_io_types=True,
            op_block_list=sorted({*DEFAULT_OP_BLOCK_LIST, *RESIZING}),
            node_block_list=decoder_nodes(half),
        )
    except Exception as error:  # the converter raises ValueError and TypeError as it comes
        raise ModelError(f"ONNX Runtime's fp16 converter cannot take the graph ({error})") from error
    return converted


def decoder_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes behind the heatmaps, in the graph's order."""
    reached, found = {HEATMAPS}, []
    for node in model.graph.node:  # in topological order
        if reached & set(node.input):
            reached |= set(node.output)
            found.append(node.name)
    return found
