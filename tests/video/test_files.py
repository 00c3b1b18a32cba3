from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lbkit.core.geometry import ImageSize
from lbkit.errors import MissingDependencyError, VideoReadError
from lbkit.video import files
from lbkit.video.files import VideoFile

UNEVEN_S = [0.0, 0.03, 0.1, 0.11, 0.5, 0.52, 1.0]


def read(path: Path, *, stride: int = 1) -> tuple[list[int], list[float], list[np.ndarray]]:
    with VideoFile(path) as video:
        frames = list(video.frames(stride=stride))
    return [frame.index for frame in frames], [frame.time_s for frame in frames], [frame.image for frame in frames]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_uneven_times_come_from_the_container(clips: ModuleType, tmp_path: Path, suffix: str) -> None:
    path = clips.write_clip(tmp_path / f"a{suffix}", clips.flat_images(len(UNEVEN_S)), UNEVEN_S)
    indices, times, images = read(path)
    assert indices == list(range(len(UNEVEN_S)))
    assert times == pytest.approx(UNEVEN_S, abs=1e-3)  # Matroska counts milliseconds
    assert [clips.number_of(image) for image in images] == indices


def test_the_first_frame_keeps_its_time(clips: ModuleType, tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "a.mp4", clips.flat_images(3), [2.5, 2.6, 2.75], has_sound=True)
    with VideoFile(path) as video:
        assert video.info.start_s == pytest.approx(2.5)
        assert [frame.time_s for frame in video.frames()] == pytest.approx([2.5, 2.6, 2.75])


def test_a_stride_leaves_out_frames_and_keeps_their_numbers(clips: ModuleType, tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "a.mp4", clips.flat_images(7), UNEVEN_S)
    indices, times, images = read(path, stride=3)
    assert indices == [0, 3, 6]
    assert times == pytest.approx([0.0, 0.11, 1.0])
    assert [clips.number_of(image) for image in images] == indices


def test_what_is_known_beforehand(clips: ModuleType, tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "a.mp4", clips.flat_images(20), [number / 25 for number in range(20)])
    with VideoFile(path) as video:
        info = video.info
    assert (info.name, info.size, info.frame_count, info.is_live) == (str(path), ImageSize(64, 96), 20, False)
    assert info.frames_per_s == pytest.approx(25, rel=0.06)


@pytest.mark.parametrize(("rotation_deg", "corner"), [(0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (-90, (0, -1))])
def test_frames_are_turned_as_a_player_shows_them(
    clips: ModuleType, tmp_path: Path, rotation_deg: int, corner: tuple[int, int]
) -> None:
    """The stored picture is white at its top left; turned a quarter counterclockwise, that is the bottom left."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[:24, :24] = 255
    path = clips.write_clip(tmp_path / "a.mp4", [image] * 2, [0.0, 0.1], rotation_deg=rotation_deg)
    with VideoFile(path) as video:
        size = video.info.size
        (first, _) = (frame.image for frame in video.frames())
    assert ImageSize.of(first) == size == (ImageSize(96, 64) if rotation_deg in (90, -90) else ImageSize(64, 96))
    assert first[corner].min() > 200
    assert first[::-1, ::-1][corner].max() < 50


def test_pixels_that_are_not_square_become_so(clips: ModuleType, tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "a.mp4", clips.flat_images(2), [0.0, 0.1], pixel_aspect=Fraction(4, 3))
    with VideoFile(path) as video:
        assert video.info.size == ImageSize(64, 128)
        assert {frame.image.shape for frame in video.frames()} == {(64, 128, 3)}


@pytest.mark.parametrize("pixel_aspect", [Fraction(20), Fraction(1, 20)])
def test_pixels_of_an_absurd_shape_are_taken_as_square(
    clips: ModuleType, tmp_path: Path, pixel_aspect: Fraction, caplog: pytest.LogCaptureFixture
) -> None:
    path = clips.write_clip(tmp_path / "a.mkv", clips.flat_images(2), [0.0, 0.1], pixel_aspect=pixel_aspect)
    with VideoFile(path) as video:
        assert video.info.size == ImageSize(64, 96)
        assert next(video.frames()).image.shape == (64, 96, 3)
    assert "taken as square" in caplog.text


def test_broken_packets_are_skipped_and_counted(clips: ModuleType, tmp_path: Path) -> None:
    """A piece from the middle of the pictures' data is overwritten."""
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(30)]
    path = clips.write_clip(tmp_path / "a.mp4", images, [number / 30 for number in range(30)])
    data = bytearray(path.read_bytes())
    start = len(data) // 2
    data[start : start + 6000] = bytes(6000)
    path.write_bytes(data)
    with VideoFile(path) as video:
        times = [frame.time_s for frame in video.frames()]
        assert video.broken_frames > 0
    assert 20 <= len(times) < 30
    assert (np.diff(times) > 0).all()


