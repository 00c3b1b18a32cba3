"""One batch of people through both paths, each stage compared on its own.

Every stage of the candidate is given what the reference's stage before it made, so that a mistake shows where it is
made and not in what follows; the whole walk is compared too, each path by its own contract from the box on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit.core.codec import decode_heatmaps
from lbkit.core.contract import DecoderName
from lbkit.core.geometry import CropTransform, ImageArray
from lbkit.core.ties import near_ties, peak_margins, shortfalls
from lbkit.evaluation.walk import Cut, crop_key
from lbkit.parity.candidates import CandidateModel, CandidateOutput, Reference, ReferenceOutput
from lbkit.parity.definitions import Preset

DECODE_TOLERANCE_PX = 0.01
"""A joint that the graph decodes farther than this from the host is looked at for a tie in its own map."""

_DECODER_REACH = math.sqrt(2)
"""A decoder puts a joint at most a cell along each axis from the highest cell."""


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceBatch:
    """N people through the reference.

    Attributes:
        cuts: The people.
        crops: (N, H, W, 3) uint8 RGB.
        transforms: Their N transforms.
        output: What PyTorch made of the crops.
    """

    cuts: Sequence[Cut]
    crops: ImageArray
    transforms: Sequence[CropTransform]
    output: ReferenceOutput


@dataclass(frozen=True, slots=True, eq=False)
class BatchComparison:
    """N people through both paths; K joints. An array is None where the candidate keeps the stage out of sight.

    Attributes:
        rows: (N,) rows of the samples.
        unfinite: Numbers among the candidate's outputs that are not finite.
        crop_levels: (N,) greatest difference of a crop's value.
        tensor: (N,) greatest difference of the network's input.
        tensor_is_pixels: Whether the candidate's network takes pixels that are not normalised yet.
        cells: (N, K, h, w) absolute differences of heatmaps; the one large array, to be counted and let go.
        decode_px: (N, K) input pixels between graph and host on the candidate's own maps.
        input_px: (N, K) distance of the whole walk in the reference's input pixels.
        mapping_px: (N, K) image pixels between the two mappings of the candidate's joints.
        image_px: (N, K) distance of the whole walk in image pixels.
        moved: (N, K) whether the highest cell is another.
        margins: (N, K) of the reference's two highest cells.
        shortfalls: (N, K) how far below its highest cell the reference's map is at the candidate's highest cell; near
            the candidate's joint where its map is not seen.
        undecided: (N, K) whether the reference's own map leaves the joint undecided.
        reference: (N, K, 3) image pixels and score.
        found: (N, K, 3) image pixels and score.
    """

    rows: NDArray[np.int64]
    unfinite: int
    crop_levels: NDArray[np.float64]
    tensor: NDArray[np.float64] | None
    tensor_is_pixels: bool
    cells: NDArray[np.float32] | None
    decode_px: NDArray[np.float64] | None
    input_px: NDArray[np.float64]
    mapping_px: NDArray[np.float64]
    image_px: NDArray[np.float64]
    moved: NDArray[np.bool_]
    margins: NDArray[np.float32]
    shortfalls: NDArray[np.float32]
    undecided: NDArray[np.bool_]
    reference: NDArray[np.float64]
    found: NDArray[np.float64]


def reference_batch(reference: Reference, cuts: Sequence[Cut]) -> ReferenceBatch:
    """Run the reference on people.

    Raises:
        ModelError: Its heatmaps are not finite or have no peak.
    """
    crops, transforms = _crops(cuts, reference)
    return ReferenceBatch(cuts, crops, transforms, reference.run(crops))


def compare_batch(
    batch: ReferenceBatch, reference: Reference, *, candidate: CandidateModel, preset: Preset
) -> BatchComparison:
    """Run a candidate on the reference's people and compare every stage.

    Args:
        batch: The people.
        reference: The checkpoint.
        candidate: The file.
        preset: What it is judged by; says when a joint counts as undecided.

    Raises:
        ModelError: ONNX Runtime fails.
    """
    spec, decoder = reference.contract.heatmap, candidate.contract.heatmap.decoder
    crops, transforms = _crops(batch.cuts, candidate)
    output = candidate.run(batch.crops)
    levels = np.abs(crops.astype(np.int16) - batch.crops).max(axis=(1, 2, 3)).astype(np.float64)
    final = output if not levels.any() else candidate.run(crops)
    expected = decode_heatmaps(batch.output.heatmaps, spec=spec, decoder=decoder).astype(np.float64)
    reference_xy = _to_image(expected, batch.transforms)
    found_xy = _to_image(final.keypoints, transforms)
    found_input_xy = _to_input(found_xy, batch.transforms)
    input_px = _distances(found_input_xy, expected)
    cells = None if output.heatmaps is None else np.abs(output.heatmaps - batch.output.heatmaps)
    landed = _landing_shortfalls(found_input_xy, expected, batch, reference=reference, decoder=decoder, preset=preset)
    moved, fallen = _moved(output, batch.output.heatmaps, landed, is_far=input_px > spec.stride)
    tensor, is_pixels = _tensor_difference(output.tensor, batch)
    return BatchComparison(
        rows=np.array([cut.target.row for cut in batch.cuts], np.int64),
        unfinite=output.unfinite,
        crop_levels=levels,
        tensor=tensor,
        tensor_is_pixels=is_pixels,
        cells=None if cells is None else np.nan_to_num(cells, nan=np.inf),
        decode_px=_decode_distances(output, reference, decoder=decoder),
        input_px=input_px,
        mapping_px=_distances(_to_image(output.keypoints, transforms), _to_image(output.keypoints, batch.transforms)),
        image_px=_distances(found_xy, reference_xy),
        moved=moved,
        margins=peak_margins(batch.output.heatmaps),
        shortfalls=fallen,
        undecided=_undecided(
            input_px,
            cells,
            batch.output.heatmaps,
            has_landed=landed <= preset.near_tie_margin.at_most,
            is_tied=moved & (fallen <= preset.near_tie_margin.at_most),
            reference=reference,
            decoder=decoder,
            preset=preset,
        ),
        reference=np.concatenate([reference_xy, expected[..., 2:]], axis=-1),
        found=np.concatenate([found_xy, final.keypoints[..., 2:]], axis=-1),
    )


def _crops(cuts: Sequence[Cut], model: Reference | CandidateModel) -> tuple[ImageArray, list[CropTransform]]:
    cut = [item.crops[crop_key(model.contract)] for item in cuts]
    return np.stack([crop for crop, _ in cut]), [transform for _, transform in cut]


def _to_image(keypoints: NDArray[Any], transforms: Sequence[CropTransform]) -> NDArray[np.float64]:
    pairs = zip(keypoints[..., :2].astype(np.float64), transforms, strict=True)
    return np.stack([transform.to_image(joints) for joints, transform in pairs])


def _to_input(image_xy: NDArray[np.float64], transforms: Sequence[CropTransform]) -> NDArray[np.float64]:
    return np.stack([transform.to_input(joints) for joints, transform in zip(image_xy, transforms, strict=True)])


def _distances(found: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
    """Return (N, K) distances; infinite where one is not a number."""
    distances = np.linalg.norm(found[..., :2].astype(np.float64) - expected[..., :2], axis=-1)
    return np.asarray(np.nan_to_num(distances, nan=np.inf), np.float64)


def _tensor_difference(
    tensor: NDArray[np.floating[Any]] | None, batch: ReferenceBatch
) -> tuple[NDArray[np.float64] | None, bool]:
    """Compare the network's input, normalised, or as pixels where normalisation is folded into the network."""
    expected = batch.output.tensor
    if tensor is None or tensor.shape != expected.shape or not np.issubdtype(tensor.dtype, np.floating):
        return None, False
    pixels = batch.crops.transpose(0, 3, 1, 2)
    if np.array_equal(tensor, pixels):
        return np.zeros(len(tensor)), True
    difference = np.abs(tensor.astype(np.float32) - expected).max(axis=(1, 2, 3)).astype(np.float64)
    return np.nan_to_num(difference, nan=np.inf), False


