"""A model file loaded into the runtime that a provider belongs to."""

from __future__ import annotations

from pathlib import Path

from lbkit.core.backend import RuntimeBackend
from lbkit.runtime.providers import ProviderName, checked_provider


def load_backend(
    path: Path, *, provider: str = "cpu", threads: int | None = None, streams: int | None = 1
) -> RuntimeBackend:
    """Load a model file.

    Args:
        path: An ONNX file exported by lbkit.
        provider: One of `lbkit.runtime.providers.PROVIDER_CHOICES`; "auto" is the fastest that gives the CPU's answers.
        threads: Threads of the model; what CPU affinity and cgroup grant when None.
        streams: Runs that go side by side and share the threads; None for the most people a second (see
            `lbkit.runtime.streams.checked_streams`).

    Raises:
        ConfigError: The threads or streams are out of range.
        ModelError: The file is not there, not ONNX, carries no contract of ours, or contradicts it.
        ProviderError: The provider is unknown or cannot run here.
        MissingDependencyError: The provider's library is not installed.
    """
    name = checked_provider(provider)
    if name == "auto":
        from lbkit.runtime.auto import load_fastest

        return load_fastest(path, threads=threads, streams=streams)
    return load_on(path, provider=name, threads=threads, streams=streams)


def load_on(
    path: Path, *, provider: ProviderName, threads: int | None = None, streams: int | None = 1
) -> RuntimeBackend:
    """Load a model file on a provider named (see `load_backend`)."""
    if provider in ("openvino", "openvino-bf16"):
        from lbkit.runtime.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(path, provider=provider, threads=threads, streams=streams)
    from lbkit.runtime.ort_backend import OrtBackend

    return OrtBackend(path, provider=provider, threads=threads, streams=streams)
