"""`lbkit squat` on a small video file, with a network that sees what the leg model does."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from lbkit.cli.figures import CLIP_SUFFIXES, VIEW_CHOICES
from lbkit.cli.main import run
from lbkit.core.contract import Figure
from lbkit.core.geometry import ImageSize
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.core.poses import Poses
from lbkit.core.tracks import PoseTrack
from lbkit.errors import OutputError
from lbkit.motion import chart
from lbkit.motion.clip import AZIMUTHS_DEG
from lbkit.motion.squat import NOTICE
from lbkit.motion.synthetic import PlannedSquat, SquatSession, camera_at, project_track, session_times
from lbkit.runtime import loading

av = pytest.importorskip("av")

from lbkit.video import pipeline, tracking  # noqa: E402
from lbkit.video.pipeline import FramePoses  # noqa: E402
from lbkit.video.sink import SUFFIXES, VideoWriter  # noqa: E402

SIZE = ImageSize(height=120, width=160)
SQUATS = (PlannedSquat(depth_deg=100), PlannedSquat(depth_deg=70), PlannedSquat(depth_deg=95))


def track_of(azimuth_deg: float = 90.0) -> PoseTrack:
    time_s = session_times(SQUATS, fps=15)
    camera = camera_at(azimuth_deg, size=SIZE)
    return project_track(time_s, SquatSession(SQUATS, time_s).joints_xyz(), camera=camera)


TRACK = track_of()


class Network:
    """Stands for the walk over a video: gives the joints of tracks, by the frames that the video really has."""

    def __init__(self) -> None:
        self.tracks = {1: TRACK}
        self.interrupt_after: int | None = None
        self.has_company: bool | None = None

    def follow(self, video: Any, _: Any, *, stride: int, **__: Any) -> Iterator[FramePoses]:
        for row, frame in enumerate(video.frames(stride=stride)):
            if row == self.interrupt_after:
                raise KeyboardInterrupt
            at = frame.index
            seen = [number for number, track in self.tracks.items() if track.found[at].all()]
            joints = np.array([self.tracks[number].joints_xy[at] for number in seen]).reshape(-1, 6, 2)
            poses = Poses(joints, np.full((len(seen), 6), 0.9), np.zeros((len(seen), 4)), SIZE, LOWER_BODY_6)
            yield FramePoses(
                index=frame.index,
                time_s=frame.time_s,
                image=frame.image,
                poses=poses,
                ids=tuple(seen),
                has_company=self.has_company,
            )


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    walk = Network()
    monkeypatch.setattr(pipeline, "follow_people", walk.follow)
    monkeypatch.setattr(tracking, "person_score_limit", lambda _: 0.2)
    model = SimpleNamespace(contract=SimpleNamespace(evaluation=()))
    monkeypatch.setattr(loading, "load_model", lambda *_, **__: model)
    return walk


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with VideoWriter(path, size=SIZE, frames_per_s=15) as writer:
        for time in TRACK.time_s:
            writer.write(float(time), np.full((SIZE.height, SIZE.width, 3), 90, np.uint8))
    return path


def test_repetitions_and_the_notice_are_printed(
    network: Network, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["squat", str(clip)]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == f"{clip}: 3 squats, side view"
    assert sum("°" in line for line in lines) == 3
    assert any("degrees; a squat to parallel" in line for line in lines)
    assert lines[-1] == NOTICE
    assert printed.out.count("medical device") == 1
    assert f"next: lbkit squat {clip} --draw" in printed.err


def test_json_goes_to_stdout_alone(network: Network, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["squat", str(clip), "--json", "-q"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert isinstance(found["repetitions"], list)
    assert [round(item["depth_deg"], -1) for item in found["repetitions"]] == [100, 70, 100]
    assert found["view"]["name"] == "side"
    assert len(found["frames"]) == len(TRACK)
    assert found["warnings"]
    assert printed.err == ""


def test_tables_video_and_report_are_written_and_not_overwritten(
    network: Network, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"--frames": "f.csv", "--repetitions": "r.csv", "--draw": "drawn.mp4", "--report": "report.png"}
    arguments = ["squat", str(clip)]
    for option, name in files.items():
        arguments += [option, str(tmp_path / name)]
    assert run(arguments) == 0
    assert len(list(csv.DictReader((tmp_path / "r.csv").open(encoding="utf-8")))) == 3
    assert len(list(csv.DictReader((tmp_path / "f.csv").open(encoding="utf-8")))) == len(TRACK)
    assert cv2.imread(str(tmp_path / "report.png")).shape[1] > 1000
    with av.open(str(tmp_path / "drawn.mp4")) as drawn:
        frames = [frame.to_ndarray(format="rgb24") for frame in drawn.decode(video=0)]
    assert len(frames) == len(TRACK)
    assert np.abs(frames[40].astype(int) - 90).max() > 100
    capsys.readouterr()
    assert run(arguments) == 1
    assert "exists already" in capsys.readouterr().err
    assert run([*arguments, "--force"]) == 0


def test_live_prints_a_line_a_repetition(network: Network, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["squat", str(clip), "--live"]) == 0
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines() if "°" in line] == ["1", "2", "3"]
    assert printed.err.count(NOTICE) == 1
    assert "3 squats" in printed.err
    assert run(["squat", str(clip), "--live", "--json"]) == 0
    items = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["number"] for item in items] == [1, 2, 3]


def live_arguments(clip: Path, folder: Path) -> list[str]:
    files = {"--frames": "f.csv", "--repetitions": "r.csv", "--draw": "drawn.mp4"}
    return [
        "squat",
        str(clip),
        "--live",
        *(text for option, name in files.items() for text in (option, str(folder / name))),
    ]


def test_live_writes_tables_and_video_as_they_come(
    network: Network, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(live_arguments(clip, tmp_path)) == 0
    frames = list(csv.DictReader((tmp_path / "f.csv").open(encoding="utf-8")))
    repetitions = list(csv.DictReader((tmp_path / "r.csv").open(encoding="utf-8")))
    assert [float(row["time_s"]) for row in frames] == pytest.approx(TRACK.time_s.tolist(), abs=2e-3)
    assert [row["number"] for row in repetitions] == ["1", "2", "3"]
    for row in repetitions:
        deepest = min(frames, key=lambda frame: abs(float(frame["time_s"]) - float(row["deepest_s"])))
        assert (deepest["phase"], deepest["repetition"]) == ("bottom", row["number"])
    with av.open(str(tmp_path / "drawn.mp4")) as drawn:
        pictures = [frame.to_ndarray(format="rgb24") for frame in drawn.decode(video=0)]
    assert len(pictures) == len(TRACK)
    assert np.abs(pictures[-1].astype(int) - 90).max() > 100
    assert capsys.readouterr().err.count("written:") == 3


def test_what_live_did_not_write_is_not_called_written(
    network: Network, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "drawn.mp4").write_bytes(b"old")
    arguments = [*live_arguments(clip, tmp_path), "--force", "--repetitions", str(tmp_path / "drawn.mp4" / "r.csv")]
    assert run(arguments) == 1
    err = capsys.readouterr().err
    assert "cannot be written" in err
    assert [line for line in err.splitlines() if "written: " in line] == [f"written: {tmp_path / 'f.csv'}"]
    assert (tmp_path / "drawn.mp4").read_bytes() == b"old"


def test_live_tables_can_be_read_meanwhile(network: Network, clip: Path, tmp_path: Path) -> None:
    walk, seen = network.follow, []

    def follow(*arguments: Any, **options: Any) -> Iterator[FramePoses]:
        for result in walk(*arguments, **options):
            yield result
            seen.append((tmp_path / "f.csv").read_text(encoding="utf-8").count("\n"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "follow_people", follow)
        assert run(live_arguments(clip, tmp_path)) == 0
    assert seen[0] == 1  # the header
    assert seen[-1] > 0.7 * len(TRACK)


def test_ctrl_c_keeps_what_was_written_live(
    network: Network, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network.interrupt_after = int(np.searchsorted(TRACK.time_s, 5.0))
    assert run(live_arguments(clip, tmp_path)) == 130
    assert len(list(csv.DictReader((tmp_path / "f.csv").open(encoding="utf-8")))) > 0.9 * network.interrupt_after
    assert [row["number"] for row in csv.DictReader((tmp_path / "r.csv").open(encoding="utf-8"))] == ["1"]
    with av.open(str(tmp_path / "drawn.mp4")) as drawn:
        assert sum(1 for _ in drawn.decode(video=0)) == network.interrupt_after
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("--report", "r.png", "needs a recording"),
        ("--frames", "f.parquet", "writes .csv when live"),
        ("--repetitions", "f.parquet", "writes .csv when live"),
    ],
)
def test_live_cannot_write_what_needs_the_whole(
    network: Network,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    name: str,
    message: str,
) -> None:
    pytest.importorskip("pyarrow")
    assert run(["squat", str(clip), "--live", option, str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err


def test_a_table_without_squats_has_its_header(
    network: Network, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network.tracks = {1: replace(TRACK, joints_xy=np.repeat(TRACK.joints_xy[:1], len(TRACK), axis=0))}
    for number, live in enumerate(([], ["--live"])):
        path = tmp_path / f"{number}.csv"
        assert run(["squat", str(clip), *live, "--repetitions", str(path)]) == 0
        (line,) = path.read_text(encoding="utf-8").splitlines()
        assert line.startswith("number,start_s,")


def test_ctrl_c_keeps_what_was_seen(
    network: Network, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network.interrupt_after = int(np.searchsorted(TRACK.time_s, 5.0))
    arguments = ["squat", str(clip), "--json", "--draw", str(tmp_path / "part.mp4")]
    assert run([*arguments, "--repetitions", str(tmp_path / "r.csv")]) == 130
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert len(found["frames"]) == network.interrupt_after
    assert found["count"] >= 1
    assert (tmp_path / "r.csv").is_file()
    with av.open(str(tmp_path / "part.mp4")) as drawn:
        assert sum(1 for _ in drawn.decode(video=0)) == network.interrupt_after
    assert "interrupted" in printed.err


def test_broken_frames_are_told_and_the_rest_is_counted(
    network: Network, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def follow(video: Any, *others: Any, **chosen: Any) -> Iterator[FramePoses]:
        video.broken_frames = 7
        return network.follow(video, *others, **chosen)

    monkeypatch.setattr(pipeline, "follow_people", follow)
    for live in ([], ["--live"]):
        assert run(["squat", str(clip), *live]) == 1
        printed = capsys.readouterr()
        assert f"error: {clip}: 7 frames broken and skipped" in printed.err
        assert printed.out.count("°") == 3
    run(["squat", str(clip), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["warnings"][-1] == {"code": "broken_frames", "sentence": "7 frames broken and skipped."}


def test_a_table_that_cannot_be_written_stops_nothing_else(
    network: Network, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    tables = ["--frames", str(tmp_path / "file" / "f.csv"), "--repetitions", str(tmp_path / "r.csv")]
    assert run(["squat", str(clip), *tables, "--report", str(tmp_path / "r.png")]) == 1
    printed = capsys.readouterr()
    assert ": 3 squats" in printed.out
    assert "cannot be written" in printed.err
    assert (tmp_path / "r.csv").is_file()
    assert (tmp_path / "r.png").is_file()


def test_each_file_that_cannot_be_written_is_told_and_stops_no_other(
    network: Network, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is there already is replaced; a folder that is a file can hold neither tables nor videos."""
    (tmp_path / "file").write_bytes(b"")
    lost = {"--frames": "file/f.csv", "--repetitions": "file/r.csv", "--draw": "file/drawn.mp4"}
    arguments = ["squat", str(clip), "--force", "--report", str(tmp_path / "r.png")]
    arguments += [text for option, name in lost.items() for text in (option, str(tmp_path / name))]
    (tmp_path / "r.png").write_bytes(b"old")
    assert run(arguments) == 1
    printed = capsys.readouterr()
    assert ": 3 squats" in printed.out
    lines = printed.err.splitlines()
    told = [line for line in lines if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in told] == [str(tmp_path / name) for name in lost.values()]
    assert [line for line in lines if line.startswith("written: ")] == [f"written: {tmp_path / 'r.png'}"]
    assert cv2.imread(str(tmp_path / "r.png")).shape[1] > 1000


