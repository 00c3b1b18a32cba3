"""Verification must pass what is right and fail what is wrong; here on a network whose heatmaps are its input."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from lbkit.core.codec import decode_heatmaps, encode_heatmaps
from lbkit.core.contract import HeatmapSpec, ModelContract
from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.errors import ExportError
from lbkit.export import verification
from lbkit.export.graph import DeploymentGraph
from lbkit.export.onnx_export import export_graph
from lbkit.export.verification import BATCHES, Outputs, check_agreement, check_structure, reference_outputs

SIZE = ImageSize(24, 18)


class Bare(nn.Module):
    """A network whose three heatmaps are its input's channels, a little blurred along the rows."""

    def __init__(self, gain: float = 1.0, *, swap: bool = False) -> None:
        super().__init__()
        self.gain, self.order = gain, [2, 1, 0] if swap else [0, 1, 2]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(images[:, self.order], (1, 3), stride=1, padding=(0, 1)) * self.gain


class FrozenBatch(nn.Module):
    """Right for two crops only: what comes of a batch that was taken for a constant."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return Bare()(images.reshape(2, 3, SIZE.height, SIZE.width))


class MixedBatch(nn.Module):
    """Lets one crop see the others."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return Bare()(images - images.mean(dim=0, keepdim=True))


@pytest.fixture(scope="module")
def contract(fitted) -> ModelContract:
    full = fitted("cnn").contract
    keypoints = dataclasses.replace(
        full.keypoints,
        names=("left", "middle", "right"),
        oks_sigmas=(0.1,) * 3,
        coco_indices=(0, 1, 2),
        flip_pairs=((0, 2),),
        skeleton=(),
    )
    heatmap = HeatmapSpec(size=SIZE, stride=1, sigma=2.0, decoder="dark", decoded_in_graph=True)
    given = dataclasses.replace(full.input, size=SIZE, dtype="uint8", layout="NHWC")
    return full.replace(keypoints=keypoints, input=given, heatmap=heatmap, outputs=("keypoints", "heatmaps"))


@pytest.fixture(scope="module")
def crops(contract) -> ImageArray:
    """Three bright spots on a dark crop, one a channel, elsewhere in each crop."""
    centers = np.random.default_rng(1).uniform([3, 3], [14, 20], size=(max(BATCHES), 3, 2))
    maps, _ = encode_heatmaps(centers, np.ones((max(BATCHES), 3), bool), spec=contract.heatmap)
    return np.ascontiguousarray((maps * 200 + 20).astype(np.uint8).transpose(0, 2, 3, 1))


@pytest.fixture(scope="module")
def traced(contract):
    """The serialised graph of `Bare()`, which most tests start from."""
    return export_graph(DeploymentGraph(Bare(), contract).eval(), contract, opset=18).SerializeToString()


@pytest.fixture
def save(tmp_path, contract, traced):
    def save_(module: nn.Module | None = None, edit=lambda _: None) -> Path:
        if module is None:
            model = onnx.load_from_string(traced)
        else:
            model = export_graph(DeploymentGraph(module, contract).eval(), contract, opset=18)
        edit(model)
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return path

    return save_


def agreement(path: Path, crops: ImageArray, contract: ModelContract):
    check_structure(path, contract)
    return check_agreement(path, reference_outputs(Bare(), crops, contract), crops=crops, contract=contract)


def test_the_same_network_agrees(save, crops, contract):
    agreements = agreement(save(), crops, contract)
    assert [found.batch for found in agreements] == [1, 2, 5]
    assert [found.joints for found in agreements] == [3, 6, 15]
    assert all(found.near_ties == 0 for found in agreements)
    assert all(found.heatmaps < 1e-5 and found.keypoints_px < 1e-3 for found in agreements)


def test_a_crop_that_sees_the_others_is_refused_even_if_pytorch_agrees(save, crops, contract, monkeypatch):
    monkeypatch.setattr(verification, "BATCHES", (5,))
    reference = reference_outputs(MixedBatch(), crops, contract)
    with pytest.raises(ExportError, match="batch of 5: heatmaps differ from the same crops one at a time"):
        check_agreement(save(MixedBatch()), reference, crops=crops, contract=contract)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Bare(1.001), "heatmaps differ from PyTorch"),
        (Bare(swap=True), "heatmaps differ from PyTorch"),
        (MixedBatch(), "heatmaps differ from"),
        (FrozenBatch(), "promises|fails on a batch|cannot export"),
    ],
    ids=["gain", "swapped", "mixed", "frozen"],
)
def test_another_network_is_refused(save, crops, contract, module, message):
    with pytest.raises(ExportError, match=message):
        agreement(save(module), crops, contract)


def test_wrong_decoder_is_refused(save, crops, contract):
    quarter = contract.replace(heatmap=dataclasses.replace(contract.heatmap, decoder="quarter"))
    path = save()  # decodes by dark
    with pytest.raises(ExportError, match=r"keypoints \(quarter\) lie"):
        agreement(path, crops, quarter)


def test_keypoints_alone_are_still_checked_on_their_heatmaps(save, crops, contract):
    alone = contract.replace(outputs=("keypoints",))

    def drop(model):
        del model.graph.output[1:]

    assert agreement(save(edit=drop), crops, alone)[-1].heatmaps < 1e-5
    with pytest.raises(ExportError, match="heatmaps differ"):
        agreement(save(Bare(1.001), drop), crops, alone)


