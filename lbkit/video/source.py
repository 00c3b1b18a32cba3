"""Videos to read: files, network streams and cameras, frame by frame with times in seconds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.errors import VideoReadError

CAMERA_PREFIX = "camera:"
LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "rtp", "rtmp", "rtmps", "udp", "srt"})
"""Streams that go on whether they are read or not."""

FETCHED_SCHEMES = frozenset({"http", "https"})
"""Addresses of files, or of streams where the container has no duration."""

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".flv", ".h264", ".hevc", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m",
})
# fmt: on

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a video.

    Attributes:
        index: Its number, from 0, among all frames of the video that could be decoded, dropped ones included.
        time_s: Its time stamp in seconds; of a live source, the time since its first frame.
        image: (H, W, 3) uint8 RGB, turned as a player shows it.
    """

    index: int
    time_s: float
    image: ImageArray


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of a video before it is read.

    Attributes:
        name: The source as it was given.
        size: Size of every frame, as it is shown.
        frames_per_s: Mean frame rate; None if the source does not say.
        frame_count: About how many frames there are; None if unknown, or without end.
        start_s: Time of the first frame in seconds.
        is_live: Whether frames come whether they are read or not, so that old ones are dropped.
    """

    name: str
    size: ImageSize
    frames_per_s: float | None
    frame_count: int | None
    start_s: float
    is_live: bool


class VideoSource(Protocol):
    """An open video; use it as a context."""

    @property
    def broken_frames(self) -> int:
        """Frames or packets so far that could not be decoded."""
        ...

    @property
    def dropped_frames(self) -> int:
        """Frames so far that were passed over because a newer one was there (live sources only)."""
        ...

    @property
    def repaired_times(self) -> int:
        """Frames so far without an increasing time stamp of their own."""
        ...

    @property
    def info(self) -> VideoInfo:
        """What is known of it."""
        ...

    def frames(self, *, stride: int = 1) -> Iterator[Frame]:
        """Yield the frames, once.

        Args:
            stride: Every how many-th frame to yield, from the first.

        Raises:
            VideoReadError: The video cannot be read on, or its time stamps are unusable.
        """
        ...

    def close(self) -> None:
        """Let go of the file, connection or camera."""
        ...

    def __enter__(self) -> Self:
        """Return itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        ...


def is_video_source(source: str | Path) -> bool:
    """Tell whether a name is a camera, a stream's address, or a file that is a video by its suffix."""
    text = str(source)
    if text.startswith(CAMERA_PREFIX) or scheme_of(text):
        return True
    return PurePosixPath(text.replace("\\", "/")).suffix.lower() in VIDEO_SUFFIXES and not Path(text).is_dir()


def scheme_of(source: str) -> str:
    """Return the scheme of an address in lower case, and an empty text for a path."""
    return source.split("://", 1)[0].lower() if _SCHEME.match(source) else ""


def display_name(source: str | Path) -> str:
    """Return a source's name without the user and password that an address may carry."""
    text = str(source)
    if not scheme_of(text) or "@" not in text:
        return text
    parts = urlsplit(text)
    return parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1]).geturl()


def open_video(source: str | Path) -> VideoSource:
    """Open a video file, a network stream or a camera.

    Args:
        source: A file of any kind that FFmpeg reads, `camera:0`, or an address such as `rtsp://host/path`.

    Raises:
        VideoReadError: It does not exist, is no video, holds no picture, or cannot be reached.
        MissingDependencyError: PyAV is not installed.
    """
    from lbkit.video.files import VideoFile
    from lbkit.video.live import open_camera, open_stream

    text = str(source)
    if text.startswith(CAMERA_PREFIX):
        return open_camera(_camera_number(text))
    scheme = scheme_of(text)
    if scheme in LIVE_SCHEMES:
        return open_stream(text)
    if scheme in FETCHED_SCHEMES:
        video = VideoFile(text)
        if video.info.frame_count is not None:
            return video
        video.close()
        return open_stream(text)
    if scheme and scheme != "file":
        known = ", ".join(sorted(LIVE_SCHEMES | FETCHED_SCHEMES))
        raise VideoReadError(f"no kind of stream {scheme!r}", where=display_name(text), remedy=f"there are {known}")
    return VideoFile(text.removeprefix("file://"))


LateImage = Callable[[], ImageArray]
"""Gives a frame's picture when it is asked for, so that frames that nobody looks at are not converted."""


def _camera_number(source: str) -> int:
    digits = source.removeprefix(CAMERA_PREFIX)
    if not digits.isdecimal() or len(digits) > 4:
        raise VideoReadError(
            f"a camera is given by its number, got {digits!r}", where=source, remedy="the first is camera:0"
        )
    return int(digits)
