from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import lbkit
from lbkit.core.estimator import DEFAULT_BATCH_SIZE, STREAM_BATCH_SIZE
from lbkit.core.geometry import ImageSize
from lbkit.errors import InputError, ModelError, ModelNotFoundError
from lbkit.runtime import loading

IMAGE_SIZE = ImageSize(331, 517)
SPOTS_XY = np.array([[100.3, 60.7], [200.9, 70.1], [120.4, 150.2], [230.6, 160.8], [90.2, 250.5], [240.7, 240.3]])
BOXES = {
    "portrait": (80, 30, 260, 300),
    "square": (75, 40, 265, 270),
    "landscape": (0, 0, 500, 320),
    "partly outside": (-40, 20, 280, 320),
    "odd corners": (-13.7, -20.3, 300.9, 290.1),
    "whole image": (0, 0, 517, 331),
    "larger than the image": (-30, -25, 540, 350),
}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Two folders of LBKIT_MODELS, `exported` in the working folder, and a wheel's folder, all empty."""
    named = {name: tmp_path / name for name in ("first", "second", "exported", "shipped")}
    for folder in named.values():
        folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LBKIT_MODELS", os.pathsep.join([str(named["first"]), "", str(named["second"])]))
    monkeypatch.setattr(loading.importlib.resources, "files", lambda _: tmp_path)
    return named


@pytest.mark.parametrize(
    "holders", [("first", "second"), ("second", "exported"), ("exported", "shipped"), ("shipped",)]
)
def test_a_name_is_found_in_the_first_folder_that_has_it(folders: dict[str, Path], holders: tuple[str, ...]) -> None:
    for holder in holders:
        (folders[holder] / "fpn.onnx").touch()
    assert loading.find_model("fpn").resolve() == folders[holders[0]] / "fpn.onnx"


def test_names_with_a_dot_are_names(folders: dict[str, Path]) -> None:
    (folders["shipped"] / "fpn.int8.onnx").touch()
    assert loading.find_model("fpn.int8").resolve() == folders["shipped"] / "fpn.int8.onnx"


def test_paths_are_taken_as_they_are(folders: dict[str, Path]) -> None:
    (folders["exported"] / "fpn.onnx").touch()
    Path("plain").touch()
    for path in ("plain", "elsewhere/fpn", "fpn.onnx", Path("exported/none.onnx")):
        assert loading.find_model(path) == Path(path)


def test_a_folder_of_the_same_name_hides_no_model(folders: dict[str, Path]) -> None:
    Path("fpn").mkdir()
    (folders["exported"] / "fpn.onnx").touch()
    assert loading.find_model("fpn") == Path("exported/fpn.onnx")


def test_unknown_name_says_where_it_looked_and_offers_the_nearest(folders: dict[str, Path]) -> None:
    (folders["second"] / "baseline.onnx").touch()
    with pytest.raises(ModelNotFoundError) as caught:
        loading.find_model("basline")
    message = str(caught.value)
    assert all(str(folders[name]) in message for name in ("first", "second", "shipped"))
    assert "did you mean 'baseline'?" in message
    assert "lbkit export" not in message


@pytest.mark.parametrize(("asked", "made"), [("fnp", "fpn"), ("fpn", "fpn"), ("zebra", r"baseline\|fpn\|cnn")])
def test_only_a_network_that_exists_is_offered_for_export(folders: dict[str, Path], asked: str, made: str) -> None:
    with pytest.raises(ModelNotFoundError, match=f"make it with `lbkit export --model {made}`$"):
        loading.find_model(asked)


def test_unknown_name_where_there_is_nothing(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelNotFoundError, match=r"shipped; make it with `lbkit export --model fpn`$"):
        loading.find_model("fpn")


def test_listing_takes_each_name_once_and_models_only(folders: dict[str, Path]) -> None:
    for holder, name in (("first", "cnn.onnx"), ("exported", "cnn.onnx"), ("exported", "fpn.onnx")):
        (folders[holder] / name).touch()
    (folders["exported"] / "fpn.json").touch()
    (folders["exported"] / ".fpn-x1y2.onnx").touch()
    assert loading.list_models() == {"cnn": folders["first"] / "cnn.onnx", "fpn": Path("exported/fpn.onnx")}


