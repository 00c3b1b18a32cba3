"""Overlays and reports show what was found, on frames of any size."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from motion_sessions import SIZE, faultless, standing

from lbkit.errors import MissingDependencyError, OutputError
from lbkit.motion.chart import write_chart
from lbkit.motion.overlay import draw_squat_frame
from lbkit.motion.squat import analyze_squats
from lbkit.motion.synthetic import PlannedSquat

TRACK = faultless(PlannedSquat(), PlannedSquat(), azimuth_deg=90)
ANALYSIS = analyze_squats(TRACK)
BLANK = np.full((SIZE.height, SIZE.width, 3), 120, np.uint8)


def test_the_overlay_draws_limbs_angles_and_count_and_leaves_the_frame_alone() -> None:
    image = BLANK.copy()
    deepest = ANALYSIS.repetitions[0].deepest_frame
    drawn = draw_squat_frame(image, ANALYSIS, deepest)
    assert (image == 120).all()
    assert drawn.shape == image.shape
    x, y = np.rint(TRACK.joints_xy[deepest, 2]).astype(int)
    assert (drawn[y - 2 : y + 3, x - 2 : x + 3] != 120).any()
    assert (drawn[:90, :180] != 120).mean() > 0.9
    upright = draw_squat_frame(image, ANALYSIS, 0)
    assert (drawn[:96, :190] != upright[:96, :190]).any()  # another count, another phase


def test_a_frame_without_the_person_is_drawn_without_a_skeleton() -> None:
    joints, scores = TRACK.joints_xy.copy(), TRACK.scores.copy()
    joints[:10], scores[:10] = np.nan, 0.0
    gone = type(TRACK)(time_s=TRACK.time_s, joints_xy=joints, scores=scores, image_size=SIZE)
    drawn = draw_squat_frame(BLANK, analyze_squats(gone), 3)
    assert (drawn[100:] == 120).all()


def test_the_report_is_a_picture(tmp_path: Path) -> None:
    bottoms = {item.number: draw_squat_frame(BLANK, ANALYSIS, item.deepest_frame) for item in ANALYSIS.repetitions}
    write_chart(tmp_path / "report.png", ANALYSIS, bottoms=bottoms, title="two squats")
    with_bottoms = cv2.imread(str(tmp_path / "report.png"))
    assert with_bottoms.shape[1] > 1000
    write_chart(tmp_path / "curves.png", analyze_squats(standing()), bottoms={}, title="nobody squats")
    without = cv2.imread(str(tmp_path / "curves.png"))
    assert without.shape[0] < with_bottoms.shape[0]
    with pytest.raises(OutputError, match="exists already"):
        write_chart(tmp_path / "curves.png", ANALYSIS, bottoms={}, title="")
    with pytest.raises(OutputError, match=r"end it in \.png"):
        write_chart(tmp_path / "report.gif", ANALYSIS, bottoms={}, title="")


def test_a_report_without_matplotlib_names_the_line_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"lbkit\[motion\]"):
        write_chart(tmp_path / "report.png", ANALYSIS, bottoms={}, title="")
