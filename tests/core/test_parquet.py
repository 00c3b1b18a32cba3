from __future__ import annotations

import sys

import pytest

from lbkit.core.parquet import import_arrow, utf8_name
from lbkit.errors import MissingDependencyError


def test_what_is_no_utf_8_is_spelled_out() -> None:
    assert utf8_name(b"caf\xe9.mp4".decode("utf-8", "surrogateescape")) == "caf\\xe9.mp4"
    assert utf8_name("caf\u00e9.mp4") == "caf\u00e9.mp4"


def test_parquet_comes_with_arrow() -> None:
    pytest.importorskip("pyarrow")
    assert import_arrow().parquet.ParquetWriter


def test_a_missing_arrow_names_what_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"lbkit\[parquet\]"):
        import_arrow()
