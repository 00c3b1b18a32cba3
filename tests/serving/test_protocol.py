from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

from lbkit.errors import ModelError
from lbkit.serving.protocol import InferenceRequest, RequestedOutput, encode_answer, model_metadata, parse_request
from lbkit.serving.refusals import RequestRefusedError

ROWS = 2
SHAPE = [ROWS, 256, 192, 3]


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)


def record(**changes: Any) -> dict[str, Any]:
    plain = {"name": "images", "shape": SHAPE, "datatype": "UINT8", "data": [0] * int(np.prod(SHAPE))}
    return {key: value for key, value in (plain | changes).items() if value is not ...}


def parse(
    toys: ModuleType, request: Any, *, binary: bytes = b"", header: int | None = None, **contract: Any
) -> InferenceRequest:
    text = request if isinstance(request, bytes) else json.dumps(request).encode()
    length = len(text) if binary and header is None else header
    return parse_request(text + binary, toys.toy_contract(**contract), header_length=length, max_rows=4)


@pytest.mark.parametrize("nested", [True, False])
def test_json_numbers_nested_or_in_a_row(toys: ModuleType, crops: np.ndarray, nested: bool) -> None:
    data = crops.tolist() if nested else crops.ravel().tolist()
    request = parse(toys, {"id": "42", "inputs": [record(data=data)]})
    assert np.array_equal(request.tensor, crops)
    assert request.tensor.dtype == np.uint8
    assert (request.request_id, request.outputs) == ("42", (RequestedOutput("heatmaps", False),))


def test_binary_input(toys: ModuleType, crops: np.ndarray) -> None:
    spec = record(data=..., parameters={"binary_data_size": crops.nbytes})
    request = parse(toys, {"inputs": [spec]}, binary=crops.tobytes())
    assert np.array_equal(request.tensor, crops)
    assert request.request_id is None


def test_floats_for_a_model_that_takes_them(toys: ModuleType) -> None:
    given = np.random.default_rng(0).normal(size=(1, 3, 256, 192)).astype(np.float32)
    plain = record(datatype="FP32", shape=list(given.shape), data=given.ravel().tolist())
    assert np.array_equal(parse(toys, {"inputs": [plain]}, dtype="float32").tensor, given)
    raw = record(datatype="FP32", shape=list(given.shape), data=..., parameters={"binary_data_size": given.nbytes})
    assert np.array_equal(parse(toys, {"inputs": [raw]}, binary=given.tobytes(), dtype="float32").tensor, given)


@pytest.mark.parametrize(
    ("wanted", "parameters", "found"),
    [
        (None, None, [("keypoints", False), ("heatmaps", False)]),
        (None, {"binary_data_output": True}, [("keypoints", True), ("heatmaps", True)]),
        ([{"name": "heatmaps"}], {"binary_data_output": True}, [("heatmaps", True)]),
        (
            [{"name": "heatmaps", "parameters": {"binary_data": False}}, {"name": "keypoints"}],
            {"binary_data_output": True},
            [("heatmaps", False), ("keypoints", True)],
        ),
        ([{"name": "keypoints", "parameters": {"binary_data": True}}], None, [("keypoints", True)]),
    ],
)
def test_requested_outputs(toys: ModuleType, wanted: Any, parameters: Any, found: list[tuple[str, bool]]) -> None:
    request = {"inputs": [record()], "outputs": wanted, "parameters": parameters}
    outputs = parse(toys, request, outputs=("keypoints", "heatmaps")).outputs
    assert [(output.name, output.is_binary) for output in outputs] == found


