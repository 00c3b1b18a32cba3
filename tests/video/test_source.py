from __future__ import annotations

from pathlib import Path

import pytest

from lbkit.errors import VideoReadError
from lbkit.video.source import display_name, is_video_source, open_video

VIDEOS = ["clip.mp4", "CLIP.MOV", "a/b.mkv", "camera:0", "rtsp://host/path", "http://host/stream", "late.webm"]
PICTURES = ["photo.jpg", "photos/", "photos/*.jpg", "-", "animation.gif", "c:/photos", "mp4"]


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_is_known_by_its_name(name: str) -> None:
    assert is_video_source(name)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_stay_pictures(name: str) -> None:
    assert not is_video_source(name)


def test_a_folder_that_is_named_like_a_video_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "frames.mp4").mkdir()
    assert not is_video_source(tmp_path / "frames.mp4")


def test_a_password_is_not_shown() -> None:
    assert display_name("rtsp://me:secret@cam:554/live?x=1") == "rtsp://cam:554/live?x=1"
    assert display_name("a@b.mp4") == "a@b.mp4"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("camera:front", "a camera is given by its number, got 'front'"),
        ("camera:9999", "no such camera"),
        ("gopher://a/b", "no kind of stream 'gopher'"),
        ("rtsp://127.0.0.1:9/x", "cannot be reached"),
        ("http://127.0.0.1:9/x.mp4", "cannot be reached"),
    ],
)
def test_what_cannot_be_opened_is_an_error_that_says_why(source: str, reason: str) -> None:
    with pytest.raises(VideoReadError, match=reason):
        open_video(source)
