"""What can be chosen about a reduced file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lbkit.core.threads import checked_threads
from lbkit.errors import ConfigError
from lbkit.quantization.speed import SPEED_BATCHES, checked_batches
from lbkit.quantization.static import METHODS, Method

ReducedPrecision = Literal["int8", "fp16"]
PRECISIONS: tuple[ReducedPrecision, ...] = get_args(ReducedPrecision)

DEFAULT_SAMPLES = 128
MAX_SAMPLES = 10_000
DEFAULT_MAX_DROP = 0.5


@dataclass(frozen=True, slots=True)
class ReductionOptions:
    """How a file is reduced, and what it must keep.

    Attributes:
        precision: "int8" or "fp16".
        calibration: People to calibrate and choose on (see `read_source`); taken from `coco` when None.
        coco: Annotated people to measure on; taken from `calibration` when None.
        split: Which part of `coco`.
        samples: People to calibrate on.
        method: How ranges are taken from activations; the best measured one when None.
        max_drop: Greatest drop of PCK@0.05 in percentage points, without annotations of agreement PCK@0.05 (see
            `lbkit.quantization.comparison.AgreementPck`); no limit when None.
        require_speedup: Least gain in time over the fp32 file at every batch size; no limit when None.
        batches: Batch sizes that are timed.
        threads: Threads inside the model; what affinity and cgroup grant when None.
    """

    precision: ReducedPrecision = "int8"
    calibration: Path | None = None
    coco: Path | None = None
    split: str | None = None
    samples: int = DEFAULT_SAMPLES
    method: Method | None = None
    max_drop: float | None = DEFAULT_MAX_DROP
    require_speedup: float | None = None
    batches: tuple[int, ...] = SPEED_BATCHES
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision should be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.method not in (None, *METHODS):
            raise ConfigError(f"method should be one of {', '.join(METHODS)}, got {self.method!r}")
        if not 1 <= self.samples <= MAX_SAMPLES:
            raise ConfigError(f"samples should lie in 1..{MAX_SAMPLES}, got {self.samples}")
        for name, value in (("max_drop", self.max_drop), ("require_speedup", self.require_speedup)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} should be a number of at least 0, got {value}")
        checked_batches(self.batches)
        checked_threads(self.threads)
        if self.precision == "int8" and self.calibration is None and self.coco is None:
            raise ConfigError(
                "int8 is calibrated on people, and no source of them is given",
                remedy="give --calibration FOLDER|FILE, or --coco ROOT",
            )
