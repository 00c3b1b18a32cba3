"""Videos to write: H.264 in the source's own times, playable whatever happens while they are written."""

from __future__ import annotations

import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import cv2
import numpy as np

from lbkit.core.files import refuse_overwrite
from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.errors import OutputError
from lbkit.video.files import import_av
from lbkit.video.stages import put_until

SUFFIXES = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""What a written video's name may end in, and FFmpeg's name of the container."""

FRAGMENT_S = 1.0
"""A key frame comes at least so often, and with it a fragment that stays playable whatever comes later."""

AHEAD = 3
"""Frames that may wait for the encoder."""

DEFAULT_RATE = Fraction(30)

_CODECS: dict[str, tuple[int, dict[str, str]]] = {
    # Time base and options. 720p frames of a rendered person: "ultrafast" 5 ms of one processor, "superfast" 8,
    # "veryfast" 11 with half the file.
    "libx264": (90_000, {"preset": "ultrafast", "crf": "21", "bf": "0"}),
    "libopenh264": (90_000, {"b": "6M"}),
    "mpeg4": (60_000, {"q:v": "4"}),  # MPEG-4's clock has 16 bits
}
_BT601 = 6
"""The colour matrix that OpenCV converts with (SMPTE 170M), written into the stream so that players use it too."""

Picture = ImageArray | Callable[[], ImageArray]
"""(H, W, 3) uint8 RGB, or a function that draws it, called in the writer's thread."""


class VideoWriter:
    """A video file being written, in a thread of its own; use it as a context.

    It is written under a temporary name beside its own and appears when the block ends, however it ends: after an
    error or Ctrl-C it holds the frames up to there, and the same after a full disk.

    Args:
        path: Where to; the suffix chooses the container.
        size: Size of every frame; an odd side is padded by a pixel, because H.264 halves its colours.
        frames_per_s: About how fast the frames come; the times are what `write` is told.
        force: Replace what is there.

    Raises:
        OutputError: The suffix is unknown, the file exists already or cannot be made, or there is no encoder.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(self, path: Path, *, size: ImageSize, frames_per_s: float | None = None, force: bool = False) -> None:
        self.path = path
        self.frames_written = 0
        check_video_name(path)
        refuse_overwrite(path, force=force)
        self._av = import_av()
        self._size = size
        self._codec = _codec_name(self._av, path)
        rate = DEFAULT_RATE if not frames_per_s else Fraction(frames_per_s).limit_denominator(1001)
        self._temporary = _temporary_beside(path)
        self._container: Any = None
        self._error: OutputError | None = None
        try:
            self._stream = self._open(rate)
        except BaseException:
            self._temporary.unlink(missing_ok=True)
            raise
        self._waiting: queue.Queue[tuple[float, Picture] | None] = queue.Queue(AHEAD)
        self._has_failed = threading.Event()
        self._thread = threading.Thread(target=self._encode_all, name="lbkit-encoder", daemon=True)
        self._thread.start()

    def write(self, time_s: float, picture: Picture) -> None:
        """Add a frame; waits while the encoder is behind.

        Args:
            time_s: Its time in seconds, later than the one before.
            picture: The frame, or a function that draws it.

        Raises:
            OutputError: The disk is full or the file cannot be written on; what was written is kept.
        """
        if not put_until(self._waiting, (time_s, picture), self._has_failed):
            self._raise_error()

    def close(self) -> None:
        """Write what waits and give the file its name.

        Raises:
            OutputError: The disk is full or the file cannot be written; what was written is kept.
        """
        if self._container is None:
            return
        put_until(self._waiting, None, self._has_failed)
        self._thread.join()
        self._finish()
        self._raise_error()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it; an error that ended the block goes before one of the file's."""
        if error is None:
            self.close()
            return
        with suppress(OutputError):
            self.close()

    def _open(self, rate: Fraction) -> Any:
        ticks, options = _CODECS[self._codec]
        container_format = SUFFIXES[self.path.suffix.lower()]
        # Written in fragments and made an ordinary file at the end; before that it can be played up to where it is.
        movie = {} if container_format == "matroska" else {"movflags": "hybrid_fragmented+delay_moov"}
        try:
            self._container = self._av.open(str(self._temporary), "w", format=container_format, options=movie)
            stream = self._container.add_stream(self._codec, rate=rate, options=options)
        except (self._av.FFmpegError, OSError) as error:
            raise OutputError(f"cannot be written ({error.strerror or error})", where=self.path) from error
        stream.width, stream.height = self._size.width + self._size.width % 2, self._size.height + self._size.height % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, ticks)
        stream.codec_context.gop_size = max(1, round(float(rate) * FRAGMENT_S))
        stream.codec_context.colorspace = _BT601
        stream.codec_context.color_range = 1  # limited, as OpenCV's conversion gives
        stream.codec_context.thread_count = 1  # the model has the other processors
        return stream

    def _encode_all(self) -> None:
        """Encode what waits until the end; runs in the thread."""
        try:
            while (item := self._waiting.get()) is not None:
                self._mux(self._frame(*item))
            self._mux(None)
        except Exception as error:
            self._error = self._write_error(error)
            self._has_failed.set()
            with suppress(self._av.FFmpegError, OSError):
                self._mux(None)  # what the encoder still holds

    def _frame(self, time_s: float, picture: Picture) -> Any:
        image = picture() if callable(picture) else picture
        frame = self._av.VideoFrame.from_ndarray(_yuv(image, self._stream.height, self._stream.width), "yuv420p")
        frame.time_base = self._stream.codec_context.time_base
        frame.pts = round(time_s / frame.time_base)
        frame.colorspace = _BT601
        return frame

    def _mux(self, frame: Any) -> None:
        """Encode a frame, or what the encoder still holds when it is None, and write what comes out."""
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
            self.frames_written += 1

    def _finish(self) -> None:
        """Close the container, as well as it can be, and give the file its name."""
        container, self._container = self._container, None
        try:
            container.close()
        except (self._av.FFmpegError, OSError) as error:
            self._error = self._error or self._write_error(error)
        if not self.frames_written:
            self._temporary.unlink(missing_ok=True)
            return
        _give_name(self._temporary, self.path)

    def _write_error(self, error: Exception) -> OutputError:
        if not isinstance(error, OSError):
            return OutputError(f"a frame cannot be written ({error})", where=self.path)
        return OutputError(
            f"cannot be written on after {self.frames_written} frames ({error.strerror or error})",
            where=self.path,
            remedy="what was written is kept and can be played; make room, or give another place",
        )

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def check_video_name(path: Path) -> None:
    """Raise unless a video can be written under a name.

    Raises:
        OutputError: The suffix is not one of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError("is no name for a video", where=path, remedy=f"end it in {', '.join(SUFFIXES)}")


@contextmanager
def kept_text_file(path: Path, *, force: bool) -> Iterator[TextIO]:
    """Open a new text file that grows under its own name, line by line, for others to read meanwhile.

    After an error or Ctrl-C it holds the whole lines up to there.

    Args:
        path: Where to.
        force: Replace what is there, at once.

    Raises:
        OutputError: It exists already, or cannot be written; what was written is kept.
    """
    refuse_overwrite(path, force=force)
    stream = _open_new(path, force=force)
    try:
        with stream:
            yield stream
    except BrokenPipeError:  # that of stdout, which is told beside the file
        raise
    except OSError as error:
        if error.filename not in (None, str(path)):
            raise
        problem, remedy = f"cannot be written on ({error.strerror})", "what was written is kept; make room"
        raise OutputError(problem, where=path, remedy=remedy) from error
    finally:
        with suppress(FileNotFoundError):  # somebody has moved it
            _keep_whole_lines(path)


@contextmanager
def kept_file(path: Path, *, force: bool) -> Iterator[Path]:
    """Give a temporary name for a file that appears when the block ends, unless the disk is full.

    Args:
        path: Where to.
        force: Replace what is there.

    Raises:
        OutputError: It exists already, or cannot be written.
    """
    refuse_overwrite(path, force=force)
    temporary = _temporary_beside(path)
    try:
        yield temporary
    except BrokenPipeError:  # that of stdout, which is told beside the file
        _give_name(temporary, path)
        raise
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.filename not in (None, str(temporary)):
            raise
        raise OutputError(f"cannot be written ({error.strerror or error})", where=path, remedy="make room") from error
    except BaseException:
        _give_name(temporary, path)
        raise
    _give_name(temporary, path)


def _open_new(path: Path, *, force: bool) -> TextIO:
    """Open a file that is not there, in place of one that is if forced; every line is written at once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if force:
            path.unlink(missing_ok=True)
        return path.open("x", buffering=1, encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror})", where=path) from error


