"""What each layer costs in 8 bits by itself: everything else stays in fp32, and the joints tell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from lbkit.quantization.comparison import Joints, measure_shift

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One layer in 8 bits alone.

    Attributes:
        layer: Name of the node.
        mean_px: Mean distance that joints move in input pixels, a jump counting `SHIFT_CAP_PX`.
        max_px: The greatest distance.
        is_kept: Whether the layer stays in fp32 in the file.
    """

    layer: str
    mean_px: float
    max_px: float
    is_kept: bool = False


def layer_costs(
    layers: Sequence[str],
    *,
    quantize_only: Callable[[str], onnx.ModelProto],
    find: Callable[[onnx.ModelProto], Joints],
    reference: Joints,
) -> list[LayerCost]:
    """Return what each layer costs, the dearest first.

    Args:
        layers: Names of the layers.
        quantize_only: Gives the graph with only this layer in 8 bits.
        find: Runs a graph on the crops that are compared.
        reference: What the fp32 file finds on them.
    """
    costs = []
    for number, layer in enumerate(layers):
        shift = measure_shift(reference, find(quantize_only(layer)))
        costs.append(LayerCost(layer, shift.mean_px, shift.max_px))
        log.info("layer %d of %d: %s moves joints by %.3f px", number + 1, len(layers), layer, shift.mean_px)
    return sorted(costs, key=lambda cost: -cost.mean_px)
