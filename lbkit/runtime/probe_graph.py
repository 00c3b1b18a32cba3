"""A tiny ONNX model, written by hand, that shows whether a provider computes: one 3x3 convolution.

A convolution, because on CUDA it also needs cuDNN, which is loaded only when it is first used. The file format is
protobuf; `onnx` is not needed to write the few fields that one node takes (onnx.proto, IR version 8).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_VARINT, _BYTES = 0, 2
_FLOAT = 1
_IR_VERSION, _OPSET = 8, 17

PROBE_INPUT = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)
PROBE_KERNEL = np.array([[0, 1, 0], [2, 3, 4], [0, 5, 0]], dtype=np.float32).reshape(1, 1, 3, 3)


def probe_answer() -> NDArray[np.float32]:
    """Return the (1, 1, 1, 2) output that `PROBE_MODEL` gives for `PROBE_INPUT`, computed by NumPy."""
    image, kernel = PROBE_INPUT[0, 0], PROBE_KERNEL[0, 0]
    sums = [float((image[:, left : left + 3] * kernel).sum()) for left in (0, 1)]
    return np.array(sums, dtype=np.float32).reshape(1, 1, 1, 2)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _chunk(field: int, payload: bytes | str) -> bytes:
    data = payload.encode() if isinstance(payload, str) else payload
    return _varint(field << 3 | _BYTES) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _tensor(name: str, array: NDArray[np.float32]) -> bytes:
    """TensorProto: dims 1, data_type 2, name 8, raw_data 9."""
    dims = b"".join(_number(1, size) for size in array.shape)
    return dims + _number(2, _FLOAT) + _chunk(8, name) + _chunk(9, array.astype("<f4").tobytes())


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    """ValueInfoProto: name 1, type 2 (tensor_type 1: elem_type 1, shape 2 (dim 1 (dim_value 1)))."""
    dims = b"".join(_chunk(1, _number(1, size)) for size in shape)
    return _chunk(1, name) + _chunk(2, _chunk(1, _number(1, _FLOAT) + _chunk(2, dims)))


def _model() -> bytes:
    """ModelProto: ir_version 1, graph 7 (node 1, name 2, initializer 5, input 11, output 12), opset_import 8."""
    node = _chunk(1, "x") + _chunk(1, "kernel") + _chunk(2, "y") + _chunk(4, "Conv")
    graph = (
        _chunk(1, node)
        + _chunk(2, "probe")
        + _chunk(5, _tensor("kernel", PROBE_KERNEL))
        + _chunk(11, _value("x", PROBE_INPUT.shape))
        + _chunk(12, _value("y", probe_answer().shape))
    )
    return _number(1, _IR_VERSION) + _chunk(7, graph) + _chunk(8, _number(2, _OPSET))


PROBE_MODEL = _model()
