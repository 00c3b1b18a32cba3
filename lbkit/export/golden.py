"""Golden vectors: two pictures and what the network makes of them, in JSON, for runtimes that are not Python.

The pictures travel as base64 PNG (8-bit RGB, lossless, about 5 kB each) together with the SHA-256 of their raw
bytes, so that nothing has to be generated again elsewhere: decode the PNG, check the hash, and feed the crop to the
file as its contract says. The first picture alone is the batch of 1, both are the batch of 2. Expected are every
joint (x, y in input pixels, and score) and, of every heatmap, the peak and four fixed cells at its quarter points.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lbkit.core.contract import HeatmapSpec
from lbkit.core.geometry import ImageArray
from lbkit.errors import ModelError
from lbkit.export.verification import HEATMAP_TOLERANCE, KEYPOINT_TOLERANCE_PX, Outputs

GOLDEN_BATCHES = (1, 2)

EXPLANATION = (
    "Decode each image (PNG, 8-bit RGB) and check sha256 over its height*width*3 raw bytes, row by row. A uint8 model"
    " takes the stacked bytes; a float32 model takes (pixel/255 - mean) / std of the contract, transposed to NCHW. For"
    " each batch, keypoints[n][joint] = [x, y, score] in input pixels, by the contract's decoder, in the graph or on"
    " the host; heatmap_samples hold [n, joint, row, column, value]."
)


@dataclass(frozen=True, slots=True, eq=False)
class GoldenBatch:
    """One batch of golden vectors.

    Attributes:
        crops: (N, H, W, 3) uint8 RGB.
        keypoints: (N, K, 3) float32 of x, y in input pixels and score.
        cells: (M, 4) int64 of crop, joint, row and column.
        values: (M,) float32, the heatmaps at those cells.
    """

    crops: ImageArray
    keypoints: NDArray[np.float32]
    cells: NDArray[np.int64]
    values: NDArray[np.float32]


TOLERANCE: Mapping[str, float] = {"heatmaps": HEATMAP_TOLERANCE, "keypoints_px": KEYPOINT_TOLERANCE_PX}


def golden_record(
    crops: ImageArray, outputs: Outputs, spec: HeatmapSpec, *, tolerance: Mapping[str, float] = TOLERANCE
) -> dict[str, Any]:
    """Return the golden vectors as JSON values.

    Args:
        crops: (N, H, W, 3) uint8 RGB, at least two.
        outputs: What PyTorch makes of them, or the file itself where its arithmetic is not PyTorch's.
        spec: The contract's heatmap.
        tolerance: What a runtime may differ by, "heatmaps" and "keypoints_px".
    """
    return {
        "explanation": EXPLANATION,
        "tolerance": dict(tolerance),
        "decoder": spec.decoder,
        "images": [_image_record(crop) for crop in crops[: max(GOLDEN_BATCHES)]],
        "batches": [_batch_record(outputs.first(batch)) for batch in GOLDEN_BATCHES],
    }


def read_golden(record: Mapping[str, Any], *, where: str) -> tuple[GoldenBatch, ...]:
    """Return the golden vectors of a file's JSON.

    Args:
        record: The value under "golden".
        where: The JSON file, for messages.

    Raises:
        ModelError: A picture is not what its hash says, or a field is missing or malformed.
    """
    try:
        crops = [_read_image(image) for image in record["images"]]
        return tuple(_read_batch(batch, crops) for batch in record["batches"])
    except (KeyError, TypeError, ValueError, IndexError, cv2.error) as error:
        raise ModelError(
            f"its golden vectors cannot be read ({type(error).__name__}: {error})",
            where=where,
            remedy="export the model again with `lbkit export`",
        ) from error


def _image_record(crop: ImageArray) -> dict[str, Any]:
    written, png = cv2.imencode(".png", crop[..., ::-1])
    assert written  # PNG encoding in memory of a uint8 picture has nothing to fail on
    return {
        "png_base64": base64.b64encode(png.tobytes()).decode("ascii"),
        "sha256": hashlib.sha256(crop.tobytes()).hexdigest(),
        "height": crop.shape[0],
        "width": crop.shape[1],
    }


def _read_image(record: Mapping[str, Any]) -> ImageArray:
    png = np.frombuffer(base64.b64decode(record["png_base64"]), dtype=np.uint8)
    decoded = cv2.imdecode(png, cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("a picture is not a PNG")
    crop = np.ascontiguousarray(decoded[..., ::-1], dtype=np.uint8)
    if hashlib.sha256(crop.tobytes()).hexdigest() != record["sha256"]:
        raise ValueError("a picture does not have the bytes that its hash names")
    return crop


def _batch_record(outputs: Outputs) -> dict[str, Any]:
    samples = [[*cell, float(outputs.heatmaps[cell])] for cell in _sampled_cells(outputs.heatmaps)]
    return {
        "images": list(range(len(outputs.heatmaps))),
        "keypoints": outputs.keypoints.tolist(),
        "heatmap_samples": samples,
    }


def _sampled_cells(heatmaps: NDArray[np.float32]) -> list[tuple[int, int, int, int]]:
    """Return crop, joint, row and column of each map's peak and its four quarter points."""
    count, joints, height, width = heatmaps.shape
    fixed = [(height * i // 4, width * j // 4) for i in (1, 3) for j in (1, 3)]
    cells = []
    for crop, joint in np.ndindex(count, joints):
        peak = divmod(int(heatmaps[crop, joint].argmax()), width)
        cells += [(crop, joint, row, column) for row, column in (peak, *fixed)]
    return cells


def _read_batch(record: Mapping[str, Any], crops: list[ImageArray]) -> GoldenBatch:
    samples = np.asarray(record["heatmap_samples"], dtype=np.float64)
    return GoldenBatch(
        crops=np.stack([crops[index] for index in record["images"]]),
        keypoints=np.asarray(record["keypoints"], dtype=np.float32),
        cells=samples[:, :4].astype(np.int64),
        values=samples[:, 4].astype(np.float32),
    )