def test_without_the_variable_there_are_two_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LBKIT_MODELS", raising=False)
    package = tmp_path / "lbkit"
    monkeypatch.setattr("importlib.resources.files", lambda _: package)
    assert loading.model_folders() == [Path("exported"), package / "shipped"]
    (tmp_path / "pyproject.toml").touch()
    assert loading.model_folders() == [Path("exported"), tmp_path / "exported"]


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_spots_come_back_through_odd_crops(
    toys: ModuleType, tmp_path: Path, box: tuple[float, ...], dtype: str
) -> None:
    image = toys.spotted_image(IMAGE_SIZE, SPOTS_XY, spread_px=5, background=90)
    model = lbkit.load_model(toys.save_toy_model(tmp_path / "toy.onnx", dtype=dtype))
    poses = model(image, np.array([box]))
    assert np.linalg.norm(poses.xy[0] - SPOTS_XY, axis=1).max() < 0.6


def test_single_pixel_comes_back_from_a_small_box(toys: ModuleType, toy_model: Path) -> None:
    """Two input pixels an image pixel; nothing is rounded on the way."""
    spots = np.array([[41, 33], [70, 36], [44, 62], [73, 67], [39, 92], [75, 95]], dtype=np.float64)
    image = toys.spotted_image(ImageSize(141, 123), spots, spread_px=0)
    poses = lbkit.load_model(toy_model)(image, np.array([[22.6, 20.2, 91.1, 104.9]]))
    assert np.linalg.norm(poses.xy[0] - spots, axis=1).max() < 0.1


@pytest.mark.parametrize("outputs", [("keypoints",), ("keypoints", "heatmaps")])
def test_decoding_in_the_graph_equals_decoding_outside(
    toys: ModuleType, tmp_path: Path, outputs: tuple[str, ...]
) -> None:
    image = toys.spotted_image(IMAGE_SIZE, SPOTS_XY, spread_px=5)
    inside = lbkit.load_model(toys.save_toy_model(tmp_path / "inside.onnx", outputs=outputs))
    outside = lbkit.load_model(toys.save_toy_model(tmp_path / "outside.onnx"), decoder="argmax")
    box = np.array([BOXES["partly outside"]])
    np.testing.assert_allclose(inside(image, box).xy, outside(image, box).xy, atol=1e-3)
    np.testing.assert_allclose(inside(image, box).scores, outside(image, box).scores, atol=1e-6)


def test_decoder_that_the_graph_does_not_have(toys: ModuleType, tmp_path: Path) -> None:
    path = toys.save_toy_model(tmp_path / "toy.onnx", outputs=("keypoints",))
    with pytest.raises(ModelError, match="decodes inside its graph with argmax, so dark cannot be had"):
        lbkit.load_model(path, decoder="dark")


def test_batches_change_nothing(toys: ModuleType, toy_model: Path) -> None:
    image = toys.spotted_image(IMAGE_SIZE, SPOTS_XY, spread_px=5, background=40)
    boxes = np.array(list(BOXES.values()), dtype=np.float64)
    by_size = [lbkit.load_model(toy_model, batch_size=size)(image, boxes) for size in (1, 3, 8)]
    for poses in by_size[1:]:
        np.testing.assert_allclose(poses.xy, by_size[0].xy, atol=1e-3)


def test_streams_bring_a_batch_size_of_their_own(toy_model: Path) -> None:
    plain, several = lbkit.load_model(toy_model, threads=4), lbkit.load_model(toy_model, threads=4, streams=None)
    assert (plain.streams, plain.batch_size) == (1, DEFAULT_BATCH_SIZE)
    assert (several.streams, several.batch_size) == (4, STREAM_BATCH_SIZE)
    assert lbkit.load_model(toy_model, threads=4, streams=2, batch_size=16).batch_size == 16
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        lbkit.load_model(toy_model, batch_size=0)


def test_loading_by_name(toy_model: Path, folders: dict[str, Path]) -> None:
    shutil.copy(toy_model, folders["exported"] / "mine.onnx")
    assert lbkit.load_model("mine", threads=1).contract.model == "toy"
