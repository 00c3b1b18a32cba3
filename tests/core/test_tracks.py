"""The joints of one person over time are checked where they are made."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lbkit.core.geometry import ImageSize
from lbkit.core.tracks import PoseTrack

SIZE = ImageSize(height=480, width=640)


def parts(frames: int = 4) -> dict[str, NDArray[np.float64]]:
    return {
        "time_s": np.arange(frames) / 30,
        "joints_xy": np.full((frames, 6, 2), 100.0),
        "scores": np.full((frames, 6), 0.9),
    }


def test_a_missing_joint_is_nan_with_score_zero() -> None:
    arrays = parts()
    arrays["joints_xy"][1, 2] = np.nan
    arrays["scores"][1, 2] = 0
    track = PoseTrack(**arrays, image_size=SIZE, track_id=3)
    assert len(track) == 4
    assert track.found.sum() == 4 * 6 - 1
    assert not track.found[1, 2]


def test_nobody_at_all_is_a_track_of_no_frames() -> None:
    assert len(PoseTrack(**parts(0), image_size=SIZE)) == 0


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("time_s", 2, 0.0, "strictly increasing"),
        ("time_s", 3, np.nan, "strictly increasing"),
        ("scores", (0, 0), 1.2, "0 to 1"),
        ("scores", (0, 0), np.nan, "0 to 1"),
        ("joints_xy", (0, 0, 0), np.inf, "finite"),
        ("joints_xy", (0, 0, 0), np.nan, "scores must be 0"),
    ],
)
def test_impossible_values_are_refused(name: str, index: object, value: float, message: str) -> None:
    arrays = parts()
    arrays[name][index] = value  # type: ignore[index]
    with pytest.raises(ValueError, match=message):
        PoseTrack(**arrays, image_size=SIZE)


@pytest.mark.parametrize("name", ["joints_xy", "scores"])
def test_every_array_has_the_same_frames(name: str) -> None:
    arrays = parts()
    arrays[name] = arrays[name][1:]
    with pytest.raises(ValueError, match=f"{name} should have shape"):
        PoseTrack(**arrays, image_size=SIZE)