def test_a_file_that_is_cut_short_gives_what_it_has(clips: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(30)]
    path = clips.write_clip(tmp_path / "a.mkv", images, [number / 30 for number in range(30)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _, times, _ = read(path)
    assert 5 <= len(times) < 30


def no_moov(clips: ModuleType, path: Path) -> None:
    clips.write_clip(path, clips.flat_images(9), [number / 30 for number in range(9)])
    path.write_bytes(path.read_bytes()[:900])


def bad_file(clips: ModuleType, path: Path, kind: str) -> None:
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("no video " * 200)
    elif kind == "cut short":
        no_moov(clips, path)
    elif kind == "sound":
        clips.write_sound(path)


BAD = {
    "missing": "no such file",
    "empty": r"is empty \(0 bytes\)",
    "folder": "is a folder",
    "text": "is no video",
    "cut short": "is no video that can be read, or is cut short",
    "sound": "holds only sound",
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_what_is_no_video_is_an_error_that_says_so(clips: ModuleType, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a b.mp4"
    bad_file(clips, path, kind)
    with pytest.raises(VideoReadError, match=rf"a b\.mp4: {BAD[kind]}.*; "):
        VideoFile(path)


def test_frames_that_all_last_no_time_are_an_error(clips: ModuleType, tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "a.mp4", clips.flat_images(12), [number / 30 for number in range(12)])
    data = bytearray(path.read_bytes())
    # Durations of the movie, the track, its edit, its media and its only kind of sample (ISO 14496-12).
    for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"elst", 12), (b"mdhd", 20), (b"stts", 16)):
        place = data.index(box) + offset
        data[place : place + 4] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(VideoReadError, match=r"no picture|stand still"), VideoFile(path) as video:
        list(video.frames())


def test_a_rate_of_zero_is_what_players_take_it_for(tmp_path: Path) -> None:
    path = tmp_path / "a.y4m"
    path.write_bytes(b"YUV4MPEG2 W96 H64 F0:1\n" + (b"FRAME\n" + bytes(96 * 64 * 3 // 2)) * 4)
    assert read(path)[1] == pytest.approx([0.0, 0.04, 0.08, 0.12])


def test_a_bare_stream_without_times_goes_at_its_nominal_rate(clips: ModuleType, tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "a.h264", clips.flat_images(5), [number / 30 for number in range(5)])
    with VideoFile(path) as video:
        times = [frame.time_s for frame in video.frames()]
        assert video.repaired_times == 4
    assert np.diff(times) == pytest.approx(1 / video.info.frames_per_s)


def test_a_video_is_read_once(clips: ModuleType, tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "a.mp4", clips.flat_images(3), [0.0, 0.1, 0.2])
    with VideoFile(path) as video:
        assert len(list(video.frames())) == 3
        with pytest.raises(VideoReadError, match="was read already"):
            list(video.frames())


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(files.importlib, "import_module", missing)
    with pytest.raises(MissingDependencyError, match=r'pip install "lbkit\[video\]"'):
        VideoFile(tmp_path / "a.mp4")
