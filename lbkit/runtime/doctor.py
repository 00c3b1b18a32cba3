"""What lbkit finds on this machine: versions, CPU, threads, providers that really run, models."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbkit._version import __version__
from lbkit.core.threads import ThreadLimits, thread_limits
from lbkit.runtime.cpu import CpuFacts, read_cpu_facts
from lbkit.runtime.loading import list_models, model_folders
from lbkit.runtime.probe import ProviderStatus, probe_provider
from lbkit.runtime.providers import PROVIDERS
from lbkit.runtime.wheels import ORT_WHEELS, Obstacle, installed_ort_wheels, installed_version, wheel_clash

_PACKAGES = ("numpy", "opencv-python-headless", "opencv-python", "openvino", "torch", "torchvision", "onnx")
_SHOWN_IF_ABSENT = ("numpy", "opencv-python-headless", "openvino", "torch", "onnx")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What lbkit can work with on this machine.

    Attributes:
        system: Operating system and architecture.
        versions: Versions by package name, Python and lbkit first; None for a package that is not installed.
        cpu: The processor.
        threads: What limits threads, and how many lbkit will use.
        providers: Every provider, tried.
        model_folders: Where models are looked for by name, in order.
        models: Models found, by name.
        problems: What is wrong with the installation itself.
    """

    system: str
    versions: dict[str, str | None]
    cpu: CpuFacts
    threads: ThreadLimits
    providers: tuple[ProviderStatus, ...]
    model_folders: tuple[Path, ...]
    models: dict[str, Path]
    problems: tuple[Obstacle, ...]

    def __post_init__(self) -> None:
        names = [status.name for status in self.providers]
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"every provider should be there once, got {names}")

    @property
    def any_provider_works(self) -> bool:
        """Whether there is a provider that models can run on."""
        return any(status.works for status in self.providers)

    def to_dict(self) -> dict[str, Any]:
        """Return the diagnosis as JSON can hold it."""
        return {
            "system": self.system,
            "versions": self.versions,
            "cpu": {"model": self.cpu.model, "instruction_sets": self.cpu.instruction_sets},
            "threads": {
                "affinity": self.threads.affinity,
                "quota_cpus": self.threads.quota_cpus,
                "used": self.threads.threads,
            },
            "providers": {
                status.name: {"works": status.works, "problem": status.problem, "remedy": status.remedy}
                for status in self.providers
            },
            "model_folders": [str(folder) for folder in self.model_folders],
            "models": {name: str(path) for name, path in self.models.items()},
            "problems": [{"problem": entry.problem, "remedy": entry.remedy} for entry in self.problems],
        }


def examine() -> Diagnosis:
    """Look at this machine; a provider that cannot run is reported, not raised."""
    clash = wheel_clash()
    return Diagnosis(
        system=platform.platform(),
        versions=_versions(),
        cpu=read_cpu_facts(),
        threads=thread_limits(),
        providers=tuple(probe_provider(name) for name in PROVIDERS),
        model_folders=tuple(model_folders()),
        models=list_models(),
        problems=() if clash is None else (clash,),
    )


def describe_machine() -> dict[str, Any]:
    """Return what decides a timing besides the code, as JSON can hold it: system, processor, threads, versions."""
    cpu, limits = read_cpu_facts(), thread_limits()
    return {
        "system": platform.platform(),
        "cpu": {"model": cpu.model, "instruction_sets": cpu.instruction_sets},
        "threads": limits.threads,
        "versions": _versions(),
    }


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version(), "lbkit": __version__}
    versions.update(installed_ort_wheels() or dict.fromkeys(ORT_WHEELS[:1]))
    found = {package: installed_version(package) for package in _PACKAGES}
    return versions | {name: found[name] for name in _PACKAGES if found[name] or name in _SHOWN_IF_ABSENT}
