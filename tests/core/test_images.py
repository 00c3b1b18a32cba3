from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import lbkit.core.images
from lbkit.core.geometry import ImageSize
from lbkit.core.images import MAX_PIXELS, checked_header, decode_image, read_image, read_picture, write_image
from lbkit.errors import ImageReadError, OutputError

HEIGHT, WIDTH = 20, 32

UNORIENTED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.transpose(1, 0, 2),
    6: lambda shown: np.rot90(shown, 1),
    7: lambda shown: shown[::-1, ::-1].transpose(1, 0, 2),
    8: lambda shown: np.rot90(shown, -1),
}
"""What a camera stores so that a viewer, following the EXIF orientation, shows the picture given (EXIF 2.32, 274)."""


def picture(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth RGB picture in which no two corners or channels are alike."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (20 + 200 * x / width, 230 - 180 * y / height, 40 + 100 * (x / width) * (y / height))
    return np.round(np.stack(channels, axis=2)).astype(np.uint8)


def encoded(rgb: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, rgb[..., ::-1] if rgb.ndim == 3 else rgb)[1].tobytes()


def exif(orientation: int, *, order: str = "<") -> bytes:
    """A TIFF block with two tags, the second of them the orientation."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(f"{order}HHIHH", 256, 3, 1, 7, 0) + struct.pack(f"{order}HHIHH", 274, 3, 1, orientation, 0)
    return mark + struct.pack(f"{order}IH", 8, 2) + entries + struct.pack(f"{order}I", 0)


def with_jpeg_exif(jpeg: bytes, block: bytes) -> bytes:
    segment = b"Exif\0\0" + block
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, color_type: int, rows: np.ndarray, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of 8 bits from rows of raw bytes (H, bytes)."""
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)), *extra]
    chunks += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def read(folder: Path, content: bytes, name: str = "photo.jpg") -> np.ndarray:
    path = folder / name
    path.write_bytes(content)
    return read_image(path)


def assert_read_error(path: Path, *words: str) -> None:
    with pytest.raises(ImageReadError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "; " in message, "a remedy is missing"
    for word in words:
        assert word in message


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
def test_lossless_formats_come_back_exactly_as_rgb(tmp_path: Path, suffix: str) -> None:
    np.testing.assert_array_equal(read(tmp_path, encoded(picture(), suffix)), picture())


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_come_back_nearly(tmp_path: Path, suffix: str) -> None:
    np.testing.assert_allclose(read(tmp_path, encoded(picture(), suffix)).astype(int), picture(), atol=12)


def test_a_gif_is_read(tmp_path: Path) -> None:
    blocks = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    blocks[3:9, 20:30] = (255, 0, 0)
    try:
        content = encoded(blocks, ".gif")
    except cv2.error:
        pytest.skip(f"OpenCV {cv2.__version__} has no GIF")
    np.testing.assert_allclose(read(tmp_path, content).astype(int), blocks, atol=40)  # a palette of 256 colours


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = picture()[..., 0]
    np.testing.assert_array_equal(read(tmp_path, encoded(grey, ".png")), np.repeat(grey[..., None], 3, axis=2))
    jpeg = read(tmp_path, encoded(grey, ".jpg"))
    assert jpeg.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(jpeg[..., 2].astype(int), grey, atol=4)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path, suffix: str) -> None:
    deep = picture().astype(np.uint16) * 257
    np.testing.assert_array_equal(read(tmp_path, encoded(deep, suffix)), picture())
    np.testing.assert_array_equal(read(tmp_path, encoded(deep[..., 1], suffix))[..., 2], picture()[..., 1])


