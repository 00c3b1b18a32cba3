"""What can be chosen about an exported file, and what the choice makes of its contract."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

from lbkit.core.contract import DECODERS, DecoderName, ModelContract, OutputName
from lbkit.errors import ConfigError

InputDtype = Literal["uint8", "float32"]
INPUT_DTYPES: tuple[InputDtype, ...] = get_args(InputDtype)

MIN_OPSET, MAX_OPSET = 18, 23
"""What the exporter writes natively: below 18 it downgrades by a converter that gives up on some operators."""

DEFAULT_OPSET = 18
"""The exporter's own opset in every PyTorch from 2.8 on, so that no version conversion takes part; read by ONNX
Runtime from 1.14, TensorRT from 8.6 and OpenVINO from 2023, and nothing here needs an operator of a later one."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a network becomes a file.

    Attributes:
        input_dtype: "uint8" takes raw RGB crops, NHWC, and normalises inside; "float32" takes normalised NCHW.
        decoder: The decoder inside the graph; None leaves the heatmaps to the host.
        keep_heatmaps: Also put out the heatmaps when the graph decodes.
        simplify: Run onnxsim over the graph.
        subpixel: Write deconvolutions as convolutions (`lbkit.export.subpixel`), faster on ONNX Runtime's CPU
            and slower in OpenVINO.
        opset: Version of the ONNX operators.
    """

    input_dtype: InputDtype = "uint8"
    decoder: DecoderName | None = None
    keep_heatmaps: bool = False
    simplify: bool = True
    subpixel: bool = False
    opset: int = DEFAULT_OPSET

    def __post_init__(self) -> None:
        if self.input_dtype not in INPUT_DTYPES:
            raise ConfigError(f"input should be one of {', '.join(INPUT_DTYPES)}, got {self.input_dtype!r}")
        if self.decoder not in (None, *DECODERS):
            raise ConfigError(f"decoder should be none or one of {', '.join(DECODERS)}, got {self.decoder!r}")
        if not MIN_OPSET <= self.opset <= MAX_OPSET:
            raise ConfigError(
                f"opset should lie in {MIN_OPSET}..{MAX_OPSET}, got {self.opset}",
                remedy=f"leave --opset out for {DEFAULT_OPSET}, which ONNX Runtime reads since 1.14",
            )

    def deployed_contract(self, bare: ModelContract) -> ModelContract:
        """Return the contract of the exported file, given that of the bare network."""
        outputs: tuple[OutputName, ...] = ("heatmaps",)
        if self.decoder is not None:
            outputs = ("keypoints", "heatmaps") if self.keep_heatmaps else ("keypoints",)
        return bare.replace(
            input=dataclasses.replace(
                bare.input, dtype=self.input_dtype, layout="NHWC" if self.input_dtype == "uint8" else "NCHW"
            ),
            heatmap=dataclasses.replace(
                bare.heatmap,
                decoder=self.decoder or bare.heatmap.decoder,
                decoded_in_graph=self.decoder is not None,
            ),
            outputs=outputs,
        )
