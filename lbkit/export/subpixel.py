"""Deconvolutions as convolutions: exact up to rounding, and able to run in 8 bits, unlike ONNX Runtime's own.

A stride-s deconvolution computes s x s interleaved pictures, each of them a small convolution of the input: of a
4x4 kernel with stride 2, every output cell sees 2x2 taps (Shi et al., 2016, "Is the deconvolution layer the same as a
convolutional layer?"). One convolution with kernel ceil(k / s), padded by one less, and s * s times the channels
computes all of them; interleaving gives the unpadded deconvolution, and the deconvolution's own padding is a crop.
The kernel has as many taps as the deconvolution; a 3x3 kernel, which needs no crop, has 36 instead of 16.

The interleaving moves whole blocks of channels (channels last), so that the layout changes of a runtime that
computes channels last cancel against the transpositions written here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from lbkit.export.graph_edit import GraphEdit, attribute

FloatKernel = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Deconvolution:
    """The geometry of a ConvTranspose over two axes, height first.

    Attributes:
        kernel: Kernel sizes.
        strides: Strides.
        begins: Padding at the top and left.
        ends: Padding at the bottom and right.
        extra: Output padding.
        size: Height and width of the input.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    begins: tuple[int, int]
    ends: tuple[int, int]
    extra: tuple[int, int]
    size: tuple[int, int]

    def taps(self, axis: int) -> int:
        """Return the convolution's kernel size; output padding beyond the cropped border needs room too."""
        beyond = max(0, self.extra[axis] - self.ends[axis])
        return math.ceil((self.kernel[axis] + beyond) / self.strides[axis])

    def convolved(self, axis: int) -> int:
        """Return the size of what the convolution puts out."""
        return self.size[axis] + self.taps(axis) - 1

    def output(self, axis: int) -> int:
        """Return the size of the deconvolution's output."""
        full = (self.size[axis] - 1) * self.strides[axis] + self.kernel[axis]
        return full - self.begins[axis] - self.ends[axis] + self.extra[axis]


def rewrite_deconvolutions(model: onnx.ModelProto) -> int:
    """Replace every ConvTranspose that can be, in place, and return how many were.

    Left alone are grouped, dilated and one- or three-dimensional ones, and those of unknown input size.

    Args:
        model: A graph in fp32.
    """
    edit = GraphEdit(model)
    count = 0
    for node in edit.nodes("ConvTranspose"):
        weight = edit.constant(node.input[1])
        geometry = None if weight is None else _geometry(edit, node, weight)
        if weight is None or geometry is None:
            continue
        _rewrite(edit, node, weight, geometry)
        count += 1
    edit.prune()
    return count


def subpixel_kernel(weight: FloatKernel, geometry: Deconvolution) -> FloatKernel:
    """Return (s_y * s_x * O, I, t_y, t_x) weights of the convolution for (I, O, k_y, k_x) ones of a deconvolution."""
    (step_y, step_x), (taps_y, taps_x) = geometry.strides, (geometry.taps(0), geometry.taps(1))
    inputs, outputs, height, width = weight.shape
    padded = np.zeros((inputs, outputs, taps_y * step_y, taps_x * step_x), np.float32)
    padded[:, :, :height, :width] = weight
    # output cell s * i + a sums x[i - p] * w[a + s * p]: phase a of the kernel, backwards
    phases = padded.reshape(inputs, outputs, taps_y, step_y, taps_x, step_x)[:, :, ::-1, :, ::-1, :]
    kernel = phases.transpose(3, 5, 1, 0, 2, 4).reshape(step_y * step_x * outputs, inputs, taps_y, taps_x)
    return np.ascontiguousarray(kernel)


def _geometry(edit: GraphEdit, node: onnx.NodeProto, weight: FloatKernel) -> Deconvolution | None:
    shape = edit.shape(node.input[0])
    is_plain = attribute(node, "group", 1) == 1 and set(attribute(node, "dilations", [1])) == {1}
    is_plain = is_plain and attribute(node, "auto_pad", b"NOTSET") == b"NOTSET" and not attribute(node, "output_shape")
    if weight.ndim != 4 or not is_plain or len(shape) != 4:
        return None
    height, width = shape[2:]
    if height is None or width is None:
        return None
    top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
    step_y, step_x = attribute(node, "strides", [1, 1])
    extra_y, extra_x = attribute(node, "output_padding", [0, 0])
    return Deconvolution(
        kernel=(weight.shape[2], weight.shape[3]),
        strides=(step_y, step_x),
        begins=(top, left),
        ends=(bottom, right),
        extra=(extra_y, extra_x),
        size=(height, width),
    )


def _rewrite(edit: GraphEdit, node: onnx.NodeProto, weight: FloatKernel, geometry: Deconvolution) -> None:
    """Put convolution, interleaving and crop in a deconvolution's place; a ReLU behind it moves to the convolution."""
    relu = edit.only_reader(node.output[0], "Relu")
    output = node.output[0] if relu is None else relu.output[0]
    base = f"{node.name}.subpixel"
    bias = edit.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(weight.shape[1])
    assert bias is not None  # exporters store a bias as an initializer
    phases = geometry.strides[0] * geometry.strides[1]
    inputs = [
        node.input[0],
        edit.set_constant(f"{base}.weight", subpixel_kernel(weight, geometry)),
        edit.set_constant(f"{base}.bias", np.tile(bias, phases).astype(np.float32)),
    ]
    taps = [geometry.taps(0), geometry.taps(1)]
    pads = [taps[0] - 1, taps[1] - 1] * 2
    new = [helper.make_node("Conv", inputs, [f"{base}.maps"], name=base, kernel_shape=taps, pads=pads)]
    maps = f"{base}.maps"
    if relu is not None:
        new.append(helper.make_node("Relu", [maps], [f"{base}.relu"], name=f"{base}.relu"))
        maps = f"{base}.relu"
    new += _interleaving(edit, base, maps, output, geometry=geometry, channels=weight.shape[1])
    edit.replace([node] if relu is None else [node, relu], new)


def _interleaving(
    edit: GraphEdit, base: str, maps: str, output: str, *, geometry: Deconvolution, channels: int
) -> list[onnx.NodeProto]:
    """Return the nodes from (N, s * s * C, h, w) maps to the (N, C, H, W) output."""
    (step_y, step_x), (rows, columns) = geometry.strides, (geometry.convolved(0), geometry.convolved(1))
    begins, ends = list(geometry.begins), [geometry.begins[axis] + geometry.output(axis) for axis in (0, 1)]

    def constant(name: str, values: list[int]) -> str:
        return edit.set_constant(f"{base}.{name}", np.array(values, np.int64))

    split = constant("split", [0, rows, columns, step_y, step_x * channels])  # 0 keeps the batch
    joined = constant("joined", [0, rows * step_y, columns * step_x, channels])
    crop = [constant("begins", begins), constant("ends", ends), constant("axes", [1, 2])]
    steps: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Transpose", [], {"perm": [0, 2, 3, 1]}),
        ("Reshape", [split], {}),
        ("Transpose", [], {"perm": [0, 1, 3, 2, 4]}),
        ("Reshape", [joined], {}),
        ("Slice", crop, {}),
        ("Transpose", [], {"perm": [0, 3, 1, 2]}),
    ]
    nodes, tensor = [], maps
    for number, (kind, constants, attributes) in enumerate(steps):
        following = output if number == len(steps) - 1 else f"{base}.{number}"
        nodes.append(
            helper.make_node(kind, [tensor, *constants], [following], name=f"{base}.{number}_{kind}", **attributes)
        )
        tensor = following
    return nodes
