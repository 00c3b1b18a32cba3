"""Filters pass what is slow, stop what is fast, by the time stamps and not by the frames' numbers."""

from __future__ import annotations

import numpy as np
import pytest
from motion_sessions import standing

from lbkit.motion.smoothing import (
    OneEuroFilter,
    butterworth_lowpass,
    butterworth_track,
    fill_gaps,
    one_euro_track,
    runs,
)


def gain(frequency_hz: float, *, fps: float, cutoff_hz: float) -> float:
    time_s = np.arange(0, 20, 1 / fps)
    wave = np.sin(2 * np.pi * frequency_hz * time_s)
    smooth = butterworth_lowpass(time_s, wave, cutoff_hz=cutoff_hz)
    middle = slice(len(time_s) // 4, -len(time_s) // 4)
    basis = np.stack([wave[middle], np.cos(2 * np.pi * frequency_hz * time_s)[middle]], axis=1)
    (in_phase, shifted), *_ = np.linalg.lstsq(basis, smooth[middle], rcond=None)
    assert abs(shifted) < 1e-3  # no lag at all
    return float(in_phase)


@pytest.mark.parametrize("fps", [30, 60, 120])
def test_both_passes_together_have_the_cutoff_asked_for(fps: float) -> None:
    assert gain(6.0, fps=fps, cutoff_hz=6.0) == pytest.approx(2**-0.5, abs=0.005)
    assert gain(1.0, fps=fps, cutoff_hz=6.0) == pytest.approx(1.0, abs=0.005)
    assert gain(12.0, fps=fps, cutoff_hz=6.0) < 0.14


def test_uneven_times_give_the_curve_that_even_ones_give() -> None:
    rng = np.random.default_rng(1)
    even = np.arange(0, 10, 1 / 60)
    uneven = np.sort(even + rng.uniform(-0.4 / 60, 0.4 / 60, len(even)))
    smooth = butterworth_lowpass(uneven, np.sin(2 * np.pi * uneven))
    np.testing.assert_allclose(smooth[60:-60], np.sin(2 * np.pi * uneven)[60:-60], atol=2e-3)
    by_number = butterworth_lowpass(even, np.sin(2 * np.pi * uneven))
    assert np.abs(by_number - np.sin(2 * np.pi * uneven))[60:-60].max() > 1e-2


def test_noise_is_lowered_and_gaps_stay_gaps() -> None:
    rng = np.random.default_rng(2)
    time_s = np.arange(300) / 30
    values = rng.normal(0, 1, (300, 2))
    values[100:130, 0] = np.nan
    smooth = butterworth_lowpass(time_s, values)
    np.testing.assert_array_equal(np.isnan(smooth), np.isnan(values))
    assert np.nanstd(smooth) < 0.7
    untouched = butterworth_lowpass(time_s[:100], values[:100, 0])
    np.testing.assert_allclose(smooth[:100, 0], untouched, atol=1e-12)


def test_too_few_frames_a_second_are_left_alone() -> None:
    time_s = np.arange(30) / 5
    values = np.random.default_rng(3).normal(size=30)
    np.testing.assert_array_equal(butterworth_lowpass(time_s, values), values)


@pytest.mark.parametrize("cutoff_hz", [0.0, -1.0])
def test_a_cutoff_must_be_positive(cutoff_hz: float) -> None:
    with pytest.raises(ValueError, match="cutoff_hz must be positive"):
        butterworth_lowpass(np.arange(10.0), np.zeros(10), cutoff_hz=cutoff_hz)


def test_short_gaps_are_filled_and_marked_and_long_ones_left() -> None:
    time_s = np.arange(60) / 30
    values = 10 * time_s
    values[[0, 10, 11, 30]] = np.nan
    values[40:46] = np.nan  # 0.2 s
    values[58:] = np.nan
    filled, mask = fill_gaps(time_s, values)
    assert np.flatnonzero(mask).tolist() == [10, 11, 30]
    np.testing.assert_allclose(filled[mask], (10 * time_s)[mask])
    assert np.flatnonzero(np.isnan(filled)).tolist() == [0, *range(40, 46), 58, 59]


def test_a_column_of_nothing_stays_nothing() -> None:
    filled, mask = fill_gaps(np.arange(5.0), np.full((5, 2), np.nan))
    assert np.isnan(filled).all()
    assert not mask.any()


def test_one_euro_is_the_papers_filter() -> None:
    """Against the published algorithm, written out for one number at a steady rate."""
    rng = np.random.default_rng(4)
    values = np.cumsum(rng.normal(0, 3, 100))
    step, min_cutoff, beta = 1 / 30, 1.2, 0.02
    smooth = OneEuroFilter(min_cutoff_hz=min_cutoff, speed_coefficient=beta)

    def weight(cutoff: float) -> float:
        return 1 / (1 + 1 / (2 * np.pi * cutoff * step))

    kept, speed = values[0], 0.0
    assert smooth(0.0, values[0]) == values[0]
    for frame, value in enumerate(values[1:], 1):
        speed += weight(1.0) * ((value - kept) / step - speed)
        kept += weight(min_cutoff + beta * abs(speed)) * (value - kept)
        assert smooth(frame * step, value) == pytest.approx(kept, rel=1e-9)


def test_one_euro_follows_the_clock_and_starts_anew_after_a_long_absence() -> None:
    quick, slow = OneEuroFilter(), OneEuroFilter()
    quick(0.0, 0.0), slow(0.0, 0.0)
    assert quick(0.01, 10.0) < slow(0.4, 10.0)
    assert np.isnan(quick(0.02, np.nan))
    assert quick(0.05, 10.0) < 10.0
    assert quick(3.0, 500.0) == 500.0
    with pytest.raises(ValueError, match="time must move on"):
        quick(3.0, 1.0)


def test_tracks_are_smoothed_joint_by_joint() -> None:
    track = standing()
    rng = np.random.default_rng(5)
    track.joints_xy[:] += rng.normal(0, 3, track.joints_xy.shape)
    for smooth in (butterworth_track(track), one_euro_track(track, min_cutoff_hz=1.0, speed_coefficient=0.0)):
        assert smooth.joints_xy.shape == track.joints_xy.shape
        assert smooth.joints_xy[30:].std(axis=0).mean() < 0.75 * track.joints_xy[30:].std(axis=0).mean()


@pytest.mark.parametrize("wrong", [{"min_cutoff_hz": 0.0}, {"speed_coefficient": -1.0}, {"forget_s": 0.0}])
def test_one_euro_refuses_impossible_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        OneEuroFilter(**wrong)


def test_runs() -> None:
    assert runs(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert runs(np.zeros(3, dtype=bool)) == []