@pytest.mark.parametrize("alpha", [0, 100, 255])
def test_transparency_is_laid_over_white(tmp_path: Path, alpha: int) -> None:
    rgba = np.dstack([picture(), np.full((HEIGHT, WIDTH), alpha, np.uint8)])
    expected = np.round(picture() * (alpha / 255) + 255 * (1 - alpha / 255))
    bgra = np.ascontiguousarray(rgba[..., [2, 1, 0, 3]])
    content = cv2.imencode(".png", bgra)[1].tobytes()
    np.testing.assert_allclose(read(tmp_path, content).astype(int), expected, atol=1)
    deep = cv2.imencode(".png", bgra.astype(np.uint16) * 257)[1].tobytes()
    np.testing.assert_allclose(read(tmp_path, deep).astype(int), expected, atol=1)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_transparent_tiff_is_not_darkened_twice(tmp_path: Path, compression: str) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="OpenCV writes no TIFF with unassociated alpha")
    rgba = np.dstack([picture(), np.full((HEIGHT, WIDTH), 100, np.uint8)])
    pillow.fromarray(rgba).save(tmp_path / "a.tif", compression=compression)
    expected = picture() * (100 / 255) + 255 * (155 / 255)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").astype(int), expected, atol=2)


def test_grey_with_alpha_is_laid_over_white(tmp_path: Path) -> None:
    grey = picture()[..., 0]
    rows = np.stack([grey, np.full_like(grey, 51)], axis=2)
    image = read(tmp_path, png(WIDTH, HEIGHT, 4, rows))
    np.testing.assert_allclose(image[..., 1].astype(int), grey * 0.2 + 255 * 0.8, atol=1)


def test_a_palette_with_a_transparent_colour_shows_white_there(tmp_path: Path) -> None:
    rows = np.zeros((HEIGHT, WIDTH), np.uint8)
    rows[3:7, 10:20] = 1
    palette = (b"PLTE", bytes([200, 30, 60, 10, 220, 40]))
    image = read(tmp_path, png(WIDTH, HEIGHT, 3, rows, palette, (b"tRNS", b"\0\xff")))
    assert image[0, 0].tolist() == [255, 255, 255]
    assert image[4, 12].tolist() == [10, 220, 40]


@pytest.mark.parametrize("with_adobe", [True, False])
def test_cmyk_looks_as_in_a_viewer(tmp_path: Path, with_adobe: bool) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="only Pillow writes CMYK JPEG")
    stream = io.BytesIO()
    pillow.fromarray(picture()).convert("CMYK").save(stream, "JPEG", quality=98)
    content = stream.getvalue()
    start = content.index(b"\xff\xee")
    assert content[start + 4 : start + 9] == b"Adobe"
    if not with_adobe:
        (length,) = struct.unpack(">H", content[start + 2 : start + 4])
        content = content[:start] + content[start + 2 + length :]
    np.testing.assert_allclose(read(tmp_path, content).astype(int), picture(), atol=12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_shown_upright(tmp_path: Path, orientation: int) -> None:
    stored = np.ascontiguousarray(UNORIENTED[orientation](picture()))
    plain = encoded(stored, ".png")
    content = plain[:33] + png_chunk(b"eXIf", exif(orientation)) + plain[33:]
    np.testing.assert_array_equal(read(tmp_path, content), picture())
    for order in "<>":
        jpeg = with_jpeg_exif(encoded(stored, ".jpg"), exif(orientation, order=order))
        image = read(tmp_path, jpeg)
        np.testing.assert_allclose(image.astype(int), picture(), atol=12)
        by_opencv = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        np.testing.assert_array_equal(image, by_opencv)


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("file_format", ["WEBP", "TIFF"])
def test_webp_and_tiff_are_oriented_too(tmp_path: Path, file_format: str, orientation: int) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="OpenCV 4 writes no EXIF into WebP")
    stored = pillow.fromarray(np.ascontiguousarray(UNORIENTED[orientation](picture())))
    tags = pillow.Exif()
    tags[274] = orientation
    stored.save(tmp_path / "a", file_format, exif=tags, lossless=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a"), picture())


@pytest.mark.parametrize("block", [b"", b"II*\0", exif(9), exif(0), b"II*\0\xff\xff\xff\xff"])
def test_broken_exif_leaves_the_picture_as_it_is(tmp_path: Path, block: bytes) -> None:
    image = read(tmp_path, with_jpeg_exif(encoded(picture(), ".jpg"), block))
    assert image.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (300, 7)])
