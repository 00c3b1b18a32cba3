"""The two paths: a checkpoint in PyTorch, and a file in ONNX Runtime with what it keeps inside in sight."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from lbkit.core.backend import RuntimeBackend
from lbkit.core.codec import decode_heatmaps
from lbkit.core.contract import ModelContract
from lbkit.core.geometry import ImageArray
from lbkit.core.preprocess import normalize_crops
from lbkit.core.records import record_to_mapping
from lbkit.core.threads import thread_limits
from lbkit.errors import ContractError, ModelError, ProviderError
from lbkit.export.verification import input_tensor
from lbkit.models.checkpoint import (
    Checkpoint,
    checkpoint_folders,
    find_checkpoint_of_weights,
    load_checkpoint,
)
from lbkit.parity.definitions import ContractDifference
from lbkit.parity.graphs import has_tensor, network_input, part_up_to
from lbkit.runtime.backends import load_backend
from lbkit.runtime.providers import open_session

CHOSEN_AT_EXPORT = frozenset(
    {
        "input.dtype",
        "input.layout",
        "heatmap.decoder",
        "heatmap.decoded_in_graph",
        "outputs",
        "precision",
        "evaluation",
    }
)
"""Fields in which a file's contract may differ from its checkpoint's."""

_OTHER_MODEL = ("model", "keypoints", "input.size", "heatmap.size", "heatmap.stride", "weights_sha256")
"""Fields whose difference makes it another network, so that nothing can be compared."""


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceOutput:
    """What PyTorch makes of N crops.

    Attributes:
        tensor: (N, 3, H, W) float32, the normalised input.
        heatmaps: (N, K, h, w) float32.
    """

    tensor: NDArray[np.float32]
    heatmaps: NDArray[np.float32]


class Reference:
    """A checkpoint in PyTorch on the CPU, in single precision; the seconds inside it are counted.

    Args:
        checkpoint: The checkpoint.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        assert checkpoint.path is not None  # it was read from a file
        self.path, self.contract = checkpoint.path, checkpoint.contract
        self.module = checkpoint.to_module()
        self.seconds = 0.0

    def run(self, crops: ImageArray) -> ReferenceOutput:
        """Run the network on (N, H, W, 3) uint8 RGB crops.

        Raises:
            ModelError: Its heatmaps are not finite or have no peak.
        """
        started = time.perf_counter()
        tensor = normalize_crops(crops, self.contract.input)
        with torch.inference_mode():
            heatmaps = self.module(torch.from_numpy(tensor)).numpy()
        self.seconds += time.perf_counter() - started
        if not np.isfinite(heatmaps).all() or not np.ptp(heatmaps, axis=(2, 3)).all():
            raise ModelError(
                "in PyTorch it gives heatmaps that are not finite or are one value throughout",
                where=self.path,
                remedy="the checkpoint is not of a trained network; train it, or give another by --checkpoint",
            )
        return ReferenceOutput(tensor, heatmaps)


@dataclass(frozen=True, slots=True, eq=False)
class CandidateOutput:
    """What a file makes of N crops.

    Attributes:
        tensor: (N, 3, H, W) its network's input; None where the file keeps it out of sight.
        heatmaps: (N, K, h, w) float32; None where the file keeps them out of sight.
        keypoints: (N, K, 3) float32 of x, y in input pixels and score, by the contract's decoder.
        unfinite: How many numbers among heatmaps and keypoints are NaN or infinite.
    """

    tensor: NDArray[np.floating[Any]] | None
    heatmaps: NDArray[np.float32] | None
    keypoints: NDArray[np.float32]
    unfinite: int


