"""The first node of a graph whose output leaves tolerance, by the PyTorch operations that it was made from.

PyTorch runs the deployed module (normalisation, network, decoder) on one crop while every operation's output is noted
down with the module that called it. The graph runs on the same crop with every node's output put out. The two lists
are aligned by operator and, at convolutions, by the name of the weight, so that a graph which was simplified,
quantised or converted is still recognised where it is the same.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lbkit.core.contract import ModelContract
from lbkit.evaluation.walk import Cut, crop_key
from lbkit.export.graph import DeploymentGraph
from lbkit.export.verification import input_tensor
from lbkit.parity.candidates import CandidateModel, Reference
from lbkit.parity.definitions import NodeFinding
from lbkit.runtime.wheels import import_onnxruntime

_NETWORK = "network."
"""Where `DeploymentGraph` holds the bare network, whose weights keep these names in a file."""

_TORCH_KINDS = {
    "convolution": "conv",
    "native_batch_norm": "norm",
    "_native_batch_norm_legit_no_training": "norm",
    "cudnn_batch_norm": "norm",
    "relu": "relu",
    "max_pool2d_with_indices": "pool",
    "upsample_nearest2d": "resize",
    "upsample_bilinear2d": "resize",
    "permute": "transpose",
    "_to_copy": "cast",
    "add": "add",
    "sub": "sub",
    "rsub": "sub",
    "mul": "mul",
    "div": "div",
    "argmax": "argmax",
    "amax": "max",
    "sum": "sum",
    "gather": "gather",
    "index": "gather",
    "index_select": "gather",
    "exp": "exp",
    "log": "log",
    "sign": "sign",
    "where": "where",
    "clamp": "clip",
    "constant_pad_nd": "pad",
    "cat": "concat",
}
_ONNX_KINDS = {
    "Conv": "conv",
    "ConvTranspose": "conv",
    "FusedConv": "conv",
    "QLinearConv": "conv",
    "BatchNormalization": "norm",
    "Relu": "relu",
    "MaxPool": "pool",
    "Resize": "resize",
    "Upsample": "resize",
    "Transpose": "transpose",
    "Cast": "cast",
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "ArgMax": "argmax",
    "ReduceMax": "max",
    "ReduceSum": "sum",
    "Gather": "gather",
    "GatherElements": "gather",
    "GatherND": "gather",
    "Exp": "exp",
    "Log": "log",
    "Sign": "sign",
    "Where": "where",
    "Clip": "clip",
    "Max": "clip",
    "Pad": "pad",
    "Concat": "concat",
}


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """One operation of either side: what it is called in the alignment, who did it, and what came out."""

    token: str
    name: str
    detail: str
    tensor: str
    value: NDArray[Any]


def first_node(model: CandidateModel, reference: Reference, *, cut: Cut, tolerance: float) -> NodeFinding:
    """Return the first node of a file whose output differs from PyTorch's by more than the tolerance.

    Args:
        model: The file.
        reference: Its checkpoint.
        cut: One person.
        tolerance: Greatest difference, relative to the greatest value of the expected tensor.
    """
    crops = cut.crops[crop_key(model.contract)][0][None]
    steps = _graph_steps(model, crops)
    expected = _torch_steps(reference.module, model.contract, crops, keep_norms=any(s.token == "norm" for s in steps))
    worst, compared = (0.0, ""), 0
    for found, wanted in _aligned(steps, expected):
        compared += 1
        difference = _relative(found.value, wanted.value)
        if difference > tolerance:
            return NodeFinding(
                found.name, found.detail, found.tensor, wanted.name, difference, tolerance, compared, len(steps)
            )
        worst = max(worst, (difference, wanted.name))
    return NodeFinding(None, None, None, worst[1] or None, worst[0], tolerance, compared, len(steps))


def _aligned(found: Sequence[_Step], expected: Sequence[_Step]) -> Iterator[tuple[_Step, _Step]]:
    """Yield pairs that stand for the same operation; of one place in the sequence and of one shape."""
    matcher = difflib.SequenceMatcher(
        None, [step.token for step in found], [step.token for step in expected], autojunk=False
    )
    for block in matcher.get_matching_blocks():
        for offset in range(block.size):
            pair = found[block.a + offset], expected[block.b + offset]
            if pair[0].value.shape == pair[1].value.shape:
                yield pair


def _relative(found: NDArray[Any], expected: NDArray[Any]) -> float:
    if not expected.size:
        return 0.0
    wanted = expected.astype(np.float64)
    difference = np.nan_to_num(np.abs(found.astype(np.float64) - wanted), nan=np.inf).max()
    return float(difference / max(float(np.abs(wanted).max()), 1e-6))


def _graph_steps(model: CandidateModel, crops: NDArray[np.uint8]) -> list[_Step]:
    """Return the outputs of all nodes whose kind is known, in the graph's order."""
    graph = onnx.load(model.path)
    nodes = [node for node in graph.graph.node if node.op_type in _ONNX_KINDS]
    sources = {output: node for node in graph.graph.node for output in node.output}
    weights = {tensor.name for tensor in graph.graph.initializer}
    promised = {value.name for value in graph.graph.output}
    names = [node.output[0] for node in nodes]
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in promised)
    values = _run_everything(graph.SerializeToString(), names, model.contract, crops)
    return [
        _Step(
            _token(_ONNX_KINDS[node.op_type], _module_of(node, sources, weights)),
            node.name or node.output[0],
            node.op_type,
            node.output[0],
            value,
        )
        for node, value in zip(nodes, values, strict=True)
    ]


