"""Exchanged sides are found and exchanged back, leaps are left out, and neither is seen where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from motion_sessions import SIZE, faultless

from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.core.tracks import PoseTrack
from lbkit.motion.mending import leg_length_px, mend_track, smoothed, unswapped
from lbkit.motion.synthetic import PlannedSquat, corrupted

TRACK = faultless(PlannedSquat(), PlannedSquat(depth_deg=110), azimuth_deg=0)


def with_joints(joints_xy: np.ndarray) -> PoseTrack:
    return replace(TRACK, joints_xy=joints_xy, scores=np.where(np.isnan(joints_xy[..., 0]), 0.0, TRACK.scores))


@pytest.mark.parametrize("frames", [slice(40, 41), slice(40, 46), slice(0, 3), slice(len(TRACK) - 2, len(TRACK))])
def test_a_swap_of_some_frames_is_undone(frames: slice) -> None:
    joints = TRACK.joints_xy.copy()
    joints[frames] = joints[frames][:, LOWER_BODY_6.flip_order]
    mended = mend_track(with_joints(joints))
    np.testing.assert_allclose(mended.track.joints_xy, TRACK.joints_xy)
    assert mended.swapped[frames].all()
    assert mended.swapped.sum() == 3 * len(range(*frames.indices(len(TRACK))))


def test_a_swap_of_the_knees_alone_is_undone() -> None:
    joints = TRACK.joints_xy.copy()
    joints[50:54, [2, 3]] = joints[50:54, [3, 2]]
    mended = mend_track(with_joints(joints))
    np.testing.assert_allclose(mended.track.joints_xy, TRACK.joints_xy)
    assert mended.swapped.sum(axis=0).tolist() == [0, 4, 0]


def test_swaps_are_undone_through_noise_and_drop_outs() -> None:
    rng = np.random.default_rng(0)
    long = faultless(*[PlannedSquat()] * 8, azimuth_deg=20)
    poor = corrupted(long, rng, noise_px=5, dropout=0.1, swaps_per_s=1.0)
    joints, _ = unswapped(poor.time_s, poor.joints_xy, leg_px=leg_length_px(poor.joints_xy))
    error = np.linalg.norm(joints - long.joints_xy, axis=-1)
    assert np.nanmean(np.linalg.norm(poor.joints_xy - long.joints_xy, axis=-1) > 30) > 0.05
    assert np.nanmean(error > 30) < 0.003


def test_sides_that_stay_exchanged_are_taken_as_they_are() -> None:
    joints = TRACK.joints_xy.copy()
    joints[60:] = joints[60:][:, LOWER_BODY_6.flip_order]
    assert len(TRACK) - 60 > 4 * 30
    mended = mend_track(with_joints(joints))
    assert not mended.swapped[60:].any()


def test_people_who_cross_their_feet_are_not_mended() -> None:
    joints = TRACK.joints_xy.copy()
    share = np.clip((TRACK.time_s - 1.0) / 0.4, 0, 1)[:, None]
    joints[:, 4], joints[:, 5] = (1 - share) * joints[:, 4] + share * joints[:, 5], joints[:, 5].copy()
    assert not mend_track(with_joints(joints)).swapped.any()


def test_a_leap_is_left_out_and_filled_in() -> None:
    joints = TRACK.joints_xy.copy()
    joints[70:72, 3] += [200, -150]
    mended = mend_track(with_joints(joints))
    assert mended.leapt[70:72, 3].all()
    assert mended.leapt.sum() == 2
    assert mended.interpolated[70:72, 3].all()
    np.testing.assert_allclose(mended.track.joints_xy, TRACK.joints_xy, atol=2.0)


def test_low_scores_are_not_trusted_and_a_long_absence_stays_empty() -> None:
    scores = TRACK.scores.copy()
    scores[30:60, 1] = 0.1
    mended = mend_track(replace(TRACK, scores=scores))
    assert mended.unsure.sum() == 30
    assert np.isnan(mended.track.joints_xy[30:60, 1]).all()
    assert (mended.track.scores[30:60, 1] == 0).all()
    loose = mend_track(replace(TRACK, scores=scores), min_score=0.05)
    assert not loose.unsure.any()


def test_smoothing_keeps_what_is_missing_missing() -> None:
    joints = TRACK.joints_xy.copy()
    joints[30:60, 1] = np.nan
    smooth = smoothed(mend_track(with_joints(joints))).track.joints_xy
    assert np.isnan(smooth[30:60, 1]).all()
    np.testing.assert_allclose(smooth[5:25], TRACK.joints_xy[5:25], atol=1.0)


def test_nobody_at_all_is_no_error() -> None:
    nobody = PoseTrack(
        time_s=np.arange(5) / 30, joints_xy=np.full((5, 6, 2), np.nan), scores=np.zeros((5, 6)), image_size=SIZE
    )
    mended = mend_track(nobody)
    assert np.isnan(mended.leg_px)
    assert not mended.swapped.any()
