from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest

from lbkit.evaluation.pck import (
    ImageBootstrap,
    box_diagonals_px,
    box_heights_px,
    pck,
    relative_distances,
    torso_lengths_px,
)


def test_height_is_that_of_the_box_made_4_to_3_without_padding() -> None:
    boxes = np.array([[0, 0, 30, 100.0], [0, 0, 90, 100.0], [10, 20, 85, 120.0]])
    np.testing.assert_allclose(box_heights_px(boxes), [100, 120, 100])


def test_pck_by_hand() -> None:
    # Height 100: threshold 0.05 is 5 px. Distances 5 (3-4-5), 5.01, 0, 50.
    truth = np.zeros((1, 4, 2))
    found = np.array([[[3, 4], [5.01, 0], [0, 0], [30, 40]]])
    distances = relative_distances(found, truth, heights_px=np.array([100.0]))
    np.testing.assert_allclose(distances, [[0.05, 0.0501, 0.0, 0.5]])
    counted = np.array([[True, True, True, False]])
    assert pck(distances, counted, threshold=0.05) == pytest.approx(2 / 3)
    assert pck(distances, counted, threshold=0.10) == 1.0
    assert pck(distances, np.ones((1, 4), bool), threshold=0.10) == 0.75
    assert math.isnan(pck(distances, np.zeros((1, 4), bool), threshold=0.05))


def test_pck_does_not_depend_on_the_crops_scale() -> None:
    rng = np.random.default_rng(0)
    truth, found = rng.uniform(0, 100, (2, 20, 6, 2))
    heights = rng.uniform(50, 300, 20)
    np.testing.assert_allclose(
        relative_distances(found, truth, heights_px=heights),
        relative_distances(found * 2.56, truth * 2.56, heights_px=heights * 2.56),
    )


def test_torso_runs_from_left_hip_to_right_shoulder_and_diagonal_across_the_box() -> None:
    hips = np.array([[0.0, 0.0], [1.0, 1.0], [math.nan, math.nan]])
    np.testing.assert_allclose(
        torso_lengths_px(hips, np.array([[30.0, -40], [1.0, 1.2], [0, 0]])), [50, np.nan, np.nan]
    )
    np.testing.assert_allclose(box_diagonals_px(np.array([[10, 10, 40, 50.0]])), [50])


def test_interval_is_that_of_a_plain_bootstrap_over_images() -> None:
    rng = np.random.default_rng(3)
    image_ids = rng.integers(0, 25, 80)
    counted = rng.integers(0, 7, 80)
    right = np.array([rng.integers(0, n + 1) for n in counted])
    low, high = ImageBootstrap(image_ids).intervals(right[:, None], counted[:, None])[0]

    groups = {image: [k for k in range(80) if image_ids[k] == image] for image in sorted(set(image_ids))}
    plain = random.Random(0)
    shares = []
    for _ in range(4000):
        rows = [row for image in plain.choices(list(groups), k=len(groups)) for row in groups[image]]
        shares.append(sum(int(right[row]) for row in rows) / sum(int(counted[row]) for row in rows))
    shares.sort()
    assert low == pytest.approx(shares[100], abs=0.012)
    assert high == pytest.approx(shares[-100], abs=0.012)
    assert low < right.sum() / counted.sum() < high


def test_interval_is_the_same_every_time_and_none_where_nothing_counts() -> None:
    ids, right = np.array([5, 5, 9, 9]), np.array([[1, 0], [2, 0], [0, 0], [1, 0]])
    counted = np.array([[2, 0], [2, 0], [2, 0], [2, 0]])
    first, second = (ImageBootstrap(ids).intervals(right, counted) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first[0], [1 / 4, 3 / 4])
    assert np.isnan(first[1]).all()


def test_one_image_alone_has_no_width() -> None:
    bounds = ImageBootstrap(np.array([1, 1])).intervals(np.array([[1], [0]]), np.array([[1], [1]]))
    np.testing.assert_allclose(bounds, [[0.5, 0.5]])


def test_intervals_of_all_of_val2017_take_less_than_a_second() -> None:
    rng = np.random.default_rng(0)
    ids, counted = rng.integers(0, 2346, 6352), np.full((6352, 60), 6)
    started = time.process_time()
    ImageBootstrap(ids).intervals(rng.integers(0, 7, (6352, 60)), counted)
    assert time.process_time() - started < 1.0
