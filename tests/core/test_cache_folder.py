from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lbkit.core.cache_folder import cache_folder


def test_a_folder_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LBKIT_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


@pytest.mark.parametrize(("named", "expected"), [("/var/x", "/var/x/lbkit"), ("", "~"), ("not/absolute", "~")])
def test_xdg(monkeypatch: pytest.MonkeyPatch, named: str, expected: str) -> None:
    monkeypatch.delenv("LBKIT_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    assert cache_folder() == (Path.home() / ".cache" / "lbkit" if expected == "~" else Path(expected))
