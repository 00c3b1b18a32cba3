from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lbkit.cli.infer_video import video_boxes
from lbkit.core.geometry import ImageSize
from lbkit.core.images import write_image
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.runtime import person_detector
from lbkit.video.files import VideoFile
from lbkit.video.results import parquet_table

SIZE = ImageSize(300, 220)
JOINTS = np.array([[150.0, 120], [80, 124], [155, 180], [78, 186], [148, 240], [84, 236]])
TIMES_S = [0.1, 0.14, 0.2, 0.4, 0.45]
START = "from lbkit.cli.main import main; main()"


Infer = Callable[..., Any]


@pytest.fixture
def infer(toy_model: Path, lbkit: Infer) -> Infer:
    """Run `lbkit infer` with the toy model, as the command line does."""

    return lambda *arguments: lbkit("infer", *arguments, "--model", toy_model, "--threads", 1)


@pytest.fixture
def clip(clips: ModuleType, toys: ModuleType, tmp_path: Path) -> Path:
    image = toys.spotted_image(SIZE, JOINTS, spread_px=5, background=60)
    return clips.write_clip(tmp_path / "clip.mp4", [image] * len(TIMES_S), TIMES_S)


def times(path: Path) -> list[float]:
    with VideoFile(path) as video:
        return [frame.time_s for frame in video.frames()]


def xy(person: dict[str, Any]) -> np.ndarray:
    return np.array([[joint["x"], joint["y"]] for joint in person["keypoints"].values()])


def test_a_clip_gives_a_line_a_frame_and_a_drawn_video(infer: Infer, clip: Path, tmp_path: Path) -> None:
    outcome = infer(clip, "--draw", tmp_path / "drawn.mp4")
    assert outcome.code == 0
    assert [record["frame"] for record in outcome.records] == list(range(5))
    assert [record["time_s"] for record in outcome.records] == pytest.approx(TIMES_S)
    for record in outcome.records:
        (person,) = record["people"]
        assert person["id"] == 1
        np.testing.assert_allclose(xy(person), JOINTS, atol=1.5)
    assert times(tmp_path / "drawn.mp4") == pytest.approx(TIMES_S, abs=2e-5)
    assert outcome.err.splitlines()[0].startswith(f"{clip}: 5 frames, 1 person in ")
    assert f"written: {tmp_path / 'drawn.mp4'}" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("next: lbkit ")


def test_what_is_drawn_is_a_skeleton(infer: Infer, clip: Path, tmp_path: Path) -> None:
    infer(clip, "--draw", tmp_path / "drawn.mp4")
    with VideoFile(clip) as source, VideoFile(tmp_path / "drawn.mp4") as drawn:
        before, after = (next(video.frames()).image.astype(int) for video in (source, drawn))
    change = np.abs(after - before).max(axis=2)
    middle = ((JOINTS[0] + JOINTS[2]) / 2).round().astype(int)
    assert change[middle[1], middle[0]] > 60
    assert np.median(change) < 12


def test_a_table_has_a_row_a_person_and_frame(infer: Infer, clip: Path, tmp_path: Path) -> None:
    assert infer(clip, "--output", tmp_path / "a.csv", "--stride", 2).code == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [(row["frame"], row["id"]) for row in rows] == [("0", "1"), ("2", "1"), ("4", "1")]
    assert [float(row["time_s"]) for row in rows] == pytest.approx(TIMES_S[::2])
    assert float(rows[0]["right_ankle_y"]) == pytest.approx(JOINTS[5, 1], abs=1.5)


def test_several_clips_are_drawn_into_a_folder(infer: Infer, clip: Path, clips: ModuleType, tmp_path: Path) -> None:
    empty = clips.write_clip(tmp_path / "empty.mov", clips.flat_images(3), [0.0, 0.1, 0.2])
    outcome = infer(clip, empty, "--draw", tmp_path / "drawn")
    assert outcome.code == 0
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["clip.mp4", "empty.mp4"]
    assert [len(record["people"]) for record in outcome.records] == [1] * 5 + [0] * 3
    assert outcome.err.count("note: nobody was found") == 1


