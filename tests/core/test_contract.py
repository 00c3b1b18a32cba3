from __future__ import annotations

import json

import pytest

from lbkit.core.contract import CONTRACT_VERSION, Figure, ModelContract
from lbkit.core.geometry import ImageSize
from lbkit.core.keypoints import LOWER_BODY_6, KeypointSchema
from lbkit.errors import ContractError
from lbkit.models.registry import bare_contract


@pytest.fixture
def contract() -> ModelContract:
    figure = Figure("pck@0.05 v>0", 0.5, "somewhere", 12, "2026-01-02")
    bare = bare_contract("fpn", weights_sha256="ab" * 32, training_data=("a", "b"))
    return bare.replace(evaluation=(figure,))


def test_round_trip_is_exact(contract: ModelContract) -> None:
    assert ModelContract.from_json(contract.to_json(), where="x") == contract


@pytest.mark.parametrize("field", ["model", "keypoints", "crop", "weights_sha256", "outputs"])
def test_a_missing_field_is_named(contract: ModelContract, field: str) -> None:
    mapping = json.loads(contract.to_json())
    del mapping[field]
    with pytest.raises(ContractError, match=f"^m.onnx: contract: missing field {field}; export the model again"):
        ModelContract.from_json(json.dumps(mapping), where="m.onnx")


def test_an_unknown_nested_field_is_named(contract: ModelContract) -> None:
    mapping = json.loads(contract.to_json())
    mapping["crop"]["blur"] = 1
    with pytest.raises(ContractError, match=r"unknown field crop\.blur"):
        ModelContract.from_json(json.dumps(mapping), where="m.onnx")


@pytest.mark.parametrize("version", [0, CONTRACT_VERSION + 1, None])
def test_another_version_says_both(contract: ModelContract, version: int | None) -> None:
    mapping = json.loads(contract.to_json()) | {"contract_version": version}
    with pytest.raises(ContractError, match=f"contract version {version}.*reads version {CONTRACT_VERSION}"):
        ModelContract.from_json(json.dumps(mapping), where="m.onnx")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"contract_version": ' + "9" * 5000 + "}"])
def test_text_that_is_not_json_is_an_error(text: str) -> None:
    with pytest.raises(ContractError, match=r"^m\.onnx: the contract is not JSON .*; export the model again"):
        ModelContract.from_json(text, where="m.onnx")


@pytest.mark.parametrize(
    ("table", "field", "value", "words"),
    [
        ("input", "std", [float("nan")] * 3, "std positive"),
        ("input", "mean", [float("inf")] * 3, "mean must be finite"),
        ("heatmap", "sigma", float("nan"), "sigma must be positive"),
        ("crop", "padding", 10**400, "crop.padding is beyond what a float holds"),
        ("crop", "border_value", [0, 0, 256], "border_value should lie in 0..255"),
        ("keypoints", "coco_indices", [11, 12, 13, 14, 15, 17], "coco_indices must index COCO's 17 joints"),
    ],
)
def test_values_out_of_range_are_refused(
    contract: ModelContract, table: str, field: str, value: object, words: str
) -> None:
    mapping = json.loads(contract.to_json())
    mapping[table][field] = value
    with pytest.raises(ContractError, match=words):
        ModelContract.from_json(json.dumps(mapping), where="m.onnx")


def test_contradictions_are_refused(contract: ModelContract) -> None:
    with pytest.raises(ValueError, match="does not cover the input"):
        contract.replace(heatmap=_with_size(contract, ImageSize(48, 64)))
    with pytest.raises(ValueError, match="decoded_in_graph"):
        contract.replace(outputs=("keypoints",))
    mapping = json.loads(contract.to_json())
    mapping["input"]["layout"] = "NHWC"
    with pytest.raises(ContractError, match="float32 does not go with layout NHWC"):
        ModelContract.from_json(json.dumps(mapping), where="m.onnx")


def _with_size(contract: ModelContract, size: ImageSize) -> object:
    import dataclasses

    return dataclasses.replace(contract.heatmap, size=size)


def test_the_joints_are_cocos() -> None:
    assert LOWER_BODY_6.names == (
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    )
    assert LOWER_BODY_6.flip_order == (1, 0, 3, 2, 5, 4)
    with pytest.raises(ValueError, match="need 2 oks_sigmas"):
        KeypointSchema(("a", "b"), (), (), (0.1,), (0, 1))