def _run_everything(
    graph: bytes, names: Sequence[str], contract: ModelContract, crops: NDArray[np.uint8]
) -> list[NDArray[Any]]:
    """Run a graph without ONNX Runtime's rewriting, on the CPU, so that every node's output is there."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return list(session.run(list(names), {contract.input.name: input_tensor(crops, contract.input)}))


def _token(kind: str, module: str | None) -> str:
    return kind if module is None else f"{kind} {module}"


def _module_of(node: Any, sources: dict[str, Any], weights: set[str]) -> str | None:
    """Return the module whose weight a convolution uses, by the weight's name; None where the names are gone."""
    if _ONNX_KINDS[node.op_type] != "conv":
        return None
    for name in node.input[1:]:
        while name in sources and sources[name].op_type in ("DequantizeLinear", "QuantizeLinear", "Cast"):
            name = sources[name].input[0]
        if name in weights and name.startswith(_NETWORK) and ".weight" in name:
            return str(name).removeprefix(_NETWORK).rsplit(".weight", 1)[0]
    return None


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes down the output of every known operation with the module that is being called."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[_Step] = []
        self._stack: list[str] = []
        self._handles = []
        for name, module in root.named_modules():
            self._handles.append(module.register_forward_pre_hook(lambda *_, name=name: self._stack.append(name)))
            self._handles.append(module.register_forward_hook(lambda *_: self._leave()))

    def close(self) -> None:
        """Take the hooks off again."""
        for handle in self._handles:
            handle.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        kind = _TORCH_KINDS.get(func.overloadpacket.__name__.rstrip("_"))
        value = output[0] if isinstance(output, tuple | list) else output
        if kind is not None and isinstance(value, torch.Tensor):
            module = self._stack[-1] if self._stack else ""
            is_weighted = kind == "conv" and module.startswith(_NETWORK)
            token = _token(kind, module.removeprefix(_NETWORK) if is_weighted else None)
            self.steps.append(_Step(token, module, kind, "", value.detach().clone().numpy()))
        return output

    def _leave(self) -> None:
        self._stack.pop()


def _torch_steps(
    network: nn.Module, contract: ModelContract, crops: NDArray[np.uint8], *, keep_norms: bool
) -> list[_Step]:
    """Return the operations of the deployed module on (1, H, W, 3) crops.

    Args:
        network: The bare network.
        contract: The file's contract, which says what is deployed around it.
        crops: One crop.
        keep_norms: Whether the graph has batch norms of its own; else they are taken as part of their convolution.
    """
    deployed = DeploymentGraph(network, contract).eval()
    recorder = _Recorder(deployed)
    try:
        with torch.no_grad(), recorder:
            deployed(torch.from_numpy(np.ascontiguousarray(input_tensor(crops, contract.input))))
    finally:
        recorder.close()
    return recorder.steps if keep_norms else _with_norms_folded(recorder.steps)


def _with_norms_folded(steps: Sequence[_Step]) -> list[_Step]:
    """Give a convolution the output of the batch norm behind it, as a graph has it whose norms are folded in."""
    folded: list[_Step] = []
    for step in steps:
        if step.token == "norm" and folded and folded[-1].detail == "conv":
            conv = folded.pop()
            folded.append(_Step(conv.token, conv.name, conv.detail, conv.tensor, step.value))
        else:
            folded.append(step)
    return folded