def _keep_whole_lines(path: Path) -> None:
    """Cut off a last line that has no end."""
    with path.open("rb+") as stream:
        end = stream.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65_536)
            stream.seek(start)
            place = stream.read(end - start).rfind(b"\n")
            if place >= 0:
                stream.truncate(start + place + 1)
                return
            end = start
        stream.truncate(0)


def _temporary_beside(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:32]}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror})", where=path) from error
    os.close(handle)
    return Path(name)


def _give_name(temporary: Path, path: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    temporary.chmod(0o666 & ~mask)
    temporary.replace(path)


def _codec_name(av: Any, path: Path) -> str:
    """Return the best encoder that this PyAV has."""
    for name in _CODECS:
        with suppress(av.FFmpegError, ValueError):
            av.codec.Codec(name, "w")
            return name
    raise OutputError(
        f"this PyAV {av.__version__} has no encoder for H.264 or MPEG-4",
        where=path,
        remedy="install the wheel: `pip install --force-reinstall --only-binary av av`",
    )


def _yuv(image: ImageArray, height: int, width: int) -> ImageArray:
    """Return an RGB image as (height * 3 / 2, width) planes of Y, U and V, padded to even sides."""
    if image.shape[:2] != (height, width):
        below, right = height - image.shape[0], width - image.shape[1]
        image = np.ascontiguousarray(np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge"))
    return cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)  # type: ignore[return-value]  # OpenCV's stubs allow any numbers