def _landing_shortfalls(
    found_input_xy: NDArray[np.float64],
    expected: NDArray[np.float64],
    batch: ReferenceBatch,
    *,
    reference: Reference,
    decoder: DecoderName,
    preset: Preset,
) -> NDArray[np.float32]:
    """Return (N, K) how far the reference's map lies below its highest cell near the candidate's joints."""
    spec, limit = reference.contract.heatmap, preset.limits.input_px_max
    return shortfalls(
        found_input_xy,
        batch.output.heatmaps,
        spec=spec,
        near_px=max(_DECODER_REACH * spec.stride, 0.0 if limit is None else limit.at_most),
        from_xy=expected[..., :2] if decoder == "soft-argmax" else None,
    )


def _moved(
    output: CandidateOutput,
    heatmaps: NDArray[np.float32],
    landed: NDArray[np.float32],
    *,
    is_far: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return (N, K) whether the highest cell is another, and how far the reference's map is below its highest there.

    Where the candidate's maps are not seen, a joint that is far has moved, and what is near it counts.
    """
    if output.heatmaps is None:
        return is_far, landed
    flat, found = (maps.reshape(*maps.shape[:2], -1) for maps in (heatmaps, output.heatmaps))
    peaks = found.argmax(axis=-1)
    fallen = flat.max(axis=-1) - np.take_along_axis(flat, peaks[..., None], axis=-1)[..., 0]
    return np.asarray(peaks != flat.argmax(axis=-1)), np.asarray(fallen)


def _decode_distances(
    output: CandidateOutput, reference: Reference, *, decoder: DecoderName
) -> NDArray[np.float64] | None:
    """Compare the candidate's decoder with the reference's on the candidate's own maps, ties in them left out."""
    if output.heatmaps is None:
        return None
    spec = reference.contract.heatmap
    with np.errstate(invalid="ignore"):
        expected = decode_heatmaps(output.heatmaps, spec=spec, decoder=decoder)
        distances = _distances(output.keypoints, expected)
        ties = near_ties(
            np.where(np.isfinite(distances), distances, 0.0),
            np.zeros(distances.shape),
            output.heatmaps,
            spec=spec,
            tolerance_px=DECODE_TOLERANCE_PX,
            decoder=decoder,
        )
    return np.where(ties, 0.0, distances)


def _undecided(
    input_px: NDArray[np.float64],
    cells: NDArray[np.float32] | None,
    heatmaps: NDArray[np.float32],
    *,
    has_landed: NDArray[np.bool_],
    is_tied: NDArray[np.bool_],
    reference: Reference,
    decoder: DecoderName,
    preset: Preset,
) -> NDArray[np.bool_]:
    """Return (N, K) which joints beyond the limit the reference's own map explains.

    They have landed near a cell that is as high as its highest, to within the margin; and their peak is such a cell, or
    the map, changed by the margin, moves its joint as far.
    """
    limit, margin = preset.limits.input_px_max, preset.near_tie_margin.at_most
    if limit is None:
        return has_landed & is_tied
    changed = np.full(input_px.shape, margin) if cells is None else np.nan_to_num(cells.max(axis=(2, 3)), nan=0.0)
    is_open = np.isfinite(input_px) & (input_px > limit.at_most) & has_landed
    explained = near_ties(
        np.where(is_open & ~is_tied, input_px, 0.0),
        np.minimum(changed, margin),
        heatmaps,
        spec=reference.contract.heatmap,
        tolerance_px=limit.at_most,
        decoder=decoder,
    )
    return (is_open & is_tied) | explained
