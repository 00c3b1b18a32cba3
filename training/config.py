"""A training recipe: one TOML file, read strictly into frozen dataclasses."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lbkit.core.geometry import ImageSize
from lbkit.core.records import RecordError, record_from_mapping
from lbkit.errors import ConfigError

SYNTHETIC = "synthetic"
"""The source name that stands for rendered figures instead of an annotation file."""

SHARE = (0.0, 1.0)
AMOUNT = (0.0, 1e9)
COUNT = (1, 10**9)


@dataclass(frozen=True, slots=True)
class Source:
    """One set of annotated people.

    Attributes:
        name: Name in logs and in the checkpoint; "synthetic" is rendered and needs no files.
        annotations: COCO JSON, relative to the data folder.
        images: Folder of its pictures, relative to the data folder.
        repeat: How often each person is drawn an epoch; fractions draw a random part.
        validation: Share of the images kept for validation; 1 for a source that is not trained on.
        hidden_weight: Weight in the loss of joints with v = 1, hidden ones or another network's answers.
        persons: For the synthetic source, how many figures an epoch.
    """

    name: str
    annotations: str = ""
    images: str = ""
    repeat: float = 1.0
    validation: float = 0.0
    hidden_weight: float = 1.0
    persons: int = 0

    def __post_init__(self) -> None:
        if self.name != SYNTHETIC and not (self.annotations and self.images):
            raise ValueError(f"source {self.name} needs annotations and images")
        if self.name == SYNTHETIC and self.persons < 1:
            raise ValueError(f"source {self.name} needs persons, at least 1")
        _refuse_outside(self, repeat=AMOUNT, hidden_weight=AMOUNT, validation=SHARE)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How training crops vary; a probability of 0 turns an item off.

    Attributes:
        rotation_deg: Standard deviation of the turn, cut at twice that.
        rotation: Probability of a turn.
        scale: Largest relative change of the crop's size.
        translation: Largest shift in box heights.
        flip: Probability of mirroring.
        half_body: Probability of a crop about the legs instead of the whole person.
        legs_only: Probability of cutting the picture off above the hips.
        cut_off: Probability of an edge or something in front that ends the person below the hips or at a side.
        bystander: Probability of somebody from another picture beside, behind or in front.
        color: Probability of a change of brightness, contrast and saturation.
        gray: Probability of losing all colour.
        blur: Probability of a Gaussian blur.
        low_resolution: Probability of a crop made of few pixels.
        jpeg: Probability of JPEG artefacts.
        cutout: Probability of a rectangle wiped out.
    """

    rotation_deg: float = 20.0
    rotation: float = 0.6
    scale: float = 0.3
    translation: float = 0.08
    flip: float = 0.5
    half_body: float = 0.15
    legs_only: float = 0.15
    cut_off: float = 0.0
    bystander: float = 0.0
    color: float = 0.6
    gray: float = 0.05
    blur: float = 0.1
    low_resolution: float = 0.0
    jpeg: float = 0.1
    cutout: float = 0.2

    def __post_init__(self) -> None:
        probabilities = dict.fromkeys(self.__dataclass_fields__, SHARE)
        _refuse_outside(self, **probabilities | {"rotation_deg": (0.0, 180.0), "scale": (0.0, 0.9)})


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a training run.

    Attributes:
        model: Architecture name.
        sources: The data.
        backbone_weights: "torchvision", "none" or a safetensors file.
        init_from: Checkpoint to start from; replaces the backbone weights.
        input_height: Crop height in pixels while training.
        input_width: Crop width in pixels while training.
        sigma: Standard deviation of the targets in cells while training.
        epochs: Passes over the drawn data.
        batch_size: Crops a step, over all processes.
        optimizer: "adam" (weight decay in the gradient) or "adamw" (decoupled).
        learning_rate: Highest rate of the schedule.
        weight_decay: Weight decay.
        schedule: "cosine", "one-cycle" or "constant": see `training.schedule`.
        warmup: Share of the steps during which the rate rises.
        ema_decay: Decay of the moving average of weights; 0 turns it off.
        clip_norm: Largest norm of the gradient of the loss times `loss_scale`; 0 turns clipping off.
        patience: Epochs without a better validation PCK@0.05 after which the run stops; 0 turns that off.
        loss_reduction: "fixed" divides by 6 joints, "visible" by the labelled ones.
        loss_scale: Constant factor on the loss; lifts gradients of about 1e-7 over Adam's epsilon of 1e-8.
        precision: "auto" times a step in each and takes the faster.
        workers: Processes that prepare crops, for each process that trains.
        seed: Of everything random.
        augmentation: How crops vary.
    """

    model: str
    sources: tuple[Source, ...]
    backbone_weights: str = "torchvision"
    init_from: str = ""
    input_height: int = 256
    input_width: int = 192
    sigma: float = 2.0
    epochs: int = 30
    batch_size: int = 32
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "one-cycle", "constant"] = "cosine"
    warmup: float = 0.1
    ema_decay: float = 0.999
    clip_norm: float = 0.0
    patience: int = 0
    loss_reduction: Literal["fixed", "visible"] = "fixed"
    loss_scale: float = 1000.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    workers: int = 2
    seed: int = 1
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        _refuse_outside(self, epochs=COUNT, batch_size=COUNT, input_height=(32, 4096), input_width=(32, 4096))
        _refuse_outside(self, weight_decay=AMOUNT, clip_norm=AMOUNT, warmup=SHARE, ema_decay=(0.0, 1 - 1e-9))
        _refuse_outside(self, patience=(0, COUNT[1]), workers=(0, 1024), seed=(0, 2**63 - 1))
        if not all(0 < value < math.inf for value in (self.sigma, self.learning_rate, self.loss_scale)):
            raise ValueError("sigma, learning_rate and loss_scale must be positive")
        if self.input_height % 32 or self.input_width % 32:
            raise ValueError("input_height and input_width must be multiples of 32")
        if not self.sources:
            raise ValueError("at least one source is needed")
        names = [source.name for source in self.sources]
        if len(names) > len(set(names)):
            raise ValueError(f"each source needs a name of its own, got {', '.join(names)}")

    @property
    def input_size(self) -> ImageSize:
        """Size of the crops while training."""
        return ImageSize(self.input_height, self.input_width)


def _refuse_outside(record: object, **ranges: tuple[float, float]) -> None:
    """Raise for the first field outside its closed range; NaN and the infinities are outside every one."""
    for name, (least, most) in ranges.items():
        value = getattr(record, name)
        if not least <= value <= most:
            raise ValueError(f"{name} must be at least {least:g} and at most {most:g}, got {value}")


def read_recipe(path: Path, *, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: The TOML file.
        settings: Changes as "key=value" or "table.key=value", with values in TOML.

    Raises:
        ConfigError: It cannot be read, or a key is unknown, missing or of the wrong type.
    """
    try:
        mapping = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError("no such recipe", where=path) from error
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not TOML ({error})", where=path) from error
    for setting in settings:
        _apply(mapping, setting)
    try:
        return record_from_mapping(Recipe, mapping)
    except RecordError as error:
        raise ConfigError(str(error), where=path) from error


def _apply(mapping: dict[str, Any], setting: str) -> None:
    key, separator, value = setting.partition("=")
    if not separator:
        raise ConfigError(f"--set {setting} should be key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *tables, name = key.strip().split(".")
    for table in tables:
        mapping = mapping.setdefault(table, {})
        if not isinstance(mapping, dict):
            raise ConfigError(
                f"--set {setting}: {table} is no table of keys",
                remedy="give the whole of it, as in --set 'sources=[{...}]'",
            )
    mapping[name] = parsed
