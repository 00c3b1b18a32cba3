from __future__ import annotations

import csv
import io
import json
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lbkit.core.detections import Detections
from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.errors import InputError, VideoReadError
from lbkit.runtime.ort_backend import OrtBackend
from lbkit.video.files import VideoFile
from lbkit.video.pipeline import AHEAD, FramePoses, follow_people, pose_tracks
from lbkit.video.results import csv_header, csv_rows, json_line
from lbkit.video.source import Frame, VideoInfo
from lbkit.video.stages import ahead_in_thread

SIZE = ImageSize(300, 420)
PERSON = np.array([[150.0, 120], [80, 124], [155, 180], [78, 186], [148, 240], [84, 236]])
TIMES_S = [0.2, 0.24, 0.3, 0.33, 0.5, 0.52, 0.9]


@pytest.fixture
def estimator(toy_model: Path) -> PoseEstimator:
    return PoseEstimator(OrtBackend(toy_model, threads=1))


@pytest.fixture
def walk(toys: ModuleType, clips: ModuleType, tmp_path: Path) -> Path:
    """A person who moves 18 px to the right from frame to frame."""
    images = [
        toys.spotted_image(SIZE, PERSON + np.array([18.0 * number, 0]), spread_px=5, background=40)
        for number in range(7)
    ]
    return clips.write_clip(tmp_path / "walk.mp4", images, TIMES_S)


class Endless:
    """A source of as many frames as wanted, all of one picture."""

    broken_frames = dropped_frames = repaired_times = 0

    def __init__(self, image: ImageArray, count: int) -> None:
        self._image, self._count = image, count
        self.info = VideoInfo("endless", ImageSize.of(image), 30.0, count, 0.0, is_live=False)
        self.drawn = 0

    def frames(self, *, stride: int = 1) -> Iterator[Frame]:
        for index in range(0, self._count, stride):
            self.drawn += 1
            yield Frame(index, index / 30, self._image.copy())

    def close(self) -> None: ...

    def __enter__(self) -> Endless:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_the_joints_come_back_where_and_when_they_are(estimator: PoseEstimator, walk: Path) -> None:
    with VideoFile(walk) as video:
        results = list(follow_people(video, estimator))
    assert [result.index for result in results] == list(range(7))
    assert [result.time_s for result in results] == pytest.approx(TIMES_S)
    for number, result in enumerate(results):
        assert result.ids == (1,)
        np.testing.assert_allclose(result.poses.xy[0], PERSON + np.array([18.0 * number, 0]), atol=1.5)


def test_a_turned_video_has_joints_in_the_picture_as_it_is_shown(
    estimator: PoseEstimator, toys: ModuleType, clips: ModuleType, tmp_path: Path
) -> None:
    shown = toys.spotted_image(SIZE, PERSON, spread_px=5, background=40)
    stored = np.rot90(shown, -1)  # so that a quarter counterclockwise shows it upright
    path = clips.write_clip(tmp_path / "a.mp4", [stored] * 2, [0.0, 0.1], rotation_deg=90)
    with VideoFile(path) as video:
        results = list(follow_people(video, estimator))
    assert results[0].poses.image_size == SIZE
    np.testing.assert_allclose(results[1].poses.xy[0], PERSON, atol=1.5)


def test_tracks_have_a_row_a_frame_and_nan_where_nobody_was(
    estimator: PoseEstimator, toys: ModuleType, clips: ModuleType, tmp_path: Path
) -> None:
    person, empty = (toys.spotted_image(SIZE, joints, spread_px=5) for joints in (PERSON, PERSON + 2000))
    path = clips.write_clip(tmp_path / "a.mp4", [person, empty, person, person], [0.0, 0.1, 0.2, 0.7])
    with VideoFile(path) as video:
        (track,) = pose_tracks(follow_people(video, estimator))
    assert track.time_s == pytest.approx([0.0, 0.1, 0.2, 0.7])
    assert track.found.all(axis=1).tolist() == [True, False, True, True]
    assert (track.track_id, track.image_size) == (1, SIZE)
    np.testing.assert_allclose(track.joints_xy[3], PERSON, atol=1.5)
    assert (track.scores[1] == 0).all()
    assert (track.scores[0] > 0.2).all()


def test_a_video_without_people_has_no_tracks(estimator: PoseEstimator, clips: ModuleType, tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "a.mp4", clips.flat_images(3), [0.0, 0.1, 0.2])
    with VideoFile(path) as video:
        results = list(follow_people(video, estimator))
    assert [len(result.poses) for result in results] == [0, 0, 0]
    assert pose_tracks(results) == []


