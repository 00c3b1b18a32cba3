"""Where lbkit remembers what it may forget: timings of providers and compiled engines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "LBKIT_CACHE"
"""Environment variable of the folder, for those who want it elsewhere."""


def cache_folder() -> Path:
    """Return the folder, which need not exist: LBKIT_CACHE, else the user's cache folder of this system.

    On Linux that is XDG_CACHE_HOME or ~/.cache (XDG Base Directory Specification, which ignores relative paths).
    """
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else _system_folder() / "lbkit"


def _system_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path.home() / ".cache"
