"""Models by name or path, loaded and ready to be called."""

from __future__ import annotations

import difflib
import importlib.resources
import os
from pathlib import Path

from lbkit.core.contract import MODEL_NAMES, DecoderName
from lbkit.core.estimator import PoseEstimator, default_batch_size
from lbkit.errors import ModelNotFoundError
from lbkit.runtime.backends import load_backend

MODELS_VARIABLE = "LBKIT_MODELS"
"""Environment variable of folders, separated as PATH is, that are looked in first."""

EXPORT_FOLDER = "exported"
SUFFIX = ".onnx"


def load_model(
    name_or_path: str | Path,
    *,
    provider: str = "cpu",
    decoder: DecoderName | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    streams: int | None = 1,
) -> PoseEstimator:
    """Load a model that finds people's joints in images.

    Args:
        name_or_path: A shipped or exported model's name such as "fpn", or an ONNX file exported by lbkit.
        provider: "cpu", "cuda", "tensorrt", "openvino", "openvino-bf16", "coreml", "directml", or "auto" for the
            fastest that gives the CPU's answers, timed once and remembered.
        decoder: How heatmaps become coordinates; the model's own way when None.
        batch_size: People that run through the model at once; `default_batch_size` when None.
        threads: Threads of the model; what CPU affinity and cgroup grant when None.
        streams: Batches that run side by side in `run_inference` and share the threads; None for the most people a
            second on the provider. With 1 a single batch is done soonest.

    Raises:
        ConfigError: The threads or streams are out of range.
        ModelNotFoundError: There is no such model.
        ModelError: The file is not ONNX, carries no contract of ours, or contradicts it.
        ProviderError: The provider cannot run here.
        MissingDependencyError: The provider's library is not installed.
    """
    backend = load_backend(find_model(name_or_path), provider=provider, threads=threads, streams=streams)
    rows = default_batch_size(backend.streams) if batch_size is None else batch_size
    return PoseEstimator(backend, decoder=decoder, batch_size=rows, streams=backend.streams)


def find_model(name_or_path: str | Path) -> Path:
    """Return the file of a model; a path is taken as it is, a name is looked up in `model_folders`.

    Args:
        name_or_path: A file that exists or anything with a folder in it is a path; then names are tried; what is
            no name and has a suffix is a path again.

    Raises:
        ModelNotFoundError: There is no model of that name; the message says where it was looked for.
    """
    path = Path(name_or_path)
    if path.is_file() or len(path.parts) != 1:
        return path
    models = list_models()
    if path.name in models:
        return models[path.name]
    if path.suffix:
        return path
    raise _not_found(path.name, list(models))


def list_models() -> dict[str, Path]:
    """Return the models found by name, each in the first folder that has it."""
    models: dict[str, Path] = {}
    for folder in model_folders():
        for file in sorted(folder.glob(f"*{SUFFIX}")):
            # A hidden file is an export under way, or what a killed one left.
            if file.is_file() and not file.name.startswith("."):
                models.setdefault(file.stem, file)
    return models


def model_folders() -> list[Path]:
    """Return the folders that names are looked up in, in order: LBKIT_MODELS, exported, the wheel's own.

    In a checkout the repository's `exported` stands in for the models that a wheel carries.
    """
    listed = os.environ.get(MODELS_VARIABLE, "").split(os.pathsep)
    package = Path(str(importlib.resources.files("lbkit")))
    is_checkout = package.with_name("pyproject.toml").is_file()
    shipped = package.with_name(EXPORT_FOLDER) if is_checkout else package / "shipped"
    return [*(Path(folder) for folder in listed if folder), Path(EXPORT_FOLDER), shipped]


def _not_found(name: str, known: list[str]) -> ModelNotFoundError:
    places = ", ".join(str(folder) for folder in model_folders())
    there = f" (there are {', '.join(sorted(known))})" if known else ""
    near = difflib.get_close_matches(name.lower(), [*known, *MODEL_NAMES], n=1, cutoff=0.4)
    if near and near[0] in known:
        remedy = f"did you mean {near[0]!r}?"
    else:
        makeable = near[0] if near else "|".join(MODEL_NAMES)
        remedy = f"make it with `lbkit export --model {makeable}`"
    return ModelNotFoundError(f"no model {name!r} in {places}{there}", remedy=remedy)