def test_a_file_that_failed_is_not_called_written_because_an_old_one_is_there(
    network: Network, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *_: Any, **__: Any) -> None:
        raise OutputError("cannot be written", where=path.name)

    monkeypatch.setattr(chart, "write_chart", fail)
    (tmp_path / "r.png").write_bytes(b"old")
    files = ["--report", str(tmp_path / "r.png"), "--draw", str(tmp_path / "drawn.mp4")]
    assert run(["squat", str(clip), "--force", *files]) == 1
    err = capsys.readouterr().err
    assert "error: r.png: cannot be written" in err
    assert f"written: {tmp_path / 'drawn.mp4'}" in err
    assert f"written: {tmp_path / 'r.png'}" not in err


def test_a_broken_end_is_told_beside_a_file_that_cannot_be_written(
    network: Network, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network.interrupt_after = int(np.searchsorted(TRACK.time_s, 5.0))
    (tmp_path / "file").write_bytes(b"")
    assert run(["squat", str(clip), "--frames", str(tmp_path / "file" / "f.csv")]) == 130
    err = capsys.readouterr().err
    assert "f.csv: cannot be written" in err
    assert "error: interrupted" in err


def test_a_clip_without_people_says_so(network: Network, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = np.full(TRACK.joints_xy.shape, np.nan)
    network.tracks = {1: replace(TRACK, joints_xy=gone, scores=np.zeros(TRACK.scores.shape))}
    assert run(["squat", str(clip)]) == 1
    printed = capsys.readouterr()
    assert "nobody was found in any frame" in printed.err
    assert printed.out == ""


def test_of_two_people_the_longest_seen_is_taken_and_the_other_can_be_asked_for(
    network: Network, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upright = np.repeat(TRACK.joints_xy[:1], len(TRACK), axis=0)
    upright[-20:] = np.nan
    scores = np.where(np.isnan(upright[..., 0]), 0.0, 0.9)
    network.tracks = {1: TRACK, 2: replace(TRACK, joints_xy=upright, scores=scores)}
    assert run(["squat", str(clip)]) == 0
    printed = capsys.readouterr()
    assert ": 3 squats" in printed.out
    assert "warning: person 1 was seen longest; --person takes another: 2" in printed.err
    assert run(["squat", str(clip), "--person", "2"]) == 0
    assert ": 0 squats" in capsys.readouterr().out
    assert run(["squat", str(clip), "--person", "7"]) == 1
    assert "has no person 7; there are 1, 2" in capsys.readouterr().err


def test_only_who_has_no_detector_is_told_to_take_one(
    network: Network,
    clip: Path,
    detectors: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two people are there, and the joints of the second go over to another place in the middle."""
    moved = TRACK.joints_xy.copy()
    moved[len(moved) // 2 :, :, 0] += 70
    network.tracks = {1: TRACK, 2: replace(TRACK, joints_xy=moved)}
    network.has_company = True
    hint = "--boxes detector:FILE.onnx tells people apart"
    assert run(["squat", str(clip), "--person", "2"]) == 0
    out = capsys.readouterr().out
    assert "Somebody else was in the picture in 100% of the looks" in out
    assert out.count(hint) == 1
    boxes = f"detector:{detectors.save_yolox(tmp_path / 'd.onnx', [[1, 1, 9, 9]])}"
    assert run(["squat", str(clip), "--person", "2", "--boxes", boxes]) == 0
    out = capsys.readouterr().out
    assert "perhaps to another person" in out
    assert "--draw shows whose squats these are\n" in out
    assert "Somebody else" not in out
    assert hint not in out


@pytest.mark.parametrize("content", [b"", b"\x00" * 4096, b"no video"])
def test_a_broken_file_is_one_line(
    network: Network, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    assert run(["squat", str(path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {path}")
    assert len(printed.err.splitlines()) == 1


def test_sound_without_a_picture_is_one_line(
    network: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    assert run(["squat", str(path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.mp4"], 1, "none.mp4"),
        (["clip.mp4", "--boxes", "everybody"], 2, "none of auto, whole, detector"),
        (["clip.mp4", "--boxes", "detector:"], 2, "none of auto, whole, detector"),
        (["clip.mp4", "--stride", "0"], 2, "1<=x<=1000000"),
        (["clip.mp4", "--frames", "table.xls"], 1, "no name for a table"),
        (["clip.mp4", "--report", "report.jpg"], 1, "end it in .png"),
        (["clip.mp4", "--draw", "drawn.gif"], 1, "no name for a video"),
        (["clip.mp4", "--frames", "a.csv", "--repetitions", "a.csv"], 2, "named twice"),
        (["clip.mp4", "--limits", "none.toml"], 1, "none.toml"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(
    network: Network, arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["squat", *arguments]) == code
    assert message in capsys.readouterr().err


def test_a_single_frame_is_no_movement(network: Network, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["squat", str(clip), "--stride", "1000000"]) == 1
    assert "only one frame was looked at" in capsys.readouterr().err


def test_choices_spelled_out_are_the_librarys() -> None:
    assert set(CLIP_SUFFIXES) == set(SUFFIXES)
    assert set(VIEW_CHOICES) == set(AZIMUTHS_DEG)


def test_a_rendered_clip_is_written_and_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "squats.mp4"
    arguments = ["figures", str(path), "--count", "1", "--size", "72x96", "--view", "frontal"]
    assert run(arguments) == 0
    with av.open(str(path)) as written:
        frames = [frame.to_ndarray(format="rgb24") for frame in written.decode(video=0)]
    assert len(frames) > 40
    assert frames[0].shape == (72, 96, 3)
    assert np.abs(frames[0].astype(int) - frames[len(frames) // 2]).max() > 40
    assert f"next: lbkit squat {path}" in capsys.readouterr().err
    assert run(arguments) == 1
    assert run(["figures", str(path), "--pose", "walking"]) == 2
    assert run(["figures", str(tmp_path / "folder"), "--view", "side"]) == 2


def test_a_weak_model_is_said_to_be_weak(toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value, is_warned in ((0.27, True), (0.51, False)):
        figure = Figure("pck@0.05 v>0", value, "some photographs", 17, "2026-01-02")
        contract = replace(toys.toy_contract(), evaluation=(figure,))
        model = toys.save_toy_model(tmp_path / f"{value}.onnx", contract=contract)
        run(["squat", str(tmp_path / "none.mp4"), "--model", str(model)])
        assert ("finds 27% of joints" in capsys.readouterr().err) == is_warned
