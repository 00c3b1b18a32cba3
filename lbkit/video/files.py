"""Video files read through PyAV: decoded in order, turned as shown, broken packets skipped and counted."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2

from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.core.images import MIN_SIDE_PX
from lbkit.errors import MissingDependencyError, VideoReadError
from lbkit.video.clock import FrameClock
from lbkit.video.orientation import Orientation
from lbkit.video.source import Frame, LateImage, VideoInfo, display_name, scheme_of

logger = logging.getLogger(__name__)

OPEN_TIMEOUT_S, READ_TIMEOUT_S = 15.0, 15.0
"""How long an address may keep silent."""

MAX_BROKEN_READS = 100
"""A file is read on behind so many broken places."""

SQUARE_WITHIN = 0.01
"""Pixels whose sides differ by less count as square."""

MOST_PIXEL_ASPECT = 4
"""Pixels said to be further from square than this, either way, are taken as square: in use are 1:2 to 24:11, and a
damaged header may ask for pictures of any width."""

_LIVE_OPTIONS = {"rtsp_transport": "tcp", "fflags": "nobuffer", "flags": "low_delay"}
_COPY_AGAIN = "copy or download it again, or convert it to MP4"


def import_av() -> Any:
    """Return PyAV.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise MissingDependencyError(
            "video needs PyAV, which is not installed", remedy='run `pip install "lbkit[video]"`'
        ) from error


class VideoFile:
    """A video that PyAV decodes; none of its frames is dropped.

    Args:
        source: A path or an address.
        is_live: Whether it is a stream that should be read without delay.

    Raises:
        VideoReadError: There is no such file, it is no video, empty or damaged, or holds no picture.
        MissingDependencyError: PyAV is not installed.
    """

    dropped_frames = 0

    def __init__(self, source: str | Path, *, is_live: bool = False) -> None:
        self.name = display_name(source)
        self.broken_frames = 0
        self._is_live = is_live
        self._av = import_av()
        self._container = self._open(str(source))
        try:
            self._stream = self._video_stream()
            self._rate = _positive(self._stream.average_rate) or _positive(self._stream.guessed_rate)
            self._clock = FrameClock(None if self._rate is None else float(1 / self._rate), where=self.name)
            self._decoded = self._decode()
            self._first = self._first_frame()
            self._orientation = Orientation.of_frame(self._first)
            self._shape = _shown_shape(self._first, self._stream.sample_aspect_ratio)
            self.info = self._info()
        except BaseException:
            self._container.close()
            raise

    @property
    def repaired_times(self) -> int:
        """Frames so far without an increasing time stamp of their own."""
        return self._clock.repaired

    def frames(self, *, stride: int = 1) -> Iterator[Frame]:
        """Yield the frames, once (see `VideoSource.frames`)."""
        for index, (time_s, image) in enumerate(self.late_frames()):
            if index % stride == 0:
                yield Frame(index, time_s, image())

    def late_frames(self) -> Iterator[tuple[float, LateImage]]:
        """Yield each frame's time in seconds and a function that makes its picture."""
        for frame in self._all_frames():
            stamp_s = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
            yield self._clock.stamp(stamp_s), _Late(frame, self._shape, self._orientation)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def _open(self, source: str) -> Any:
        if not scheme_of(source):
            _check_file(Path(source))
        options = _LIVE_OPTIONS if self._is_live and scheme_of(source).startswith("rtsp") else {}
        timeout = (OPEN_TIMEOUT_S, READ_TIMEOUT_S) if scheme_of(source) else None
        try:
            return self._av.open(source, options=options, timeout=timeout, metadata_errors="replace")
        except (self._av.FFmpegError, ValueError, OSError) as error:
            raise self._open_error(source, error) from error

    def _open_error(self, source: str, error: Exception) -> VideoReadError:
        words = getattr(error, "strerror", None) or str(error)
        if scheme_of(source):
            return VideoReadError(f"cannot be reached ({words})", where=self.name, remedy="check address and network")
        return VideoReadError(
            f"is no video that can be read, or is cut short ({words})", where=self.name, remedy=_COPY_AGAIN
        )

    def _video_stream(self) -> Any:
        """Return the first stream of moving pictures; a song's cover is a video stream too, but not one of these."""
        streams = self._container.streams
        cover = self._av.stream.Disposition.attached_pic
        moving = [stream for stream in streams.video if not stream.disposition & cover]
        if moving:
            moving[0].thread_type = "AUTO"
            return moving[0]
        holds = "only sound" if streams.audio else "no pictures"
        raise VideoReadError(f"holds {holds}, no video", where=self.name, remedy="give a file that has a picture")

    def _decode(self) -> Iterator[Any]:
        """Yield PyAV's frames; what cannot be read or decoded is counted and skipped."""
        broken_reads = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, self._av.error.EOFError):
                return
            except self._av.FFmpegError as error:
                if self._is_live:
                    words = error.strerror or str(error)
                    raise VideoReadError(f"the stream broke off ({words})", where=self.name) from error
                self.broken_frames += 1
                broken_reads += 1
                if broken_reads == MAX_BROKEN_READS:
                    return
                packets = self._container.demux(self._stream)
                continue
            yield from self._decode_packet(packet)

    def _decode_packet(self, packet: Any) -> Iterator[Any]:
        try:
            frames = packet.decode()
        except self._av.error.EOFError:
            return
        except self._av.FFmpegError:
            self.broken_frames += 1
            return
        for frame in frames:
            if frame.is_corrupt:
                self.broken_frames += 1
            else:
                yield frame

    def _first_frame(self) -> Any:
        frame = next(self._decoded, None)
        if frame is None:
            broken = f" ({self.broken_frames} broken packets)" if self.broken_frames else " (0 frames)"
            raise VideoReadError(f"holds no picture that can be decoded{broken}", where=self.name, remedy=_COPY_AGAIN)
        if min(frame.width, frame.height) < MIN_SIDE_PX:
            raise VideoReadError(f"is {frame.width}x{frame.height} pixels, too small to show a person", where=self.name)
        return frame

    def _all_frames(self) -> Iterator[Any]:
        first, self._first = self._first, None
        if first is None:
            raise VideoReadError("was read already", where=self.name, remedy="open it again")
        yield first
        del first  # a frame holds a buffer of the decoder's
        yield from self._decoded

    def _info(self) -> VideoInfo:
        height, width = self._shape
        if self._orientation.is_transposed:
            height, width = width, height
        first = self._first
        start = 0.0 if first.pts is None or first.time_base is None else float(first.pts * first.time_base)
        return VideoInfo(
            name=self.name,
            size=ImageSize(height, width),
            frames_per_s=None if self._rate is None else float(self._rate),
            frame_count=None if self._is_live else self._frame_count(),
            start_s=0.0 if self._is_live else start,
            is_live=self._is_live,
        )

    def _frame_count(self) -> int | None:
        """Return about how many frames there are, from the container's count, or its duration and rate."""
        if self._stream.frames > 0:
            return int(self._stream.frames)
        if self._rate is None:
            return None
        if self._stream.duration:
            seconds = Fraction(self._stream.duration) * self._stream.time_base
            return round(float(seconds * self._rate))
        if self._container.duration:
            return round(Fraction(self._container.duration, 1_000_000) * self._rate)
        return None


