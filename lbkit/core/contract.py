"""The model contract: everything downstream must know of a model, carried by the model's own file."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lbkit.core.geometry import ImageSize
from lbkit.core.keypoints import KeypointSchema
from lbkit.core.records import RecordError, record_from_mapping, record_to_mapping
from lbkit.errors import ContractError

CONTRACT_VERSION = 1
CONTRACT_KEY = "lbkit_contract"
"""The metadata key under which checkpoints and ONNX files carry their contract."""

MODEL_NAMES = ("baseline", "fpn", "cnn")
"""The networks that lbkit trains and exports, known here without PyTorch; `lbkit.models.registry` builds them."""

DecoderName = Literal["argmax", "soft-argmax", "quarter", "dark"]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)
_EXPORT_AGAIN = "export the model again with `lbkit export`"

Precision = Literal["fp32", "fp16", "int8"]
OutputName = Literal["heatmaps", "keypoints"]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The tensor that the file takes.

    Attributes:
        name: Name of the tensor.
        size: Height and width of a crop in pixels.
        dtype: "uint8" is raw pixels, normalised inside the graph; "float32" is already normalised.
        layout: "NHWC" or "NCHW".
        color_order: Order of the channels.
        mean: Per-channel mean of pixel values scaled to 0..1.
        std: Per-channel standard deviation of pixel values scaled to 0..1.
    """

    name: str
    size: ImageSize
    dtype: Literal["uint8", "float32"]
    layout: Literal["NHWC", "NCHW"]
    color_order: Literal["RGB"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if (self.dtype, self.layout) not in {("uint8", "NHWC"), ("float32", "NCHW")}:
            raise ValueError(f"dtype {self.dtype} does not go with layout {self.layout}")
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise ValueError(f"mean must be finite and std positive, got {self.mean} and {self.std}")


@dataclass(frozen=True, slots=True)
class CropSpec:
    """How a person's box becomes the input.

    Attributes:
        padding: Factor on the box after it is given the input's aspect.
        resampling: Interpolation of the one warp.
        border_value: RGB colour outside the image.
        pixel_convention: "center" places the centre of the top-left pixel at (0, 0).
    """

    padding: float
    resampling: Literal["bilinear"]
    border_value: tuple[int, int, int]
    pixel_convention: Literal["center"]

    def __post_init__(self) -> None:
        if not 1.0 <= self.padding <= 4.0:
            raise ValueError(f"padding should lie in 1..4, got {self.padding}")
        if not all(0 <= value <= 255 for value in self.border_value):
            raise ValueError(f"border_value should lie in 0..255, got {self.border_value}")


@dataclass(frozen=True, slots=True)
class HeatmapSpec:
    """The maps that the network predicts, one a joint.

    Attributes:
        size: Height and width of a map in cells.
        stride: Input pixels a cell.
        sigma: Standard deviation of the Gaussian targets in cells.
        decoder: The decoder that turns maps into coordinates unless the caller asks for another.
        decoded_in_graph: Whether the file itself decodes and puts out keypoints.
    """

    size: ImageSize
    stride: int
    sigma: float
    decoder: DecoderName
    decoded_in_graph: bool

    def __post_init__(self) -> None:
        if self.stride < 1 or not 0 < self.sigma < math.inf:
            raise ValueError(f"stride and sigma must be positive, got {self.stride} and {self.sigma}")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure of a model.

    Attributes:
        metric: What was measured, for example "pck@0.05 v>0".
        value: The figure.
        data: Name of the data it was measured on.
        persons: How many persons counted.
        date: ISO date of the measurement.
        interval: Bounds of its 95 % interval, None where none was made.
        data_sha256: Hash of the annotation file it was measured by, None where it was not kept.
    """

    metric: str
    value: float
    data: str
    persons: int
    date: str
    # Files of contract version 1 that lack what follows are read as before, so the version stays.
    interval: tuple[float, float] | None = None
    data_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ModelContract:
    """What a model file says of itself; nothing else in the code knows a size, a mean or an order.

    Attributes:
        contract_version: Version of this record.
        model: Architecture name in the registry.
        keypoints: The K joints, in the order of every output.
        input: The input tensor.
        crop: How crops are cut.
        heatmap: The heatmaps and their decoder.
        outputs: Names of the output tensors, in order.
        precision: Arithmetic of the network.
        weights_sha256: Hash of the trained weights the file was made from.
        training_data: Names of the training sets.
        evaluation: Measured figures.
    """

    contract_version: int
    model: str
    keypoints: KeypointSchema
    input: InputSpec
    crop: CropSpec
    heatmap: HeatmapSpec
    outputs: tuple[OutputName, ...]
    precision: Precision
    weights_sha256: str
    training_data: tuple[str, ...]
    evaluation: tuple[Figure, ...]

    def __post_init__(self) -> None:
        cells, stride = self.heatmap.size, self.heatmap.stride
        if (cells.height * stride, cells.width * stride) != (self.input.size.height, self.input.size.width):
            raise ValueError(f"heatmap {cells} x stride {stride} does not cover the input {self.input.size}")
        if not self.outputs or len(set(self.outputs)) != len(self.outputs):
            raise ValueError(f"outputs must be at least one and unique, got {self.outputs}")
        if self.heatmap.decoded_in_graph != ("keypoints" in self.outputs):
            raise ValueError(f"outputs {self.outputs} contradict decoded_in_graph")

    def replace(self, **changes: Any) -> ModelContract:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the contract as JSON, readable by `from_json`."""
        return json.dumps(record_to_mapping(self), indent=indent, sort_keys=False)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> ModelContract:
        """Read a contract strictly.

        Args:
            text: What `to_json` wrote.
            where: The file it comes from, for messages.

        Raises:
            ContractError: It is not JSON, of another version, or a field is missing, unknown or wrong.
        """
        try:
            mapping = json.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: bad syntax, or a number of 4,300 digits
            raise ContractError(f"the contract is not JSON ({error})", where=where, remedy=_EXPORT_AGAIN) from error
        version = mapping.get("contract_version") if isinstance(mapping, dict) else None
        if version != CONTRACT_VERSION:
            raise ContractError(
                f"contract version {version!r}, and this lbkit reads version {CONTRACT_VERSION}",
                where=where,
                remedy="export the checkpoint again with this lbkit, or install the lbkit that wrote the file",
            )
        try:
            return record_from_mapping(cls, mapping)
        except RecordError as error:
            raise ContractError(f"contract: {error}", where=where, remedy=_EXPORT_AGAIN) from error
