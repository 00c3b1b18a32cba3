from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lbkit.core.geometry import ImageSize
from lbkit.errors import OutputError
from lbkit.video import sink
from lbkit.video.files import VideoFile
from lbkit.video.sink import VideoWriter, kept_file, kept_text_file

SIZE = ImageSize(64, 96)
UNEVEN_S = [0.5, 0.53, 0.6, 0.61, 1.0, 1.02, 4.5]


def read(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with VideoFile(path) as video:
        frames = list(video.frames())
    return [frame.time_s for frame in frames], [frame.image for frame in frames]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_times_and_pictures_come_back(
    clips: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, codec: str
) -> None:
    monkeypatch.setattr(sink, "_CODECS", {codec: sink._CODECS[codec]})
    path = tmp_path / "new" / f"a{suffix}"
    with VideoWriter(path, size=SIZE, frames_per_s=30) as writer:
        for time_s, image in zip(UNEVEN_S, clips.flat_images(7), strict=True):
            writer.write(time_s, image)
    times, images = read(path)
    assert times == pytest.approx(UNEVEN_S, abs=1e-3 if suffix == ".mkv" else 2e-5)
    assert [clips.number_of(image) for image in images] == list(range(7))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


def test_colours_survive(tmp_path: Path) -> None:
    image = np.zeros((SIZE.height, SIZE.width, 3), np.uint8)
    image[:32, :48], image[:32, 48:], image[32:, :48] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    with VideoWriter(tmp_path / "a.mp4", size=SIZE) as writer:
        writer.write(0.0, image)
    _, (back,) = read(tmp_path / "a.mp4")
    assert np.abs(back[8:24, 8:40].astype(int) - (255, 0, 0)).mean() < 6
    assert np.abs(back[8:24, 56:88].astype(int) - (0, 255, 0)).mean() < 6
    assert np.abs(back[40:56, 8:40].astype(int) - (0, 0, 255)).mean() < 6


def test_odd_sides_are_padded_by_a_pixel(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", size=ImageSize(33, 51)) as writer:
        writer.write(0.0, np.full((33, 51, 3), 90, np.uint8))
    _, (back,) = read(tmp_path / "a.mp4")
    assert back.shape == (34, 52, 3)
    assert np.abs(back.astype(int) - 90).max() <= 3


def test_a_picture_may_be_drawn_in_the_writers_thread(clips: ModuleType, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", size=SIZE) as writer:
        for number, image in enumerate(clips.flat_images(3)):
            writer.write(number / 10, lambda image=image: image + np.uint8(20))
    assert [clips.number_of(image) for image in read(tmp_path / "a.mp4")[1]] == [2, 3, 4]


def test_a_fault_in_drawing_is_an_error_where_frames_are_given(tmp_path: Path) -> None:
    def broken() -> np.ndarray:
        raise ValueError("no colour")

    writer = VideoWriter(tmp_path / "a.mp4", size=SIZE)
    writer.write(0.0, np.zeros((64, 96, 3), np.uint8))
    writer.write(0.1, broken)
    with pytest.raises(OutputError, match="no colour"):
        writer.close()
    assert len(read(tmp_path / "a.mp4")[0]) == 1


def test_nothing_is_replaced_without_force(clips: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        VideoWriter(path, size=SIZE)
    assert path.read_bytes() == b"mine"
    with VideoWriter(path, size=SIZE, force=True) as writer:
        writer.write(0.0, clips.flat_images(1)[0])
    assert len(read(path)[0]) == 1


@pytest.mark.parametrize(("name", "reason"), [("a.gif", "is no name for a video"), ("a", "is no name for a video")])
def test_a_name_that_is_no_videos_is_an_error(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(OutputError, match=reason):
        VideoWriter(tmp_path / name, size=SIZE)
    assert list(tmp_path.iterdir()) == []


def test_without_an_encoder_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "_CODECS", {"no-such-codec": (90_000, {})})
    with pytest.raises(OutputError, match=r"no encoder for H\.264 .*pip install"):
        VideoWriter(tmp_path / "a.mp4", size=SIZE)


def test_what_was_written_before_an_error_is_kept(clips: ModuleType, tmp_path: Path) -> None:
    def interrupted() -> None:
        with VideoWriter(tmp_path / "a.mp4", size=SIZE) as writer:
            for number, image in enumerate(clips.flat_images(5)):
                writer.write(number / 10, image)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(read(tmp_path / "a.mp4")[0]) == 5


def test_without_frames_there_is_no_file(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", size=SIZE):
        pass
    assert list(tmp_path.iterdir()) == []


WRITE_NOISE = """
    import sys, time
    from pathlib import Path
    import numpy as np
    from lbkit.core.geometry import ImageSize
    from lbkit.errors import OutputError
    from lbkit.video.sink import VideoWriter

    rng = np.random.default_rng(1)
    try:
        with VideoWriter(Path(sys.argv[1]), size=ImageSize(240, 320), frames_per_s=30) as writer:
            for number in range(300):
                writer.write(number / 30, rng.integers(0, 255, (240, 320, 3), dtype=np.uint8))
                if number == 100:
                    print("under way", flush=True)
    except OutputError as error:
        print(error)
"""


def test_a_disk_that_fills_leaves_a_video_that_plays(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the system refuses the same way."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))\n"
    command = [sys.executable, "-c", limit + textwrap.dedent(WRITE_NOISE), str(tmp_path / "a.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "cannot be written on after" in done.stdout
    assert os.strerror(errno.EFBIG) in done.stdout
    assert "what was written is kept" in done.stdout
    times, _ = read(tmp_path / "a.mp4")
    assert times == pytest.approx([number / 30 for number in range(len(times))], abs=1e-4)
    assert len(times) >= 15
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_writer_leaves_what_can_be_played(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WRITE_NOISE), str(tmp_path / "a.mp4")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a-")
    with VideoFile(left) as video:
        assert len(list(video.frames())) >= 60


def test_text_is_kept_up_to_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with contextlib.suppress(KeyboardInterrupt), kept_text_file(path, force=False) as stream:
        stream.write('{"frame": 0}\n{"frame": 1}\n{"fra')
        raise KeyboardInterrupt
    assert path.read_text() == '{"frame": 0}\n{"frame": 1}\n'
    with pytest.raises(OutputError, match="exists already"), kept_text_file(path, force=False):
        pass


def test_text_on_a_full_disk_is_an_error_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    def fill() -> None:
        with kept_text_file(path, force=False) as stream:
            stream.write("a\nb")
            stream.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match="cannot be written on"):
        fill()
    assert path.read_text() == "a\n"


def test_text_can_be_read_line_by_line_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.csv"
    with kept_text_file(path, force=False) as stream:
        stream.write("time_s\n")
        assert path.read_text() == "time_s\n"
        stream.write("0.1\n")
        assert path.read_text() == "time_s\n0.1\n"
        assert [entry.name for entry in path.parent.iterdir()] == ["a.csv"]
    with kept_text_file(path, force=True) as stream:
        assert path.read_text() == ""
        stream.write("new\n")
    assert path.read_text() == "new\n"


def test_text_never_replaces_what_came_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    monkeypatch.setattr(sink, "refuse_overwrite", lambda path, **_: path.write_text("another's\n"))
    with pytest.raises(OutputError, match="cannot be written"), kept_text_file(path, force=False):
        pass
    assert path.read_text() == "another's\n"


def test_text_that_was_moved_meanwhile_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with kept_text_file(path, force=False) as stream:
        stream.write("1\n")
        path.rename(tmp_path / "b.csv")
    assert [entry.name for entry in tmp_path.iterdir()] == ["b.csv"]


def test_a_pipe_that_broke_is_not_the_files_fault(tmp_path: Path) -> None:
    """What is printed beside a file, into `head` for example, raises within the file's block."""

    def text() -> None:
        with kept_text_file(tmp_path / "a.csv", force=False) as stream:
            stream.write("1\n")
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def table() -> None:
        with kept_file(tmp_path / "a.parquet", force=False) as temporary:
            temporary.write_bytes(b"PAR1")
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    for write in (text, table):
        with pytest.raises(BrokenPipeError):
            write()
    assert (tmp_path / "a.csv").read_text() == "1\n"
    assert (tmp_path / "a.parquet").read_bytes() == b"PAR1"
    assert len(list(tmp_path.iterdir())) == 2