class _Late:
    """A decoded frame that becomes a picture when it is called."""

    def __init__(self, frame: Any, shape: tuple[int, int], orientation: Orientation) -> None:
        self._frame = frame
        self._shape = shape
        self._orientation = orientation

    def __call__(self) -> ImageArray:
        image: ImageArray = self._frame.to_ndarray(format="rgb24")
        if image.shape[:2] != self._shape:  # pixels that are not square, or a size that changes on the way
            height, width = self._shape
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        return self._orientation.apply(image)


def _shown_shape(frame: Any, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Return height and width of a frame's picture before it is turned: with square pixels, as a player shows it."""
    if not pixel_aspect or pixel_aspect <= 0 or abs(pixel_aspect - 1) < SQUARE_WITHIN:
        return frame.height, frame.width
    if not 1 / MOST_PIXEL_ASPECT <= pixel_aspect <= MOST_PIXEL_ASPECT:
        logger.warning("pixels said to be %s times as wide as high are taken as square", pixel_aspect)
        return frame.height, frame.width
    return frame.height, max(MIN_SIDE_PX, round(frame.width * pixel_aspect))


def _check_file(path: Path) -> None:
    """Raise with a plain reason where FFmpeg would only have a number."""
    try:
        is_folder, size = path.is_dir(), path.stat().st_size
    except FileNotFoundError as error:
        raise VideoReadError("no such file", where=path, remedy="check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise VideoReadError(f"cannot be read ({error})", where=path, remedy="check the path") from error
    if is_folder:
        raise VideoReadError("is a folder, not a video", where=path, remedy="give the videos in it")
    if path.is_file() and size == 0:
        raise VideoReadError("is empty (0 bytes)", where=path, remedy=_COPY_AGAIN)
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise VideoReadError(
            f"cannot be read ({error.strerror})", where=path, remedy="check its permissions"
        ) from error


def _positive(rate: Fraction | None) -> Fraction | None:
    return rate if rate and rate > 0 else None
