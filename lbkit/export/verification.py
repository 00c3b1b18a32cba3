"""An exported file held against PyTorch: well formed, of the promised shape, dynamic, and equal.

A joint that lies elsewhere than PyTorch's is a failure, unless its map is undecided (see `lbkit.core.ties`). Such near
ties are counted apart, and too many of them are a failure too, because then little was compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from lbkit.core.codec import decode_heatmaps
from lbkit.core.contract import InputSpec, ModelContract
from lbkit.core.geometry import FloatArray, ImageArray
from lbkit.core.preprocess import normalize_crops
from lbkit.core.threads import thread_limits
from lbkit.core.ties import ROUNDING, near_ties
from lbkit.errors import ExportError
from lbkit.export.onnx_export import BATCH_AXIS
from lbkit.export.simplify import interface
from lbkit.runtime.signature import input_shape, output_shape
from lbkit.runtime.wheels import import_onnxruntime

BATCHES = (1, 2, 5)

HEATMAP_TOLERANCE = 1e-4
"""Greatest difference of a cell; for maps whose values span less than 1, as much smaller."""

KEYPOINT_TOLERANCE_PX = 0.01
"""Greatest distance of a joint, in input pixels."""

MAX_NEAR_TIES = 0.25
"""Share of joints that may be near ties; beyond it the comparison says too little."""

_ONNX_DTYPES = {"uint8": "UINT8", "float32": "FLOAT"}


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What one batch of N crops gave.

    Attributes:
        heatmaps: (N, K, h, w) float32.
        keypoints: (N, K, 3) float32: x, y in input pixels, and score.
    """

    heatmaps: NDArray[np.float32]
    keypoints: NDArray[np.float32]

    def first(self, count: int) -> Outputs:
        """Return the outputs of the first `count` crops."""
        return Outputs(self.heatmaps[:count], self.keypoints[:count])


@dataclass(frozen=True, slots=True)
class BatchAgreement:
    """How well a file agreed with PyTorch on one batch.

    Attributes:
        batch: Number of crops.
        heatmaps: Greatest difference of a cell.
        keypoints_px: Greatest distance of a joint in input pixels, near ties left out.
        joints: Joints compared, near ties among them.
        near_ties: Joints whose map has two highest cells, equal to within rounding.
    """

    batch: int
    heatmaps: float
    keypoints_px: float
    joints: int
    near_ties: int


def reference_outputs(module: nn.Module, crops: ImageArray, contract: ModelContract) -> Outputs:
    """Return what PyTorch and the host's decoder make of (N, H, W, 3) uint8 RGB crops.

    Args:
        module: The bare network in evaluation mode.
        crops: The crops.
        contract: The contract of the exported file.

    Raises:
        ExportError: The maps are not finite or have no peak, so that nothing can be compared on them.
    """
    with torch.inference_mode():
        heatmaps = module(torch.from_numpy(normalize_crops(crops, contract.input))).numpy()
    if not np.isfinite(heatmaps).all() or not np.ptp(heatmaps, axis=(2, 3)).all():
        raise ExportError(
            f"{contract.model} in PyTorch gives heatmaps that are not finite or are one value throughout",
            remedy="the checkpoint is not of a trained network; train it, or give another by --checkpoint",
        )
    return Outputs(heatmaps, decode_heatmaps(heatmaps, spec=contract.heatmap))


def check_structure(path: Path, contract: ModelContract) -> onnx.ModelProto:
    """Return the model in a file, once it is well formed and has the inputs and outputs that its contract names.

    Args:
        path: The ONNX file.
        contract: The contract it should keep.

    Raises:
        ExportError: It is malformed, keeps data outside the file, or has other inputs, outputs, types or shapes.
    """
    model = onnx.load(path, load_external_data=False)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ExportError("the exported graph keeps weights outside its file", where=path)
    try:
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:  # the checker and the shape inference raise different types
        raise ExportError(f"the exported graph is not valid ONNX ({error})", where=path) from error
    expected, found = _promised_interface(contract), interface(model)
    if found != expected:
        raise ExportError(f"the exported graph has {found} where its contract promises {expected}", where=path)
    return model


def check_agreement(
    path: Path, reference: Outputs, *, crops: ImageArray, contract: ModelContract
) -> tuple[BatchAgreement, ...]:
    """Run a file in ONNX Runtime on batches of 1, 2 and 5, and hold it against PyTorch and against single crops.

    Args:
        path: The ONNX file.
        reference: What PyTorch makes of the crops.
        crops: (5, H, W, 3) uint8 RGB, at least as many as the greatest of `BATCHES`.
        contract: The file's contract.

    Returns:
        One record for each of `BATCHES`, in that order.

    Raises:
        ExportError: The file does not run, or differs by more than the tolerances.
    """
    session = DeployedFile(path, contract)
    singles = _stacked([session.run(crops[index : index + 1]) for index in range(max(BATCHES))])
    agreements = []
    for batch in BATCHES:
        found = session.run(crops[:batch])
        _compare(found, singles.first(batch), contract, against="the same crops one at a time")
        agreements.append(_compare(found, reference.first(batch), contract, against="PyTorch"))
    return tuple(agreements)


