"""What decides figures besides the code, measured and in words."""

from __future__ import annotations

import os
from typing import Any

from lbkit.runtime import doctor


def describe_machine() -> dict[str, Any]:
    """Return what decides the figures besides the code: processor, threads, versions, and what else is running."""
    return doctor.describe_machine() | {"load_average": os.getloadavg()[0]}


def machine_words(machine: dict[str, Any]) -> str:
    """Return the same in a sentence."""
    sets = machine["cpu"]["instruction_sets"]
    has = "instruction sets unknown" if sets is None else ", ".join(name for name, there in sets.items() if there)
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    return (
        f"{machine['cpu']['model']} ({has or 'no AVX2'}), {machine['threads']} threads, {machine['system']}; "
        f"{versions}; load average before the run {machine['load_average']:.2f}"
    )
