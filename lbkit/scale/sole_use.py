"""Folders that one program at a time may work in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lbkit.errors import OutputError


@contextmanager
def sole_use(folder: Path, *, work: str, option: str) -> Iterator[None]:
    """Make a folder if need be and keep others of its kind out of it until the block ends, however it ends.

    Args:
        folder: The folder.
        work: What is done there, as one word: "training".
        option: The command line's option that named the folder, for messages.

    Raises:
        OutputError: The same is being done there already, or nothing can be written there.
    """
    lock = FileLock(folder / f".{work}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        remedy = f"wait for it to end, or give another {option}"
        raise OutputError(f"another {work} is at work there", where=folder, remedy=remedy) from error
    except OSError as error:
        raise OutputError(f"cannot be written to ({error.strerror})", where=folder, remedy=f"check {option}") from error
    try:
        yield
    finally:
        lock.release()
