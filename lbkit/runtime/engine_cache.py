"""Where TensorRT's engines are kept: a folder for each model, GPU and version, so that no other's engine is taken."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from lbkit.core.cache_folder import cache_folder
from lbkit.errors import OutputError

logger = logging.getLogger(__name__)


def engine_options(model: Path | bytes, *, gpu: str | None, version: str) -> dict[str, str]:
    """Return the options of ONNX Runtime's TensorRT provider, with the engine cache on.

    Where the GPU cannot be named, or the folder not be made, no cache is used: an engine of another GPU may load and
    be slow or wrong.

    Args:
        model: An ONNX file or its bytes.
        gpu: The GPU's name and compute capability.
        version: ONNX Runtime's version, which decides TensorRT's.
    """
    if gpu is None:
        return {}
    folder = engine_folder(model, gpu=gpu, version=version)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("%s", OutputError(f"no engine is kept ({error.strerror})", where=folder))
        return {}
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
    }


def engine_folder(model: Path | bytes, *, gpu: str, version: str) -> Path:
    """Return the folder of one model's engines on one GPU (see `engine_options`)."""
    place = hashlib.sha256(f"{gpu}\n{version}".encode()).hexdigest()[:12]
    return cache_folder() / "tensorrt" / f"{model_hash(model)[:16]}-{place}"


def model_hash(model: Path | bytes) -> str:
    """Return the SHA-256 of a model's bytes in hexadecimal."""
    if isinstance(model, bytes):
        return hashlib.sha256(model).hexdigest()
    with model.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
