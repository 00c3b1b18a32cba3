"""Static 8-bit quantisation by ONNX Runtime's tools: ranges of activations from real crops, then Q/DQ nodes.

Activations are unsigned bytes. Weights are signed, symmetric, one scale a channel, and have 7 bits: without VNNI a
processor adds two products of an unsigned and a signed byte in 16 bits, which 2 * 255 * 127 overflows and
2 * 255 * 64 does not. So a file gives the same integers on every processor.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from lbkit.core.contract import InputSpec
from lbkit.core.geometry import ImageArray
from lbkit.errors import ModelError
from lbkit.export.graph_edit import GraphEdit, sort_nodes
from lbkit.export.subpixel import rewrite_deconvolutions
from lbkit.export.verification import input_tensor
from lbkit.quantization.integer_ends import (
    CENTERED,
    bypass_float_pixels,
    fold_normalization,
    nodes_behind,
    rewrite_head,
)

log = logging.getLogger(__name__)

Method = Literal["minmax", "entropy", "percentile"]
METHODS: tuple[Method, ...] = get_args(Method)

PERCENTILE = 99.99
HISTOGRAM_BINS = 2048
_BATCH = 4  # the histograms hold every activation of a batch in memory, 40 MB a crop of the largest network

LAYER_KINDS = ("Conv", "MatMul", "Gemm", "ConvTranspose")
"""Operators with weights: what sensitivity is measured of and what can be kept in float."""

RANGED_KINDS = (*LAYER_KINDS, "Add", "Relu", "Clip", "Concat")
"""Operators whose outputs need a range of their own; what only moves values keeps the range of its input."""

QUANTIZED_KINDS = (*LAYER_KINDS, "Add", "Relu", "Clip", "MaxPool", "Resize", "Transpose", "Reshape", "Slice", "Concat")

_NETWORK, _WEIGHT = "network.", ".weight"

Ranges = Any
"""ONNX Runtime's TensorsData: the range of every activation by its name."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedGraph:
    """A graph in fp32, rewritten so that all of it can run in 8 bits.

    Attributes:
        model: The graph.
        deconvolutions: How many deconvolutions became convolutions.
        zero_point: Of the bytes that the first convolution takes; None where normalisation stays in float.
        head: Whether the heatmaps come out of an 8-bit product unrounded.
    """

    model: onnx.ModelProto
    deconvolutions: int
    zero_point: int | None
    head: bool

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the nodes with weights, in the graph's order."""
        edit = GraphEdit(self.model)
        return tuple(node.name for node in edit.nodes(*LAYER_KINDS) if edit.constant(node.input[1]) is not None)


def prepare_graph(model: onnx.ModelProto) -> PreparedGraph:
    """Return a rewritten copy of a graph in fp32."""
    prepared = copy.deepcopy(model)
    _name_layers(GraphEdit(prepared))
    deconvolutions = rewrite_deconvolutions(prepared)
    head = rewrite_head(prepared)
    return PreparedGraph(prepared, deconvolutions, fold_normalization(prepared), head)


def measure_ranges(prepared: PreparedGraph, pixels: ImageArray, *, spec: InputSpec, method: Method) -> Ranges:
    """Run a graph on crops and return the range of every activation.

    Args:
        prepared: The graph.
        pixels: (N, H, W, 3) uint8 RGB.
        spec: The contract's input.
        method: "minmax" takes the extremes, "percentile" cuts 0.01 % off, "entropy" loses least information.
    """
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    kinds = {
        "minmax": (CalibrationMethod.MinMax, {}),
        "entropy": (CalibrationMethod.Entropy, {}),
        "percentile": (CalibrationMethod.Percentile, {"num_bins": HISTOGRAM_BINS, "percentile": PERCENTILE}),
    }
    chosen, options = kinds[method]
    log.info("ranges by %s over %d crops ...", method, len(pixels))
    # the calibrators print their progress to stdout
    with tempfile.TemporaryDirectory(prefix="lbkit-") as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder, "prepared.onnx")
        onnx.save(prepared.model, path)
        calibrator = create_calibrator(
            str(path),
            list(RANGED_KINDS),
            augmented_model_path=str(Path(folder, "augmented.onnx")),
            calibrate_method=chosen,
            extra_options=options,
        )
        for start in range(0, len(pixels), _BATCH):
            calibrator.collect_data(_Reader(pixels[start : start + _BATCH], spec))
        return calibrator.compute_data()


def quantize_graph(
    prepared: PreparedGraph, ranges: Ranges, *, in_float: Sequence[str] = (), only: Sequence[str] | None = None
) -> onnx.ModelProto:
    """Return a graph with Q/DQ nodes about what runs in 8 bits.

    Args:
        prepared: The graph in fp32.
        ranges: Ranges of its activations.
        in_float: Names of nodes that stay in fp32.
        only: Names of the nodes to quantise; all others when None.

    Raises:
        ModelError: ONNX Runtime's quantiser cannot take the graph.
    """
    from onnxruntime.quantization import QDQQuantizer, QuantType

    bytes_reach = prepared.zero_point is not None and _first_layer_is_quantized(prepared, in_float, only)
    overrides = {}
    if bytes_reach:
        step = {"scale": np.array(1.0, np.float32), "zero_point": np.array(prepared.zero_point, np.uint8)}
        overrides[CENTERED] = [step]
    excluded = [CENTERED, *nodes_behind(prepared.model), *in_float]
    try:
        quantizer = QDQQuantizer(
            copy.deepcopy(prepared.model),
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=list(only or ()),
            nodes_to_exclude=excluded,
            op_types_to_quantize=list(QUANTIZED_KINDS),
            extra_options={"TensorQuantOverrides": overrides, "OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
        quantizer.quantize_model()
    except Exception as error:  # it raises ValueError, RuntimeError and KeyError as it comes
        raise ModelError(f"ONNX Runtime's quantiser cannot take the graph ({error})") from error
    model: onnx.ModelProto = quantizer.model.model
    if bytes_reach:
        bypass_float_pixels(model)
    return sort_nodes(model)


def eight_bit_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the layers of a graph whose weights are stored in 8 bits."""
    edit = GraphEdit(model)
    made = {node.output[0] for node in edit.nodes("DequantizeLinear")}
    return tuple(node.name for node in edit.nodes(*LAYER_KINDS) if node.input[1] in made)


def _name_layers(edit: GraphEdit) -> None:
    """Call a layer as its weights are called: node names of exporters are numbers."""
    for node in edit.nodes(*LAYER_KINDS):
        weight = node.input[1]
        if weight.endswith(_WEIGHT) and len(edit.readers(weight)) == 1:
            node.name = weight.removeprefix(_NETWORK).removesuffix(_WEIGHT)


def _first_layer_is_quantized(prepared: PreparedGraph, in_float: Sequence[str], only: Sequence[str] | None) -> bool:
    first = GraphEdit(prepared.model).readers(CENTERED)[0].name
    return first not in in_float and (only is None or first in only)


class _Reader:
    """One batch, as ONNX Runtime's calibrators read it."""

    def __init__(self, pixels: ImageArray, spec: InputSpec) -> None:
        self._feeds: Iterator[dict[str, NDArray[Any]]] = iter([{spec.name: input_tensor(pixels, spec)}])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)
