"""The classic mistakes of somebody else's preprocessing, told from what it made of one picture.

The golden picture is rendered from a fixed seed; its box leaves it on one side and is shrunk to about a quarter, so
that padding, border, resampling and pixel convention all show. Every combination of known mistakes is made, and the
one that comes nearest to the tensor is named, or it is said that none explains it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lbkit.core.contract import ModelContract
from lbkit.core.files import atomic_path, refuse_overwrite
from lbkit.core.geometry import ImageArray, ImageSize, fit_box
from lbkit.core.images import write_image
from lbkit.core.preprocess import crop_person
from lbkit.core.records import record_to_mapping
from lbkit.errors import InputError
from lbkit.synthetic.figures import random_figure

GOLDEN_SIZE = ImageSize(1201, 901)
GOLDEN_BOX_XYXY = (90.0, 216.0, 570.0, 984.0)
"""With lbkit's own padding and aspect its corners are whole pixels, so that rounding them is no difference."""

GOLDEN_SEED = 20

EXPLAINED_LEVELS = 0.75
"""A mean difference up to this many levels of 255 is rounding: 8 bits alone cost a quarter of a level."""

ALIKE = 0.15
"""Explanations whose mean differences are within so many levels are alike; the one of fewer mistakes is taken."""

Resize = Literal["bilinear", "antialiased", "area", "nearest"]
Rule = Literal["centre", "plain", "corners"]
Border = Literal["own", "black", "clipped"]
Scale = Literal["normalised", "0-1", "0-255", "-1-1", "mean only", "std of 0-1 on 0-255"]

