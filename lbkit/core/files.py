"""Files that appear whole or not at all."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lbkit.errors import OutputError

_PREFIX_BYTES = 32


def refuse_overwrite(path: Path, *, force: bool) -> None:
    """Raise unless a file may be written at `path`.

    Raises:
        OutputError: Something is there and `force` is not set, or it is a folder, a device or a pipe.
    """
    if path.is_dir():
        raise OutputError("is a folder, and a file should be written there", where=path)
    if path.exists() and not path.is_file():
        raise OutputError(
            "is a device or a pipe, and a file should be written there", where=path, remedy="give the name of a file"
        )
    if path.exists() and not force:
        raise OutputError("exists already", where=path, remedy="give --force to replace it, or another name")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path in the target's folder that becomes `path` when the block ends without an error.

    Args:
        path: Where the finished file should be; its folder is made.

    Raises:
        OutputError: The folder cannot be made or written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror})", where=path) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if error.filename not in (None, str(temporary), str(path)):
            raise
        raise OutputError(f"cannot be written ({error.strerror})", where=path) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what `atomic_path` left of `path` when its process was killed; nobody may be writing the file now."""
    for leftover in path.parent.glob(f"{glob.escape(_prefix(path))}*{glob.escape(path.suffix)}"):
        leftover.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    """Begin a temporary name as the target's does, but no longer than leaves room for the random part."""
    stem = path.stem.encode(errors="surrogateescape")[:_PREFIX_BYTES]
    return f".{stem.decode(errors='ignore')}-"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