WRONG: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "is not JSON"),
    "no JSON": (b"{", "is not JSON"),
    "no UTF-8": (b'{"id": "\xff"}', "is not JSON"),
    "deep": (b"[" * 100_000, "is not JSON"),
    "many digits": (b'{"inputs": ' + b"9" * 5000 + b"}", "is not JSON"),
    "a list": ([], "should be a JSON object"),
    "no inputs": ({}, "inputs should be a list of objects"),
    "inputs of words": ({"inputs": ["images"]}, "inputs should be a list of objects"),
    "two inputs": ({"inputs": [record(), record()]}, "the inputs should be images alone"),
    "wrong name": ({"inputs": [record(name="pictures")]}, r"alone, got \['pictures'\]"),
    "wrong type": ({"inputs": [record(datatype="FP32")]}, "images should be UINT8, got 'FP32'"),
    "no type": ({"inputs": [record(datatype=...)]}, "images should be UINT8, got None"),
    "wrong shape": ({"inputs": [record(shape=[2, 3, 256, 192])]}, r"shape \[N, 256, 192, 3\] with N >= 1"),
    "no batch": ({"inputs": [record(shape=[256, 192, 3])]}, "should have shape"),
    "empty batch": ({"inputs": [record(shape=[0, 256, 192, 3], data=[])]}, "should have shape"),
    "negative batch": ({"inputs": [record(shape=[-1, 256, 192, 3])]}, "should have shape"),
    "shape of floats": ({"inputs": [record(shape=[2.0, 256, 192, 3])]}, "should have shape"),
    "shape of truths": ({"inputs": [record(shape=[True, 256, 192, 3])]}, "should have shape"),
    "no shape": ({"inputs": [record(shape=...)]}, "should have shape"),
    "empty shape": ({"inputs": [record(shape=[])]}, "should have shape"),
    "large batch": ({"inputs": [record(shape=[5, 256, 192, 3])]}, "holds 5 crops, and a request may hold 4"),
    "endless batch": ({"inputs": [record(shape=[2**70, 256, 192, 3])]}, "a request may hold 4"),
    "no data": ({"inputs": [record(data=...)]}, "data should be a list of numbers, got nothing"),
    "little data": ({"inputs": [record(data=[1, 2])]}, r"shape \[2\], which does not fit"),
    "ragged data": ({"inputs": [record(data=[[1], [2, 3]])]}, "data is no tensor"),
    "words": ({"inputs": [record(data=["1"] * int(np.prod(SHAPE)))]}, "something else than such numbers"),
    "floats": ({"inputs": [record(data=[0.5] * int(np.prod(SHAPE)))]}, "something else than such numbers"),
    "large numbers": ({"inputs": [record(data=[256] * int(np.prod(SHAPE)))]}, r"should lie in 0\.\.255"),
    "negative numbers": ({"inputs": [record(data=[-1] * int(np.prod(SHAPE)))]}, r"should lie in 0\.\.255"),
    "huge numbers": ({"inputs": [record(data=[10**30] * int(np.prod(SHAPE)))]}, "something else"),
    "unknown output": ({"inputs": [record()], "outputs": [{"name": "poses"}]}, "no output 'poses'; there are heatmaps"),
    "odd output": ({"inputs": [record()], "outputs": [{"name": ["heatmaps"]}]}, "no output"),
    "output twice": ({"inputs": [record()], "outputs": [{"name": "heatmaps"}] * 2}, "twice"),
    "outputs no list": ({"inputs": [record()], "outputs": "heatmaps"}, "outputs should be a list"),
    "odd flag": ({"inputs": [record()], "parameters": {"binary_data_output": 1}}, "should be true or false"),
    "odd parameters": ({"inputs": [record()], "parameters": [1]}, "parameters of the request should be an object"),
    "odd id": ({"id": 7, "inputs": [record()]}, "id should be a string"),
    "bytes missing": ({"inputs": [record(data=..., parameters={"binary_data_size": 294912})]}, "0 bytes follow"),
    "size no number": ({"inputs": [record(data=..., parameters={"binary_data_size": "9"})]}, "a number of bytes"),
    "negative size": ({"inputs": [record(data=..., parameters={"binary_data_size": -9})]}, "a number of bytes"),
    "both": ({"inputs": [record(parameters={"binary_data_size": 4})]}, "both data and binary_data_size"),
}


@pytest.mark.parametrize("kind", sorted(WRONG))
def test_a_wrong_request_is_told(toys: ModuleType, kind: str) -> None:
    request, message = WRONG[kind]
    with pytest.raises(RequestRefusedError, match=message) as caught:
        parse(toys, request)
    assert caught.value.status == (413 if "may hold" in message else 400)
    assert len(str(caught.value)) < 500


def test_bytes_nobody_claims(toys: ModuleType) -> None:
    with pytest.raises(RequestRefusedError, match="3 bytes follow the JSON, and no input claims them"):
        parse(toys, {"inputs": [record()]}, binary=b"abc")


@pytest.mark.parametrize("length", [0, 10**9])
def test_a_header_length_beyond_the_body(toys: ModuleType, length: int) -> None:
    with pytest.raises(RequestRefusedError, match=f"Inference-Header-Content-Length is {length}"):
        parse(toys, {"inputs": []}, header=length)


@pytest.mark.parametrize("number", [1e300, float("nan"), float("inf")])
def test_floats_that_are_not_finite(toys: ModuleType, number: float) -> None:
    data = [number] * (3 * 256 * 192)
    spec = record(datatype="FP32", shape=[1, 3, 256, 192], data=data)
    with pytest.raises(RequestRefusedError, match="not finite"):
        parse(toys, {"inputs": [spec]}, dtype="float32")


def test_an_answer_has_json_then_bytes_in_the_order_asked() -> None:
    first, second = np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.array([[0.1]], dtype=np.float32)
    request = InferenceRequest(
        "x", np.zeros(1), (RequestedOutput("b", True), RequestedOutput("a", False), RequestedOutput("c", True))
    )
    body, length = encode_answer(request, {"a": second, "b": first, "c": second}, model_name="m")
    assert length is not None
    answer = json.loads(body[:length])
    assert (answer["model_name"], answer["id"]) == ("m", "x")
    assert [output["name"] for output in answer["outputs"]] == ["b", "a", "c"]
    assert answer["outputs"][0] == {
        "name": "b",
        "datatype": "FP32",
        "shape": [1, 2, 3],
        "parameters": {"binary_data_size": 24},
    }
    assert np.float32(answer["outputs"][1]["data"][0]) == np.float32(0.1)
    assert body[length:] == first.tobytes() + second.tobytes()


def test_an_answer_without_bytes_has_no_header_length() -> None:
    request = InferenceRequest(None, np.zeros(1), (RequestedOutput("a", False),))
    body, length = encode_answer(request, {"a": np.ones((1, 1), np.float32)}, model_name="m")
    assert length is None
    assert json.loads(body) == {
        "model_name": "m",
        "outputs": [{"name": "a", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}],
    }
    with pytest.raises(ModelError, match="not finite"):
        encode_answer(request, {"a": np.full((1, 1), np.nan, np.float32)}, model_name="m")


def test_metadata_is_the_contracts(toys: ModuleType) -> None:
    assert model_metadata("toy", toys.toy_contract(outputs=("keypoints", "heatmaps"), decoder="argmax")) == {
        "name": "toy",
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 256, 192, 3]}],
        "outputs": [
            {"name": "keypoints", "datatype": "FP32", "shape": [-1, 6, 3]},
            {"name": "heatmaps", "datatype": "FP32", "shape": [-1, 6, 64, 48]},
        ],
    }
