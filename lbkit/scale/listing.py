"""The list of a run's pictures, fixed when it begins, so that a resumed run goes on with the same ones."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from lbkit.errors import InputError
from lbkit.scale.durable import durable_path

LISTING_NAME = "pictures.jsonl"


def write_listing(folder: Path, found: Iterable[Path | InputError]) -> tuple[int, list[InputError]]:
    """Write the pictures of a run, a JSON string a line, and return how many there are and what was wrong.

    JSON, because a file's name may hold a line's end, or bytes that are no UTF-8.

    Raises:
        OutputError: It cannot be written.
    """
    count, problems = 0, []
    with durable_path(folder / LISTING_NAME) as temporary, temporary.open("w", encoding="ascii") as stream:
        for item in found:
            if isinstance(item, InputError):
                problems.append(item)
            else:
                stream.write(json.dumps(str(item)) + "\n")
                count += 1
    return count, problems


def read_listing(folder: Path, *, first: int) -> Iterator[Path]:
    """Yield the pictures of a run from number `first` on, one by one.

    Raises:
        InputError: The list is not there or is damaged.
    """
    path = folder / LISTING_NAME
    try:
        with path.open(encoding="ascii") as stream:
            for line in itertools.islice(stream, first, None):
                yield Path(json.loads(line))
    except (OSError, ValueError, TypeError) as error:
        remedy = "remove the folder to begin anew"
        raise InputError(f"cannot be read as a run's list of pictures ({error})", where=path, remedy=remedy) from error
