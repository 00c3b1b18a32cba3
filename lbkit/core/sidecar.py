"""The JSON beside an ONNX file, for people and for runtimes that are not Python."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sidecar_path(path: Path) -> Path:
    """Return where the JSON of an ONNX file lies: beside it, under the same name."""
    return path.with_suffix(".json")


def write_sidecar(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as JSON, one line for each field of the first two levels."""
    path.write_text(_laid_out(record, depth=2) + "\n", encoding="utf-8")


def _laid_out(value: Any, *, depth: int, indent: str = "") -> str:
    if depth == 0 or not isinstance(value, Mapping) or not value:
        return json.dumps(value)
    inner = indent + "  "
    fields = [
        f"{inner}{json.dumps(key)}: {_laid_out(item, depth=depth - 1, indent=inner)}" for key, item in value.items()
    ]
    return "{\n" + ",\n".join(fields) + "\n" + indent + "}"
