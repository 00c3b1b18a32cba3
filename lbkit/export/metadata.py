"""What travels with an exported graph: the contract inside the file, and a JSON beside it for people and runtimes."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import onnx
import torch

from lbkit._version import __version__
from lbkit.core.contract import CONTRACT_KEY, ModelContract
from lbkit.core.records import record_to_mapping
from lbkit.export.options import ExportOptions
from lbkit.runtime.wheels import import_onnxruntime


def embed_contract(model: onnx.ModelProto, contract: ModelContract) -> None:
    """Write the contract into the model's metadata, and lbkit as its producer."""
    model.producer_name, model.producer_version = "lbkit", __version__
    onnx.helper.set_model_props(model, {CONTRACT_KEY: contract.to_json()})


def sidecar_record(
    contract: ModelContract, options: ExportOptions, *, file: Mapping[str, Any], golden: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the JSON that lies beside an ONNX file.

    Args:
        contract: The file's contract.
        options: How it was exported.
        file: The file's name, sha256, size and measured agreement.
        golden: Its golden vectors.
    """
    return {
        **file,
        "opset": options.opset,
        "options": {
            "input": options.input_dtype,
            "decode": options.decoder or "none",
            "keep_heatmaps": options.keep_heatmaps,
            "simplify": options.simplify,
            "subpixel": options.subpixel,
        },
        "versions": _versions(simplified=options.simplify),
        "contract": record_to_mapping(contract),
        "golden": golden,
    }


def _versions(*, simplified: bool) -> dict[str, str]:
    versions = {
        "lbkit": __version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxscript": importlib.metadata.version("onnxscript"),
        "onnxruntime": import_onnxruntime().__version__,
    }
    return versions | ({"onnxsim": importlib.metadata.version("onnxsim")} if simplified else {})
