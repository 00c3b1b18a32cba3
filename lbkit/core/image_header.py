"""What a picture file says of itself before it is decoded: format, size, orientation, and whether it is whole."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

PictureFormat = Literal["JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF"]
PICTURE_FORMATS: tuple[PictureFormat, ...] = get_args(PictureFormat)
PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif")
)
"""File name endings that a folder is searched for, in lower case."""

SIGNATURE_BYTES = 16
"""How many bytes from the beginning tell the format."""

TEXT = "text"
"""What `foreign_content` calls a file of words, such as a web page that was saved under a picture's name."""

# A marker ends a JPEG scan unless it is a stuffed zero, a fill byte, TEM or a restart marker (ITU T.81, B.1.1.2).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_ORIENTATION_TAG, _WIDTH_TAG, _HEIGHT_TAG, _TILE_WIDTH_TAG, _TILE_HEIGHT_TAG = 274, 256, 257, 322, 323

MAX_JPEG_SCANS = 100
"""Every scan of a progressive JPEG passes over the whole picture, and an empty one takes ten bytes; encoders make about
ten scans."""

MAX_SEGMENTS = 10_000
"""More of them no camera writes, and twenty megabytes of empty ones took 15 s to step over."""

MAX_TILE_PIXELS = 2**22
"""A TIFF's tile may be larger than its picture, and is decoded whole, up to this size; encoders make them of 2**18."""

_PNG_WORDS = (b"zTXt", b"iTXt")


class HeaderError(ValueError):
    """A picture's header is broken or ends too early; the message says how."""


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What the header holds.

    Attributes:
        format: The file format.
        height: Rows of pixels as stored, before the orientation is applied.
        width: Columns of pixels as stored.
        orientation: EXIF orientation 1 to 8 that is still to be applied after decoding; 1 leaves the picture as it is.
        is_whole: False where the file ends before its picture does.
    """

    format: PictureFormat
    height: int
    width: int
    orientation: int
    is_whole: bool


def picture_format(head: bytes) -> PictureFormat | None:
    """Return the format that a file's first `SIGNATURE_BYTES` bytes show, or None if it is none of ours."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith((b"II*\x00", b"MM\x00*")):
        return "TIFF"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    return "BMP" if head.startswith(b"BM") else None


def foreign_content(head: bytes) -> str:
    """Say in words what a file that is no picture of ours seems to hold, from its first `SIGNATURE_BYTES` bytes."""
    if head[4:8] == b"ftyp":
        is_still = head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"avif")
        return "a HEIC or AVIF picture" if is_still else "a video"
    if head.startswith(b"%PDF"):
        return "a PDF"
    is_text = all(byte in b"\t\n\r\f" or 0x20 <= byte < 0x7F for byte in head)
    return TEXT if is_text else "something unknown"


def read_header(data: bytes) -> PictureHeader:
    """Read a picture file's header without decoding anything.

    Args:
        data: The whole file.

    Raises:
        HeaderError: The format is none of `PICTURE_FORMATS`, or the header is broken.
    """
    found = picture_format(data[:SIGNATURE_BYTES])
    if found is None:
        raise HeaderError(f"is none of {', '.join(PICTURE_FORMATS)}")
    try:
        header = _READERS[found](data)
    except (struct.error, IndexError) as error:
        raise HeaderError(f"is cut short: the {found} ends inside its header") from error
    if header.height < 1 or header.width < 1:
        raise HeaderError(f"the {found} header gives a size of {header.width}x{header.height} pixels")
    return header


