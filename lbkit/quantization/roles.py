"""Who is calibrated on, who decides, and who is measured, cut out and ready."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import CropTransform
from lbkit.errors import AnnotationError
from lbkit.export.figures import POSES, figure_crops
from lbkit.quantization.options import ReductionOptions
from lbkit.quantization.people import Crops, Source, cut_crops, read_source, split_source

log = logging.getLogger(__name__)

MAX_CHOOSING = 256
MAX_MEASURED = 2000
"""People that are measured on at most: their crops stay in memory, 150 kB each."""


@dataclass(frozen=True, slots=True, eq=False)
class Roles:
    """Three sets of people that share no photograph, unless there are too few photographs.

    Attributes:
        calibrating: Ranges of activations come from these.
        choosing: Method and layers are chosen on these.
        measuring: The finished file is judged on these.
    """

    calibrating: Crops
    choosing: Crops
    measuring: Crops


def cast_roles(options: ReductionOptions, finder: PoseEstimator) -> Roles:
    """Read the sources and cut everybody out.

    Args:
        options: Where people come from.
        finder: The fp32 model; its contract says how crops are cut, and it looks for people without boxes.

    Raises:
        InputError: There is nobody to calibrate on.
        AnnotationError: Annotations cannot be read, or those to measure on label nobody.
    """
    contract = finder.contract
    if options.calibration is None and options.coco is None:
        figures = _figures(finder)
        return Roles(figures, figures, figures)
    measured = None if options.coco is None else read_source(options.coco, split=options.split)
    if measured is not None and measured.people is None:
        raise AnnotationError("has no annotations to measure by", where=options.coco, remedy="give a COCO root")
    if options.calibration is None:
        assert measured is not None
        parts = _parts(measured, options)
    else:
        given = read_source(options.calibration, finder=finder)
        parts = _parts(given, options)
        parts = parts if measured is None else [*parts[:2], _others(measured, parts[:2])]
    if len(parts[2]) > MAX_MEASURED:
        log.warning("the first %d of %d people are measured on", MAX_MEASURED, len(parts[2]))
        parts[2] = parts[2].take(range(MAX_MEASURED))
    return Roles(*(cut_crops(part, contract) for part in parts))


def _parts(source: Source, options: ReductionOptions) -> list[Source]:
    parts = split_source(source, options.samples, min(MAX_CHOOSING, 2 * options.samples))
    if not all(len(part) for part in parts):
        log.warning("%s has too few photographs to keep calibration and measurement apart", source.name)
        return [source.take(range(min(len(source), options.samples))), source, source]
    parts[2] = replace(parts[2], name=f"{source.name}, people not calibrated on")
    return parts


def _others(measured: Source, used: Sequence[Source]) -> Source:
    """Return the people on photographs that nobody was calibrated or chosen on; everybody where there are none."""
    seen = {path.resolve() for part in used for path in part.paths}
    rows = [row for row, path in enumerate(measured.paths) if path.resolve() not in seen]
    if len(rows) == len(measured):
        return measured
    if not rows:
        log.warning("every photograph of %s is calibrated on too: figures flatter", measured.name)
        return measured
    return replace(measured.take(rows), name=f"{measured.name}, people not calibrated on")


def _figures(finder: PoseEstimator) -> Crops:
    """Return drawn figures, for which no photograph is needed."""
    import numpy as np

    size = finder.contract.input.size
    pixels = figure_crops(size, len(POSES))
    box = np.array([0.0, 0.0, size.width, size.height])
    source = Source("drawn figures", (), np.repeat(box[None], len(pixels), axis=0), None)
    transforms = tuple(CropTransform.from_box(box, size, padding=1.0) for _ in pixels)
    return Crops(source, pixels, transforms)
