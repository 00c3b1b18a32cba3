from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

import pytest

from lbkit.core.contract import Figure
from lbkit.errors import InputError
from training.catalogue import model_rows, rewrite_section

ROOT = Path(__file__).parents[2]


def test_rows_come_from_the_files(toys: ModuleType, tmp_path: Path) -> None:
    contract = toys.toy_contract()
    figures = (
        Figure("pck@0.05 v>0", 0.5123, "some photographs", 17, "2026-01-02"),
        Figure("pck@0.05 v=2", 0.6, "some photographs", 17, "2026-01-02"),
    )
    toys.save_toy_model(tmp_path / "cnn.onnx", contract=dataclasses.replace(contract, evaluation=figures))
    (tmp_path / "other.onnx").write_text("not looked at")
    _, _, row = model_rows(tmp_path)
    assert "`cnn.onnx`" in row
    assert "| 0.512 | 0.600 | some photographs, 17 persons, 2026-01-02 |" in row


def test_a_section_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("above\n<!-- models:begin -->\nold\n<!-- models:end -->\nbelow\n")
    rewrite_section(path, "models", lines=["new \\1", "lines"])
    assert path.read_text() == "above\n<!-- models:begin -->\nnew \\1\nlines\n<!-- models:end -->\nbelow\n"
    with pytest.raises(InputError, match="has no section figures"):
        rewrite_section(path, "figures", lines=[])


def test_the_documents_tables_are_those_of_the_shipped_files() -> None:
    rows = model_rows(ROOT / "exported")
    assert len(rows) > 2
    for document in (ROOT / "README.md", ROOT / "exported" / "README.md"):
        assert "\n".join(rows) in document.read_text(encoding="utf-8")