class CandidateModel:
    """An ONNX file as it is deployed, and a second session for tensors that it keeps inside.

    Args:
        path: The file.
        provider: One of `lbkit.runtime.providers.PROVIDER_CHOICES`.
        threads: Threads inside an operator; what this process may use when None.

    Raises:
        ModelError: It cannot be loaded, or contradicts its contract.
        ProviderError: The provider cannot run here, or the session runs elsewhere.
    """

    def __init__(self, path: Path, *, provider: str, threads: int | None = None) -> None:
        self.path, self.threads = path, threads
        self._backend: RuntimeBackend | None = load_backend(path, provider=provider, threads=threads)
        self.contract, self.provider = self._backend.contract, self._backend.provider
        if provider not in ("auto", self.provider):
            raise ProviderError(f"{provider} was asked for, and the session runs on {self.provider}", where=path)
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.seconds = 0.0
        self._inner_names, self._inner = self._open_inner()

    def run(self, crops: ImageArray) -> CandidateOutput:
        """Run the deployed file, and the second session where there is one, on (N, H, W, 3) uint8 RGB crops.

        Raises:
            ModelError: ONNX Runtime fails, or puts out other shapes than promised.
        """
        assert self._backend is not None  # nobody runs a closed model
        started = time.perf_counter()
        output = self._backend.run(crops)
        self.seconds += time.perf_counter() - started
        feed = input_tensor(crops, self.contract.input)
        inner = self._run_inner(feed)
        heatmaps = output.heatmaps if output.heatmaps is not None else _as_float32(inner.get("heatmaps"))
        keypoints = output.keypoints
        if keypoints is None:
            assert output.heatmaps is not None  # a model output has one of the two
            with np.errstate(invalid="ignore"):
                keypoints = decode_heatmaps(output.heatmaps, spec=self.contract.heatmap)
        tensor = feed if self.contract.input.dtype == "float32" else inner.get("tensor")
        given = [array for array in (output.heatmaps, output.keypoints) if array is not None]
        unfinite = sum(int((~np.isfinite(array)).sum()) for array in given)
        return CandidateOutput(tensor, heatmaps, keypoints, unfinite)

    def close(self) -> None:
        """Let the sessions go, with the memory that they hold."""
        self._backend = self._inner = None

    def _open_inner(self) -> tuple[dict[str, str], Any]:
        """Return what is looked at by the name of its tensor, and a session that puts it out, or None."""
        model = onnx.load(self.path)
        names: dict[str, str] = {}
        tensor = network_input(model) if self.contract.input.dtype == "uint8" else None
        if tensor is not None:
            names["tensor"] = tensor
        if "heatmaps" not in self.contract.outputs and has_tensor(model, "heatmaps"):
            names["heatmaps"] = "heatmaps"
        if not names:
            return {}, None
        part = part_up_to(model, names.values())
        return names, open_session(part, provider=self.provider, threads=self.threads).session

    def _run_inner(self, feed: NDArray[Any]) -> dict[str, NDArray[Any]]:
        if self._inner is None:
            return {}
        arrays = self._inner.run(list(self._inner_names.values()), {self.contract.input.name: feed})
        return dict(zip(self._inner_names, arrays, strict=True))


def reference_of(contract: ModelContract, *, where: Path, checkpoint: Path | None) -> Reference:
    """Load the checkpoint that a file was made from.

    Args:
        contract: The file's contract.
        where: The file, for messages.
        checkpoint: The checkpoint; found by the hash of its weights when None.

    Raises:
        CheckpointError: It is broken.
        ContractError: There is none of these weights.
    """
    path = checkpoint or find_checkpoint_of_weights(contract.weights_sha256)
    if path is None:
        folders = ", ".join(str(folder) for folder in checkpoint_folders())
        raise ContractError(
            f"no checkpoint has its weights (sha256 {contract.weights_sha256[:12]}{_namesake(contract)}) in {folders}",
            where=where,
            remedy="give the one it was made from by --checkpoint FILE",
        )
    return Reference(load_checkpoint(path))


def refuse_other_network(contract: ModelContract, reference: Reference, *, where: Path) -> None:
    """Raise unless a file is of the reference's network, so that there is something to compare.

    Args:
        contract: The file's contract.
        reference: The checkpoint.
        where: The file, for messages.

    Raises:
        ContractError: It is of another network or other weights; the message names the fields that differ.
    """
    fatal = [
        difference
        for difference in contract_differences(contract, reference.contract)
        if any(difference.field == name or difference.field.startswith(f"{name}.") for name in _OTHER_MODEL)
    ]
    if fatal:
        raise ContractError(
            f"its contract does not match the checkpoint {reference.path}: {'; '.join(map(str, fatal))}",
            where=where,
            remedy="give the checkpoint it was made from by --checkpoint FILE, or export it again",
        )


def contract_differences(found: ModelContract, expected: ModelContract) -> tuple[ContractDifference, ...]:
    """Return the fields in which a file's contract differs from its checkpoint's, those of export's choices left out.

    Args:
        found: The file's contract.
        expected: The checkpoint's.
    """
    own, other = dict(_flat(record_to_mapping(found))), dict(_flat(record_to_mapping(expected)))
    names = [name for name in own | other if not _is_chosen(name) and own.get(name) != other.get(name)]
    return tuple(ContractDifference(name, own.get(name), other.get(name)) for name in names)


@contextmanager
def exact_pytorch() -> Iterator[None]:
    """Keep PyTorch from rounding products to TF32 or bfloat16, whatever the program that calls has chosen."""
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(chosen)


@contextmanager
def one_pytorch_thread_pool() -> Iterator[ThreadPoolExecutor]:
    """Give a pool of one thread in which PyTorch uses half of the processors that this process may use."""
    chosen = torch.get_num_threads()
    half = min(chosen, max(1, thread_limits().threads // 2))
    try:
        with ThreadPoolExecutor(1, "lbkit-pytorch", torch.set_num_threads, (half,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(chosen)


def _is_chosen(name: str) -> bool:
    return any(name == chosen or name.startswith(f"{chosen}.") for chosen in CHOSEN_AT_EXPORT)


def _flat(mapping: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in mapping.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _namesake(contract: ModelContract) -> str:
    """Say what else a checkpoint of the same name differs in."""
    for folder in checkpoint_folders():
        path = folder / f"{contract.model}.safetensors"
        if path.is_file():
            differences = contract_differences(contract, load_checkpoint(path).contract)
            return f"; {path} differs: {'; '.join(map(str, differences))}"
    return ""


def _as_float32(array: NDArray[Any] | None) -> NDArray[np.float32] | None:
    return None if array is None else array.astype(np.float32)
