"""What a sharded run has done so far: the file that decides, after a crash, which parts count."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lbkit.errors import InputError
from lbkit.scale.durable import durable_path

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class Part:
    """A file of results that is whole.

    Attributes:
        file: Its name in the run's folder.
        first: Number of its first picture in the run's list, from 0.
        pictures: How many pictures of the list it answers for, unreadable ones included.
        people: How many people are in it.
        failures: How many lines of the failures file belong to it.
    """

    file: str
    first: int
    pictures: int
    people: int
    failures: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The state of a sharded run.

    Attributes:
        settings: What decides the results: model, decoder, boxes, sources, format. A run is resumed with equal ones.
        pictures: How many pictures the run's list has.
        parts: What is done, in order and without gaps.
    """

    settings: Mapping[str, Any]
    pictures: int
    parts: tuple[Part, ...] = field(default_factory=tuple)

    @property
    def done(self) -> int:
        """How many pictures are done; the next part begins at this one."""
        return sum(part.pictures for part in self.parts)

    @property
    def is_complete(self) -> bool:
        """Whether every picture is done."""
        return self.done == self.pictures

    @property
    def people(self) -> int:
        """How many people the parts hold."""
        return sum(part.people for part in self.parts)

    @property
    def failures(self) -> int:
        """How many problems the parts had."""
        return sum(part.failures for part in self.parts)

    def with_part(self, part: Part) -> Manifest:
        """Return the manifest with one more part."""
        return replace(self, parts=(*self.parts, part))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a run's manifest, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    record = {
        "lbkit_run": MANIFEST_VERSION,
        "complete": manifest.is_complete,
        "pictures": manifest.pictures,
        "done": manifest.done,
        "people": manifest.people,
        "failures": manifest.failures,
        "settings": dict(manifest.settings),
        "parts": [asdict(part) for part in manifest.parts],
    }
    with durable_path(folder / MANIFEST_NAME) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """Return a run's manifest, or None where no run has begun.

    Raises:
        InputError: The file is no manifest of ours, or its parts do not follow one another.
    """
    path = folder / MANIFEST_NAME
    remedy = "give another --output, or remove the folder to begin anew"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as a manifest ({error})", where=path, remedy=remedy) from error
    version = record.get("lbkit_run") if isinstance(record, dict) else None
    if isinstance(version, int) and version > MANIFEST_VERSION:
        problem = f"is of version {version}, and this lbkit reads version {MANIFEST_VERSION}"
        raise InputError(problem, where=path, remedy="go on with the lbkit that began it, or give another --output")
    try:
        settings, pictures = dict(record["settings"]), int(record["pictures"])
        manifest = Manifest(settings, pictures, tuple(Part(**entry) for entry in record["parts"]))
        ends = [0, *itertools.accumulate(part.pictures for part in manifest.parts)]
        is_whole = [part.first for part in manifest.parts] == ends[:-1] and ends[-1] <= pictures
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("is no manifest of a run of lbkit", where=path, remedy=remedy) from error
    if version != MANIFEST_VERSION or not is_whole:
        raise InputError("is damaged, or no manifest of a run of lbkit", where=path, remedy=remedy)
    return manifest
