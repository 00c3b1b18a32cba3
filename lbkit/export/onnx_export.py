"""A PyTorch module to an ONNX graph, by the exporter that traces with `torch.export`."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from lbkit.core.contract import InputSpec, ModelContract
from lbkit.errors import ExportError

log = logging.getLogger(__name__)

BATCH_AXIS = "batch"
"""Name of the one dynamic axis, the first of every input and output."""

CHATTY_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")

_TRACED_BATCH = 2  # torch.export takes sizes 0 and 1 for constants


def export_graph(graph: nn.Module, contract: ModelContract, *, opset: int) -> onnx.ModelProto:
    """Trace a module into an ONNX model with a dynamic batch and clean names.

    The exporter speaks only where lbkit's log is at DEBUG, and then on stderr.

    Args:
        graph: A `DeploymentGraph` in evaluation mode.
        contract: The contract it was made for; names of input and outputs come from it.
        opset: Version of the ONNX operators.

    Raises:
        ExportError: PyTorch cannot export the module.
    """
    batch = torch.export.Dim(BATCH_AXIS)
    try:
        with _exporter_output():
            program = torch.onnx.export(
                graph,
                (_example(contract.input),),
                dynamo=True,
                opset_version=opset,
                input_names=[contract.input.name],
                output_names=list(contract.outputs),
                dynamic_shapes=({0: batch},),
                verbose=log.isEnabledFor(logging.DEBUG),
            )
    except Exception as error:  # the exporter raises its own types and lets those of torch.export through
        reason = str(error).strip().splitlines()
        raise ExportError(
            f"PyTorch {torch.__version__} cannot export {contract.model} to opset {opset}"
            f" ({type(error).__name__}: {reason[0] if reason else 'no reason given'})",
            remedy="run again with -vv to see why",
        ) from error
    assert program is not None  # None is what the older exporter returns
    model: onnx.ModelProto = program.model_proto
    _strip_traces(model)
    return model


def drop_outputs(model: onnx.ModelProto, *, keep: Iterable[str]) -> None:
    """Take away the graph outputs that are not in `keep`; their tensors stay inside under their names."""
    names = set(keep)
    kept = [output for output in model.graph.output if output.name in names]
    dropped = [output for output in model.graph.output if output.name not in names]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    model.graph.value_info.extend(dropped)


def _example(spec: InputSpec) -> Tensor:
    height, width = spec.size.height, spec.size.width
    if spec.layout == "NHWC":
        return torch.zeros(_TRACED_BATCH, height, width, 3, dtype=torch.uint8)
    return torch.zeros(_TRACED_BATCH, 3, height, width)


def _strip_traces(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes on nodes and values: stack traces, with the paths of the machine at hand."""
    parts: list[Any] = [*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info]
    for part in [*parts, *model.graph.initializer, *model.functions, model.graph, model]:
        del part.metadata_props[:]
        part.doc_string = ""


@contextmanager
def _exporter_output() -> Iterator[None]:
    """Send what the exporter prints to stderr, and hold its warnings and log back unless lbkit's is at DEBUG."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if log.isEnabledFor(logging.DEBUG):
            yield
            return
        warnings.simplefilter("ignore")
        loggers = [logging.getLogger(name) for name in CHATTY_LOGGERS]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