_RESIZES: dict[Resize, str | None] = {
    "bilinear": None,
    "antialiased": "an antialiased resize (triangle filter, as PIL and torchvision do) instead of plain bilinear",
    "area": "an antialiased resize (area averaging, as OpenCV's INTER_AREA) instead of plain bilinear",
    "nearest": "nearest-neighbour resampling instead of bilinear",
}
_RULES: dict[Rule, str | None] = {
    "centre": None,
    "plain": "a half-pixel shift: pixels are taken for their corners instead of their centres",
    "corners": "a half-pixel shift at the border: corners are aligned instead of edges",
}
_BORDERS: dict[Border, str | None] = {
    "own": None,
    "black": "black outside the picture instead of the contract's colour",
    "clipped": "the box is clipped to the picture and stretched",
}
_SCALES: dict[Scale, str | None] = {
    "normalised": None,
    "0-1": "values of 0-1 instead of ImageNet normalisation",
    "0-255": "values of 0-255 instead of ImageNet normalisation",
    "-1-1": "values of -1 to 1 instead of ImageNet normalisation",
    "mean only": "the mean is taken off, but nothing is divided by the standard deviation",
    "std of 0-1 on 0-255": "ImageNet's mean and deviation of 0-1 are used on values of 0-255",
}
_NOT_PADDED = "the box is not padded"
_STRETCHED = "the box is stretched to the input instead of being given its aspect"
_BGR = "this is BGR instead of RGB"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is wrong with a tensor.

    Attributes:
        is_right: Whether it is what a file takes.
        is_explained: Whether it is right, or known mistakes explain it.
        mistakes: The mistakes; of the nearest combination where none explains it.
        mean_levels: Mean difference from it, in levels of 0 to 255.
        right_levels: Mean difference from the right tensor.
        tried: How many combinations were made.
        text: All that in words.
    """

    is_right: bool
    is_explained: bool
    mistakes: tuple[str, ...]
    mean_levels: float
    right_levels: float
    tried: int
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return record_to_mapping(self)


@dataclass(frozen=True, slots=True, eq=False)
class _Guess:
    """A combination of mistakes and how far it is from the tensor."""

    mistakes: tuple[str, ...]
    mean_levels: float


@cache
def golden_picture() -> ImageArray:
    """Return the (H, W, 3) uint8 RGB golden picture."""
    figure = random_figure(np.random.default_rng(GOLDEN_SEED), GOLDEN_SIZE, cropped_share=0.0)
    return figure.image


def write_golden(folder: Path, *, force: bool = False) -> tuple[Path, Path]:
    """Write the golden picture, and what to do with it, into a folder.

    Returns:
        The PNG and the JSON.

    Raises:
        OutputError: A file is there already, or cannot be written.
    """
    picture, record = folder / "golden.png", folder / "golden.json"
    for path in (picture, record):
        refuse_overwrite(path, force=force)
    write_image(picture, golden_picture())
    what = {
        "image": picture.name,
        "box_xyxy": list(GOLDEN_BOX_XYXY),
        "what_to_do": "Preprocess this person as you do before the network, save the tensor with numpy.save, and run "
        "`lbkit parity-check MODEL --their-tensor FILE.npy`.",
    }
    with atomic_path(record) as temporary:
        temporary.write_text(json.dumps(what, indent=2) + "\n", encoding="utf-8")
    return picture, record


def diagnose_file(path: Path, *, model: str | None = None) -> Diagnosis:
    """Tell what is wrong with a tensor that another program made of the golden picture.

    Args:
        path: A .npy file.
        model: Whose preprocessing is meant, a name or file; lbkit's smallest shipped model when None.

    Raises:
        InputError: It is not a NumPy file, or no tensor of the model's input size.
        ModelError: There is no such model.
    """
    from lbkit.runtime.loading import find_model
    from lbkit.runtime.ort_backend import OrtBackend

    contract = OrtBackend(find_model(model or "cnn")).contract
    try:
        tensor = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"cannot be read as a NumPy file ({error})", where=path, remedy="write it with numpy.save"
        ) from error
    return diagnose(tensor, contract, where=path)


def diagnose(tensor: NDArray[Any], contract: ModelContract, *, where: Path | None = None) -> Diagnosis:
    """Tell what is wrong with a tensor that another program made of the golden picture.

    Args:
        tensor: (3, H, W) or (H, W, 3) numbers, perhaps with a batch axis of 1.
        contract: Whose preprocessing is meant.
        where: Its file, for messages.

    Raises:
        InputError: It has another shape, or numbers that are not finite.
    """
    theirs, is_channels_last = _channels_last(tensor, contract.input.size, where)
    is_raw = np.issubdtype(tensor.dtype, np.integer)
    layout = _layout_mistakes(is_raw=is_raw, is_channels_last=is_channels_last)
    readings = list(_levels(theirs, contract, is_raw=is_raw))
    guesses = [
        _Guess((*layout, *values, *places), float(np.abs(levels - crop).mean()))
        for places, crop in _all_crops(contract)
        for values, levels in readings
    ]
    near = min(guess.mean_levels for guess in guesses)
    best = min(
        (guess for guess in guesses if guess.mean_levels <= near + ALIKE),
        key=lambda guess: (len(guess.mistakes), guess.mean_levels),
    )
    right_levels = next(guess.mean_levels for guess in guesses if len(guess.mistakes) == len(layout))
    is_explained = best.mean_levels <= EXPLAINED_LEVELS
    return Diagnosis(
        is_right=is_explained and not best.mistakes,
        is_explained=is_explained,
        mistakes=best.mistakes,
        mean_levels=best.mean_levels,
        right_levels=right_levels,
        tried=len(guesses),
        text=_text(best, is_explained=is_explained, is_raw=is_raw, tried=len(guesses)),
    )


def _text(best: _Guess, *, is_explained: bool, is_raw: bool, tried: int) -> str:
    kind = "uint8" if is_raw else "float32"
    near = f"mean difference {best.mean_levels:.2f} of 255 levels"
    if not is_explained:
        nearest = (
            f"; the nearest is: {'; '.join(best.mistakes)}" if best.mistakes else "; the nearest is no mistake at all"
        )
        return f"not explained by any of {tried} combinations of known mistakes{nearest} ({near})"
    if not best.mistakes:
        return f"right: what a file exported with --input {kind} takes ({near})"
    return f"{'; '.join(best.mistakes)} ({near})"


def _layout_mistakes(*, is_raw: bool, is_channels_last: bool) -> tuple[str, ...]:
    if is_raw and not is_channels_last:
        return ("raw pixels have their channels first, and a uint8 file takes them last (NHWC)",)
    if not is_raw and is_channels_last:
        return ("the channels are last, and a float32 file takes them first (NCHW)",)
    return ()


def _channels_last(tensor: NDArray[Any], size: ImageSize, where: Path | None) -> tuple[NDArray[np.float32], bool]:
    """Return (H, W, 3) and whether it came so."""
    shape = (size.height, size.width)
    array = tensor[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor
    is_number = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    if not is_number or array.shape not in ((3, *shape), (*shape, 3)):
        raise InputError(
            f"is {tensor.dtype} of shape {tensor.shape}, and one crop is (3, {shape[0]}, {shape[1]}) or "
            f"({shape[0]}, {shape[1]}, 3): height before width",
            where=where,
            remedy="save one person's tensor; `lbkit parity-check --write-golden DIR` writes the picture and the box",
        )
    if not np.isfinite(array).all():
        raise InputError("has numbers that are not finite", where=where)
    is_last = array.shape == (*shape, 3)
    return np.asarray(array if is_last else array.transpose(1, 2, 0), dtype=np.float32), is_last


def _levels(
    theirs: NDArray[np.float32], contract: ModelContract, *, is_raw: bool
) -> Iterator[tuple[tuple[str, ...], NDArray[np.float32]]]:
    """Yield their tensor turned back into RGB levels of 0 to 255, under every guess at colour order and scale."""
    mean, std = np.array(contract.input.mean, np.float32), np.array(contract.input.std, np.float32)
    for is_bgr, scale in itertools.product((False, True), ("0-255",) if is_raw else _SCALES):
        orders = (
            (slice(None), slice(None, None, -1)) if is_bgr and scale not in ("0-1", "0-255", "-1-1") else (slice(None),)
        )
        for order in orders:
            levels = _unscaled(theirs, scale, mean=mean[order], std=std[order])
            told = None if is_raw else _SCALES[scale]
            yield (
                tuple(text for text in (_BGR if is_bgr else None, told) if text),
                levels[..., ::-1] if is_bgr else levels,
            )


def _unscaled(
    theirs: NDArray[np.float32], scale: str, *, mean: NDArray[np.float32], std: NDArray[np.float32]
) -> NDArray[np.float32]:
    if scale == "0-1":
        return theirs * 255
    if scale == "0-255":
        return theirs
    if scale == "-1-1":
        return (theirs + 1) * 127.5
    if scale == "mean only":
        return (theirs + mean) * 255
    if scale == "std of 0-1 on 0-255":
        return theirs * std + mean
    return (theirs * std + mean) * 255


@lru_cache(maxsize=1)
def _all_crops(contract: ModelContract) -> tuple[tuple[tuple[str, ...], NDArray[np.float32]], ...]:
    """Return the golden crop under every guess (about 85 MB), kept for the next tensor."""
    return tuple(_crops(contract))


def _crops(contract: ModelContract) -> Iterator[tuple[tuple[str, ...], NDArray[np.float32]]]:
    """Yield the golden crop under every guess at box, border, resampling and pixel rule; the right one first."""
    right, _ = crop_person(golden_picture(), np.array(GOLDEN_BOX_XYXY), contract=contract)
    yield (), right.astype(np.float32)
    image = golden_picture().astype(np.float32)
    for is_padded, is_fitted, border in itertools.product((True, False), (True, False), _BORDERS):
        box = _box(contract, is_padded=is_padded, is_fitted=is_fitted)
        if border == "clipped":
            box = np.clip(box, 0, [image.shape[1], image.shape[0]] * 2)
        color = np.array(contract.crop.border_value if border == "own" else (0, 0, 0), np.float64)
        for resize, rule in itertools.product(_RESIZES, _RULES):
            told = (None if is_padded else _NOT_PADDED, None if is_fitted else _STRETCHED)
            texts = (*told, _BORDERS[border], _RESIZES[resize], _RULES[rule])
            mistakes = tuple(text for text in texts if text)
            if mistakes:
                yield mistakes, _resampled(image, box, contract.input.size, color=color, resize=resize, rule=rule)


def _box(contract: ModelContract, *, is_padded: bool, is_fitted: bool) -> NDArray[np.float64]:
    padding, box = contract.crop.padding if is_padded else 1.0, np.array(GOLDEN_BOX_XYXY)
    if is_fitted:
        return np.asarray(fit_box(box, aspect=contract.input.size.aspect, padding=padding), np.float64)
    center, sides = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * padding
    return np.concatenate([center - sides / 2, center + sides / 2])


def _resampled(
    image: NDArray[np.float32],
    box_xyxy: NDArray[np.float64],
    size: ImageSize,
    *,
    color: NDArray[np.float64],
    resize: Resize,
    rule: Rule,
) -> NDArray[np.float32]:
    """Return the (H, W, 3) crop of a box, resampled along one axis after the other."""
    left, top, right, bottom = box_xyxy
    rows, row_weights = _taps(top, bottom, count=size.height, length=image.shape[0], resize=resize, rule=rule)
    columns, column_weights = _taps(left, right, count=size.width, length=image.shape[1], resize=resize, rule=rule)
    tall = np.zeros((size.height, *image.shape[1:]), np.float32)
    for tap in range(rows.shape[1]):
        tall += row_weights[:, tap, None, None] * image[rows[:, tap]]
    crop = np.zeros((size.height, size.width, 3), np.float32)
    for tap in range(columns.shape[1]):
        crop += column_weights[None, :, tap, None] * tall[:, columns[:, tap]]
    inside = row_weights.sum(axis=1)[:, None] * column_weights.sum(axis=1)
    return np.asarray(crop + (1.0 - inside)[..., None] * color.astype(np.float32), np.float32)


def _taps(
    low: float, high: float, *, count: int, length: int, resize: Resize, rule: Rule
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return (count, taps) source pixels and their weights in output pixels; those outside the picture weigh 0."""
    step, index = (high - low) / count, np.arange(count)
    if rule == "centre":
        centers = low + (index + 0.5) * step - 0.5
    elif rule == "plain":
        centers = low + index * step
    else:
        centers = low + index * ((high - low - 1) / (count - 1))
    reach = max(step, 1.0) if resize in ("antialiased", "area") else 1.0
    first = np.floor(centers - reach).astype(np.intp)
    pixels = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)
    distances = np.abs(pixels - centers[:, None])
    if resize == "nearest":
        weights = (pixels == np.floor(centers + 0.5)[:, None]).astype(np.float32)
    elif resize == "area":
        weights = np.clip(reach / 2 + 0.5 - distances, 0.0, 1.0) / reach
    else:
        weights = np.clip(1.0 - distances / reach, 0.0, None) / reach
    is_inside = (pixels >= 0) & (pixels < length)
    return np.clip(pixels, 0, length - 1), np.where(is_inside, weights, 0.0).astype(np.float32)
