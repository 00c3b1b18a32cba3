"""Models to be judged, found by name or path and loaded into ONNX Runtime or PyTorch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lbkit.core.backend import Backend
from lbkit.core.contract import MODEL_NAMES, DecoderName
from lbkit.core.estimator import PoseEstimator
from lbkit.errors import CheckpointError, ModelNotFoundError, ProviderError
from lbkit.evaluation.card import CHECKPOINT_SUFFIX
from lbkit.evaluation.evaluate import Candidate
from lbkit.evaluation.flip import FlipAveraged

BackendName = Literal["ort", "torch"]
EVALUATION_BATCH_SIZE = 16


@dataclass(frozen=True, slots=True)
class CandidateOptions:
    """How models are loaded.

    Attributes:
        backend: "ort" runs ONNX files, "torch" checkpoints; by each file's suffix when None.
        provider: One of `lbkit.runtime.providers.PROVIDER_CHOICES`; checkpoints run on "cpu", "cuda" or "auto".
        decoder: How heatmaps become coordinates; each model's own way when None.
        flip: Average over the mirror image.
        batch_size: People that run through a model at once.
        threads: Threads inside a model of ONNX Runtime; what this process may use when None.
    """

    backend: BackendName | None = None
    provider: str = "cpu"
    decoder: DecoderName | None = None
    flip: bool = False
    batch_size: int = EVALUATION_BATCH_SIZE
    threads: int | None = None


def default_models(backend: BackendName | None) -> list[str]:
    """Return the names of all models found: the exported and shipped ones, or the trained ones for "torch".

    Raises:
        ModelNotFoundError: There is none.
    """
    if backend == "torch":
        found = [name for name in MODEL_NAMES if _has_checkpoint(name)]
        remedy = "train one, or give a checkpoint"
    else:
        from lbkit.runtime.loading import list_models

        found, remedy = list(list_models()), "make one with `lbkit export --model cnn`"
    if not found:
        raise ModelNotFoundError("there is no model to evaluate", remedy=remedy)
    return found


def load_candidates(models: Sequence[str], options: CandidateOptions) -> list[Candidate]:
    """Load models by name or path.

    Args:
        models: Names, ONNX files or checkpoints; each once.
        options: How they are loaded.

    Raises:
        ModelError: There is no such model, or it cannot be used.
        ProviderError: The provider cannot run here.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    names = _names(models)
    return [_load(model, name, options) for model, name in zip(models, names, strict=True)]


def _names(models: Sequence[str]) -> list[str]:
    """Name files by their last part, or in full where two would be named alike."""
    short = [Path(model).name for model in models]
    counts = Counter(short)
    return [name if counts[name] == 1 else model for name, model in zip(short, models, strict=True)]


def _load(model: str, name: str, options: CandidateOptions) -> Candidate:
    is_checkpoint = Path(model).suffix == CHECKPOINT_SUFFIX
    backend_name = options.backend or ("torch" if is_checkpoint else "ort")
    load = _load_checkpoint if backend_name == "torch" else _load_onnx
    file, provider, backend = load(model, options)
    estimator = PoseEstimator(
        FlipAveraged(backend) if options.flip else backend, decoder=options.decoder, batch_size=options.batch_size
    )
    return Candidate(name, file, backend_name, provider, estimator, flip=options.flip)


def _load_onnx(model: str, options: CandidateOptions) -> tuple[Path, str, Backend]:
    from lbkit.runtime.backends import load_backend
    from lbkit.runtime.loading import find_model

    path = find_model(model)
    backend = load_backend(path, provider=options.provider, threads=options.threads)
    return path, backend.provider, backend


def _load_checkpoint(model: str, options: CandidateOptions) -> tuple[Path, str, Backend]:
    from lbkit.models.checkpoint import find_checkpoint
    from lbkit.models.torch_backend import TorchBackend

    path = Path(model) if Path(model).suffix else find_checkpoint(model)
    device = _torch_device(options.provider)
    return path, device, TorchBackend(path, device=device)


def _torch_device(provider: str) -> str:
    import torch

    if provider not in ("cpu", "cuda", "auto"):
        raise ProviderError(f"PyTorch does not run on {provider}", remedy="give an ONNX file, or --provider cpu")
    if provider == "cuda" and not torch.cuda.is_available():
        raise ProviderError("cuda cannot run here: PyTorch sees no CUDA device", remedy="give --provider cpu")
    return "cuda" if provider != "cpu" and torch.cuda.is_available() else "cpu"


def _has_checkpoint(name: str) -> bool:
    from lbkit.models.checkpoint import find_checkpoint

    try:
        find_checkpoint(name)
    except CheckpointError:
        return False
    return True
