"""Half precision: weights and activations in fp16, with resizing, the decoder, input and output in fp32."""

from __future__ import annotations

import copy

import onnx
from onnx import TensorProto, helper

from lbkit.errors import ModelError
from lbkit.export.graph_edit import GraphEdit, sort_nodes
from lbkit.quantization.integer_ends import HEATMAPS

RESIZING = ("Resize", "Upsample", "GridSample")


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph in fp16 whose inputs, outputs, resizing and decoder are as they were.

    The decoder is taken off, the rest converted with a float32 output, and the decoder put back, because the converter
    makes wrong graphs of nodes in a row that it should leave alone.

    Args:
        model: A graph in fp32.

    Raises:
        ModelError: ONNX Runtime's converter cannot take the graph.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    body = copy.deepcopy(model)
    decoder = _without_decoder(body)
    try:
        half: onnx.ModelProto = convert_float_to_float16(
            body, keep_io_types=True, op_block_list=sorted({*DEFAULT_OP_BLOCK_LIST, *RESIZING})
        )
    except Exception as error:  # the converter raises ValueError and TypeError as it comes
        raise ModelError(f"ONNX Runtime's fp16 converter cannot take the graph ({error})") from error
    _drop_repeated_casts(half)
    half.graph.node.extend(decoder)
    tail_reads = {tensor for node in decoder for tensor in node.input}
    half.graph.initializer.extend(item for item in model.graph.initializer if item.name in tail_reads)
    del half.graph.output[:]
    half.graph.output.extend(model.graph.output)
    for number, node in enumerate(half.graph.node):
        node.name = f"{node.op_type}_{number}"  # the converter calls all casts of one tensor alike
    del half.graph.value_info[:]
    return sort_nodes(half)


def _without_decoder(body: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Take the nodes behind the heatmaps off a graph, which then puts out heatmaps, and return them."""
    edit = GraphEdit(body)
    shape = edit.shape(HEATMAPS)
    reached, decoder = {HEATMAPS}, []
    for node in edit.graph.node:  # in topological order
        if reached & set(node.input):
            reached |= set(node.output)
            decoder.append(node)
    if decoder:
        value = helper.make_tensor_value_info(HEATMAPS, TensorProto.FLOAT, ["batch", *shape[1:]])
        del edit.graph.output[:]
        edit.graph.output.append(value)
        taken = [copy.deepcopy(node) for node in decoder]
        for node in decoder:
            edit.graph.node.remove(node)
        edit.prune()
        return taken
    return []


def _drop_repeated_casts(model: onnx.ModelProto) -> None:
    """Remove the second and further casts of a tensor that several nodes read."""
    made: set[str] = set()
    for node in list(model.graph.node):
        if node.output[0] in made:
            model.graph.node.remove(node)
        made |= set(node.output)
