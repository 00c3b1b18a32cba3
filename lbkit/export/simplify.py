"""onnxsim over an exported graph, with what it must not touch checked."""

from __future__ import annotations

import onnx

from lbkit.errors import ExportError, MissingDependencyError

_WITHOUT = "export with --no-simplify"


def simplify_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with constants folded and idle nodes removed.

    onnxsim's own comparison on random inputs is not asked for; the file is compared with PyTorch afterwards.

    Raises:
        ExportError: onnxsim failed, or changed an input or output, for instance froze the batch.
        MissingDependencyError: onnxsim is not installed.
    """
    try:
        import onnxsim
    except ImportError as error:
        raise MissingDependencyError(
            "onnxsim is not installed", remedy=f'pip install "lbkit[export]", or {_WITHOUT}'
        ) from error
    simplified: onnx.ModelProto
    try:
        simplified, passed = onnxsim.simplify(model)
    except Exception as error:  # onnxsim raises whatever its C++ core does
        raise ExportError(f"onnxsim failed ({type(error).__name__}: {error})", remedy=_WITHOUT) from error
    if not passed:
        raise ExportError("onnxsim reports that its result differs from the graph it was given", remedy=_WITHOUT)
    before, after = interface(model), interface(simplified)
    if before != after:
        raise ExportError(f"onnxsim changed the graph's inputs or outputs from {before} to {after}", remedy=_WITHOUT)
    # an older ONNX Runtime refuses a file whose format is newer than itself, whatever the operators in it
    simplified.ir_version = model.ir_version
    return simplified


def interface(model: onnx.ModelProto) -> dict[str, tuple[str, tuple[int | str, ...]]]:
    """Return each input's and output's type and shape by name; a dynamic axis is its name, an unknown one "?"."""
    values = [*model.graph.input, *model.graph.output]
    return {value.name: _type_and_shape(value) for value in values}


def _type_and_shape(value: onnx.ValueInfoProto) -> tuple[str, tuple[int | str, ...]]:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim)
    return onnx.TensorProto.DataType.Name(tensor.elem_type), shape