def rename_output(model):
    model.graph.output[0].name = "points"
    for node in model.graph.node:
        node.output[:] = ["points" if name == "keypoints" else name for name in node.output]


def freeze(model):
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2


def widen(model):
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT8


def break_edge(model):
    model.graph.node[0].input[0] = "nowhere"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (rename_output, "points"),
        (freeze, r"\(2, 24, 18, 3\).*promises"),
        (widen, "INT8|not valid"),
        (break_edge, "not valid ONNX"),
    ],
)
def test_malformed_or_unpromised_graph_is_refused(save, contract, edit, message):
    with pytest.raises(ExportError, match=message):
        check_structure(save(edit=edit), contract)


def test_weights_outside_the_file_are_refused(save, contract):
    path = save()
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(ExportError, match="outside"):
        check_structure(path, contract)


def test_a_file_that_the_runtime_cannot_load_is_refused(tmp_path, crops, contract):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ExportError, match="cannot load"):
        check_agreement(path, reference_outputs(Bare(), crops, contract), crops=crops, contract=contract)


@pytest.mark.parametrize("gain", [0.0, float("nan")])
def test_a_network_without_peaks_verifies_nothing(crops, contract, gain):
    with pytest.raises(ExportError, match=r"not finite or are one value.*checkpoint"):
        reference_outputs(Bare(gain), crops, contract)


def test_faint_heatmaps_do_not_hide_an_error(crops, contract):
    """Maps that span a thousandth would differ by less than 1e-4 whatever was wrong with them."""
    expected = reference_outputs(Bare(1e-3), crops, contract)
    found = Outputs(expected.heatmaps * 1.01, expected.keypoints)
    assert np.abs(found.heatmaps - expected.heatmaps).max() < verification.HEATMAP_TOLERANCE
    with pytest.raises(ExportError, match="heatmaps differ"):
        verification._compare(found, expected, contract, against="PyTorch")


def outputs(heatmaps: np.ndarray, contract: ModelContract) -> Outputs:
    return Outputs(heatmaps, decode_heatmaps(heatmaps, spec=contract.heatmap))


@pytest.fixture
def argmax_contract(contract) -> ModelContract:
    return contract.replace(heatmap=dataclasses.replace(contract.heatmap, decoder="argmax"))


def two_peaks(contract: ModelContract, *, margin: float, joints: int = 1) -> np.ndarray:
    """(2, 3, h, w) maps with one peak each; the first `joints` of crop 0 have a second one, lower by `margin`."""
    centers = np.broadcast_to(np.array([5.0, 6.0]), (2, 3, 2))
    maps, _ = encode_heatmaps(centers, np.ones((2, 3), bool), spec=contract.heatmap)
    maps[0, :joints, 18, 12] = 1.0 - margin
    return maps


def test_near_tie_is_counted_apart(argmax_contract):
    expected = two_peaks(argmax_contract, margin=1e-6)
    found = expected.copy()
    found[0, 0, 18, 12] += np.float32(3e-6)
    record = verification._compare(
        outputs(found, argmax_contract), outputs(expected, argmax_contract), argmax_contract, against="PyTorch"
    )
    assert record.near_ties == 1
    assert record.keypoints_px == 0.0


def test_jump_without_a_near_tie_is_refused(argmax_contract):
    expected = outputs(two_peaks(argmax_contract, margin=1e-3), argmax_contract)
    keypoints = expected.keypoints.copy()
    keypoints[0, 0, :2] = [12, 18]  # where the second peak is
    with pytest.raises(ExportError, match=r"keypoints \(argmax\) lie 13.9 \(crop 0, left\) px"):
        verification._compare(Outputs(expected.heatmaps, keypoints), expected, argmax_contract, against="PyTorch")


def test_near_tie_excuses_no_farther_place(argmax_contract):
    expected = outputs(two_peaks(argmax_contract, margin=0.0), argmax_contract)
    keypoints = expected.keypoints.copy()
    keypoints[0, 0, :2] = [500, 18]
    with pytest.raises(ExportError, match="keypoints"):
        verification._compare(Outputs(expected.heatmaps, keypoints), expected, argmax_contract, against="PyTorch")


def test_too_many_near_ties_are_refused(argmax_contract):
    expected = two_peaks(argmax_contract, margin=1e-6, joints=3)
    found = expected.copy()
    found[0, :, 18, 12] += np.float32(3e-6)
    with pytest.raises(ExportError, match="3 of 6 joints are near ties"):
        verification._compare(
            outputs(found, argmax_contract), outputs(expected, argmax_contract), argmax_contract, against="PyTorch"
        )


@pytest.mark.parametrize("place", ["heatmaps", "scores", "keypoints"])
def test_not_a_number_is_refused(contract, place):
    expected = outputs(two_peaks(contract, margin=0.5), contract)
    found = Outputs(expected.heatmaps.copy(), expected.keypoints.copy())
    if place == "heatmaps":
        found.heatmaps[1, 2, 3, 4] = np.nan
    else:
        found.keypoints[1, 2, 2 if place == "scores" else 0] = np.nan
    with pytest.raises(ExportError, match=place):
        verification._compare(found, expected, contract, against="PyTorch")
