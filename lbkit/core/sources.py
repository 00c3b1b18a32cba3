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
SHOWN_CHARACTERS = 200

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
        if source == STDIN_SOURCE:
            yield from _pictures_listed(listed, recursive=recursive)
        else:
            yield from _pictures_of(source, recursive=recursive)


def natural_key(name: str) -> str:
    """Return a key that sorts numbers inside names by their value: `frame2` before `frame10`."""
    return _DIGITS.sub(_with_length, name.casefold()) + "\0" + name


def _with_length(match: re.Match[str]) -> str:
    digits = match.group().lstrip("0")
    return f"{len(digits):04}{digits}"


def _lines(listed: Iterable[str]) -> Iterator[str]:
    stripped = (line.rstrip("\r\n") for line in listed)
    return (line for line in stripped if line)


def _pictures_listed(listed: Iterable[str], *, recursive: bool) -> Iterator[Path | InputError]:
    is_empty = True
    for line in _lines(listed):
        is_empty = False
        yield from _pictures_of(line, recursive=recursive)
    if is_empty:
        yield InputError("the list on stdin is empty", remedy="give it one path a line")


def _pictures_of(source: str, *, recursive: bool) -> Iterator[Path | InputError]:
    if "\0" in source:  # what `find -print0` writes
        yield InputError("has a null character in it", where=_shortened(source), remedy="give one path a line")
        return
    if not source:
        yield InputError("an empty name is no source", remedy="give a file, a folder or a pattern")
        return
    try:
        if Path(source).is_dir():
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


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


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
