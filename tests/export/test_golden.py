from __future__ import annotations

import base64
import copy
import json

import numpy as np
import pytest

from lbkit.core.codec import decode_heatmaps
from lbkit.errors import ModelError
from lbkit.export.figures import figure_crops
from lbkit.export.golden import golden_record, read_golden
from lbkit.export.verification import Outputs


@pytest.fixture(scope="module")
def outputs(fitted) -> Outputs:
    spec = fitted("cnn").contract.heatmap
    maps = np.random.default_rng(0).random((2, 6, spec.size.height, spec.size.width), dtype=np.float32)
    return Outputs(maps, decode_heatmaps(maps, spec=spec))


@pytest.fixture
def record(fitted, outputs) -> dict:
    contract = fitted("cnn").contract
    golden = golden_record(figure_crops(contract.input.size, 2), outputs, contract.heatmap)
    return json.loads(json.dumps(golden))


def test_round_trip_is_exact(record, fitted, outputs):
    one, two = read_golden(record, where="x.json")
    crops = figure_crops(fitted("cnn").contract.input.size, 2)
    assert np.array_equal(one.crops, crops[:1])
    assert np.array_equal(two.crops, crops)
    assert np.array_equal(one.keypoints, outputs.keypoints[:1])
    assert np.array_equal(two.keypoints, outputs.keypoints)
    assert np.array_equal(two.values, outputs.heatmaps[tuple(two.cells.T)])


def test_samples_hold_every_peak_and_four_more_cells_a_map(record, outputs):
    _, two = read_golden(record, where="x.json")
    assert len(two.cells) == 2 * 6 * 5
    for crop, joint in np.ndindex(2, 6):
        own = (two.cells[:, 0] == crop) & (two.cells[:, 1] == joint)
        assert two.values[own].max() == outputs.heatmaps[crop, joint].max()


def test_stays_small(record):
    assert len(json.dumps(record)) < 40_000


def tamper_hash(record):
    record["images"][0]["sha256"] = "0" * 64


def tamper_picture(record):
    record["images"][0]["png_base64"] = record["images"][1]["png_base64"]


def no_png(record):
    record["images"][0]["png_base64"] = base64.b64encode(b"GIF89a").decode()


def no_batches(record):
    del record["batches"]


def unknown_image(record):
    record["batches"][0]["images"] = [7]


@pytest.mark.parametrize("damage", [tamper_hash, tamper_picture, no_png, no_batches, unknown_image])
def test_damage_is_named(record, damage):
    damaged = copy.deepcopy(record)
    damage(damaged)
    with pytest.raises(ModelError, match=r"x\.json: its golden vectors cannot be read"):
        read_golden(damaged, where="x.json")
