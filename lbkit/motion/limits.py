"""Every limit of what is counted and remarked on, read from `limits.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from lbkit.errors import ConfigError
from lbkit.motion.measures import MEASURES

_PATTERN = "take lbkit/motion/limits.toml as the pattern"
_MOST = {"share": 1.0, "percentile": 100.0, "weight": 1.0}
_POSITIVE = ("window_s", "_hz", "glitch_s", "_ratio")
_IN_ORDER = (
    ("side_legs", "frontal_legs"),
    ("min_standing_ratio", "max_standing_ratio"),
    ("min_duration_s", "max_duration_s"),
    ("start_share", "bottom_share"),
)

SectionT = TypeVar("SectionT")


@dataclass(frozen=True, slots=True)
class RecordingLimits:
    """What a recording's figures are to be read with; see the comments in `limits.toml`."""

    min_frames_per_s: float
    max_unseen_share: float
    max_company_share: float
    min_jump_legs: float
    max_speed_legs_per_s: float


@dataclass(frozen=True, slots=True)
class ViewLimits:
    """From where a person is seen; see the comments in `limits.toml`."""

    side_legs: float
    frontal_legs: float
    window_s: float


@dataclass(frozen=True, slots=True)
class MeasuringLimits:
    """What can be measured; see the comments in `limits.toml`."""

    min_limb_share: float
    max_turn_deg: float
    min_ankles_legs: float
    level_legs: float
    max_pelvis_azimuth_deg: float


@dataclass(frozen=True, slots=True)
class SignalLimits:
    """How the depth is made that squats are counted on; see the comments in `limits.toml`."""

    cutoff_hz: float
    glitch_s: float
    knee_weight: float
    scale_window_s: float
    min_standing_ratio: float
    max_standing_ratio: float


@dataclass(frozen=True, slots=True)
class CountingLimits:
    """What makes a movement a squat; see the comments in `limits.toml`."""

    min_depth_side_deg: float
    min_depth_frontal_deg: float
    min_share_of_own_range: float
    start_share: float
    bottom_share: float
    min_duration_s: float
    max_duration_s: float
    max_ankle_shift_legs: float
    max_split_legs: float
    min_height_loss_share: float
    noise_factor: float
    max_unseen_share: float
    max_bridge_s: float
    usual_percentile: float
    max_noise_loss: float
    cut_share: float
    edge_s: float
    min_edge_share: float


@dataclass(frozen=True, slots=True)
class FeedbackRule:
    """One thing to remark on.

    Attributes:
        code: What it is called in results.
        measure: The repetition's measure that is looked at.
        kind: `below`, `above`, or `above_abs`, which takes the measure without its sign.
        limit: Where the remark begins.
        source: Where the limit comes from.
        sentence: The remark, with `{value}` and perhaps `{knees}`.
    """

    code: str
    measure: str
    kind: str
    limit: float
    source: str
    sentence: str

    def applies(self, value: float) -> bool:
        """Tell whether a measured value is remarkable."""
        if self.kind == "below":
            return value < self.limit
        return (abs(value) if self.kind == "above_abs" else value) > self.limit


@dataclass(frozen=True, slots=True)
class SquatLimits:
    """All limits."""

    recording: RecordingLimits
    view: ViewLimits
    measuring: MeasuringLimits
    signal: SignalLimits
    counting: CountingLimits
    feedback: tuple[FeedbackRule, ...]


@cache
def default_limits() -> SquatLimits:
    """Return the limits that come with lbkit."""
    with resources.files("lbkit.motion").joinpath("limits.toml").open("rb") as stream:
        return _limits(tomllib.load(stream), where="limits.toml")


def read_limits(path: Path) -> SquatLimits:
    """Return the limits of a file of the same form as lbkit's own.

    Args:
        path: A TOML file with every limit.

    Raises:
        ConfigError: It cannot be read, or a limit is missing, unknown, no number, or one that cannot be.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read as TOML ({error})", where=path, remedy=_PATTERN) from error
    return _limits(content, where=str(path))


def _limits(content: dict[str, Any], *, where: str) -> SquatLimits:
    _check_names(set(content), {item.name for item in fields(SquatLimits)}, where=where)
    feedback = _table(content["feedback"], where=f"{where} feedback")
    rules = tuple(_rule(code, rule, where=f"{where} feedback.{code}") for code, rule in feedback.items())
    return SquatLimits(
        recording=_section(RecordingLimits, content["recording"], where=f"{where} recording"),
        view=_section(ViewLimits, content["view"], where=f"{where} view"),
        measuring=_section(MeasuringLimits, content["measuring"], where=f"{where} measuring"),
        signal=_section(SignalLimits, content["signal"], where=f"{where} signal"),
        counting=_section(CountingLimits, content["counting"], where=f"{where} counting"),
        feedback=rules,
    )


def _section(kind: type[SectionT], content: Any, *, where: str) -> SectionT:
    """Return a section of numbers, none of them negative, shares at most 1 and percentiles at most 100."""
    _check_names(set(_table(content, where=where)), {item.name for item in fields(kind)}, where=where)  # type: ignore[arg-type]
    for name, value in content.items():
        number = _number(value, where=f"{where}.{name}")
        most = next((most for word, most in _MOST.items() if word in name), float("inf"))
        if not 0 <= number <= most or (number == 0 and name.endswith(_POSITIVE)):
            raise ConfigError(f"cannot be {value!r}", where=f"{where}.{name}")
    for less, more in _IN_ORDER:
        if less in content and content[less] >= content[more]:
            raise ConfigError(f"{less} should be less than {more}", where=where)
    return kind(**{name: float(value) for name, value in content.items()})


def _rule(code: str, rule: Any, *, where: str) -> FeedbackRule:
    kinds = {"below", "above", "above_abs"} & set(_table(rule, where=where))
    if len(kinds) != 1:
        raise ConfigError("needs exactly one of below, above, above_abs", where=where)
    (kind,) = kinds
    _check_names(set(rule), {kind, "measure", "source", "sentence"}, where=where)
    limit = _number(rule[kind], where=f"{where}.{kind}")
    texts = {name: str(rule[name]) for name in ("measure", "source", "sentence")}
    if texts["measure"] not in MEASURES:
        raise ConfigError(f"no measure {texts['measure']!r}", where=where, remedy=f"there are {', '.join(MEASURES)}")
    try:
        texts["sentence"].format(value=1.0, knees="")
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"the sentence cannot be filled in ({error})", where=where) from error
    return FeedbackRule(code=code, kind=kind, limit=limit, **texts)


def _table(content: Any, *, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ConfigError("should be a section of limits", where=where, remedy=_PATTERN)
    return content


def _check_names(found: set[str], wanted: set[str], *, where: str) -> None:
    if found != wanted:
        missing, unknown = sorted(wanted - found), sorted(found - wanted)
        parts = [f"{what} {', '.join(names)}" for what, names in (("lacks", missing), ("knows no", unknown)) if names]
        raise ConfigError("; ".join(parts), where=where, remedy=_PATTERN)


def _number(value: Any, *, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise ConfigError(f"should be a number, got {value!r}", where=where)
    return float(value)
