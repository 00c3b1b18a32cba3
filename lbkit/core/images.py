"""Picture files: read as a viewer shows them, written whole. Inside lbkit an image is RGB; BGR exists only here."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lbkit.core.files import atomic_path
from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.core.image_header import (
    PICTURE_FORMATS,
    SIGNATURE_BYTES,
    TEXT,
    HeaderError,
    PictureHeader,
    foreign_content,
    picture_format,
    png_without_words,
    read_header,
)
from lbkit.errors import ImageReadError, OutputError

MAX_PIXELS = 200_000_000
"""Pictures of more pixels are refused before they are decoded; the largest phone cameras make 199.8 million."""

MIN_SIDE_PX = 8
"""Pictures with a shorter side are refused: six joints of a person cannot be told apart on fewer pixels."""

JPEG_QUALITY = 92

_REDUCED_FLAGS = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
"""Flags of the size, to which one of the colour is added."""

_COLOR_RGB: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)
"""Decodes straight to RGB, which spares a copy; older releases of OpenCV lack it."""

Where = str | PathLike[str]

_COPY_AGAIN = "copy or download it again"
_CONVERT = "convert it to JPEG or PNG"


def read_image(path: str | PathLike[str]) -> ImageArray:
    """Read a picture file as a viewer shows it.

    Grey, palette, 16-bit and CMYK pictures become RGB, transparency is laid over white, and the EXIF orientation is
    applied. Of an animation the first frame is read.

    Args:
        path: A JPEG, PNG, WebP, BMP, TIFF or GIF file of at most `MAX_PIXELS` pixels; its name does not matter.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageReadError: There is no such file, it is no picture, damaged, cut short, too small or too large.
    """
    path = Path(path)
    return decode_image(_read_bytes(path), where=path, max_pixels=MAX_PIXELS)


def decode_image(data: bytes, *, where: Where, max_pixels: int = MAX_PIXELS) -> ImageArray:
    """Decode a picture file's bytes as `read_image` does.

    Args:
        data: The whole file.
        where: What to call it in messages.
        max_pixels: Pictures of more pixels are refused before they are decoded.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageReadError: It is no picture, damaged, cut short, too small or too large.
    """
    header = checked_header(data, where=where, max_pixels=max_pixels)
    return _oriented(_decode_rgb(data, header, where), header.orientation)


def checked_header(data: bytes, *, where: Where, max_pixels: int = MAX_PIXELS) -> PictureHeader:
    """Return a picture's header, which tells its size before anything is decoded.

    Args:
        data: The whole file.
        where: What to call it in messages.
        max_pixels: Pictures of more pixels are refused.

    Raises:
        ImageReadError: It is no picture, cut short, too small or too large.
    """
    _check_signature(data[:SIGNATURE_BYTES], where)
    try:
        header = read_header(data)
    except HeaderError as error:
        raise ImageReadError(str(error), where=where, remedy=_COPY_AGAIN) from error
    _check_header(header, where, max_pixels)
    return header


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture that was read, perhaps at a fraction of its size.

    Attributes:
        pixels: (ceil(H / reduction), ceil(W / reduction), 3) uint8 RGB.
        size: H and W, of the picture as a viewer shows it.
        reduction: Picture pixels per pixel of `pixels` along each axis; 1 is the whole picture.
    """

    pixels: ImageArray
    size: ImageSize
    reduction: int


def read_picture(path: Path, *, wanted_reduction: Callable[[ImageSize], int]) -> Picture:
    """Read a picture file as `read_image` does, a JPEG at a fraction of its size where that is enough.

    libjpeg decodes to 1/2, 1/4 and 1/8 in less time: 12 megapixels took 60 ms whole, and 30, 18 and 13 ms so.

    Args:
        path: See `read_image`.
        wanted_reduction: Given the picture's size, says how many pixels along each axis may become one: 1, 2, 4 or 8.

    Raises:
        ImageReadError: See `read_image`.
    """
    data = _read_bytes(path)
    header = checked_header(data, where=path)
    sides = (header.height, header.width)
    size = ImageSize(*(sides[::-1] if header.orientation >= 5 else sides))
    reduction = wanted_reduction(size) if header.format == "JPEG" else 1
    # A picture that is turned must begin on a whole reduced pixel on every side.
    if reduction == 1 or (header.orientation != 1 and any(side % reduction for side in sides)):
        image = _oriented(_decode_rgb(data, header, path), header.orientation)
        return Picture(image, ImageSize.of(image), 1)
    image = _decode_rgb(data, header, path, reduction=reduction)
    return Picture(_oriented(image, header.orientation), size, reduction)