def test_a_detectors_people_each_have_a_track(
    estimator: PoseEstimator, toys: ModuleType, clips: ModuleType, tmp_path: Path
) -> None:
    class Two:
        def detect(self, image: ImageArray) -> Detections:  # noqa: ARG002
            return Detections(np.array([[60.0, 90, 175, 270], [240.0, 90, 355, 270]]), np.array([0.9, 0.8]))

    both = [PERSON, PERSON + np.array([180.0, 6.0])]
    image = np.maximum(*(toys.spotted_image(SIZE, joints, spread_px=5) for joints in both))
    path = clips.write_clip(tmp_path / "a.mp4", [image] * 3, [0.0, 0.1, 0.2])
    with VideoFile(path) as video:
        tracks = pose_tracks(follow_people(video, estimator, boxes=Two()))
    assert [track.track_id for track in tracks] == [1, 2]
    for track in tracks:
        expected = both[0] if track.joints_xy[0, 0, 0] < 200 else both[1]
        np.testing.assert_allclose(track.joints_xy, np.stack([expected] * 3), atol=1.5)


def test_a_stride_below_one_is_an_error(estimator: PoseEstimator) -> None:
    source = Endless(np.zeros((64, 64, 3), np.uint8), 3)
    with pytest.raises(InputError, match="stride must be at least 1"):
        next(follow_people(source, estimator, stride=0))


def test_what_reading_raises_comes_out_after_the_frames_before_it(estimator: PoseEstimator) -> None:
    class Failing(Endless):
        def frames(self, *, stride: int = 1) -> Iterator[Frame]:
            yield from super().frames(stride=stride)
            raise VideoReadError("the stream broke off", where="endless")

    results = follow_people(Failing(np.zeros((64, 64, 3), np.uint8), 3), estimator)
    assert [next(results).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(VideoReadError, match="broke off"):
        next(results)


def test_leaving_early_ends_the_thread_and_reads_no_further(estimator: PoseEstimator) -> None:
    source = Endless(np.zeros((64, 64, 3), np.uint8), 10_000)
    before = threading.active_count()
    results = follow_people(source, estimator)
    next(results)
    results.close()
    assert threading.active_count() == before
    assert source.drawn <= AHEAD + 3


def test_memory_is_flat_over_a_long_video(estimator: PoseEstimator) -> None:
    source = Endless(np.zeros((120, 160, 3), np.uint8), 300)
    picture = 120 * 160 * 3  # 300 of them would be 17 MB
    tracemalloc.start()
    try:
        peaks = []
        for result in follow_people(source, estimator, boxes="whole"):
            if result.index in (100, 299):
                peaks.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2 * picture


def test_drawing_ahead_is_bounded() -> None:
    drawn: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield number

    ahead = ahead_in_thread(numbers(), ahead=2)
    assert next(ahead) == 0
    assert len(drawn) <= 5
    assert list(ahead) == list(range(1, 100))


def test_results_are_a_line_a_frame_and_a_row_a_person(estimator: PoseEstimator, walk: Path) -> None:
    with VideoFile(walk) as video:
        first = next(results := follow_people(video, estimator))
        results.close()
    record = json.loads(json_line(first, path="walk.mp4"))
    assert [record[name] for name in ("path", "frame", "time_s", "width", "height")] == ["walk.mp4", 0, 0.2, 420, 300]
    (person,) = record["people"]
    assert person["id"] == 1
    assert tuple(person["keypoints"]) == LOWER_BODY_6.names
    (row,) = csv.DictReader(io.StringIO(csv_header(LOWER_BODY_6) + csv_rows(first, path="walk.mp4")))
    assert (row["path"], row["frame"], row["time_s"], row["id"]) == ("walk.mp4", "0", "0.2", "1")
    assert float(row["left_hip_x"]) == person["keypoints"]["left_hip"]["x"]
    nobody = FramePoses(0, 0.0, first.image, first.poses.empty(SIZE, LOWER_BODY_6), ())
    assert json.loads(json_line(nobody, path="a"))["people"] == []
    assert csv_rows(nobody, path="a") == ""


def test_ids_and_people_must_agree(estimator: PoseEstimator, walk: Path) -> None:
    with VideoFile(walk) as video:
        first = next(results := follow_people(video, estimator))
        results.close()
    with pytest.raises(ValueError, match="1 people need as many ids"):
        FramePoses(0, 0.0, first.image, first.poses, (1, 2))
