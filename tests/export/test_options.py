from __future__ import annotations

import onnx
import pytest

from lbkit.errors import ConfigError
from lbkit.export.options import DEFAULT_OPSET, MAX_OPSET, MIN_OPSET, ExportOptions


def test_default_is_raw_pixels_in_and_heatmaps_out(fitted):
    bare = fitted("cnn").contract
    contract = ExportOptions().deployed_contract(bare)
    assert (contract.input.dtype, contract.input.layout) == ("uint8", "NHWC")
    assert contract.outputs == ("heatmaps",)
    assert not contract.heatmap.decoded_in_graph
    assert contract.heatmap.decoder == bare.heatmap.decoder


@pytest.mark.parametrize(("keep", "outputs"), [(False, ("keypoints",)), (True, ("keypoints", "heatmaps"))])
def test_decoder_goes_into_the_contract(fitted, keep, outputs):
    options = ExportOptions(input_dtype="float32", decoder="quarter", keep_heatmaps=keep)
    contract = options.deployed_contract(fitted("cnn").contract)
    assert (contract.input.dtype, contract.input.layout) == ("float32", "NCHW")
    assert contract.heatmap.decoder == "quarter"
    assert contract.heatmap.decoded_in_graph
    assert contract.outputs == outputs


def test_everything_else_is_carried_over(fitted):
    bare = fitted("cnn").contract
    contract = ExportOptions(decoder="dark").deployed_contract(bare)
    assert contract.replace(input=bare.input, heatmap=bare.heatmap, outputs=bare.outputs) == bare


@pytest.mark.parametrize("opset", [-1, 0, MIN_OPSET - 1, MAX_OPSET + 1, 999])
def test_absurd_opset_is_refused_with_the_range(opset):
    with pytest.raises(ConfigError, match=rf"{MIN_OPSET}\.\.{MAX_OPSET}, got {opset}.*leave --opset out"):
        ExportOptions(opset=opset)


def test_opset_range_is_known_to_onnx():
    assert MIN_OPSET <= DEFAULT_OPSET <= MAX_OPSET <= onnx.defs.onnx_opset_version()


@pytest.mark.parametrize("wrong", [{"input_dtype": "int8"}, {"decoder": "drak"}])
def test_unknown_choice_is_refused(wrong):
    with pytest.raises(ConfigError, match="one of"):
        ExportOptions(**wrong)
