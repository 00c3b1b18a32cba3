"""Parts of an ONNX graph, cut out so that tensors which a file keeps inside can be looked at."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv", "FusedConv"})
_QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


def network_input(model: onnx.ModelProto) -> str | None:
    """Return the tensor that a graph's network begins with, behind normalisation and before it is quantised.

    None where no convolution depends on the graph's input.
    """
    sources = {output: node for node in model.graph.node for output in node.output}
    seen = {value.name for value in model.graph.input}
    for node in model.graph.node:
        if not seen.intersection(node.input):
            continue
        if node.op_type in _CONVOLUTIONS and node.input[0] in seen:
            name = str(node.input[0])
            while name in sources and sources[name].op_type in _QUANTISERS:
                name = str(sources[name].input[0])
            return name
        seen.update(node.output)
    return None


def has_tensor(model: onnx.ModelProto, name: str) -> bool:
    """Tell whether a node of the graph puts out a tensor of this name."""
    return any(name in node.output for node in model.graph.node)


def part_up_to(model: onnx.ModelProto, outputs: Iterable[str]) -> bytes:
    """Return a model that puts out these tensors, with the nodes and weights that they need and no others."""
    wanted = list(outputs)
    needed, kept = set(wanted), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(name for name in node.input if name)
            kept.append(node)
    graph = onnx.helper.make_graph(
        kept[::-1],
        model.graph.name,
        list(model.graph.input),
        [onnx.ValueInfoProto(name=name) for name in wanted],  # ONNX Runtime finds type and shape by itself
        initializer=[tensor for tensor in model.graph.initializer if tensor.name in needed],
    )
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    part.functions.extend(model.functions)
    serialized: bytes = part.SerializeToString()
    return serialized
