"""Small edits of an ONNX graph: who makes a tensor, who reads it, what a constant holds, and nodes put in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


class GraphEdit:
    """A graph under change; the model that it was made with is changed in place.

    Args:
        model: The model.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self._model = model
        for number, node in enumerate(self.graph.node):
            node.name = node.name or f"{node.op_type}_{number}"

    def nodes(self, *kinds: str) -> list[onnx.NodeProto]:
        """Return the nodes of some kinds, in the graph's order."""
        return [node for node in self.graph.node if node.op_type in kinds]

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor."""
        return next((node for node in self.graph.node if tensor in node.output), None)

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a tensor."""
        return [node for node in self.graph.node if tensor in node.input]

    def only_reader(self, tensor: str, *kinds: str) -> onnx.NodeProto | None:
        """Return the one node that reads a tensor, if there is just one, of one of the kinds, and nobody outside."""
        readers = self.readers(tensor)
        is_output = tensor in {output.name for output in self.graph.output}
        return readers[0] if len(readers) == 1 and not is_output and readers[0].op_type in kinds else None

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """Return what an initializer holds, None if there is none of that name."""
        found = next((item for item in self.graph.initializer if item.name == tensor), None)
        return None if found is None else np.asarray(numpy_helper.to_array(found))

    def set_constant(self, tensor: str, values: NDArray[Any]) -> str:
        """Store an initializer under a name, in place of one that is there, and return the name."""
        for item in self.graph.initializer:
            if item.name == tensor:
                self.graph.initializer.remove(item)
                break
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), tensor))
        return tensor

    def shape(self, tensor: str) -> tuple[int | None, ...]:
        """Return a tensor's shape by ONNX's shape inference, None for an axis that is not fixed.

        An unknown tensor has the shape ().
        """
        inferred = onnx.shape_inference.infer_shapes(self._model).graph
        for value in [*inferred.input, *inferred.output, *inferred.value_info]:
            if value.name == tensor:
                dims = value.type.tensor_type.shape.dim
                return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
        return ()

    def replace(self, old: Sequence[onnx.NodeProto], new: Sequence[onnx.NodeProto]) -> None:
        """Put nodes in the place of others, where the first of those stood."""
        place = list(self.graph.node).index(old[0])
        for node in old:
            self.graph.node.remove(node)
        for offset, node in enumerate(new):
            self.graph.node.insert(place + offset, node)

    def prune(self) -> None:
        """Take away nodes that nobody reads, initializers that no node reads, and notes on inner tensors."""
        outputs = {output.name for output in self.graph.output}
        while idle := [node for node in self.graph.node if not self._is_read(node, outputs)]:
            for node in idle:
                self.graph.node.remove(node)
        used = {tensor for node in self.graph.node for tensor in node.input}
        for item in [item for item in self.graph.initializer if item.name not in used]:
            self.graph.initializer.remove(item)
        del self.graph.value_info[:]

    def _is_read(self, node: onnx.NodeProto, outputs: set[str]) -> bool:
        return any(tensor in outputs or self.readers(tensor) for tensor in node.output)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute."""
    return next((onnx.helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def sort_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every node behind those that it reads, which converters do not care for."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    ONNXModel(model).topological_sort()
    return model
