"""Tiny videos for tests, made by PyAV: any time stamps, any display matrix, with or without sound."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

TICKS_PER_S = 90_000
SOUND_RATE = 8000


def write_clip(
    path: Path,
    images: Sequence[np.ndarray],
    times_s: Sequence[float],
    *,
    rotation_deg: int = 0,
    pixel_aspect: Fraction | None = None,
    has_sound: bool = False,
    codec: str = "libx264",
) -> Path:
    """Write (H, W, 3) RGB images of even sides as a video.

    Args:
        path: Where to; the suffix chooses the container.
        images: The frames as they are stored.
        times_s: Their times.
        rotation_deg: What the container asks a player to turn them by, counterclockwise.
        pixel_aspect: Width of a pixel by its height.
        has_sound: Adds a stream of silence before the pictures.
        codec: FFmpeg's name of the encoder.
    """
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=SOUND_RATE, layout="mono") if has_sound else None
        stream = container.add_stream(codec, rate=30)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS_PER_S)
        if codec == "libx264":
            stream.codec_context.options = {"crf": "8", "preset": "ultrafast"}
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation_deg:
            stream.set_display_rotation(rotation_deg)
        if sound is not None:
            _write_silence(container, sound)
        for image, time_s in zip(images, times_s, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.time_base = Fraction(1, TICKS_PER_S)
            frame.pts = round(time_s * TICKS_PER_S)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_sound(path: Path) -> Path:
    """Write a file that holds only sound."""
    with av.open(str(path), "w") as container:
        _write_silence(container, container.add_stream("aac", rate=SOUND_RATE, layout="mono"))
    return path


def flat_images(count: int, *, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """Return images of one grey each, so that a decoded frame tells its number (see `number_of`)."""
    return [np.full((height, width, 3), 20 + 10 * (number % 20), np.uint8) for number in range(count)]


def number_of(image: np.ndarray) -> int:
    """Return which of the first 20 `flat_images` an image is."""
    return round((float(image.mean()) - 20) / 10)


def _write_silence(container: Any, stream: Any) -> None:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.rate = SOUND_RATE
    frame.pts = 0
    for packet in [*stream.encode(frame), *stream.encode()]:
        container.mux(packet)
