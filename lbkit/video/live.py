"""Live sources: a thread takes every frame as it comes and keeps the newest, so that nothing falls behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Protocol, Self

import cv2

from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.errors import VideoReadError
from lbkit.video.files import VideoFile
from lbkit.video.source import CAMERA_PREFIX, Frame, LateImage, VideoInfo

SILENT_AFTER_S = 15.0
"""A live source that gives no frame for so long has broken off."""

WAKE_S = 0.1
"""How often a wait looks up, so that Ctrl-C is heard."""


class Feed(AbstractContextManager["Feed"], Protocol):
    """Something that gives frames at its own pace, read by one thread."""

    @property
    def info(self) -> VideoInfo:
        """What is known of it."""
        ...

    @property
    def broken_frames(self) -> int:
        """Frames so far that could not be decoded."""
        ...

    @property
    def repaired_times(self) -> int:
        """Frames so far without an increasing time stamp of their own."""
        ...

    def late_frames(self) -> Iterator[tuple[float, LateImage]]:
        """Yield each frame's time in seconds, as it comes, and a function that makes its picture."""
        ...


class LiveVideo:
    """A live source of which only the newest frame is kept.

    A thread reads the feed. A frame that nobody has taken when the next one comes is dropped and counted, so the one
    that is taken is never older than the feed's own delay and one frame.

    Args:
        feed: The frames; closed by the thread that reads it.
        silent_after_s: How long the feed may give nothing before it counts as broken off.
    """

    def __init__(self, feed: Feed, *, silent_after_s: float = SILENT_AFTER_S) -> None:
        self.dropped_frames = 0
        self._feed = feed
        self._silent_after_s = silent_after_s
        self._changed = threading.Condition()
        self._newest: tuple[int, float, LateImage] | None = None
        self._error: BaseException | None = None
        self._has_ended = self._should_stop = False
        self._thread = threading.Thread(target=self._read, name="lbkit-live", daemon=True)
        self._thread.start()

    @property
    def info(self) -> VideoInfo:
        """What is known of it."""
        return self._feed.info

    @property
    def broken_frames(self) -> int:
        """Frames so far that could not be decoded."""
        return self._feed.broken_frames

    @property
    def repaired_times(self) -> int:
        """Frames so far without an increasing time stamp of their own."""
        return self._feed.repaired_times

    def frames(self, *, stride: int = 1) -> Iterator[Frame]:
        """Yield the newest frame each time; with a stride, at least so many frames apart (see `VideoSource.frames`)."""
        next_index, first_s = 0, None
        while (taken := self._take(next_index)) is not None:
            index, time_s, image = taken
            next_index = index + stride
            first_s = time_s if first_s is None else first_s
            yield Frame(index, time_s - first_s, image())

    def close(self) -> None:
        """Stop reading and let go of the source; waits a moment for a read under way."""
        with self._changed:
            self._should_stop = True
            self._newest = None
            self._changed.notify_all()
        self._thread.join(timeout=2.0)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _read(self) -> None:
        """Take every frame of the feed; runs in the thread."""
        try:
            with self._feed:
                for index, (time_s, image) in enumerate(self._feed.late_frames()):
                    with self._changed:
                        if self._should_stop:
                            return
                        self.dropped_frames += self._newest is not None
                        self._newest = (index, time_s, image)
                        self._changed.notify_all()
        except BaseException as error:  # it is raised where the frames are taken
            self._error = error
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    def _take(self, least_index: int) -> tuple[int, float, LateImage] | None:
        """Return the newest frame that is not before an index, waiting for it; None at the end."""
        patience = time.monotonic() + self._silent_after_s
        with self._changed:
            while True:
                taken, self._newest = self._newest, None
                if taken is not None and taken[0] >= least_index:
                    return taken
                if taken is not None:
                    patience = time.monotonic() + self._silent_after_s
                elif self._has_ended or self._should_stop:
                    if self._error is not None:
                        raise self._error
                    return None
                elif time.monotonic() > patience:
                    problem = f"gave no frame for {self._silent_after_s:.0f} s"
                    raise VideoReadError(problem, where=self.info.name, remedy="check the camera and its connection")
                self._changed.wait(WAKE_S)


class CameraFeed:
    """A camera read through OpenCV.

    Args:
        number: Which one, from 0.

    Raises:
        VideoReadError: There is no such camera, it is in use, or it gives no picture.
    """

    broken_frames = 0
    repaired_times = 0

    def __init__(self, number: int) -> None:
        name = f"{CAMERA_PREFIX}{number}"
        with ExitStack() as stack:
            self._capture = cv2.VideoCapture(number)
            stack.callback(self._capture.release)
            is_read, image = self._capture.read() if self._capture.isOpened() else (False, None)
            if not is_read or image is None:
                raise VideoReadError(
                    "there is no such camera, or another program holds it",
                    where=name,
                    remedy="close other programs, check that you may use it (group video), or try camera:1",
                )
            stack.pop_all()
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.info = VideoInfo(name, ImageSize.of(image), rate if rate > 0 else None, None, 0.0, is_live=True)

    def late_frames(self) -> Iterator[tuple[float, LateImage]]:
        """Yield frames as they come, until the camera gives no more."""
        while True:
            is_read, image = self._capture.read()
            if not is_read or image is None:
                raise VideoReadError(
                    "the camera gives no more pictures", where=self.info.name, remedy="check its connection"
                )
            yield time.monotonic(), _LateRgb(image)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go of the camera."""
        self._capture.release()


class _LateRgb:
    """OpenCV's picture, turned to RGB when it is called."""

    def __init__(self, bgr: Any) -> None:
        self._bgr = bgr

    def __call__(self) -> ImageArray:
        image: ImageArray = cv2.cvtColor(self._bgr, cv2.COLOR_BGR2RGB)
        return image


def open_camera(number: int) -> LiveVideo:
    """Open a camera by its number.

    Raises:
        VideoReadError: There is no such camera, or it gives no picture.
    """
    return LiveVideo(CameraFeed(number))


def open_stream(address: str) -> LiveVideo:
    """Open a network stream that goes on whether it is read or not.

    Raises:
        VideoReadError: It cannot be reached or holds no picture.
        MissingDependencyError: PyAV is not installed.
    """
    return LiveVideo(VideoFile(address, is_live=True))
