"""Every squat is counted and nothing else is, whoever films it from wherever, as poorly as networks see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from motion_sessions import SIZE, faultless, random_session, random_stroll, standing

from lbkit.core.tracks import PoseTrack
from lbkit.errors import InputError
from lbkit.motion.limits import default_limits
from lbkit.motion.measures import MEASURES
from lbkit.motion.phases import PHASES
from lbkit.motion.squat import analyze_squats
from lbkit.motion.synthetic import (
    PlannedSquat,
    SquatSession,
    camera_at,
    corrupted,
    project_track,
    session_times,
)

SESSIONS = 200
BATCHES = 8


def part(track: PoseTrack, start_s: float, end_s: float) -> PoseTrack:
    kept = (track.time_s >= start_s) & (track.time_s <= end_s)
    return replace(track, time_s=track.time_s[kept], joints_xy=track.joints_xy[kept], scores=track.scores[kept])


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_sessions_are_counted_without_a_fault(batch: int) -> None:
    """200 sessions: 5 px noise, a tenth of the joints missing, sides swapped; every view, 5 to 60 frames/s."""
    for seed in range(batch * SESSIONS // BATCHES, (batch + 1) * SESSIONS // BATCHES):
        track, session = random_session(np.random.default_rng(seed))
        found = analyze_squats(track).repetitions
        assert len(found) == len(session.squats), f"session {seed}"
        for item, bottom_s, squat in zip(found, session.bottoms_s, session.squats, strict=True):
            slack = squat.bottom_s / 2 + 0.35 * (squat.descent_s + squat.ascent_s)
            assert abs(item.deepest_s - bottom_s) < slack, f"session {seed}, repetition {item.number}"


@pytest.mark.parametrize("seed", range(10))
def test_nobody_squats_in_twenty_minutes_of_walking_and_standing(seed: int) -> None:
    track = random_stroll(np.random.default_rng(seed), minutes=2, fps=(15, 30)[seed % 2])
    assert analyze_squats(track).repetitions == ()


@pytest.mark.parametrize("azimuth_deg", [0, 50, 90, -90, 140, 180])
def test_depth_and_tempo_of_a_faultless_track(azimuth_deg: float) -> None:
    squats = (
        PlannedSquat(depth_deg=70, descent_s=1.5, bottom_s=0.5, ascent_s=0.8),
        PlannedSquat(depth_deg=115, descent_s=0.8, bottom_s=0.3, ascent_s=1.6),
    )
    found = analyze_squats(faultless(*squats, azimuth_deg=azimuth_deg)).repetitions
    assert [item.number for item in found] == [1, 2]
    for item, squat in zip(found, squats, strict=True):
        # A cosine passes from 15 % to 92 % of its way in 0.56 of its time.
        assert item.measures["descent_s"] == pytest.approx(0.56 * squat.descent_s, abs=0.2)
        assert item.measures["ascent_s"] == pytest.approx(0.56 * squat.ascent_s, abs=0.2)
        assert item.measures["estimated_flexion_deg"] == pytest.approx(squat.depth_deg, abs=16)
        if abs(azimuth_deg) == 90:
            assert item.measures["max_knee_flexion_deg"] == pytest.approx(squat.depth_deg, abs=4)
            assert item.measures["depth_deg"] == item.measures["max_knee_flexion_deg"]
    assert found[0].hip_below_knee is False


def test_hips_below_the_knees_are_seen() -> None:
    deep = analyze_squats(faultless(PlannedSquat(depth_deg=138), azimuth_deg=90)).repetitions[0]
    assert deep.hip_below_knee is True
    assert deep.measures["hip_above_knee_legs"] < 0


def test_inward_knees_are_remarked_on_with_value_limit_and_source() -> None:
    squat = PlannedSquat(depth_deg=95, valgus_deg=30, bottom_s=0.5)
    item = analyze_squats(faultless(squat, azimuth_deg=0)).repetitions[0]
    remark = next(remark for remark in item.remarks if remark.code == "knee_valgus")
    rule = next(rule for rule in default_limits().feedback if rule.code == "knee_valgus")
    assert remark.value == item.measures["max_valgus_deg"] > rule.limit == remark.limit
    assert "Willson" in remark.source
    assert f"{remark.value:.0f} degrees" in remark.sentence
    straight = analyze_squats(faultless(replace(squat, valgus_deg=0.0), azimuth_deg=0)).repetitions[0]
    assert "knee_valgus" not in [remark.code for remark in straight.remarks]


def test_shallow_and_fast_squats_are_remarked_on() -> None:
    squat = PlannedSquat(depth_deg=60, descent_s=0.4, ascent_s=0.5)
    item = analyze_squats(faultless(squat, squat, azimuth_deg=90)).repetitions[0]
    assert {remark.code for remark in item.remarks} == {"depth_shallow", "descent_fast"}


def test_uneven_knees_are_remarked_on() -> None:
    squat = PlannedSquat(depth_deg=90, asymmetry_deg=24, bottom_s=0.4)
    item = analyze_squats(faultless(squat, azimuth_deg=20)).repetitions[0]
    assert item.measures["estimated_flexion_difference_deg"] == pytest.approx(24, abs=5)
    assert "asymmetry" in [remark.code for remark in item.remarks]


def test_from_the_side_evenness_would_be_a_guess_at_the_hidden_leg() -> None:
    """A network that sets the hidden knee elsewhere makes nobody uneven."""
    track = faultless(PlannedSquat(depth_deg=90, bottom_s=0.5), azimuth_deg=90)
    joints = track.joints_xy.copy()
    joints[:, 3] += [25.0, 20.0]
    analysis = analyze_squats(replace(track, joints_xy=joints))
    (item,) = analysis.repetitions
    knees = [analysis.angles.column(f"{side}_knee_flexion_deg")[item.deepest_frame] for side in ("left", "right")]
    assert abs(knees[0] - knees[1]) > 15
    for name in ("knee_flexion_difference_deg", "estimated_flexion_difference_deg"):
        assert item.measures[name] is None
        assert item.reasons[name] == "view"
    assert "asymmetry" not in [remark.code for remark in item.remarks]


@pytest.mark.parametrize("azimuth_deg", [0, 35, -35])
def test_an_even_squat_has_no_remark_on_the_pelvis_however_the_person_is_turned(azimuth_deg: float) -> None:
    """Of hips turned from a near camera that stands low, the nearer sinks more in the picture."""
    squat = PlannedSquat(depth_deg=110, bottom_s=0.4)
    time_s = session_times((squat,), fps=30)
    camera = camera_at(azimuth_deg, size=SIZE, distance_m=1.8, height_m=0.5)
    analysis = analyze_squats(project_track(time_s, SquatSession((squat,), time_s).joints_xyz(), camera=camera))
    (item,) = analysis.repetitions
    assert analysis.view.name == "frontal"
    assert not {"pelvis_drop", "asymmetry"} & {remark.code for remark in item.remarks}
    assert (item.measures["pelvic_obliquity_change_deg"] is not None) == (abs(azimuth_deg) < 20)


@pytest.mark.parametrize("azimuth_deg", [48, 55, -55])
def test_the_knees_bend_is_not_remarked_on_from_between(azimuth_deg: float) -> None:
    """A faultless even squat to 90 degrees looks shallow and uneven there."""
    squat = PlannedSquat(depth_deg=90, bottom_s=0.5, descent_s=1.2)
    analysis = analyze_squats(faultless(squat, azimuth_deg=azimuth_deg, distance_m=2.5))
    (item,) = analysis.repetitions
    assert item.measures["max_knee_flexion_deg"] < 80
    assert abs(item.measures["knee_flexion_difference_deg"]) > 15
    assert item.remarks == ()
    assert "not remarked on" in analysis.warnings[0].sentence


@pytest.mark.parametrize(("azimuth_deg", "name"), [(0, "frontal"), (55, "oblique"), (90, "side")])
def test_what_a_view_cannot_show_has_a_reason(azimuth_deg: float, name: str) -> None:
    analysis = analyze_squats(faultless(PlannedSquat(), azimuth_deg=azimuth_deg))
    item = analysis.repetitions[0]
    assert analysis.view.name == name
    assert analysis.warnings[0].code == f"view_{name}"
    assert set(item.measures) == set(MEASURES)
    assert {measure for measure, value in item.measures.items() if value is None} == set(item.reasons)
    assert all(item.reasons.values())
    assert (item.measures["max_valgus_deg"] is None) == (name != "frontal")
    assert (item.measures["max_knee_flexion_deg"] is None) == (name == "frontal")


@pytest.mark.parametrize("azimuth_deg", [0, 90])
def test_a_squat_that_the_recording_cuts_off_counts_if_its_bottom_is_seen(azimuth_deg: float) -> None:
    squat = PlannedSquat(depth_deg=100, descent_s=1.0, bottom_s=0.2, ascent_s=1.0, rest_s=0.8)
    track = faultless(*[squat] * 4, azimuth_deg=azimuth_deg)  # one begins every 3 s from 1 s on
    found = analyze_squats(part(track, 1.6, 11.6)).repetitions
    assert [item.cut for item in found] == ["start", "no", "no", "end"]
    assert found[0].reasons["descent_s"] == "cut_off"
    assert found[-1].reasons["ascent_s"] == "cut_off"
    assert found[1].measures["descent_s"] is not None
    without = analyze_squats(part(track, 2.7, 10.4))
    assert len(without.repetitions) == 2


def test_frames_have_phases_in_their_order() -> None:
    analysis = analyze_squats(faultless(PlannedSquat(bottom_s=0.5), PlannedSquat(), azimuth_deg=90))
    names = [PHASES[phase] for phase in analysis.phases]
    course = [name for index, name in enumerate(names) if index == 0 or names[index - 1] != name]
    assert course == ["standing", *["descent", "bottom", "ascent", "standing"] * 2]


def test_a_bounce_at_the_bottom_is_no_second_squat() -> None:
    low = PlannedSquat(depth_deg=110, rest_s=1.0)
    track = faultless(low, low, azimuth_deg=90, fps=60)
    joints = track.joints_xy.copy()
    bottom = int(np.argmax(joints[:200, 0, 1]))
    # Up and down again by a fifth of the way within half a second.
    lift = np.sin(np.clip((np.arange(len(joints)) - bottom) / 30, 0, 1) * np.pi)[:, None]
    height = joints[0, :, 1] - joints[bottom, :, 1]
    joints[:, :, 1] += 0.2 * lift * height
    assert len(analyze_squats(replace(track, joints_xy=joints)).repetitions) == 2


def test_one_leg_bent_is_no_squat() -> None:
    track = standing(seconds=8)
    joints = track.joints_xy.copy()
    lift = np.exp(-(((track.time_s - 4) / 0.5) ** 2))[:, None]
    joints[:, 4] += lift * [140.0, -160.0]  # the left foot goes up behind
    assert analyze_squats(replace(track, joints_xy=joints)).repetitions == ()


def test_a_person_unseen_for_a_while_is_counted_before_and_after() -> None:
    track = faultless(*[PlannedSquat()] * 4, azimuth_deg=30)
    joints, scores = track.joints_xy.copy(), track.scores.copy()
    bottoms = np.array([2.3 + 3.2 * index for index in range(4)])
    gone = (track.time_s > bottoms[1] + 1.2) & (track.time_s < bottoms[2] + 1.5)
    joints[gone], scores[gone] = np.nan, 0.0
    analysis = analyze_squats(replace(track, joints_xy=joints, scores=scores))
    np.testing.assert_allclose([item.deepest_s for item in analysis.repetitions], bottoms[[0, 1, 3]], atol=0.3)
    assert {PHASES[phase] for phase in analysis.phases[gone]} == {"unknown"}


def test_swapped_sides_are_told_of() -> None:
    track = corrupted(faultless(*[PlannedSquat()] * 3, azimuth_deg=0), np.random.default_rng(0), swaps_per_s=1.0)
    assert "sides_swapped" in [warning.code for warning in analyze_squats(track).warnings]


def test_few_frames_a_second_are_told_of() -> None:
    track = faultless(PlannedSquat(), azimuth_deg=90, fps=5)
    assert "few_frames" in [warning.code for warning in analyze_squats(track).warnings]


@pytest.mark.parametrize("frames", [0, 1, 2, 40])
def test_nobody_to_be_seen_is_an_error_that_says_so(frames: int) -> None:
    nobody = PoseTrack(
        time_s=np.arange(frames) / 30,
        joints_xy=np.full((frames, 6, 2), np.nan),
        scores=np.zeros((frames, 6)),
        image_size=SIZE,
    )
    with pytest.raises(InputError, match="nobody's leg was seen"):
        analyze_squats(nobody)


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_a_few_frames_are_no_squat_and_no_error(frames: int) -> None:
    track = part(faultless(PlannedSquat(), azimuth_deg=90), 0.0, (frames - 0.5) / 30)
    assert len(track) == frames
    assert analyze_squats(track).repetitions == ()
