from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from lbkit.parity.measures import BatchComparison
from lbkit.parity.presets import load_preset
from lbkit.parity.tally import Tally, knee_changes_deg

FP32 = load_preset("fp32")


def comparison(rng: np.random.Generator, rows: list[int], *, undecided: np.ndarray | None = None) -> BatchComparison:
    count = len(rows)
    reference = rng.uniform(10, 90, (count, 6, 3))
    found = reference.copy()
    found[..., 0] += rng.uniform(0, 2, (count, 6))
    distances = np.linalg.norm(found[..., :2] - reference[..., :2], axis=-1)
    return BatchComparison(
        rows=np.array(rows),
        unfinite=1,
        crop_levels=np.full(count, float(count)),
        tensor=np.full(count, 0.5),
        tensor_is_pixels=False,
        cells=(10.0 ** rng.uniform(-8, -1, (count, 6, 64, 48))).astype(np.float32),
        decode_px=np.zeros((count, 6)),
        input_px=distances / 2,
        mapping_px=np.zeros((count, 6)),
        image_px=distances,
        moved=np.zeros((count, 6), bool) if undecided is None else undecided,
        margins=np.full((count, 6), 0.5, np.float32),
        shortfalls=np.full((count, 6), 0.5, np.float32) if undecided is None else np.where(undecided, 1e-6, 0.5),
        undecided=np.zeros((count, 6), bool) if undecided is None else undecided,
        reference=reference,
        found=found,
    )


def test_batches_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    batches = [comparison(rng, [3, 4]), comparison(rng, [0, 1, 2])]
    tally = Tally()
    for batch in batches:
        tally.add(batch)
    measures = tally.measures(FP32)
    cells = np.concatenate([batch.cells for batch in batches if batch.cells is not None])
    image_px = np.concatenate([batch.image_px for batch in batches])
    assert measures.heatmaps_max == cells.max()
    assert measures.heatmaps_p99 == pytest.approx(np.percentile(cells, 99), rel=0.02)
    assert measures.image_px_max == image_px.max()
    assert measures.image_px_median == pytest.approx(np.percentile(image_px, 50, method="higher"))
    assert measures.unfinite == 2
    assert measures.crop_levels_max == 3
    assert tally.persons == 5
    answers = tally.answers()
    np.testing.assert_array_equal(answers.rows, np.arange(5))
    np.testing.assert_array_equal(answers.image_px[3:], batches[0].image_px)


def test_a_peak_in_a_lower_cell_is_no_near_tie_however_close_the_two_highest_are() -> None:
    batch, tally = comparison(np.random.default_rng(0), [0, 1]), Tally()
    batch.margins[:] = 0.0
    batch.moved[0, 3] = True
    tally.add(batch)
    assert tally.measures(FP32).moved_share == pytest.approx(1 / 12)
    assert (tally.ties(FP32).ties, tally.ties(FP32).near_ties) == (0, 0)


def test_equal_cells_have_a_p99_of_zero_and_unseen_ones_none() -> None:
    rng = np.random.default_rng(0)
    batch, tally = comparison(rng, [0]), Tally()
    assert batch.cells is not None
    batch.cells[:] = 0
    tally.add(batch)
    assert tally.measures(FP32).heatmaps_p99 == 0.0
    assert Tally()._cells_p99() is None


def test_undecided_joints_are_counted_apart() -> None:
    rng = np.random.default_rng(0)
    undecided = np.zeros((2, 6), bool)
    undecided[0, 2] = True
    batch, tally = comparison(rng, [0, 1], undecided=undecided), Tally()
    batch.input_px[0, 2], batch.image_px[0, 2] = 50.0, 99.0
    tally.add(batch)
    measures, ties = tally.measures(FP32), tally.ties(FP32)
    assert measures.input_px_max is not None
    assert measures.input_px_max < 2
    assert measures.undecided_share == pytest.approx(1 / 12)
    assert measures.moved_share == 0.0
    assert (ties.moved, ties.ties, ties.near_ties, ties.undecided) == (1, 0, 1, 1)
    assert ties.undecided_px_max == 50.0
    assert len(knee_changes_deg(tally.answers())) == 3
    worst = tally.worst({0: "a", 1: "b"}, lambda row: row)
    assert {person.image for person in worst} == {"a", "b"}
    assert not any(person.undecided for person in worst)