def _read_jpeg(data: bytes) -> PictureHeader:
    height = width = scans = 0
    orientation = 1
    for number, (code, start, end) in enumerate(_jpeg_segments(data)):
        if number > MAX_SEGMENTS:
            raise HeaderError(f"is no photograph: the JPEG has more than {MAX_SEGMENTS:,} segments")
        if code in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, start + 1)
        elif code == 0xE1 and data.startswith(b"Exif\0\0", start):
            orientation = _exif_orientation(data[start + 6 : end])
        elif code == _START_OF_SCAN:
            scans += 1
            if scans > MAX_JPEG_SCANS:
                raise HeaderError(f"is drawn over and over: the JPEG has more than {MAX_JPEG_SCANS} scans")
        elif code == _END_OF_IMAGE:
            return PictureHeader("JPEG", height, width, orientation, is_whole=True)
    if not width:
        raise HeaderError("is cut short: the JPEG ends inside its header")
    return PictureHeader("JPEG", height, width, orientation, is_whole=False)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Walk a JPEG's markers: (code, start, end) of each payload; the end of the image comes last if it is there.

    Markers inside a segment, such as those of an embedded thumbnail, are stepped over.
    """
    position = 2
    while match := _JPEG_MARKER.search(data, position):
        code, start = data[match.end() - 1], match.end()
        if code == _END_OF_IMAGE:
            yield code, start, start
            return
        if start + 2 > len(data):
            return
        position = start + int.from_bytes(data[start : start + 2], "big")
        yield code, start + 2, position


def _read_png(data: bytes) -> PictureHeader:
    width, height = struct.unpack_from(">II", data, 16)
    orientation, is_whole = 1, False
    for kind, start, end in _png_chunks(data):
        if kind == b"eXIf":
            orientation = _exif_orientation(data[start + 8 : end - 4])
        is_whole = kind == b"IEND"
    return PictureHeader("PNG", height, width, orientation, is_whole=is_whole)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Walk a PNG's chunks: (kind, start, end) of each with its length and checksum, up to the image's end."""
    position, kind = 8, b""
    while position + 12 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, position, position + 12 + length
        position += 12 + length


def png_without_words(data: bytes) -> bytes:
    """Return a PNG without its compressed texts, which libpng would unpack and nobody reads.

    Seven megabytes of them unpacked to as many gigabytes, chunk by chunk, and took libpng 50 s.
    """
    cuts = [(start, end) for kind, start, end in _png_chunks(data) if kind in _PNG_WORDS]
    if not cuts:
        return data
    starts, ends = [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(data)]
    return b"".join(data[start:end] for start, end in zip(starts, ends, strict=True))


def _read_webp(data: bytes) -> PictureHeader:
    (riff_length,) = struct.unpack_from("<I", data, 4)
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    is_whole = len(data) >= 8 + riff_length
    return PictureHeader("WebP", height, width, _webp_orientation(data), is_whole=is_whole)


def _webp_orientation(data: bytes) -> int:
    position = 12
    for _ in range(MAX_SEGMENTS):
        if position + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            exif = data[position + 8 : position + 8 + length]
            return _exif_orientation(exif.removeprefix(b"Exif\0\0"))
        position += 8 + length + length % 2
    return 1


def _read_bmp(data: bytes) -> PictureHeader:
    (header_length,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_length == 12 else "<ii", data, 18)
    return PictureHeader("BMP", abs(height), width, 1, is_whole=True)  # a negative height stores the rows top down


def _read_gif(data: bytes) -> PictureHeader:
    width, height = struct.unpack_from("<HH", data, 6)
    return PictureHeader("GIF", height, width, 1, is_whole=True)


def _read_tiff(data: bytes) -> PictureHeader:
    tags = _tiff_tags(data)
    tile_width, tile_height = tags.get(_TILE_WIDTH_TAG, 0), tags.get(_TILE_HEIGHT_TAG, 0)
    height, width = tags.get(_HEIGHT_TAG, 0), tags.get(_WIDTH_TAG, 0)
    if tile_width * tile_height > max(MAX_TILE_PIXELS, height * width):
        raise HeaderError(f"is {width}x{height} pixels in a TIFF tile of {tile_width}x{tile_height}")
    # OpenCV's TIFF decoder applies the orientation itself, whatever it is asked (4.10 and 5.0).
    return PictureHeader("TIFF", height, width, 1, is_whole=True)


def _exif_orientation(tiff: bytes) -> int:
    """Return the EXIF orientation in a TIFF block, 1 where there is none or it makes no sense."""
    try:
        value = _tiff_tags(tiff).get(_ORIENTATION_TAG, 1)
    except struct.error:
        return 1
    return value if 1 <= value <= 8 else 1


def _tiff_tags(tiff: bytes) -> dict[int, int]:
    """Return the single short and long values of a TIFF's first directory by tag (TIFF 6.0, section 2).

    Of a tag that comes twice the first counts, as it does to libtiff; of any other kind it is 0.
    """
    order = ">" if tiff.startswith(b"MM") else "<"
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, directory)
    tags: dict[int, int] = {}
    for position in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", tiff, position)
        value = 0
        if kind in (3, 4):
            (value,) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", tiff, position + 8)
        tags.setdefault(tag, value)
    return tags


_READERS: dict[PictureFormat, Callable[[bytes], PictureHeader]] = {
    "JPEG": _read_jpeg,
    "PNG": _read_png,
    "WebP": _read_webp,
    "BMP": _read_bmp,
    "TIFF": _read_tiff,
    "GIF": _read_gif,
}
