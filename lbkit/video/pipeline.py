"""The walk over a video: decoding runs ahead in a thread while the model runs in the caller's."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lbkit.core.detections import PersonDetector
from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import ImageArray, ImageSize
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.core.pipeline import single_threaded_opencv
from lbkit.core.poses import Poses
from lbkit.core.tracks import PoseTrack
from lbkit.errors import InputError
from lbkit.video.source import Frame, VideoSource
from lbkit.video.stages import ahead_in_thread
from lbkit.video.tracking import Crowd, OnePerson, Sightings, Tracker, WholeImage

VideoBoxes = PersonDetector | Literal["auto", "whole"]
"""Where people are looked for: in a detector's boxes, in one that follows one person, or on the whole picture."""

AHEAD = 3
"""Decoded frames that may wait for the model."""


@dataclass(frozen=True, slots=True, eq=False)
class FramePoses:
    """The people of one frame of a video.

    Attributes:
        index: The frame's number in the video, from 0.
        time_s: Its time in seconds, as the container gives it.
        image: (H, W, 3) uint8 RGB; whoever keeps these keeps the video in memory.
        poses: Its people, possibly none.
        ids: Each person's number, the same through the whole video.
        has_company: Whether there is somebody besides one person; None where that was not looked at, as on most frames
            on which one person is followed.
    """

    index: int
    time_s: float
    image: ImageArray
    poses: Poses
    ids: tuple[int, ...]
    has_company: bool | None = None

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.poses):
            raise ValueError(f"{len(self.poses)} people need as many ids, got {len(self.ids)}")


def follow_people(
    video: VideoSource, estimator: PoseEstimator, *, boxes: VideoBoxes = "auto", stride: int = 1
) -> Iterator[FramePoses]:
    """Find and follow the people of a video, frame by frame.

    A recorded video is decoded ahead in a thread, a few frames at most; a live one gives its newest frame each time.
    While this runs, OpenCV's own threads are switched off. Close the generator when leaving it early.

    Args:
        video: An open video, which nothing was read from.
        estimator: The model.
        boxes: Where people are looked for.
        stride: Every how many-th frame is looked at.

    Yields:
        One result a frame, in order.

    Raises:
        InputError: The stride is below 1.
        VideoReadError: The video cannot be read on.
        ModelError: The model put out something that is not a finite number.
    """
    if stride < 1:
        raise InputError(f"stride must be at least 1, got {stride}", remedy="1 looks at every frame")
    tracker = make_tracker(estimator, boxes)
    frames = video.frames(stride=stride)
    # A live source has its own thread, and what waits in a queue would be old when its turn comes.
    ahead = frames if video.info.is_live else ahead_in_thread(frames, ahead=AHEAD)
    with single_threaded_opencv(), closing(ahead):  # type: ignore[type-var]  # both are generators
        for frame in ahead:
            yield _result(frame, tracker.step(frame.image, frame.time_s), estimator)


def make_tracker(estimator: PoseEstimator, boxes: VideoBoxes) -> Tracker:
    """Return a new tracker.

    Args:
        estimator: The model.
        boxes: Where people are looked for.
    """
    if boxes == "auto":
        return OnePerson(estimator)
    if boxes == "whole":
        return WholeImage(estimator)
    return Crowd(estimator, boxes)


def pose_tracks(results: Iterable[FramePoses]) -> list[PoseTrack]:
    """Gather the frames of a video into one track a person, over all frames from the first to the last.

    Args:
        results: What `follow_people` yields; the images are let go.

    Returns:
        The tracks by their id; none where nobody was found.
    """
    times = array("d")
    seen: dict[int, tuple[array[int], array[float]]] = {}
    looks: list[bool] = []
    size: ImageSize | None = None
    for row, result in enumerate(results):
        times.append(result.time_s)
        size = result.poses.image_size
        looks += [] if result.has_company is None else [result.has_company]
        for person, track_id in enumerate(result.ids):
            rows, values = seen.setdefault(track_id, (array("q"), array("f")))
            rows.append(row)
            values.extend(result.poses.xy[person].ravel().tolist())
            values.extend(result.poses.scores[person].tolist())
    if size is None:
        return []
    company = float(np.mean(looks)) if looks else None
    return [
        replace(_track(np.array(times), *seen[track_id], size=size, track_id=track_id), company=company)
        for track_id in sorted(seen)
    ]


def _track(time_s: np.ndarray, rows: array[int], values: array[float], *, size: ImageSize, track_id: int) -> PoseTrack:
    """Return the track of a person seen in some rows, whose joints and scores follow each other in the values."""
    joints = len(LOWER_BODY_6)
    joints_xy = np.full((len(time_s), joints, 2), np.nan)
    scores = np.zeros((len(time_s), joints))
    found = np.array(values).reshape(len(rows), 3 * joints)
    joints_xy[np.array(rows)] = found[:, : 2 * joints].reshape(-1, joints, 2)
    scores[np.array(rows)] = np.clip(found[:, 2 * joints :], 0.0, 1.0)
    return PoseTrack(time_s=time_s, joints_xy=joints_xy, scores=scores, image_size=size, track_id=track_id)


def _result(frame: Frame, seen: Sightings, estimator: PoseEstimator) -> FramePoses:
    size = ImageSize.of(frame.image)
    if not seen.ids:
        poses = Poses.empty(size, estimator.contract.keypoints)
    else:
        poses = estimator.poses(seen.keypoints, seen.boxes_xyxy, image_size=size)
    return FramePoses(
        index=frame.index,
        time_s=frame.time_s,
        image=frame.image,
        poses=poses,
        ids=seen.ids,
        has_company=seen.has_company,
    )
