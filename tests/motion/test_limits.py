"""Limits are read whole or refused; each that feedback is given on has its source."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

from lbkit.errors import ConfigError
from lbkit.motion.limits import FeedbackRule, default_limits, read_limits
from lbkit.motion.measures import MEASURES

TEXT = resources.files("lbkit.motion").joinpath("limits.toml").read_text(encoding="utf-8")


def changed(tmp_path: Path, old: str, new: str) -> Path:
    assert re.search(old, TEXT)
    path = tmp_path / "limits.toml"
    path.write_text(re.sub(old, new, TEXT), encoding="utf-8")
    return path


def test_every_rule_looks_at_a_measure_and_has_a_source_and_a_sentence() -> None:
    rules = default_limits().feedback
    assert len(rules) >= 5
    for rule in rules:
        assert rule.measure in MEASURES
        assert len(rule.source) > 20
        assert rule.sentence.format(value=12.0, knees="left knee").endswith(".")


def test_limits_of_ones_own_are_taken(tmp_path: Path) -> None:
    limits = read_limits(changed(tmp_path, r"min_duration_s = [\d.]+", "min_duration_s = 1"))
    assert limits.counting.min_duration_s == 1.0
    assert limits.feedback == default_limits().feedback


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"min_duration_s = .*", "", "lacks min_duration_s"),
        (r"min_duration_s =", "least_duration_s =", "knows no least_duration_s"),
        (r"min_duration_s = [\d.]+", "min_duration_s = '1'", "should be a number"),
        (r"min_duration_s = [\d.]+", "min_duration_s = inf", "should be a number"),
        (r"min_duration_s = [\d.]+", "min_duration_s = true", "should be a number"),
        (r"below = 80.0", "below = 80.0\nabove = 90.0", "exactly one of"),
        (r'measure = "descent_s"', "", "lacks measure"),
        (r"\[counting\]", "[count]", "lacks counting"),
        (r"\[counting\]", "[counting", r"cannot be read as TOML .*take lbkit/motion/limits\.toml as the pattern"),
        (r'measure = "descent_s"', 'measure = "height_m"', "no measure 'height_m'"),
        (r"\{value:.1f\}", "{worth}", "sentence"),
        (r"side_legs = [\d.]+", "side_legs = 0.2", "side_legs should be less than frontal_legs"),
        (r"usual_percentile = [\d.]+", "usual_percentile = 750", "usual_percentile: cannot be 750"),
        (r"knee_weight = [\d.]+", "knee_weight = -1", "knee_weight: cannot be -1"),
        (r"cutoff_hz = [\d.]+", "cutoff_hz = 0", "cutoff_hz: cannot be 0"),
        (r"\[recording\][^\[]*", "recording = 3\n", "recording: should be a section"),
        (
            r"min_standing_ratio = [\d.]+",
            "min_standing_ratio = 3",
            "min_standing_ratio should be less than max_standing",
        ),
        (r"max_duration_s = [\d.]+", "max_duration_s = 0.4", "min_duration_s should be less than max_duration_s"),
        (r"bottom_share = [\d.]+", "bottom_share = 0.1", "start_share should be less than bottom_share"),
        (r"\{value:.1f\}", "{value.unit}", "sentence"),
        (r"\{value:.1f\}", "{value[0]}", "sentence"),
    ],
)
def test_a_broken_file_is_refused_with_what_is_wrong(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_limits(changed(tmp_path, old, new))


@pytest.mark.parametrize(
    ("feedback", "message"),
    [("feedback = 3", "feedback: should be a section"), ("feedback.deep = 80", "feedback.deep: should be a section")],
)
def test_feedback_that_is_no_section_is_refused(tmp_path: Path, feedback: str, message: str) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(f"{feedback}\n{TEXT[: TEXT.index('[feedback.')]}", encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_limits(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_limits(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("kind", "value", "applies"),
    [
        ("below", 4.9, True),
        ("below", 5.0, False),
        ("above", 5.1, True),
        ("above", -6.0, False),
        ("above_abs", -6, True),
    ],
)
def test_when_a_rule_applies(kind: str, value: float, applies: bool) -> None:
    rule = FeedbackRule(code="x", measure="descent_s", kind=kind, limit=5.0, source="", sentence="")
    assert rule.applies(value) is applies