def test_a_picture_too_small_for_a_person_is_refused(tmp_path: Path, height: int, width: int) -> None:
    with pytest.raises(
        ImageReadError, match=rf"is {width}x{height} pixels, too small .*; give a picture of at least 8"
    ):
        read(tmp_path, encoded(picture(height, width), ".png"))
    assert read(tmp_path, encoded(picture(8, 9), ".png")).shape == (8, 9, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_a_cut_picture_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(4).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    content = encoded(noise, suffix)
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(content[: int(len(content) * share)])
    noticed_by_us = suffix in (".jpg", ".png", ".webp")  # the others by the decoder
    assert_read_error(path, "copy or download it again", "cut short" if noticed_by_us else "is")


def test_restart_markers_do_not_end_a_jpeg(tmp_path: Path) -> None:
    content = cv2.imencode(".jpg", picture(120, 160)[..., ::-1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes()
    assert b"\xff\xd7" in content
    assert read(tmp_path, content).shape == (120, 160, 3)
    (tmp_path / "cut.jpg").write_bytes(content[:-2])
    assert_read_error(tmp_path / "cut.jpg", "cut short")


def test_a_progressive_jpeg_is_whole_until_it_is_cut(tmp_path: Path) -> None:
    smooth = picture(120, 160)
    content = cv2.imencode(".jpg", smooth[..., ::-1], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert content.count(b"\xff\xda") > 3
    assert read(tmp_path, content).shape == (120, 160, 3)
    (tmp_path / "cut.jpg").write_bytes(content[:-2])
    assert_read_error(tmp_path / "cut.jpg", "cut short", "JPEG")


def test_an_end_marker_inside_a_thumbnail_does_not_make_a_cut_jpeg_whole(tmp_path: Path) -> None:
    thumbnail = encoded(picture(8, 10), ".jpg")
    content = with_jpeg_exif(encoded(picture(60, 90), ".jpg"), exif(1) + thumbnail)
    assert read(tmp_path, content).shape == (60, 90, 3)
    (tmp_path / "cut.jpg").write_bytes(content[:-30])
    assert_read_error(tmp_path / "cut.jpg", "cut short")


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path: Path) -> None:
    content = encoded(picture(), ".jpg")
    np.testing.assert_array_equal(read(tmp_path, content + b"\0trailer" * 9), read(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"This is no picture at all.", "but text"),
        (b"short", "but text"),
        (bytes(range(40)), "something unknown"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
        (b"%PDF-1.7 .............", "a PDF"),
        (b"\xff\xd8\xff", "cut short"),
        (b"\x89PNG\r\n\x1a\n\0\0", "cut short"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "cut short"),
        (b"II*\0\x08\0\0\0", "cut short"),
        (b"BM" + bytes(14), "cut short"),
        (b"GIF89a\0\0\0\0\0\0\0\0\0\0\0", "0x0 pixels"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    assert_read_error(path, words)


def test_damage_in_the_middle_of_a_png_is_refused(tmp_path: Path) -> None:
    content = bytearray(encoded(np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8), ".png"))
    content[4000:4200] = bytes(200)
    (tmp_path / "a.png").write_bytes(content)
    assert_read_error(tmp_path / "a.png", "PNG is damaged")


@pytest.mark.parametrize(("width", "height"), [(50_000, 40_000), (MAX_PIXELS // 1000 + 1, 1000)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    monkeypatch.setattr(lbkit.core.images.cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    path = tmp_path / "bomb.png"
    path.write_bytes(png(width, height, 2, np.zeros((1, 10), np.uint8)))
    assert_read_error(path, f"{width}x{height}", "200 megapixels", "scale it down")


def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten bytes each; libjpeg goes over the whole picture for every one, 7 ms where it has 36 megapixels."""
    content = cv2.imencode(".jpg", picture(60, 90), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x01\x05\x00"
    assert read(tmp_path, content[:-2] + 20 * scan + content[-2:]).shape == (60, 90, 3)
    monkeypatch.setattr(lbkit.core.images.cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    (tmp_path / "a.jpg").write_bytes(content[:-2] + 100 * scan + content[-2:])
    assert_read_error(tmp_path / "a.jpg", "more than 100 scans")


def test_files_of_empty_segments_are_given_up_soon() -> None:
    jpeg = b"\xff\xd8\xff\xe0\x00\x02" + b"\xff\xfe\x00\x02" * 10**6
    with pytest.raises(ImageReadError, match="more than 10,000 segments"):
        decode_image(jpeg, where="a.jpg")
    webp = encoded(picture(), ".webp")
    webp += b"abcd\0\0\0\0" * 20_000 + b"EXIF" + struct.pack("<I", 32) + exif(6)
    assert checked_header(webp, where="a.webp").orientation == 1


def test_texts_packed_into_a_png_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libpng unpacks each of them to as much as 8 MB."""
    content, packed = encoded(picture(), ".png"), zlib.compress(bytes(7_900_000))
    words = png_chunk(b"zTXt", b"k\0\0" + packed) + png_chunk(b"iTXt", b"k\0\1\0\0\0" + packed)
    decoded: list[int] = []
    imdecode = cv2.imdecode
    monkeypatch.setattr(
        lbkit.core.images.cv2, "imdecode", lambda data, flags: decoded.append(len(data)) or imdecode(data, flags)
    )
    turned = png_chunk(b"eXIf", exif(3))
    many = content[:33] + turned + 3 * words + content[33:-12] + 2 * words + content[-12:]
    np.testing.assert_array_equal(read(tmp_path, many), picture()[::-1, ::-1])
    assert decoded == [len(content) + len(turned)]


def tiff(tags: list[tuple[int, int, int]]) -> bytes:
    """A TIFF of grey pixels, all black: (tag, kind, value) before those that tell where they are."""
    entries = [*tags, (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1), (278, 4, 20), (279, 4, 400)]
    entries.append((273, 4, 8 + 2 + 12 * (len(entries) + 1) + 4))
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return struct.pack("<4sIH", b"II*\0", 8, len(entries)) + directory + bytes(4 + 400)


@pytest.mark.parametrize(("widths", "shown"), [((20, 16), 20), ((16, 20), 16)])
def test_of_a_tiff_s_tag_that_comes_twice_the_first_counts_as_to_libtiff(widths: tuple[int, int], shown: int) -> None:
    data = tiff([*((256, 4, width) for width in widths), (257, 4, 20)])
    assert checked_header(data, where="a").width == shown
    assert decode_image(data, where="a").shape == (20, shown, 3)


def test_a_tiff_that_hides_its_size_or_a_huge_tile_is_refused() -> None:
    with pytest.raises(ImageReadError, match="a size of 0x20 pixels"):
        decode_image(tiff([(256, 9, 20), (256, 4, 16), (257, 4, 20)]), where="a")
    with pytest.raises(ImageReadError, match="is 20x20 pixels in a TIFF tile of 12000x12000"):
        decode_image(tiff([(256, 4, 20), (257, 4, 20), (322, 4, 12000), (323, 4, 12000)]), where="a")


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp", ".tiff"])
def test_the_header_gives_the_size_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(lbkit.core.images, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    path = tmp_path / "photo"
    path.write_bytes(encoded(picture(), suffix))
    assert_read_error(path, f"{WIDTH}x{HEIGHT} pixels")
    monkeypatch.setattr(lbkit.core.images, "MAX_PIXELS", HEIGHT * WIDTH)
    assert read_image(path).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("mode", ["lossless", "lossy", "extended"])
def test_every_kind_of_webp_gives_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="OpenCV does not write every kind of WebP")
    shown = np.dstack([picture(), np.full((HEIGHT, WIDTH), 9, np.uint8)]) if mode == "extended" else picture()
    pillow.fromarray(shown).save(tmp_path / "a", "WEBP", lossless=mode == "lossless")
    kind = {"lossless": b"VP8L", "lossy": b"VP8 ", "extended": b"VP8X"}[mode]
    assert (tmp_path / "a").read_bytes()[12:16] == kind
    monkeypatch.setattr(lbkit.core.images, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    assert_read_error(tmp_path / "a", f"{WIDTH}x{HEIGHT} pixels")


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    path.write_bytes(cv2.imencode(".tiff", picture().astype(np.float32))[1].tobytes())
    assert_read_error(path, "float32", "convert it")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    assert_read_error(tmp_path / "none.jpg", "no such file")
    assert_read_error(tmp_path / "none.jpg" / "deeper.jpg", "no such file")
    assert_read_error(tmp_path, "is a folder")
    assert_read_error(tmp_path / ("x" * 300), "cannot be read")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert_read_error(tmp_path / "pipe.jpg", "not a regular file")


def test_a_file_without_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(picture(), ".jpg"))

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", deny)  # the superuser may read everything, so modes alone would not deny it
    assert_read_error(path, "permissions")


@pytest.mark.parametrize("name", ["a.png", "deep/er/a.jpg"])
def test_what_is_written_is_read_back_as_rgb(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / name, picture())
    np.testing.assert_allclose(read_image(tmp_path / name).astype(int), picture(), atol=0 if name == "a.png" else 12)
    assert [entry.name for entry in (tmp_path / name).parent.iterdir()] == [Path(name).name]


def test_an_unknown_suffix_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written as \.xyz; name it"):
        write_image(tmp_path / "a.xyz", picture())
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OutputError):
        write_image(tmp_path / "a.png", picture())
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_a_picture_beyond_what_jpeg_holds_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"70000x2 pixels cannot be written as \.jpg; scale"):
        write_image(tmp_path / "a.jpg", np.zeros((2, 70_000, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reduction", [2, 4, 8])
@pytest.mark.parametrize("size", [ImageSize(400, 296), ImageSize(403, 301)])
def test_a_reduced_pixel_covers_whole_pixels_from_the_corner_on(
    tmp_path: Path, size: ImageSize, reduction: int
) -> None:
    """A smooth ramp in x and another in y: each reduced pixel is the mean of the pixels that it covers."""
    y, x = np.mgrid[: size.height, : size.width]
    image = np.stack([x * 0.5, y * 0.5, np.full_like(x, 90, dtype=float)], axis=-1).astype(np.uint8)
    write_image(tmp_path / "ramp.jpg", image)
    picture = read_picture(tmp_path / "ramp.jpg", wanted_reduction=lambda _: reduction)
    assert picture.size == size
    assert picture.reduction == reduction
    assert picture.pixels.shape == (-(-size.height // reduction), -(-size.width // reduction), 3)
    rows, columns = size.height // reduction, size.width // reduction
    whole = read_image(tmp_path / "ramp.jpg")[: rows * reduction, : columns * reduction].astype(float)
    means = whole.reshape(rows, reduction, columns, reduction, 3).mean(axis=(1, 3))
    difference = picture.pixels[:rows, :columns].astype(float) - means
    assert np.abs(difference.mean(axis=(0, 1))).max() < 0.5  # a quarter of a reduced pixel would be 0.25 to 1
    assert np.abs(difference).max() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [ImageSize(64, 48), ImageSize(67, 45)])
def test_a_turned_picture_is_reduced_where_its_sides_allow(tmp_path: Path, orientation: int, size: ImageSize) -> None:
    image = np.zeros((size.height, size.width, 3), np.uint8)
    image[: size.height // 2, : size.width // 3] = [200, 60, 20]
    write_image(tmp_path / "plain.jpg", image)
    data = (tmp_path / "plain.jpg").read_bytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + bytes([0, orientation]) + bytes(6)
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    picture = read_picture(turned, wanted_reduction=lambda _: 2)
    whole = read_image(turned)
    assert picture.size == ImageSize.of(whole)
    assert picture.reduction == (2 if orientation == 1 or size.height % 2 == 0 else 1)
    shown = cv2.resize(whole, picture.pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(picture.pixels.astype(int) - shown).mean() < 4


def test_other_formats_are_read_whole(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.full((64, 48, 3), 7, np.uint8))
    picture = read_picture(tmp_path / "a.png", wanted_reduction=lambda _: 8)
    assert (picture.reduction, picture.pixels.shape) == (1, (64, 48, 3))


def test_bytes_are_decoded_as_their_file_is_read(tmp_path: Path) -> None:
    data = encoded(picture(), ".png")
    (tmp_path / "a.png").write_bytes(data)
    assert np.array_equal(decode_image(data, where="upload"), read_image(tmp_path / "a.png"))
    header = checked_header(data, where="upload", max_pixels=HEIGHT * WIDTH)
    assert (header.height, header.width) == (HEIGHT, WIDTH)
    for refuse in (checked_header, decode_image):
        with pytest.raises(ImageReadError, match=rf"^upload: is {WIDTH}x{HEIGHT} pixels large"):
            refuse(data, where="upload", max_pixels=HEIGHT * WIDTH - 1)
