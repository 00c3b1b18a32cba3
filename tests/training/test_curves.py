from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from lbkit.errors import InputError
from training.curves import CURVE_FIELDS, EventLog, Tally, write_row


def tally_of(*batches: tuple[float, int]) -> Tally:
    """A tally of batches with a loss and a number of crops, whose joints are off by their batch's loss."""
    tally = Tally()
    for loss, crops in batches:
        tally.add((loss, 2 * loss), np.full((crops, 6), loss), np.ones((crops, 6), dtype=np.bool_), unread=0)
    return tally


def test_an_epoch_that_counted_nothing_has_a_row_of_gaps() -> None:
    row = Tally().row("train")
    assert row.keys() == {name for name in CURVE_FIELDS if name.startswith("train_")}
    assert all(math.isnan(value) for value in row.values())


def test_every_crop_weighs_the_same_in_the_losses_however_small_its_batch() -> None:
    row = tally_of((1.0, 6), (5.0, 2)).row("val")
    assert row["val_loss_fixed"] == pytest.approx((6 * 1.0 + 2 * 5.0) / 8)
    assert row["val_loss_visible"] == pytest.approx(2 * row["val_loss_fixed"])


def test_the_last_crops_are_the_same_after_a_resume() -> None:
    tally = tally_of((0.01, 4), (0.2, 2), (0.01, 2))
    tally.unread = 3
    again = Tally.from_arrays(tally.to_arrays())
    assert again.unread == 3
    assert tally.recent(4) == again.recent(4) == (pytest.approx(0.105), 0.5)


@pytest.mark.parametrize("text", ["no curves\n1\n", "epoch\nfirst\n", "epoch\n\x00\n"])
def test_a_curve_file_of_another_kind_is_not_written_over(tmp_path: Path, text: str) -> None:
    path = tmp_path / "curves.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"curves.csv: is not a curve file .*; move it away"):
        write_row(path, {"epoch": 2})
    assert path.read_text() == text


def test_columns_of_an_earlier_version_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    path.write_text("epoch,mood\n1,good\n2,bad\n")
    write_row(path, {"epoch": 2, "seen": 10})
    with path.open(newline="") as file:
        assert [(row["epoch"], row["seen"]) for row in csv.DictReader(file)] == [("1", ""), ("2", "10")]


def test_events_that_cannot_be_written_are_no_reason_to_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    EventLog(tmp_path / "file" / "tensorboard", epoch=0).add({"epoch": 1})
    assert "no TensorBoard events" in caplog.text
    events = EventLog(tmp_path / "tensorboard", epoch=0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(events._writer, "add_scalar", full)
    events.add({"epoch": 1})
    events.add({"epoch": 2})
    assert caplog.text.count("no more TensorBoard events: [Errno 28] No space left") == 1
