from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from lbkit.errors import ConfigError
from lbkit.parity.definitions import MEASURE_STAGES, Limit, Limits, Measures
from lbkit.parity.presets import PRESETS, load_preset
from lbkit.parity.verdict import MEASURE_NAMES, culprit_of, findings_of, stage_findings

OWN = """
name = "own"
description = "loose"
near_tie_margin = { at_most = 0.01 }
node_relative = { at_most = 0.5 }
[limits]
input_px_max = { at_most = 3 }
"""


@pytest.mark.parametrize("name", PRESETS)
def test_shipped_presets_give_a_reason_and_a_measured_figure_for_every_limit(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    limits = [getattr(preset.limits, field.name) for field in fields(Limits)]
    given = [limit for limit in (*limits, preset.near_tie_margin, preset.node_relative) if limit is not None]
    assert len(given) >= 10
    for limit in given:
        assert limit.reason
        assert limit.measured
    assert preset.limits.input_px_max is not None
    assert preset.limits.input_px_median is not None
    assert preset.limits.unfinite == Limit(0, preset.limits.unfinite.reason, preset.limits.unfinite.measured)  # type: ignore[union-attr]


def test_single_precision_is_held_to_a_twentieth_of_a_pixel() -> None:
    limit = load_preset("fp32").limits.input_px_max
    assert limit is not None
    assert limit.at_most == 0.05


def test_every_measure_has_a_limit_a_stage_and_a_name() -> None:
    names = [field.name for field in fields(Measures)]
    assert names == [field.name for field in fields(Limits)] == list(MEASURE_STAGES) == list(MEASURE_NAMES)


def test_a_preset_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN)
    preset = load_preset(str(path))
    assert preset.limits.input_px_max == Limit(3.0)
    assert preset.limits.heatmaps_max is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OWN.replace("input_px_max", "input_px"), "unknown field limits.input_px"),
        (OWN.replace("at_most = 3", "at_most = -1"), "at_most must be a number from 0 on"),
        (OWN.replace("at_most = 3", "at_most = nan"), "at_most must be a number from 0 on"),
        (OWN.replace("at_most = 3", "most = 3"), "unknown field limits.input_px_max.most"),
        (OWN.replace("input_px_max = { at_most = 3 }", ""), "at least one limit"),
        (OWN.replace('name = "own"', ""), "missing field name"),
        ("= 3", "is not TOML"),
    ],
)
def test_a_preset_is_read_strictly(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_preset(str(path))


def test_a_preset_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'fp4'.*fp32, fp16, int8"):
        load_preset("fp4")


def test_the_first_stage_that_fails_is_to_blame() -> None:
    measures = Measures(unfinite=0.0, crop_levels_max=0.0, heatmaps_max=0.5, input_px_max=9.0, pck_change=-0.5)
    findings = findings_of(measures, load_preset("fp32"))
    assert {finding.measure for finding in findings if not finding.passed} == {
        "heatmaps_max",
        "input_px_max",
        "pck_change",
    }
    stages = stage_findings(measures, findings, tensor_is_pixels=False, images=(3, 4))
    assert culprit_of(stages, ()) == "heatmaps"
    by_name = {stage.name: stage for stage in stages}
    assert by_name["file"].text.startswith("3 of 4 photographs")
    assert by_name["tensor"].status == "not seen"
    assert by_name["crop"].status == "passed"


def test_numbers_that_are_not_finite_fail_without_a_limit() -> None:
    findings = findings_of(Measures(image_px_max=float("inf")), load_preset("fp32"))
    assert [finding.passed for finding in findings] == [False]
    assert findings[0].at_most is None
