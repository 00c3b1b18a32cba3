"""Files that are on the disk, and not only in the system's memory, before others speak of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lbkit.core.files import atomic_path
from lbkit.errors import OutputError

_CANNOT = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}
"""What file systems say that cannot put a folder on the disk by itself, as those behind a network."""


@contextmanager
def durable_path(path: Path) -> Iterator[Path]:
    """Give a temporary path as `atomic_path` does; after the block a power cut finds the file whole, under its name.

    Args:
        path: Where the finished file should be.

    Raises:
        OutputError: It cannot be written.
    """
    with atomic_path(path) as temporary:
        yield temporary
        sync_file(temporary)
    sync_folder(path.parent)


def append_durably(path: Path, text: str) -> None:
    """Add text to a file of ASCII, which is made if need be; what a crash leaves of it may be cut short.

    Raises:
        OutputError: It cannot be written.
    """
    is_new = not path.exists()
    try:
        with path.open("a", encoding="ascii") as stream:
            stream.write(text)
        sync_file(path)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror})", where=path) from error
    if is_new:
        sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    _sync(path, os.O_RDWR)  # Windows syncs only what may be written to


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that.

    Raises:
        OutputError: The disk failed.
    """
    if os.name == "nt":  # folders cannot be opened there
        return
    try:
        _sync(path, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise OutputError(f"cannot be written ({error.strerror})", where=path) from error


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
