"""The two ends of an int8 graph: pixels that go in as the bytes they are, and heatmaps that come out unrounded.

**In front**, `pixel * scale + offset` folds into the first convolution: its weights take the scale, its bias the
offset, and the bytes become its quantised input with step 1 and a zero point near the mean colour. What a convolution
pads with is then the zero point in all three colours instead of each colour's own mean: up to 12 levels off, at the
border only. Without this, every crop is widened to float, scaled, and rounded to bytes again, an eighth of the
whole time.

**Behind**, the 1x1 convolution that makes the heatmaps is written as a matrix product, for which runtimes have
8-bit operands with a float32 result. A heatmap rounded to 256 levels would move a joint's sub-cell position.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from lbkit.export.graph_edit import GraphEdit, attribute

CENTERED = "images.centered"
"""The tensor of pixels less `zero_point`, which the quantiser is told to keep at step 1."""

HEATMAPS = "heatmaps"


def fold_normalization(model: onnx.ModelProto) -> int | None:
    """Fold the normalisation of uint8 pixels into the first convolution, in place.

    Args:
        model: A graph in fp32 whose uint8 input runs through Transpose, Cast, Mul and Add into one Conv.

    Returns:
        The zero point that bytes have then; None where the graph begins otherwise, and nothing was changed.
    """
    edit = GraphEdit(model)
    chain = _front(edit)
    if chain is None:
        return None
    _, cast, multiply, add, convolution = chain
    scale, offset = edit.constant(multiply.input[1]), edit.constant(add.input[1])
    weight, bias = (edit.constant(tensor) for tensor in [*convolution.input[1:], ""][:2])
    if scale is None or offset is None or weight is None or bias is None or (scale == 0).any():
        return None
    zero_point = int(np.clip(np.rint((-offset / scale).mean()), 0, 255))
    middle = scale.ravel().astype(np.float64) * zero_point + offset.ravel()
    edit.set_constant(convolution.input[1], (weight * scale.reshape(1, -1, 1, 1)).astype(np.float32))
    shift = (weight.astype(np.float64) * middle.reshape(1, -1, 1, 1)).sum(axis=(1, 2, 3))
    edit.set_constant(convolution.input[2], (bias + shift).astype(np.float32))
    center = edit.set_constant(f"{CENTERED}.offset", np.array(-zero_point, np.float32))
    edit.replace([multiply, add], [helper.make_node("Add", [cast.output[0], center], [CENTERED], name=CENTERED)])
    convolution.input[0] = CENTERED
    edit.prune()
    return zero_point


def bypass_float_pixels(model: onnx.ModelProto) -> None:
    """Feed the bytes to the first convolution without the detour over float, in place.

    Args:
        model: A graph with Q/DQ nodes whose pixels `fold_normalization` centred.
    """
    edit = GraphEdit(model)
    cast = next(node for node in edit.nodes("Cast") if node.output[0] == edit_input(edit, CENTERED))
    quantize = edit.only_reader(CENTERED, "QuantizeLinear")
    assert quantize is not None
    for node in edit.readers(quantize.output[0]):
        node.input[0] = cast.input[0]
    edit.prune()


def rewrite_head(model: onnx.ModelProto) -> bool:
    """Write the 1x1 convolution that makes the heatmaps as a matrix product, in place; tell whether there was one."""
    edit = GraphEdit(model)
    node = edit.producer(HEATMAPS)
    if node is None or node.op_type != "Conv" or attribute(node, "group", 1) != 1:
        return False
    weight, bias = (edit.constant(tensor) for tensor in [*node.input[1:], ""][:2])
    is_pointwise = weight is not None and weight.shape[2:] == (1, 1)
    if not is_pointwise or weight is None or bias is None or not _steps_are_one(node):
        return False
    names = [f"{HEATMAPS}.{part}" for part in ("last", "product", "biased")]
    matrix = edit.set_constant(f"{HEATMAPS}.weight", weight[:, :, 0, 0].T)
    offset = edit.set_constant(f"{HEATMAPS}.bias", bias)
    new = [
        helper.make_node("Transpose", [node.input[0]], [names[0]], name=names[0], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", [names[0], matrix], [names[1]], name=names[1]),
        helper.make_node("Add", [names[1], offset], [names[2]], name=names[2]),
        helper.make_node("Transpose", [names[2]], [HEATMAPS], name=HEATMAPS, perm=[0, 3, 1, 2]),
    ]
    edit.replace([node], new)
    edit.prune()
    return True


def nodes_behind(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that make heatmaps of the last product, and of a decoder behind them."""
    edit = GraphEdit(model)
    reached = {HEATMAPS, f"{HEATMAPS}.product", f"{HEATMAPS}.biased"}
    found = [node.name for node in edit.graph.node if HEATMAPS in node.output and node.op_type == "Transpose"]
    for node in edit.graph.node:  # in topological order
        if reached & set(node.input):
            reached |= set(node.output)
            found.append(node.name)
    return found


def edit_input(edit: GraphEdit, tensor: str) -> str:
    """Return the first input of the node that makes a tensor."""
    node = edit.producer(tensor)
    assert node is not None
    return str(node.input[0])


def _front(edit: GraphEdit) -> tuple[onnx.NodeProto, ...] | None:
    """Return the nodes from the uint8 input to the first convolution, None where they are others."""
    given = edit.graph.input[0]
    if given.type.tensor_type.elem_type != TensorProto.UINT8:
        return None
    tensor, chain = given.name, []
    for kind in ("Transpose", "Cast", "Mul", "Add", "Conv"):
        node = edit.only_reader(tensor, kind)
        if node is None or node.input[0] != tensor:
            return None
        chain.append(node)
        tensor = node.output[0]
    return tuple(chain)


def _steps_are_one(node: onnx.NodeProto) -> bool:
    return set(attribute(node, "strides", [1])) == {1} and not any(attribute(node, "pads", [0]))
