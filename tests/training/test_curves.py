from __future__ import annotations

import math

from training.curves import CURVE_FIELDS, Tally


def test_an_epoch_that_counted_nothing_has_a_row_of_gaps() -> None:
    row = Tally().row("train")
    assert row.keys() == {name for name in CURVE_FIELDS if name.startswith("train_")}
    assert all(math.isnan(value) for value in row.values())
