from __future__ import annotations

from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from lbkit.core.backend import ModelOutput
from lbkit.core.contract import ModelContract
from lbkit.core.estimator import MAX_BATCH_SIZE, PoseEstimator
from lbkit.errors import BoxError, InputError, ModelError, ModelMemoryError
from lbkit.models.registry import bare_contract


class BrightestPixel:
    """A backend whose joint k peaks at the brightest cell of the crop; it counts its calls."""

    def __init__(self, contract: ModelContract | None = None) -> None:
        self._contract = contract or bare_contract("cnn", weights_sha256="", training_data=())
        self.batches: list[int] = []

    @property
    def contract(self) -> ModelContract:
        return self._contract

    def run(self, crops: np.ndarray) -> ModelOutput:
        self.batches.append(len(crops))
        cells = crops.astype(np.float32).mean(axis=3).reshape(len(crops), 64, 4, 48, 4).mean(axis=(2, 4)) / 255
        return ModelOutput(np.repeat(cells[:, None], 6, axis=1), None)


def blob(height: int, width: int, x: int, y: int, radius: int = 6) -> np.ndarray:
    ys, xs = np.mgrid[0:height, 0:width]
    value = 255 * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * radius**2))
    return np.repeat(value.astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("shape", "point", "box"),
    [
        ((300, 200), (71, 180), (10, 30, 150, 290)),
        ((200, 400), (310, 51), (250, -40, 500, 160)),
        ((150, 90), (25, 118), (-40, 60, 50, 170)),
    ],
)
def test_a_bright_blob_comes_back_where_it_is(
    shape: tuple[int, int], point: tuple[int, int], box: tuple[int, ...]
) -> None:
    poses = PoseEstimator(BrightestPixel())(blob(*shape, *point), [box])
    assert poses.xy.shape == (1, 6, 2)
    np.testing.assert_allclose(poses.xy[0, 0], point, atol=0.6)


def test_batches_run_over_people_and_equal_singles() -> None:
    backend = BrightestPixel()
    image = blob(240, 320, 200, 90)
    boxes = np.array([[150, 40, 260, 200], [180, 0, 240, 150], [100, 10, 300, 230.0]])
    poses = PoseEstimator(backend, batch_size=2)(image, boxes)
    assert backend.batches == [2, 1]
    singles = [PoseEstimator(BrightestPixel())(image, box).xy for box in boxes]
    np.testing.assert_array_equal(poses.xy, np.concatenate(singles))
    np.testing.assert_array_equal(poses.boxes_xyxy, boxes)


def test_nobody_is_an_answer() -> None:
    backend = BrightestPixel()
    poses = PoseEstimator(backend)(blob(50, 60, 20, 30), np.zeros((0, 4)))
    assert len(poses) == 0
    assert poses.xy.shape == (0, 6, 2)
    assert backend.batches == []


def test_without_a_box_the_person_is_looked_for_at_most_three_times() -> None:
    backend = BrightestPixel()
    poses = PoseEstimator(backend)(blob(240, 320, 200, 90))
    assert len(poses) == 1
    assert 1 <= len(backend.batches) <= 3
    np.testing.assert_allclose(poses.xy[0, 0], [200, 90], atol=1.0)


@pytest.mark.parametrize(
    "image", [np.zeros((5, 6), np.uint8), np.zeros((5, 6, 3)), np.zeros((5, 6, 4), np.uint8), "photo.jpg"]
)
def test_what_is_not_an_image_is_refused(image: object) -> None:
    with pytest.raises(InputError, match="uint8 RGB array"):
        PoseEstimator(BrightestPixel())(image)  # type: ignore[arg-type]


def test_a_bad_box_is_refused_with_its_index() -> None:
    with pytest.raises(BoxError, match=r"box 0: .*no area"):
        PoseEstimator(BrightestPixel())(blob(50, 60, 20, 30), [[5, 5, 5, 9]])


def test_a_graph_that_decodes_keeps_its_decoder() -> None:
    import dataclasses

    bare = bare_contract("cnn", weights_sha256="", training_data=())
    heatmap = dataclasses.replace(bare.heatmap, decoder="argmax", decoded_in_graph=True)
    contract = bare.replace(heatmap=heatmap, outputs=("keypoints",))
    with pytest.raises(ModelError, match="decodes inside its graph with argmax, so dark"):
        PoseEstimator(BrightestPixel(contract), decoder="dark")


def test_results_tell_themselves_as_json() -> None:
    import json

    poses = PoseEstimator(BrightestPixel())(blob(300, 200, 71, 180), [[10, 30, 150, 290]])
    (person,) = json.loads(poses.to_json())
    assert list(person["keypoints"]) == list(poses.keypoints.names)
    assert person["keypoints"]["left_hip"]["x"] == pytest.approx(71, abs=0.6)
    assert person["keypoints"]["left_hip"]["y"] == pytest.approx(180, abs=0.6)
    assert person["box_xyxy"] == [10, 30, 150, 290]


def test_a_batch_that_does_not_fit_is_halved_until_one(toys: ModuleType) -> None:
    class Narrow:
        contract = toys.toy_contract(outputs=("keypoints", "heatmaps"), decoder="argmax")

        def __init__(self, most: int) -> None:
            self.most, self.batches = most, list[int]()

        def run(self, crops: np.ndarray) -> ModelOutput:
            if len(crops) > self.most:
                raise MemoryError
            self.batches.append(len(crops))
            marks = crops[:, 0, 0, 0].astype(np.float32)
            return ModelOutput(
                marks[:, None, None, None] * np.ones((1, 6, 64, 48), np.float32),
                marks[:, None, None] * np.ones((1, 6, 3), np.float32),
            )

    crops = [np.full((256, 192, 3), number, np.uint8) for number in range(7)]
    backend = Narrow(2)
    estimator = PoseEstimator(backend, batch_size=7)
    output = estimator.run(crops)
    assert backend.batches == [2, 2, 2, 1]
    assert estimator.batch_size == 2
    assert output.heatmaps is not None
    assert output.keypoints is not None
    np.testing.assert_array_equal(output.heatmaps[:, 0, 0, 0], range(7))
    np.testing.assert_array_equal(output.keypoints[:, 0, 0], range(7))
    backend.batches.clear()
    np.testing.assert_array_equal(PoseEstimator(backend, batch_size=4).predict_input(crops)[:, 0, 0], range(7))
    assert backend.batches == [2, 2, 2, 1], "what did not fit once is not tried again"
    with pytest.raises(ModelMemoryError, match=r"toy: out of memory while running a single crop; end other programs"):
        PoseEstimator(Narrow(0), batch_size=4).run(crops)


@pytest.mark.parametrize("batch_size", [0, -3, MAX_BATCH_SIZE + 1, 10**9])
def test_absurd_batch_sizes(toys: ModuleType, batch_size: int) -> None:
    with pytest.raises(InputError, match=f"at least 1 and at most {MAX_BATCH_SIZE}, got {batch_size}"):
        PoseEstimator(SimpleNamespace(contract=toys.toy_contract()), batch_size=batch_size)  # type: ignore[arg-type]
