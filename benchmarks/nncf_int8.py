"""OpenVINO's own int8 of a network, as its users make it: NNCF's post-training quantization of the fp32 file.

Kozlov et al., "Neural Network Compression Framework for fast model inference", 2020.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

from lbkit.core.geometry import ImageArray
from lbkit.errors import MissingDependencyError
from lbkit.runtime.openvino_library import import_openvino


def quantize_by_nncf(source: Path, pixels: ImageArray, *, target: Path) -> None:
    """Write the int8 model that NNCF makes of a file with its defaults, as OpenVINO's XML and BIN.

    The contract in the file's metadata stays, so that lbkit's OpenVINO backend loads the result.

    Args:
        source: An fp32 file of lbkit's that takes uint8 crops.
        pixels: (N, H, W, 3) uint8 RGB crops to calibrate on.
        target: The .xml file; its weights lie beside it.

    Raises:
        MissingDependencyError: NNCF or OpenVINO is not installed.
    """
    openvino, nncf = import_openvino(), _import_nncf()
    nncf.set_log_level("ERROR")
    model = openvino.Core().read_model(str(source))
    crops = nncf.Dataset([crop[None] for crop in pixels])
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        quantized = nncf.quantize(model, crops, subset_size=len(pixels))
    openvino.save_model(quantized, str(target), compress_to_fp16=False)


def _import_nncf() -> Any:
    os.environ["NNCF_CI"] = "1"  # or it reports its use to its makers
    try:
        import nncf
    except ModuleNotFoundError as error:
        raise MissingDependencyError("nncf is not installed", remedy='run `pip install "lbkit[benchmarks]"`') from error
    return nncf
