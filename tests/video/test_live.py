from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from lbkit.core.geometry import ImageSize
from lbkit.errors import VideoReadError
from lbkit.video.live import LiveVideo
from lbkit.video.source import LateImage, VideoInfo

SIZE = ImageSize(6, 8)


class FakeCamera:
    """Frames handed over one by one when a test says so; each is of one grey, its number."""

    broken_frames = 0
    repaired_times = 0
    info = VideoInfo("camera:7", SIZE, 30.0, None, 0.0, is_live=True)

    def __init__(self) -> None:
        self.is_closed = False
        self.converted: list[int] = []
        self._given = threading.Semaphore(0)
        self._ends = False
        self._fails = False
        self.read = 0

    def give(self, count: int) -> None:
        for _ in range(count):
            self._given.release()
        deadline = time.monotonic() + 5
        self.wanted = getattr(self, "wanted", 0) + count
        while self.read < self.wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)  # until the frame is in its place

    def end(self, *, fails: bool = False) -> None:
        self._ends, self._fails = True, fails
        self._given.release()

    def late_frames(self) -> Iterator[tuple[float, LateImage]]:
        while True:
            self._given.acquire()
            if self._fails:
                raise VideoReadError("the camera gives no more pictures", where="camera:7")
            if self._ends:
                return
            number = self.read
            self.read += 1
            yield 100.0 + number / 30, lambda number=number: self._convert(number)

    def _convert(self, number: int) -> np.ndarray:
        self.converted.append(number)
        return np.full((SIZE.height, SIZE.width, 3), number, np.uint8)

    def __enter__(self) -> FakeCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closed = True


def test_only_the_newest_frame_is_kept_and_the_others_are_counted() -> None:
    camera = FakeCamera()
    with LiveVideo(camera) as video:
        frames = video.frames()
        camera.give(1)
        first = next(frames)
        camera.give(9)  # while the model is at the first
        second = next(frames)
        camera.give(1)
        third = next(frames)
        camera.end()
        assert list(frames) == []
        assert [first.index, second.index, third.index] == [0, 9, 10]
        assert [int(frame.image[0, 0, 0]) for frame in (first, second, third)] == [0, 9, 10]
        assert [first.time_s, second.time_s] == pytest.approx([0.0, 9 / 30])
        assert video.dropped_frames == 8
    assert camera.converted == [0, 9, 10]  # what nobody looks at is not turned into a picture
    assert camera.is_closed


def test_a_stride_waits_for_later_frames() -> None:
    camera = FakeCamera()
    with LiveVideo(camera) as video:
        frames = video.frames(stride=3)
        indices = []
        for _ in range(7):
            camera.give(1)
            if camera.read in (1, 4, 7):
                indices.append(next(frames).index)
        camera.end()
    assert indices == [0, 3, 6]


def test_a_camera_that_fails_is_an_error_after_its_last_frame() -> None:
    camera = FakeCamera()
    with LiveVideo(camera) as video:
        frames = video.frames()
        camera.give(1)
        camera.end(fails=True)
        assert next(frames).index == 0
        with pytest.raises(VideoReadError, match="gives no more pictures"):
            next(frames)


def test_a_silent_camera_is_an_error() -> None:
    camera = FakeCamera()
    with LiveVideo(camera, silent_after_s=0.2) as video:
        with pytest.raises(VideoReadError, match="gave no frame for"):
            next(video.frames())
        camera.end()


def test_closing_ends_the_thread() -> None:
    camera = FakeCamera()
    video = LiveVideo(camera)
    camera.give(2)
    camera._given.release()
    video.close()
    assert camera.is_closed
    assert list(video.frames()) == []


def test_a_slow_reader_is_never_more_than_a_frame_behind() -> None:
    """A camera at 200 frames/s and a reader at 20: what is taken was made at most 25 ms before."""

    class Clocked(FakeCamera):
        def late_frames(self) -> Iterator[tuple[float, LateImage]]:
            for number in range(60):
                time.sleep(0.005)
                made = time.monotonic()
                yield made, lambda number=number: self._convert(number)

    with LiveVideo(Clocked()) as video:
        delays = []
        start: float | None = None
        for frame in video.frames():
            now = time.monotonic()
            start = now - frame.time_s if start is None else start
            delays.append(now - start - frame.time_s)
            time.sleep(0.05)
        assert video.dropped_frames > 30
    assert np.median(delays) < 0.025
