"""Every classic mistake, made as others make it, is told from its tensor alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from lbkit.core.geometry import CropTransform, fit_box
from lbkit.core.images import read_image
from lbkit.core.preprocess import crop_person, normalize_crops
from lbkit.errors import InputError, OutputError
from lbkit.models.registry import bare_contract
from lbkit.parity.mistakes import (
    GOLDEN_BOX_XYXY,
    diagnose,
    diagnose_file,
    golden_picture,
    write_golden,
)

CONTRACT = bare_contract("cnn", weights_sha256="0" * 64, training_data=())
BOX = np.array(GOLDEN_BOX_XYXY)
WIDTH_HEIGHT = CONTRACT.input.size.as_width_height
BORDER = CONTRACT.crop.border_value


@cache
def crop() -> np.ndarray:
    return crop_person(golden_picture(), BOX, contract=CONTRACT)[0]


@cache
def padded_region() -> np.ndarray:
    """The part of the picture under the padded box, whose corners are whole pixels, 30 columns beyond the left edge."""
    left, top, right, bottom = fit_box(BOX, aspect=CONTRACT.input.size.aspect, padding=CONTRACT.crop.padding)
    assert (left, top, right, bottom) == (-30.0, 120.0, 690.0, 1080.0)
    region = np.full((960, 720, 3), BORDER, np.uint8)
    region[:, 30:] = golden_picture()[120:1080, :690]
    return region


def normalized(pixels: np.ndarray) -> np.ndarray:
    return normalize_crops(pixels[None], CONTRACT.input)


def unpadded() -> np.ndarray:
    return CropTransform.from_box(BOX, CONTRACT.input.size).warp(golden_picture(), border_value=BORDER)


def plainly_shifted() -> np.ndarray:
    """An affine map between corners given to OpenCV, which takes it for one between pixel centres."""
    scale_x, scale_y = 192 / 720, 256 / 960
    matrix = np.array([[scale_x, 0, 30 * scale_x], [0, scale_y, -120 * scale_y]])
    return cv2.warpAffine(golden_picture(), matrix, WIDTH_HEIGHT, borderMode=cv2.BORDER_CONSTANT, borderValue=BORDER)


def antialiased() -> np.ndarray:
    import torch

    region = torch.from_numpy(padded_region()).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(region, CONTRACT_HW, mode="bilinear", antialias=True)
    return np.round(resized[0].permute(1, 2, 0).numpy()).astype(np.uint8)


CONTRACT_HW = (CONTRACT.input.size.height, CONTRACT.input.size.width)


def black_bordered() -> np.ndarray:
    black = CONTRACT.replace(crop=dataclasses.replace(CONTRACT.crop, border_value=(0, 0, 0)))
    return crop_person(golden_picture(), BOX, contract=black)[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: normalized(crop()),
        lambda: normalized(crop())[0].astype(np.float64),
        crop,
        lambda: normalized(cv2.resize(padded_region(), WIDTH_HEIGHT, interpolation=cv2.INTER_LINEAR)),
    ],
    ids=["float32", "float64 without batch", "raw", "resized by OpenCV"],
)
def test_right_tensors_are_called_right(make: Callable[[], np.ndarray]) -> None:
    diagnosis = diagnose(make(), CONTRACT)
    assert diagnosis.is_right, diagnosis.text
    assert diagnosis.mistakes == ()
    assert diagnosis.text.startswith("right: ")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: normalized(crop()[..., ::-1]), ["BGR"]),
        (lambda: (crop() / 255).transpose(2, 0, 1), ["0-1 instead of ImageNet"]),
        (lambda: crop().transpose(2, 0, 1).astype(np.float32), ["0-255 instead of ImageNet"]),
        (lambda: normalized(cv2.resize(padded_region(), WIDTH_HEIGHT, interpolation=cv2.INTER_AREA)), ["antialiased"]),
        (lambda: normalized(antialiased()), ["antialiased"]),
        (lambda: normalized(unpadded()), ["not padded"]),
        (lambda: normalized(plainly_shifted()), ["half-pixel shift"]),
        (lambda: normalized(black_bordered()), ["black outside"]),
        (lambda: normalized(crop())[0].transpose(1, 2, 0), ["channels are last"]),
        (lambda: (unpadded()[..., ::-1] / 255).transpose(2, 0, 1), ["BGR", "0-1", "not padded"]),
    ],
    ids=["bgr", "0-1", "0-255", "area", "antialias", "padding", "shift", "black", "layout", "three at once"],
)
def test_mistakes_are_named_and_no_others(make: Callable[[], np.ndarray], words: list[str]) -> None:
    diagnosis = diagnose(make(), CONTRACT)
    assert not diagnosis.is_right
    assert diagnosis.is_explained, diagnosis.text
    assert len(diagnosis.mistakes) == len(words), diagnosis.text
    for word, mistake in zip(words, diagnosis.mistakes, strict=True):
        assert word in mistake


def test_what_no_mistake_explains_is_said_so() -> None:
    mirrored = diagnose(normalized(crop()[:, ::-1]), CONTRACT)
    assert not mirrored.is_explained
    assert not mirrored.is_right
    assert mirrored.text.startswith("not explained by any of ")
    assert mirrored.mean_levels > 10


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (np.zeros((3, 192, 256), np.float32), "height before width"),
        (np.zeros((2, 3, 256, 192), np.float32), "one crop is"),
        (np.zeros((3, 256, 192), bool), "is bool of shape"),
        (np.full((3, 256, 192), np.nan), "not finite"),
    ],
)
def test_tensors_that_cannot_be_read_are_errors(tensor: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        diagnose(tensor, CONTRACT)


def test_the_golden_picture_is_written_with_its_box(tmp_path: Path) -> None:
    picture, record = write_golden(tmp_path)
    np.testing.assert_array_equal(read_image(picture), golden_picture())
    assert json.loads(record.read_text())["box_xyxy"] == list(GOLDEN_BOX_XYXY)
    with pytest.raises(OutputError, match="--force"):
        write_golden(tmp_path)


def test_a_file_that_is_no_array_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "tensor.npy"
    path.write_text("nothing")
    with pytest.raises(InputError, match="cannot be read as a NumPy file"):
        diagnose_file(path)
    np.save(path, np.array([{}], object))
    with pytest.raises(InputError, match="cannot be read as a NumPy file"):
        diagnose_file(path)