def test_a_quoted_pattern_of_clips(infer: Infer, clip: Path) -> None:
    outcome = infer(clip.parent / "*.mp4")
    assert outcome.code == 0
    assert {record["path"] for record in outcome.records} == {str(clip)}


def test_a_bad_clip_is_reported_and_the_good_one_delivered(
    infer: Infer, clip: Path, clips: ModuleType, tmp_path: Path
) -> None:
    sound = clips.write_sound(tmp_path / "sound.mp4")
    outcome = infer(sound, clip)
    assert outcome.code == 1
    assert len(outcome.records) == 5
    (error,) = outcome.errors
    assert error.startswith(f"{sound}: holds only sound, no video; ")


def test_broken_frames_are_counted_and_the_code_is_1(infer: Infer, clips: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(12)]
    path = clips.write_clip(tmp_path / "a.mp4", images, [number / 30 for number in range(12)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 6000] = bytes(6000)
    path.write_bytes(data)
    outcome = infer(path, "--boxes", "whole")
    assert outcome.code == 1
    assert "broken and skipped" in outcome.errors[0]
    assert 5 <= len(outcome.records) < 12


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["{clip}", "{photo}"], "is a video and"),
        (["{clip}", "--heatmaps", "h"], "--heatmaps and --recursive are for pictures"),
        (["{clip}", "--boxes", "coco:a.json"], "a video takes --boxes auto, whole or detector:FILE.onnx"),
        (["{clip}", "--boxes", "a.csv"], "a video takes --boxes auto, whole or detector:FILE.onnx"),
        (["{clip}", "{clip}", "--draw", "one.mp4"], "2 videos need a folder"),
        (["{photo}", "--stride", "2"], "--stride and --show are for videos"),
        (["{photo}", "--draw", "{photo}"], "is a file, and pictures are drawn into a folder"),
        (["{clip}", "--boxes", "yolox.onnx"], "Did you mean 'detector:yolox.onnx'?"),
        (["{clip}", "--stride", "0"], "0 is not in the range"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(
    infer: Infer, clip: Path, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    photo = tmp_path / "photo.png"
    write_image(photo, np.zeros((64, 64, 3), np.uint8))
    outcome = infer(*(argument.format(clip=clip, photo=photo) for argument in arguments))
    assert outcome.code == 2
    assert reason in " ".join(outcome.err.split())


def test_a_table_can_be_parquet(infer: Infer, clip: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert infer(clip, "--output", tmp_path / "a.csv").code == 0
    assert infer(clip, "--output", tmp_path / "a.parquet").code == 0
    with (tmp_path / "a.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.column_names == list(rows[0])
    assert [{name: str(value) for name, value in row.items()} for row in table.to_pylist()] == rows
    assert infer(clip, "--format", "parquet").code == 2
    assert infer(clip, "--output", tmp_path / "a.parquet").code == 1  # it exists already


def parquet_row(name: str) -> list[Any]:
    return [name, 0, 0.0, 60, 80, 1, *[1.0] * (5 + 3 * len(LOWER_BODY_6))]


def test_a_name_that_is_no_utf_8_is_told_in_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with parquet_table(tmp_path / "a.parquet", LOWER_BODY_6, force=False) as add:
        add([parquet_row(os.fsdecode(b"caf\xe9.mp4")), parquet_row("caf\u00e9.mp4")])
    assert parquet.read_table(tmp_path / "a.parquet")["path"].to_pylist() == ["caf\\xe9.mp4", "caf\u00e9.mp4"]


def test_an_interrupted_parquet_table_holds_what_was_found(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    row = parquet_row("clip.mp4")

    def interrupted() -> None:
        with parquet_table(tmp_path / "a.parquet", LOWER_BODY_6, force=False) as add:
            add([row] * 3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert parquet.read_table(tmp_path / "a.parquet").num_rows == 3
    with parquet_table(tmp_path / "empty.parquet", LOWER_BODY_6, force=False):
        pass
    assert parquet.read_table(tmp_path / "empty.parquet").num_rows == 0
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("target", "reason"),
    [("clip.mp4", "is the video that is read"), ("there.mp4", "exists already"), ("a.gif", "is no name for a video")],
)
def test_a_drawing_that_cannot_be_written_is_an_error(
    infer: Infer, clip: Path, tmp_path: Path, target: str, reason: str
) -> None:
    (tmp_path / "there.mp4").write_bytes(b"mine")
    outcome = infer(clip, "--draw", tmp_path / target)
    assert outcome.code == 1
    assert reason in outcome.errors[0]
    assert len(outcome.err.splitlines()) == 1
    assert (tmp_path / "there.mp4").read_bytes() == b"mine"


def test_without_a_screen_show_says_what_mends_it(infer: Infer, clip: Path) -> None:
    outcome = infer(clip, "--show")
    assert outcome.code == 1
    assert "pip install opencv-python" in outcome.errors[0]


def test_people_of_a_detector_in_clips_and_pictures(
    infer: Infer, clip: Path, toys: ModuleType, detectors: ModuleType, tmp_path: Path
) -> None:
    """The detector's box is about the joints; in its input the picture is scaled by 64 / 300."""
    box = [edge * 64 / 300 for edge in (60, 90, 175, 270)]
    boxes = f"detector:{detectors.save_rtmdet(tmp_path / 'd.onnx', [box])}"
    image = toys.spotted_image(SIZE, JOINTS, spread_px=5, background=60)
    image[10:22, 18:30, 0] = 255  # what makes this detector sure
    photo = tmp_path / "photo.png"
    write_image(photo, image)
    outcome = infer(photo, "--boxes", boxes)
    assert outcome.code == 0
    ((person,),) = (record["people"] for record in outcome.records)
    np.testing.assert_allclose(person["box_xyxy"], (60, 90, 175, 270), atol=0.1)
    np.testing.assert_allclose(xy(person), JOINTS, atol=1.0)
    assert [record["people"] for record in infer(clip, "--boxes", boxes).records] == [[]] * 5


@pytest.mark.parametrize(
    ("asked", "provider"),
    [("cpu", "cpu"), ("cuda", "cuda"), ("auto", "cpu"), ("openvino", "cpu"), ("openvino-bf16", "cpu")],
)
def test_a_detector_runs_in_onnx_runtime_whatever_the_model_runs_in(
    detectors: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, provider: str
) -> None:
    real, opened = person_detector.open_session, []

    def open_on_cpu(path: Path, *, provider: str, threads: int | None) -> Any:
        opened.append(provider)
        return real(path, provider="cpu", threads=threads)

    monkeypatch.setattr(person_detector, "open_session", open_on_cpu)
    path = detectors.save_yolox(tmp_path / "d.onnx", [[1, 1, 9, 9]])
    found = video_boxes(f"detector:{path}", {"provider": asked, "threads": 1})
    assert not isinstance(found, str)
    assert opened == [provider]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_ctrl_c_keeps_what_was_done(clips: ModuleType, toys: ModuleType, toy_model: Path, tmp_path: Path) -> None:
    image = toys.spotted_image(SIZE, JOINTS, spread_px=5, background=60)
    path = clips.write_clip(tmp_path / "long.mp4", [image] * 900, [number / 30 for number in range(900)])
    drawn, output = tmp_path / "drawn.mp4", tmp_path / "out.jsonl"
    command = [
        sys.executable,
        "-c",
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + START,
    ]
    command += ["infer", path, "--model", toy_model, "--draw", drawn, "--output", output, "--threads", "1"]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        while not (output.is_file() and output.stat().st_size):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "error: interrupted"
    assert f"written: {drawn}" in err
    lines = output.read_text().splitlines()
    frames = [json.loads(line)["frame"] for line in lines]
    assert 0 < len(frames) < 900
    assert frames == list(range(len(frames)))
    assert abs(len(times(drawn)) - len(frames)) <= 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["drawn.mp4", "long.mp4", "out.jsonl"]
