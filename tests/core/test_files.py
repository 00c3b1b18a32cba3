from __future__ import annotations

import os
from pathlib import Path

import pytest

from lbkit.core.files import atomic_path, refuse_overwrite, remove_leftovers
from lbkit.errors import OutputError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_only_when_finished(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.suffix == ".txt"
    assert target.read_text() == "half"
    assert names(target.parent) == ["out.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text(f"new {1 / 0}")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["out.txt"]


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"), atomic_path(tmp_path / "file" / "out.txt"):
        pytest.fail("the block must not run")


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("a[1].txt", "b.txt", ".a[1]-notes.csv"):
        (tmp_path / name).write_text("kept")
    kept, writers = names(tmp_path), [atomic_path(tmp_path / "a[1].txt") for _ in range(2)]
    for writer in writers:
        writer.__enter__()
    assert len(names(tmp_path)) == len(kept) + 2
    remove_leftovers(tmp_path / "a[1].txt")
    assert names(tmp_path) == kept


def test_overwriting_needs_force(tmp_path: Path) -> None:
    target = tmp_path / "a"
    refuse_overwrite(target, force=False)
    target.write_text("x")
    refuse_overwrite(target, force=True)
    with pytest.raises(OutputError, match="exists already; give --force"):
        refuse_overwrite(target, force=False)
    with pytest.raises(OutputError, match="is a folder"):
        refuse_overwrite(tmp_path, force=True)


def test_a_device_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(OutputError, match=r"is a device or a pipe.*; give the name of a file"):
            refuse_overwrite(path, force=True)


@pytest.mark.parametrize("name", ["n" * 251 + ".txt", "ü" * 125 + ".txt", "a\udcff.txt"])
def test_any_name_that_the_file_system_takes_can_be_written(tmp_path: Path, name: str) -> None:
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_text("x")
    assert names(tmp_path) == [name]
