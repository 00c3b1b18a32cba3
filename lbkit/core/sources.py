"""From what a user names (files, folders, patterns, a list) to picture paths, one by one, always in the same order."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lbkit.core.image_header import PICTURE_SUFFIXES
from lbkit.errors import InputError

STDIN_SOURCE = "-"

_SUFFIXES = tuple(PICTURE_SUFFIXES)
_DIGITS = re.compile(r"[0-9]+")


def find_pictures(
    sources: Iterable[str], *, listed: Iterable[str] = (), recursive: bool = False
) -> Iterator[Path | InputError]:
    """Walk sources in the order given; within a folder or pattern in natural order (2 before 10).

    A file is taken whatever its name; folders and patterns give files whose suffix is a picture's, never hidden ones.
    A source that yields nothing comes as an error in its place, and the walk goes on.

    Args:
        sources: Files, folders, patterns such as "photos/*.jpg", or "-" for `listed`.
        listed: Lines that name further sources, one each; read as they are needed.
        recursive: Look into subfolders too.

    Yields:
        A path, or what is wrong with a source.
    """
    for source in sources:
        lines = _lines(listed) if source == STDIN_SOURCE else (source,)
        for line in lines:
            yield from _pictures_of(line, recursive=recursive)


def natural_key(name: str) -> str:
    """Return a key that sorts numbers inside names by their value: `frame2` before `frame10`."""
    return _DIGITS.sub(_with_length, name.casefold()) + "\0" + name


def _with_length(match: re.Match[str]) -> str:
    digits = match.group().lstrip("0")
    return f"{len(digits):04}{digits}"


def _lines(listed: Iterable[str]) -> Iterator[str]:
    stripped = (line.rstrip("\r\n") for line in listed)
    return (line for line in stripped if line)


def _pictures_of(source: str, *, recursive: bool) -> Iterator[Path | InputError]:
    try:
        if source and Path(source).is_dir():
            found = _pictures_in(Path(source), recursive=recursive)
        elif glob.has_magic(source) and not Path(source).exists():
            found = iter(_matches(source))
        else:
            found = iter([Path(source)])
    except OSError as error:
        found = iter([_cannot_list(source, error)])
    first = next(found, None)
    yield first or _nothing_found(source, recursive=recursive)
    yield from found


def _nothing_found(source: str, *, recursive: bool) -> InputError:
    suffixes = " ".join(sorted(PICTURE_SUFFIXES))
    if not Path(source).is_dir():
        return InputError("no picture matches", where=source, remedy=f"check the pattern; pictures end in {suffixes}")
    hint = "" if recursive else ", or give --recursive to look into its subfolders"
    return InputError("no picture in this folder", where=source, remedy=f"put pictures ({suffixes}) there{hint}")


def _cannot_list(source: str | Path, error: OSError) -> InputError:
    return InputError(f"cannot be listed ({error.strerror})", where=source, remedy="check the path and its permissions")


def _pictures_in(folder: Path, *, recursive: bool) -> Iterator[Path | InputError]:
    """Walk a folder's pictures, then its subfolders'; links to folders are not followed, so no picture comes twice."""
    try:
        pictures, folders = _listing(folder)
    except OSError as error:
        yield _cannot_list(folder, error)
        return
    yield from (folder / name for name in pictures)
    if recursive:
        for name in folders:
            yield from _pictures_in(folder / name, recursive=True)


def _listing(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of a folder's pictures and of its subfolders, sorted; names alone, to hold a million cheaply."""
    pictures, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif _is_picture(entry.name):
                pictures.append(entry.name)
    visible = (name for name in folders if not name.startswith("."))
    return sorted(pictures, key=natural_key), sorted(visible, key=natural_key)


def _matches(pattern: str) -> list[Path]:
    names = sorted(glob.iglob(pattern, recursive=True), key=natural_key)  # noqa: PTH207  # Path.glob takes no absolute one
    paths = (Path(name) for name in names)
    return [path for path in paths if _is_picture(path.name) and not path.is_dir()]


def _is_picture(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES) and not name.startswith(".")