class DeployedFile:
    """An ONNX file in ONNX Runtime on the CPU, with its heatmaps in sight even where it does not put them out.

    Args:
        path: The ONNX file.
        contract: Its contract.

    Raises:
        ExportError: ONNX Runtime cannot load it.
    """

    def __init__(self, path: Path, contract: ModelContract) -> None:
        self._path, self._contract = path, contract
        self._session = self._load(str(path))
        self._probe = self._session if "heatmaps" in contract.outputs else self._load(_with_heatmaps(path, contract))

    def run(self, crops: ImageArray) -> Outputs:
        """Return the outputs for (N, H, W, 3) uint8 RGB crops; keypoints from the graph where it decodes.

        Raises:
            ExportError: ONNX Runtime fails on this batch, or the outputs have another shape than promised.
        """
        heatmaps = self._run(self._probe, "heatmaps", crops)
        if "keypoints" in self._contract.outputs:
            return Outputs(heatmaps, self._run(self._session, "keypoints", crops))
        return Outputs(heatmaps, decode_heatmaps(heatmaps, spec=self._contract.heatmap))

    def _load(self, source: str | bytes) -> Any:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = thread_limits().threads
        try:
            return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises types of its own that share no base
            raise ExportError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load the exported graph ({error})",
                remedy="export with a smaller --opset, or with --no-simplify",
            ) from error

    def _run(self, session: Any, output: str, crops: ImageArray) -> NDArray[np.float32]:
        try:
            (found,) = session.run([output], {self._contract.input.name: input_tensor(crops, self._contract.input)})
        except Exception as error:  # as above
            raise ExportError(f"the exported graph fails on a batch of {len(crops)} ({error})") from error
        expected = (len(crops), *output_shape(self._contract, output))
        if found.shape != expected or found.dtype != np.float32:
            raise ExportError(
                f"a batch of {len(crops)} gives {output} of {found.dtype} {found.shape}, expected float32 {expected}"
            )
        return np.asarray(found)


def input_tensor(crops: ImageArray, spec: InputSpec) -> NDArray[Any]:
    """Return (N, H, W, 3) uint8 RGB crops as the file takes them."""
    return crops if spec.dtype == "uint8" else normalize_crops(crops, spec)


def _compare(found: Outputs, expected: Outputs, contract: ModelContract, *, against: str) -> BatchAgreement:
    """Hold one batch against what is expected; raise if it differs, tell by how much if it does not."""
    batch, names = len(found.heatmaps), contract.keypoints.names
    bound = _heatmap_bound(expected.heatmaps)
    cells = np.abs(found.heatmaps - expected.heatmaps).max(axis=(2, 3))
    scores = np.abs(found.keypoints[..., 2] - expected.keypoints[..., 2])
    for what, values in (("heatmaps", cells), ("scores", scores)):
        if not (values <= bound).all():  # also when a value is not a number
            raise ExportError(
                f"batch of {batch}: {what} differ from {against} by {_worst(values, names)}, allowed {bound:.2g}"
            )
    distances = np.linalg.norm(found.keypoints[..., :2] - expected.keypoints[..., :2], axis=-1)
    ties = near_ties(distances, cells, expected.heatmaps, spec=contract.heatmap, tolerance_px=KEYPOINT_TOLERANCE_PX)
    apart = np.where(ties, 0.0, distances)
    if not (apart <= KEYPOINT_TOLERANCE_PX).all():
        raise ExportError(
            f"batch of {batch}: keypoints ({contract.heatmap.decoder}) lie {_worst(apart, names)} px"
            f" from those of {against}, allowed {KEYPOINT_TOLERANCE_PX}"
        )
    if ties.mean() > MAX_NEAR_TIES:
        raise ExportError(
            f"batch of {batch}: {ties.sum()} of {ties.size} joints are near ties; too little was compared"
        )
    return BatchAgreement(batch, float(cells.max()), float(apart.max()), int(ties.size), int(ties.sum()))


def _heatmap_bound(expected: FloatArray) -> float:
    """Return the tolerance for maps: less where they span little, so that faint maps cannot hide an error."""
    span = min(1.0, float(np.ptp(expected)))
    return max(HEATMAP_TOLERANCE * span, ROUNDING * float(np.abs(expected).max()))


def _worst(values: FloatArray, names: tuple[str, ...]) -> str:
    crop, joint = np.unravel_index(int(values.argmax()), values.shape)
    return f"{values[crop, joint]:.3g} (crop {crop}, {names[joint]})"


def _stacked(parts: list[Outputs]) -> Outputs:
    return Outputs(
        np.concatenate([part.heatmaps for part in parts]), np.concatenate([part.keypoints for part in parts])
    )


def _promised_interface(contract: ModelContract) -> dict[str, tuple[str, tuple[int | str, ...]]]:
    shapes = {contract.input.name: input_shape(contract)}
    shapes |= {name: output_shape(contract, name) for name in contract.outputs}
    dtypes = {contract.input.name: _ONNX_DTYPES[contract.input.dtype]}
    return {name: (dtypes.get(name, "FLOAT"), (BATCH_AXIS, *shape)) for name, shape in shapes.items()}


def _with_heatmaps(path: Path, contract: ModelContract) -> bytes:
    """Return a file's model with its inner tensor "heatmaps" put out beside the keypoints."""
    model = onnx.load(path)
    shape: tuple[str | int, ...] = (BATCH_AXIS, *output_shape(contract, "heatmaps"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("heatmaps", onnx.TensorProto.FLOAT, shape))
    serialized: bytes = model.SerializeToString()
    return serialized
