"""PyArrow, where it is installed, and text as it takes it."""

from __future__ import annotations

import importlib
from typing import Any

from lbkit.errors import MissingDependencyError


def import_arrow() -> Any:
    """Return `pyarrow` with `pyarrow.parquet` in it.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        arrow = importlib.import_module("pyarrow")
        importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "pyarrow":
            raise
        raise MissingDependencyError(
            "Parquet needs pyarrow, which is not installed",
            remedy='run `pip install "lbkit[parquet]"`, or write another format',
        ) from error
    return arrow


def utf8_name(path: str) -> str:
    """Return a path as text that Parquet can hold: bytes of it that are no UTF-8 become backslash escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
