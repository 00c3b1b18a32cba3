"""From an image and boxes to the network's input; the same for training, every runtime, parity and evaluation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lbkit.core.contract import InputSpec, ModelContract
from lbkit.core.geometry import CropTransform, FloatArray, ImageArray


def crop_person(
    image: ImageArray, box_xyxy: FloatArray, *, contract: ModelContract, reduction: int = 1
) -> tuple[ImageArray, CropTransform]:
    """Cut one person from an image as the contract says.

    Args:
        image: (H, W, 3) uint8 RGB.
        box_xyxy: (4,) box in edge coordinates; it may leave the image.
        contract: The model's contract.
        reduction: Picture pixels per pixel of `image`, where that was decoded reduced; the box is the picture's.

    Returns:
        The (H, W, 3) uint8 RGB crop and its transform from the picture's points.
    """
    transform = CropTransform.from_box(box_xyxy, contract.input.size, padding=contract.crop.padding)
    shown = transform if reduction == 1 else transform.of_reduced(reduction)
    return shown.warp(image, border_value=contract.crop.border_value), transform


def normalization_coefficients(spec: InputSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (scale, offset), each (3,) float32, with `normalised = pixel * scale + offset`."""
    std = np.asarray(spec.std, dtype=np.float64)
    scale = 1.0 / (255.0 * std)
    offset = -np.asarray(spec.mean, dtype=np.float64) / std
    return scale.astype(np.float32), offset.astype(np.float32)


def normalize_crops(crops: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """Return crops as the bare network takes them.

    Args:
        crops: (N, H, W, 3) uint8 RGB.
        spec: The contract's input.

    Returns:
        (N, 3, H, W) float32.
    """
    scale, offset = normalization_coefficients(spec)
    normalized = crops.astype(np.float32) * scale + offset
    return np.ascontiguousarray(normalized.transpose(0, 3, 1, 2))