def write_image(path: Path, image: ImageArray) -> None:
    """Write an image so that the file appears whole or not at all; an existing file is replaced.

    Args:
        path: Where to; the suffix chooses the format.
        image: (H, W, 3) uint8 RGB.

    Raises:
        OutputError: The format is unknown or the file cannot be written.
    """
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    is_jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    try:
        is_encoded, encoded = cv2.imencode(
            path.suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if is_jpeg else []
        )
    except cv2.error:
        is_encoded, encoded = False, None
    if encoded is None or not is_encoded:  # False is what a picture beyond the format's size gives
        raise OutputError(
            f"a picture of {image.shape[1]}x{image.shape[0]} pixels cannot be written as {path.suffix or 'no suffix'}",
            where=path,
            remedy="scale the picture down" if is_jpeg else "name it .jpg or .png",
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def _read_bytes(path: Path) -> bytes:
    """Read a file, but no further than its signature where that is not a picture's."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageReadError("is a folder, not a picture", where=path, remedy="give the pictures in it")
        if not stat.S_ISREG(mode):
            raise ImageReadError("is not a regular file", where=path, remedy="give a picture file")
        with path.open("rb") as stream:
            head = stream.read(SIGNATURE_BYTES)
            _check_signature(head, path)
            return head + stream.read()
    except FileNotFoundError as error:
        raise ImageReadError("no such file", where=path, remedy="check the path") from error
    except PermissionError as error:
        raise ImageReadError("may not be read by you", where=path, remedy="change its permissions") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageReadError(f"cannot be read ({reason})", where=path, remedy="check the path") from error


def _check_signature(head: bytes, path: Where) -> None:
    if not head:
        raise ImageReadError("is empty (0 bytes)", where=path, remedy=_COPY_AGAIN)
    if picture_format(head) is None:
        formats, content = ", ".join(PICTURE_FORMATS), foreign_content(head)
        remedy = _COPY_AGAIN if content == TEXT else _CONVERT
        raise ImageReadError(f"is not a picture ({formats}) but {content}", where=path, remedy=remedy)


def _check_header(header: PictureHeader, path: Where, max_pixels: int) -> None:
    if header.height * header.width > max_pixels:
        raise ImageReadError(
            f"is {header.width}x{header.height} pixels large, and at most {max_pixels / 10**6:g} megapixels are read",
            where=path,
            remedy="scale it down first",
        )
    if min(header.height, header.width) < MIN_SIDE_PX:
        raise ImageReadError(
            f"is {header.width}x{header.height} pixels, too small to show a person",
            where=path,
            remedy=f"give a picture of at least {MIN_SIDE_PX} pixels a side",
        )
    if not header.is_whole:
        raise ImageReadError(f"is cut short: the {header.format} has no end", where=path, remedy=_COPY_AGAIN)


def _decode_rgb(data: bytes, header: PictureHeader, path: Where, *, reduction: int = 1) -> ImageArray:
    """Return (H, W, 3) RGB, not yet oriented; only a JPEG can be reduced."""
    if header.format == "PNG":
        data = png_without_words(data)
    if header.format != "JPEG":
        return _to_rgb(_decode(data, header, path, flags=cv2.IMREAD_UNCHANGED), header, path)
    color = cv2.IMREAD_COLOR if _COLOR_RGB is None else _COLOR_RGB
    flags = _REDUCED_FLAGS[reduction] | color | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = _decode(data, header, path, flags=flags)
    return _to_rgb(decoded, header, path) if _COLOR_RGB is None else decoded


def _decode(data: bytes, header: PictureHeader, path: Where, *, flags: int) -> NDArray[Any]:
    """Return what OpenCV makes of a picture, not yet oriented."""
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError):
        decoded = None
    if decoded is None:
        raise ImageReadError(
            f"cannot be decoded: the {header.format} is damaged or of a kind that OpenCV {cv2.__version__} cannot read",
            where=path,
            remedy=f"{_COPY_AGAIN}, or {_CONVERT}",
        )
    return decoded


def _to_rgb(decoded: NDArray[Any], header: PictureHeader, path: Where) -> ImageArray:
    # OpenCV reads an 8-bit TIFF with alpha through libtiff's RGBA interface, which multiplies the colours by alpha.
    is_premultiplied = header.format == "TIFF" and decoded.dtype == np.uint8
    if decoded.dtype == np.uint16:
        decoded = cv2.convertScaleAbs(decoded, alpha=255 / 65535)
    if decoded.dtype != np.uint8:
        raise ImageReadError(f"has {decoded.dtype} pixels, not 8 or 16 bits", where=path, remedy=_CONVERT)
    channels = 1 if decoded.ndim == 2 else decoded.shape[2]
    if channels == 4:
        return _over_white(cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGBA), is_premultiplied=is_premultiplied)
    code = cv2.COLOR_GRAY2RGB if channels == 1 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(decoded, code)  # type: ignore[return-value]  # OpenCV's stubs allow any numbers


def _over_white(rgba: NDArray[Any], *, is_premultiplied: bool) -> ImageArray:
    """Lay (H, W, 4) uint8 over white; every sum stays below 65,536, so 16 bits hold it."""
    alpha = rgba[..., 3:].astype(np.uint16)
    white = 255 - alpha
    if is_premultiplied:
        return np.minimum(rgba[..., :3] + white, 255).astype(np.uint8)
    return ((rgba[..., :3] * alpha + white * np.uint16(255) + 127) // 255).astype(np.uint8)


def _oriented(image: ImageArray, orientation: int) -> ImageArray:
    """Turn and mirror an image as its EXIF orientation says (EXIF 2.32, tag 274)."""
    if orientation >= 5:
        image = cv2.transpose(image)  # type: ignore[assignment]
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
    if orientation in flips:
        image = cv2.flip(image, flips[orientation])  # type: ignore[assignment]
    return image
