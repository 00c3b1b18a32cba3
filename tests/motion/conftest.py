"""Makes `motion_sessions` importable in this folder: with pytest's importlib mode the folder is on no path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location("motion_sessions", Path(__file__).with_name("motion_sessions.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
sys.modules["motion_sessions"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(sys.modules["motion_sessions"])
