"""A long run over pictures in parts: whatever ends it, what is done is done, and the rest can follow.

The folder of a run holds the list of pictures, fixed when the run begins; parts of results; the failures; and the
manifest, which alone says what counts. A part is written under a temporary name, synced and renamed, then its failures
are appended, then the manifest is replaced; each step is on the disk before the next begins. Whatever a crash leaves
between two of these steps is not in the manifest, and is removed or written over when the run goes on.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbkit.core.keypoints import KeypointSchema
from lbkit.core.results import ImageResult
from lbkit.errors import ConfigError, InputError, OutputError
from lbkit.scale.durable import durable_path, sync_folder
from lbkit.scale.failures import FAILURES_NAME, append_failures, drop_unfinished, failure_line
from lbkit.scale.listing import LISTING_NAME, read_listing, write_listing
from lbkit.scale.manifest import MANIFEST_NAME, Manifest, Part, read_manifest, write_manifest
from lbkit.scale.parts import PartFormat, part_writer
from lbkit.scale.sole_use import sole_use

DEFAULT_PART_SIZE = 1000
"""Pictures a part: some seconds to minutes of work, which is what a crash can cost."""

MANY_PARTS = 10_000
"""A run of more parts of the default size has larger ones, because with every part the manifest of all is written."""

_PART_NAME = re.compile(r"part-[0-9]{5,}\.[a-z]+")

Infer = Callable[[Iterator[Path]], Iterator[ImageResult]]
"""Gives one result for each picture, in their order."""

Sources = Callable[[], Iterable[Path | InputError]]
"""Gives the pictures of a new run, and what is wrong with the sources (see `find_pictures`)."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A sharded run.

    Attributes:
        folder: Where its files go.
        settings: What decides its results, as JSON values; a run goes on only with equal ones.
        keypoints: The joints, in the model's order.
        part_format: How parts are written.
        part_size: Pictures a part; `default_part_size` when None.
    """

    folder: Path
    settings: Mapping[str, Any]
    keypoints: KeypointSchema
    part_format: PartFormat = "jsonl"
    part_size: int | None = None


@dataclass(frozen=True, slots=True)
class Watcher:
    """What a run tells and asks as it goes.

    Attributes:
        begin: Called once with the number of pictures done before and of all.
        take: Called with each result, after it is written.
        is_stopping: Asked after each result; the run ends there, resumable, once it says yes.
    """

    begin: Callable[[int, int], object] = lambda _done, _all: None
    take: Callable[[ImageResult], object] = lambda _result: None
    is_stopping: Callable[[], bool] = lambda: False


@contextlib.contextmanager
def opened_run(
    plan: RunPlan, *, sources: Callable[[], Iterable[Path | InputError]], resume: bool
) -> Iterator[Manifest]:
    """Make the folder of a new run, or take up the one that is there, and keep other runs out of it.

    Args:
        plan: The run.
        sources: Gives the pictures; asked only when the run is new.
        resume: Go on with what is there.

    Yields:
        What is done already.

    Raises:
        ConfigError: The run in the folder has other settings.
        OutputError: The folder is in use, cannot be written to, has a run and `resume` is not set, or other files.
        InputError: The files of the run are damaged.
    """
    with sole_use(plan.folder, work="run", option="--output"):
        manifest = read_manifest(plan.folder)
        if manifest is None:
            manifest = _begun(plan, sources)
        elif not resume:
            raise OutputError(
                f"holds a run with {manifest.done} of {manifest.pictures} pictures done",
                where=plan.folder,
                remedy="give --resume to go on, or another --output",
            )
        else:
            _refuse_other(plan, manifest)
            _tidy(plan.folder, manifest)
        yield manifest


def run_parts(plan: RunPlan, manifest: Manifest, *, infer: Infer, watcher: Watcher = Watcher()) -> Manifest:
    """Do what is left of a run, and return the manifest as it is at the end.

    Memory does not grow with the number of pictures. The pictures go through `infer` in one stream, so that nothing
    waits where one part ends and the next begins.

    Args:
        plan: The run, opened by `opened_run`.
        manifest: What is done already.
        infer: The model.
        watcher: What to tell.

    Raises:
        InputError: The list of pictures is damaged.
        OutputError: Nothing can be written.
    """
    watcher.begin(manifest.done, manifest.pictures)
    results = iter(infer(read_listing(plan.folder, first=manifest.done)))
    try:
        while not manifest.is_complete and not watcher.is_stopping():
            manifest = _one_part(plan, manifest, results, watcher)
    finally:
        close = getattr(results, "close", None)
        if close is not None:
            close()
    return manifest


def default_part_size(pictures: int) -> int:
    """Return how many pictures a part of a run over so many has."""
    return max(DEFAULT_PART_SIZE, math.ceil(pictures / MANY_PARTS))


def _one_part(plan: RunPlan, manifest: Manifest, results: Iterator[ImageResult], watcher: Watcher) -> Manifest:
    number, part_size = len(manifest.parts), plan.part_size or default_part_size(manifest.pictures)
    size = min(part_size, manifest.pictures - manifest.done)
    name, failures = f"part-{number:05}.{plan.part_format}", []
    pictures = people = 0
    with (
        durable_path(plan.folder / name) as temporary,
        part_writer(plan.part_format, temporary, keypoints=plan.keypoints) as writer,
    ):
        for result in itertools.islice(results, size):
            writer.write(result)
            failures += [failure_line(problem, part=number, source=result.path) for problem in result.problems]
            pictures, people = pictures + 1, people + (0 if result.poses is None else len(result.poses))
            watcher.take(result)
            if watcher.is_stopping():
                break
    if pictures < size and not watcher.is_stopping():
        problem = f"has {manifest.done + pictures} pictures, and the manifest says {manifest.pictures}"
        raise InputError(problem, where=plan.folder / LISTING_NAME, remedy="remove the folder to begin anew")
    append_failures(plan.folder, failures)
    manifest = manifest.with_part(Part(name, manifest.done, pictures, people, len(failures)))
    write_manifest(plan.folder, manifest)
    return manifest


def _begun(plan: RunPlan, sources: Sources) -> Manifest:
    found = sorted(path.name for path in plan.folder.iterdir() if not path.name.startswith("."))
    if set(found) - {LISTING_NAME, MANIFEST_NAME, FAILURES_NAME}:
        raise OutputError(
            f"is no run's folder and has files in it, {found[0]!r} for one",
            where=plan.folder,
            remedy="give --output an empty or a new folder",
        )
    _tidy(plan.folder, None)
    count, problems = write_listing(plan.folder, sources())
    append_failures(plan.folder, [failure_line(problem, part=None, source=None) for problem in problems])
    manifest = Manifest(dict(plan.settings), count)
    write_manifest(plan.folder, manifest)
    sync_folder(plan.folder.resolve().parent)
    return manifest


def _tidy(folder: Path, manifest: Manifest | None) -> None:
    """Remove what a crash left: temporary files, a part that the manifest does not name, failures of such a part."""
    named = set() if manifest is None else {part.file for part in manifest.parts}
    for path in folder.iterdir():
        is_temporary = path.name.startswith((".part-", ".manifest-", ".pictures-", ".failures-"))
        if is_temporary or (_PART_NAME.fullmatch(path.name) and path.name not in named):
            path.unlink()
    if manifest is None:
        (folder / FAILURES_NAME).unlink(missing_ok=True)
        return
    missing = sorted(name for name in named if not (folder / name).is_file())
    if missing:
        raise InputError(
            f"{missing[0]} is gone, and the manifest names it", where=folder, remedy="put it back, or begin anew"
        )
    drop_unfinished(folder, parts=len(manifest.parts))


def _refuse_other(plan: RunPlan, manifest: Manifest) -> None:
    differing = sorted(
        key for key in {*plan.settings, *manifest.settings} if plan.settings.get(key) != manifest.settings.get(key)
    )
    if differing:
        key = differing[0]
        raise ConfigError(
            f"the run was begun with {key} {manifest.settings.get(key)!r}, and now it is {plan.settings.get(key)!r}",
            where=plan.folder,
            remedy="give what it was begun with, or another --output",
        )
