"""What `--provider auto` remembers: the fastest provider of a model on this machine, in one small JSON file."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from lbkit._version import __version__
from lbkit.core.cache_folder import cache_folder
from lbkit.core.files import atomic_path
from lbkit.errors import OutputError
from lbkit.runtime.cpu import read_cpu_facts
from lbkit.runtime.cuda import read_gpu_name
from lbkit.runtime.engine_cache import model_hash
from lbkit.runtime.openvino_library import openvino_version
from lbkit.runtime.providers import PROVIDERS, ProviderName
from lbkit.runtime.wheels import installed_ort_wheels

logger = logging.getLogger(__name__)

FILE_NAME = "providers.json"
MOST_KEPT = 256
"""The oldest choices beyond so many are forgotten."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a choice holds for: another machine, model or version is measured anew.

    Attributes:
        model: SHA-256 of the file.
        cpu: The processor and its instruction sets.
        threads: Threads of the model.
        streams: Runs side by side, as asked for.
        gpu: The GPU, if there is one.
        versions: Those of lbkit and the runtimes.
    """

    model: str
    cpu: str
    threads: int
    streams: int | None
    gpu: str | None
    versions: str

    @classmethod
    def here(cls, model: Path, *, threads: int, streams: int | None) -> Circumstances:
        """Return those of a model on this machine."""
        cpu = read_cpu_facts()
        sets = sorted(name for name, there in (cpu.instruction_sets or {}).items() if there)
        versions = {"lbkit": __version__, **installed_ort_wheels(), "openvino": openvino_version()}
        return cls(
            model=model_hash(model),
            cpu=f"{cpu.model}: {' '.join(sets)}",
            threads=threads,
            streams=streams,
            gpu=read_gpu_name(),
            versions=json.dumps(versions, sort_keys=True),
        )

    @property
    def key(self) -> str:
        """A name for them in the file."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


def choices_file() -> Path:
    """Return where choices are kept."""
    return cache_folder() / FILE_NAME


def recall(circumstances: Circumstances) -> ProviderName | None:
    """Return the provider chosen before, or None if none was or the file cannot be understood."""
    kept = _read().get(circumstances.key)
    return next((name for name in PROVIDERS if name == kept), None)


def remember(circumstances: Circumstances, provider: ProviderName) -> None:
    """Keep a choice; where the file cannot be written, it is measured again the next time."""
    choices = _read()
    choices.pop(circumstances.key, None)
    choices[circumstances.key] = provider
    newest = dict(list(choices.items())[-MOST_KEPT:])
    try:
        with atomic_path(choices_file()) as temporary:
            temporary.write_text(json.dumps(newest, indent=1) + "\n", encoding="utf-8")
    except OutputError as error:
        logger.info("provider auto: the choice is not kept: %s", error)


def _read() -> dict[str, str]:
    """Return all choices, none of them if the file is missing or damaged."""
    try:
        found = json.loads(choices_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: name for key, name in found.items() if isinstance(name, str)}
