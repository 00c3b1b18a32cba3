"""Which ONNX Runtime wheels are installed, and the import that explains itself when it fails."""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import Any

from lbkit.errors import MissingDependencyError, ProviderError

ORT_WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-migraphx",
    "onnxruntime-rocm",
    "onnxruntime-training",
)
"""Distributions that all unpack into the one folder `onnxruntime`."""

_EXTRAS = {"onnxruntime": "lbkit[cpu]", "onnxruntime-gpu": "lbkit[gpu]"}


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why something cannot work here, and what mends it.

    Attributes:
        problem: What is wrong.
        remedy: The command or instruction that mends it.
    """

    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


def installed_version(package: str) -> str | None:
    """Return a distribution's version from its metadata, without importing it; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_ort_wheels() -> dict[str, str]:
    """Return the versions of the ONNX Runtime wheels that are installed, by name."""
    versions = {name: installed_version(name) for name in ORT_WHEELS}
    return {name: version for name, version in versions.items() if version is not None}


def wheel_clash() -> Obstacle | None:
    """Say which ONNX Runtime wheels overwrite each other, or None when at most one is installed."""
    wheels = installed_ort_wheels()
    if len(wheels) < 2:
        return None
    names = " and ".join(f"{name} {version}" for name, version in wheels.items())
    problem = f"{names} are installed side by side and overwrite each other's files"
    return Obstacle(problem, f"run {reinstall_command(wheels)}")


def reinstall_command(wheels: dict[str, str], *, wanted: str | None = None) -> str:
    """Return the two commands that leave exactly one wheel.

    Args:
        wheels: What is installed.
        wanted: The wheel to leave; the most special one when None.
    """
    special = [name for name in wheels if name != "onnxruntime"]
    wanted = wanted or (special or ["onnxruntime"])[0]
    install = f'`pip install "{_EXTRAS.get(wanted, wanted)}"`'
    return f"`pip uninstall -y {' '.join(wheels)}` and then {install}" if wheels else install


def import_onnxruntime() -> Any:
    """Import ONNX Runtime.

    Raises:
        MissingDependencyError: It is not installed.
        ProviderError: It is installed and broken.
    """
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise _broken(str(error)) from error
        raise MissingDependencyError(
            "onnxruntime is not installed",
            remedy='run `pip install "lbkit[cpu]"`, or `pip install "lbkit[gpu]"` on a machine with an NVIDIA GPU',
        ) from error
    except ImportError as error:
        raise _broken(str(error)) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # Uninstalling one of two wheels takes the files of both and leaves an empty folder that still imports.
        raise _broken("its files are gone")
    return onnxruntime


def _broken(reason: str) -> ProviderError:
    command = reinstall_command(installed_ort_wheels())
    return ProviderError(f"onnxruntime is installed but broken ({reason})", remedy=f"run {command}")
