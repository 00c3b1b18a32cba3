"""The Open Inference Protocol (KServe's V2) with its binary tensor data extension: requests read, answers written.

Sources: "Open Inference Protocol", inference request and response objects, and "Binary Tensor Data Extension", both in
KServe's documentation.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit._version import __version__
from lbkit.core.contract import ModelContract
from lbkit.errors import ModelError
from lbkit.runtime.signature import input_shape, output_shape
from lbkit.serving.refusals import bad_request, too_large

HEADER_LENGTH_FIELD = "Inference-Header-Content-Length"
PLATFORM = "onnxruntime_onnx"
EXTENSIONS = ("binary_tensor_data",)
JSON_PIECE = 2**15
"""Numbers that are written at once, in some 20 ms; until they are, no other thread of Python's runs."""

DATATYPES = {"uint8": "UINT8", "float32": "FP32"}


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that a client wants.

    Attributes:
        name: Of the tensor.
        is_binary: Whether it wants bytes behind the JSON rather than numbers in it.
    """

    name: str
    is_binary: bool


@dataclass(frozen=True, slots=True, eq=False)
class InferenceRequest:
    """A request whose tensor fits the model.

    Attributes:
        request_id: What the client calls it, or None.
        tensor: The input, as the model takes it.
        outputs: What it wants, in the order wanted.
    """

    request_id: str | None
    tensor: NDArray[Any]
    outputs: tuple[RequestedOutput, ...]


def server_metadata() -> dict[str, Any]:
    """Return what the protocol's server metadata endpoint answers."""
    return {"name": "lbkit", "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(name: str, contract: ModelContract) -> dict[str, Any]:
    """Return what the protocol's model metadata endpoint answers."""
    given = {"name": contract.input.name, "datatype": DATATYPES[contract.input.dtype]}
    outputs = [
        {"name": output, "datatype": "FP32", "shape": [-1, *output_shape(contract, output)]}
        for output in contract.outputs
    ]
    return {
        "name": name,
        "platform": PLATFORM,
        "inputs": [given | {"shape": [-1, *input_shape(contract)]}],
        "outputs": outputs,
    }


def parse_request(
    body: bytes, contract: ModelContract, *, header_length: int | None, max_rows: int
) -> InferenceRequest:
    """Read an inference request.

    Args:
        body: The whole body.
        contract: The model's.
        header_length: Length of the JSON in front of binary tensors, None where there are none.
        max_rows: Crops in one request.

    Raises:
        RequestRefusedError: It is malformed, or not what the model takes.
    """
    if header_length is not None and not 0 < header_length <= len(body):
        raise bad_request(f"{HEADER_LENGTH_FIELD} is {header_length}, and the body has {len(body)} bytes")
    cut = len(body) if header_length is None else header_length
    request = _json_object(body[:cut])
    request_id = request.get("id")
    if not isinstance(request_id, str | None):
        raise bad_request(f"id should be a string, got {_kind(request_id)}")
    outputs = _requested_outputs(request, contract)
    tensor = _input_tensor(request, contract, binary=memoryview(body)[cut:], max_rows=max_rows)
    return InferenceRequest(request_id, tensor, outputs)


def encode_answer(
    request: InferenceRequest, outputs: Mapping[str, NDArray[np.float32]], *, model_name: str
) -> tuple[bytes, int | None]:
    """Write the answer to an inference request.

    Args:
        request: What was asked.
        outputs: The model's outputs by name.
        model_name: The model's name.

    Returns:
        The body, and the length of the JSON in it where binary tensors follow.

    Raises:
        ModelError: A wanted output has a number that is not finite, which JSON cannot hold.
    """
    records, binary = [], []
    for wanted in request.outputs:
        array = np.ascontiguousarray(outputs[wanted.name], dtype="<f4")
        record: dict[str, Any] = {"name": wanted.name, "datatype": "FP32", "shape": list(array.shape)}
        if wanted.is_binary:
            records.append(json.dumps(record | {"parameters": {"binary_data_size": array.nbytes}}).encode())
            binary.append(array.tobytes())
        else:
            if not np.isfinite(array).all():
                raise ModelError(f"the model {model_name} put out numbers that are not finite")
            records.append(json.dumps(record)[:-1].encode() + b', "data": [' + _json_numbers(array) + b"]}")
    answer: dict[str, Any] = {"model_name": model_name}
    if request.request_id is not None:
        answer["id"] = request.request_id
    header = json.dumps(answer)[:-1].encode() + b', "outputs": [' + b", ".join(records) + b"]}"
    return b"".join([header, *binary]), len(header) if binary else None


def _json_numbers(array: NDArray[np.float32]) -> bytes:
    """Return numbers with commas between, written piece by piece."""
    flat = array.ravel()
    starts = range(0, len(flat), JSON_PIECE)
    return b", ".join(json.dumps(flat[start : start + JSON_PIECE].tolist())[1:-1].encode() for start in starts)


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: bad syntax, not UTF-8, or a number of 4,300 digits
        raise bad_request(f"the request is not JSON ({error})") from error
    if not isinstance(request, dict):
        raise bad_request(f"the request should be a JSON object, got {_kind(request)}")
    return request


def _requested_outputs(request: Mapping[str, Any], contract: ModelContract) -> tuple[RequestedOutput, ...]:
    is_binary = _flag(_parameters(request, "the request"), "binary_data_output", default=False)
    listed = request.get("outputs")
    if listed is None or listed == []:
        return tuple(RequestedOutput(name, is_binary) for name in contract.outputs)
    wanted = [_requested_output(record, contract, default=is_binary) for record in _records(listed, "outputs")]
    if len({output.name for output in wanted}) < len(wanted):
        raise bad_request("outputs name a tensor twice")
    return tuple(wanted)


def _requested_output(record: Mapping[str, Any], contract: ModelContract, *, default: bool) -> RequestedOutput:
    name = record.get("name")
    if name not in contract.outputs:
        raise bad_request(f"there is no output {_shown(name)}", remedy=f"there are {', '.join(contract.outputs)}")
    parameters = _parameters(record, f"output {name}")
    return RequestedOutput(str(name), _flag(parameters, "binary_data", default=default))


def _input_tensor(
    request: Mapping[str, Any], contract: ModelContract, *, binary: memoryview, max_rows: int
) -> NDArray[Any]:
    records = _records(request.get("inputs"), "inputs")
    spec = contract.input
    if len(records) != 1 or records[0].get("name") != spec.name:
        names = _shown([record.get("name") for record in records])
        raise bad_request(f"the inputs should be {spec.name} alone, got {names}")
    record = records[0]
    datatype = record.get("datatype")
    if datatype != DATATYPES[spec.dtype]:
        raise bad_request(f"{spec.name} should be {DATATYPES[spec.dtype]}, got {_shown(datatype)}")
    shape = _checked_shape(record.get("shape"), contract, max_rows=max_rows)
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    size = _binary_size(record)
    if size is None:
        if len(binary):
            raise bad_request(f"{len(binary)} bytes follow the JSON, and no input claims them by binary_data_size")
        return _from_json(record.get("data"), shape, dtype)
    if "data" in record:
        raise bad_request(f"{spec.name} has both data and binary_data_size")
    return _from_binary(binary, size, shape, dtype)


def _checked_shape(shape: Any, contract: ModelContract, *, max_rows: int) -> tuple[int, ...]:
    expected = input_shape(contract)
    name = contract.input.name
    is_list = isinstance(shape, list) and all(type(side) is int for side in shape)
    if not is_list or tuple(shape[1:]) != expected or shape[0] < 1:
        words = f"[N, {', '.join(map(str, expected))}] with N >= 1"
        raise bad_request(f"{name} should have shape {words}, got {_shown(shape)}")
    if shape[0] > max_rows:
        raise too_large(f"{name} holds {shape[0]} crops, and a request may hold {max_rows}", remedy="send fewer")
    return tuple(shape)


def _from_json(data: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return JSON numbers, nested or in one row, as a tensor; none may change by becoming one."""
    if not isinstance(data, list):
        raise bad_request(f"data should be a list of numbers, got {_kind(data)}")
    try:
        given = np.asarray(data)
    except (ValueError, OverflowError, RecursionError) as error:
        raise bad_request(f"data is no tensor ({error})") from error
    if given.size != math.prod(shape) or (given.ndim > 1 and given.shape != shape):
        raise bad_request(f"data has shape {list(given.shape)}, which does not fit {list(shape)}")
    kinds = "iu" if dtype.kind == "u" else "iuf"
    if given.dtype.kind not in kinds:
        raise bad_request(f"data of {DATATYPES[dtype.name]} holds something else than such numbers")
    if dtype.kind == "u" and (given.min() < 0 or given.max() > np.iinfo(dtype).max):
        raise bad_request(f"data of {DATATYPES[dtype.name]} should lie in 0..{np.iinfo(dtype).max}")
    with np.errstate(over="ignore"):  # a number beyond the type becomes infinite, and is refused as such
        return _finite(given.astype(dtype).reshape(shape))


def _from_binary(binary: memoryview, size: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    needed = math.prod(shape) * dtype.itemsize
    if size != needed or len(binary) != needed:
        raise bad_request(
            f"binary_data_size is {size} and {len(binary)} bytes follow the JSON, where shape {list(shape)} of "
            f"{DATATYPES[dtype.name]} takes {needed}"
        )
    return _finite(np.frombuffer(binary, dtype).reshape(shape))


def _finite(tensor: NDArray[Any]) -> NDArray[Any]:
    if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
        raise bad_request("the input has numbers that are not finite")
    return tensor


def _binary_size(record: Mapping[str, Any]) -> int | None:
    size = _parameters(record, "the input").get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise bad_request(f"binary_data_size should be a number of bytes, got {_shown(size)}")
    return size


def _records(value: Any, name: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
        raise bad_request(f"{name} should be a list of objects, got {_kind(value)}")
    return value


def _parameters(record: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    parameters = record.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise bad_request(f"parameters of {what} should be an object, got {_kind(parameters)}")
    return parameters


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise bad_request(f"{name} should be true or false, got {_shown(value)}")
    return value


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", type(None): "nothing"}.get(type(value), f"{type(value).__name__}")


def _shown(value: Any) -> str:
    return reprlib.repr(value)  # shortened: a client may send megabytes
