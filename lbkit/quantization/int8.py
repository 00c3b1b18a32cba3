"""The int8 graph of a file: ranges by the best method, the dearest layers kept in fp32 until the joints are right."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from lbkit.core.contract import InputSpec
from lbkit.quantization.comparison import Joints, Judge, measure_agreement, measure_shift
from lbkit.quantization.options import ReductionOptions
from lbkit.quantization.people import Crops
from lbkit.quantization.roles import Roles
from lbkit.quantization.sensitivity import LayerCost, layer_costs
from lbkit.quantization.static import (
    METHODS,
    Method,
    PreparedGraph,
    Ranges,
    eight_bit_layers,
    measure_ranges,
    prepare_graph,
    quantize_graph,
)

log = logging.getLogger(__name__)

SENSITIVITY_CROPS = 16
MAX_KEPT = 6
"""So many layers stay in fp32 at most; a file that needs more would not be faster."""

MAX_SHIFT_PX = 1.5
"""Where nobody is annotated, or no limit is given: the mean distance that joints may move, in input pixels."""

Find = Callable[[onnx.ModelProto, Crops], Joints]


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedGraph:
    """An int8 graph and how it was chosen.

    Attributes:
        model: The graph.
        method: How ranges were taken.
        tried: What each method scored: with annotations the mean PCK over t, else the mean distance in px, negated.
        costs: What each layer costs alone, the dearest first.
        layers: How many layers there are.
        in_8_bits: How many of them run in 8 bits.
        deconvolutions: How many deconvolutions became convolutions.
        takes_bytes: Whether bytes go into the first convolution as they are.
    """

    model: onnx.ModelProto
    method: Method
    tried: Mapping[str, float]
    costs: tuple[LayerCost, ...]
    layers: int
    in_8_bits: int
    deconvolutions: int
    takes_bytes: bool


class _Chooser:
    """Judges graphs on the people that are there for choosing."""

    def __init__(self, find: Find, crops: Crops, reference: Joints, *, max_drop: float | None) -> None:
        self._find, self._crops, self._reference = find, crops, reference
        self._judge = None if crops.source.people is None else Judge(crops.source)
        self._max_drop = max_drop

    def score(self, model: onnx.ModelProto) -> float:
        """Return how good a graph is; higher is better."""
        joints = self._find(model, self._crops)
        if self._judge is None:
            return -measure_shift(self._reference, joints).mean_px
        return round(self._judge.area(joints), 4)

    def is_enough(self, model: onnx.ModelProto) -> bool:
        """Tell whether a graph keeps the limit, in the mean of PCK over t: PCK at one t is noise on so few people."""
        joints = self._find(model, self._crops)
        if self._max_drop is None:
            return self._moves_little(joints)
        if self._judge is None:
            agreement = measure_agreement(self._reference, joints, source=self._crops.source)
            return self._moves_little(joints) and not (agreement and agreement.exceeds(self._max_drop))
        return 100 * (self._judge.area(self._reference) - self._judge.area(joints)) <= self._max_drop

    def _moves_little(self, joints: Joints) -> bool:
        return measure_shift(self._reference, joints).mean_px <= MAX_SHIFT_PX


def quantize_model(
    source: onnx.ModelProto, *, spec: InputSpec, roles: Roles, find: Find, reference: Joints, options: ReductionOptions
) -> QuantizedGraph:
    """Return the int8 graph of an fp32 one.

    Args:
        source: The graph in fp32.
        spec: The contract's input.
        roles: The people.
        find: Runs a graph on crops.
        reference: What the fp32 file finds on the choosing people.
        options: Method and limits.
    """
    prepared = prepare_graph(source)
    chooser = _Chooser(find, roles.choosing, reference, max_drop=options.max_drop)
    ranges = _measured_ranges(prepared, roles, spec, options)
    tried: dict[str, float] = {}
    for method, found in ranges.items():
        tried[method] = chooser.score(quantize_graph(prepared, found))
        log.info("%s: %.4f", method, tried[method])
    best = max(ranges, key=lambda method: tried[method])
    costs = _costs(prepared, ranges[best], find, roles.choosing)
    model, kept = _kept_until_enough(prepared, ranges[best], costs, chooser)
    layers = prepared.layers
    return QuantizedGraph(
        model=model,
        method=best,
        tried=tried,
        costs=tuple(dataclasses.replace(cost, is_kept=cost.layer in kept) for cost in costs),
        layers=len(layers),
        in_8_bits=len(set(eight_bit_layers(model)) & set(layers)),
        deconvolutions=prepared.deconvolutions,
        takes_bytes=prepared.zero_point is not None,
    )


def _measured_ranges(
    prepared: PreparedGraph, roles: Roles, spec: InputSpec, options: ReductionOptions
) -> dict[Method, Ranges]:
    methods = METHODS if options.method is None else (options.method,)
    pixels = roles.calibrating.pixels
    return {method: measure_ranges(prepared, pixels, spec=spec, method=method) for method in methods}


def _costs(prepared: PreparedGraph, ranges: Ranges, find: Find, choosing: Crops) -> list[LayerCost]:
    crops = choosing.first(SENSITIVITY_CROPS)
    return layer_costs(
        prepared.layers,
        quantize_only=lambda layer: quantize_graph(prepared, ranges, only=[layer]),
        find=lambda model: find(model, crops),
        reference=find(prepared.model, crops),
    )


def _kept_until_enough(
    prepared: PreparedGraph, ranges: Ranges, costs: list[LayerCost], chooser: _Chooser
) -> tuple[onnx.ModelProto, list[str]]:
    """Keep the dearest layers in fp32, one after the other, until the joints are right."""
    kept: list[str] = []
    model = quantize_graph(prepared, ranges)
    for cost in costs[:MAX_KEPT]:
        if chooser.is_enough(model):
            break
        kept.append(cost.layer)
        log.info("%s stays in fp32", cost.layer)
        model = quantize_graph(prepared, ranges, in_float=kept)
    else:
        if not chooser.is_enough(model):
            log.warning("the joints still move too far with %d layers in fp32; another --calibration may do", len(kept))
    return model, kept
