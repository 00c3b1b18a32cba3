from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lbkit.errors import ModelError, ModelNotFoundError
from lbkit.runtime.person_detector import MAX_PEOPLE, OnnxPersonDetector

# A picture twice as wide as high, so that it fills the upper half of the square input at half its size.
HEIGHT, WIDTH = 64, 128
BOXES = [[4.0, 2.0, 20.0, 30.0], [40.0, 4.0, 56.0, 28.0]]
SHOWN = [[8.0, 4.0, 40.0, 60.0], [80.0, 8.0, 112.0, 56.0]]
KINDS = ["yolox", "rtmdet"]


def picture(red: int) -> np.ndarray:
    """RGB, of a red that the detectors take for their score; the other colours would give another."""
    image = np.full((HEIGHT, WIDTH, 3), 9, np.uint8)
    image[..., 0] = red
    return image


def detector(detectors: ModuleType, path: Path, kind: str, boxes: list[list[float]]) -> OnnxPersonDetector:
    save = detectors.save_yolox if kind == "yolox" else detectors.save_rtmdet
    return OnnxPersonDetector(save(path / f"{kind}.onnx", boxes), threads=1)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_come_back_in_the_pictures_pixels(detectors: ModuleType, tmp_path: Path, kind: str) -> None:
    found = detector(detectors, tmp_path, kind, BOXES).detect(picture(204))
    order = found.boxes_xyxy[:, 0].argsort()
    np.testing.assert_allclose(found.boxes_xyxy[order], SHOWN, atol=1e-3)
    np.testing.assert_allclose(found.scores, 0.8, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_unsure_boxes_are_left_out(detectors: ModuleType, tmp_path: Path, kind: str) -> None:
    found = detector(detectors, tmp_path, kind, BOXES).detect(picture(90))
    assert len(found) == 0
    assert found.boxes_xyxy.shape == (0, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_end_at_the_pictures_edges(detectors: ModuleType, tmp_path: Path, kind: str) -> None:
    found = detector(detectors, tmp_path, kind, [[-6.0, -2.0, 20.0, 60.0]]).detect(picture(204))
    np.testing.assert_allclose(found.boxes_xyxy, [[0, 0, 40, HEIGHT]], atol=1e-3)


def test_of_yoloxs_boxes_of_one_person_one_is_kept(detectors: ModuleType, tmp_path: Path) -> None:
    overlapping = [*BOXES, [5.0, 2.0, 21.0, 30.0]]
    assert len(detector(detectors, tmp_path, "yolox", overlapping).detect(picture(204))) == 2


def test_other_classes_are_no_people(detectors: ModuleType, tmp_path: Path) -> None:
    yolox = OnnxPersonDetector(detectors.save_yolox(tmp_path / "a.onnx", BOXES, person=False), threads=1)
    assert len(yolox.detect(picture(255))) == 0
    rtmdet = OnnxPersonDetector(detectors.save_rtmdet(tmp_path / "b.onnx", BOXES, labels=[3, 0]), threads=1)
    np.testing.assert_allclose(rtmdet.detect(picture(255)).boxes_xyxy, SHOWN[1:], atol=1e-3)


def test_a_crowd_is_cut_off(detectors: ModuleType, tmp_path: Path) -> None:
    many = [[0.0, 0.0, 8.0 + number / 10, 20.0] for number in range(MAX_PEOPLE + 9)]
    assert len(detector(detectors, tmp_path, "rtmdet", many).detect(picture(255))) == MAX_PEOPLE


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no such file"):
        OnnxPersonDetector(tmp_path / "none.onnx")


def test_a_file_that_is_no_onnx_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_text("no graph")
    with pytest.raises(ModelError, match=r"a\.onnx.*give a detector's ONNX file"):
        OnnxPersonDetector(tmp_path / "a.onnx")


def test_another_kind_of_model_is_an_error_that_names_the_two(toy_model: Path) -> None:
    with pytest.raises(ModelError, match=r"no person detector that is known here.*give YOLOX.*RTMDet"):
        OnnxPersonDetector(toy_model, threads=1)
