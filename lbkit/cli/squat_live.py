"""What `lbkit squat` does with cameras, streams and files played live: everything is told and written as it comes."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lbkit.cli.messages import plain_line
from lbkit.cli.options import is_quiet
from lbkit.cli.squat import SquatRequest, measuring_score, repetition_line, tell_broken

if TYPE_CHECKING:
    from lbkit.core.estimator import PoseEstimator
    from lbkit.motion.limits import SquatLimits
    from lbkit.motion.live import LiveCounter
    from lbkit.motion.repetitions import Repetition
    from lbkit.motion.tables import Row
    from lbkit.video.pipeline import FramePoses, VideoBoxes
    from lbkit.video.sink import VideoWriter
    from lbkit.video.source import VideoSource


def count_live(
    request: SquatRequest, video: VideoSource, estimator: PoseEstimator, *, boxes: VideoBoxes, limits: SquatLimits
) -> int:
    """Tell each repetition as it ends, until the video does or Ctrl-C comes, and write tables and video meanwhile.

    Args:
        request: What is asked for.
        video: Open and not yet read.
        estimator: The model.
        boxes: Where people are.
        limits: What counts.

    Returns:
        The exit code.

    Raises:
        UsageError: Something is asked for that only a recording can give.
    """
    _check(request)
    from lbkit.motion.live import LiveCounter
    from lbkit.motion.squat import NOTICE
    from lbkit.motion.tables import FRAME_COLUMNS, REPETITION_COLUMNS
    from lbkit.video.pipeline import follow_people

    counter = LiveCounter(video.info.size, limits=limits, min_score=measuring_score(estimator))
    results = follow_people(video, estimator, boxes=boxes, stride=request.stride)
    written: list[Path] = []
    if not is_quiet():
        click.echo(NOTICE, err=True)
    try:
        with (
            contextlib.closing(results),  # type: ignore[type-var]  # a generator
            _table(request.frames, written, columns=FRAME_COLUMNS, force=request.force) as write_frames,
            _table(request.repetitions, written, columns=REPETITION_COLUMNS, force=request.force) as write_repetitions,
            _drawing(request, video, written) as writer,
        ):
            listener = _Listener(request, counter, write_frames, write_repetitions)
            try:
                for result in results:
                    listener.take(result)
                    if writer is not None:
                        writer.write(result.time_s, _late_drawing(result, counter))
            finally:
                listener.finish()
    finally:
        _tell_end(video, counter, written)
    return tell_broken(video)


class _Listener:
    """Passes frames to the counter, and what it finds on to the screen and the tables."""

    def __init__(
        self,
        request: SquatRequest,
        counter: LiveCounter,
        write_frames: Callable[[list[Row]], object],
        write_repetitions: Callable[[list[Row]], object],
    ) -> None:
        self._request = request
        self._counter = counter
        self._write_frames = write_frames
        self._write_repetitions = write_repetitions
        self._has_warned = False

    def take(self, result: FramePoses) -> None:
        self._tell(self._counter.add(result.time_s, *_joints_of(result, self._request.person)))
        self._write_frames(self._counter.settled_rows())
        if result.has_company and self._request.person is None and not self._has_warned:
            self._has_warned = True
            click.echo(
                f"warning: somebody else was seen at {result.time_s:.1f} s: check whose squats these are", err=True
            )

    def finish(self) -> None:
        self._tell(self._counter.finish())
        self._write_frames(self._counter.settled_rows(is_over=True))

    def _tell(self, ended: list[Repetition]) -> None:
        from lbkit.motion.tables import repetition_dict, repetition_row

        for item in ended:
            click.echo(json.dumps(repetition_dict(item)) if self._request.as_json else repetition_line(item))
            if not self._request.as_json:
                for remark in item.remarks:
                    click.echo(f"      {remark.sentence}")
            sys.stdout.flush()
        self._write_repetitions([repetition_row(item) for item in ended])


def _check(request: SquatRequest) -> None:
    if request.report is not None:
        raise click.UsageError("--report needs a recording; live, repetitions are told as they end.")
    for option, path in {"--frames": request.frames, "--repetitions": request.repetitions}.items():
        if path is not None and path.suffix.lower() != ".csv":
            raise click.UsageError(f"{option} writes .csv when live, line by line.")


@contextlib.contextmanager
def _table(
    path: Path | None, written: list[Path], *, columns: tuple[str, ...], force: bool
) -> Iterator[Callable[[list[Row]], object]]:
    """Give what writes rows to a CSV file at once, which is then among those written."""
    if path is None:
        yield lambda _: None
        return
    from lbkit.motion.tables import csv_text
    from lbkit.video.sink import kept_text_file

    with kept_text_file(path, force=force) as stream:
        written.append(path)
        stream.write(csv_text([], columns, with_header=True))
        yield lambda rows: stream.write(csv_text(rows, columns, with_header=False))


@contextlib.contextmanager
def _drawing(request: SquatRequest, video: VideoSource, written: list[Path]) -> Iterator[VideoWriter | None]:
    if request.draw is None:
        yield None
        return
    from lbkit.video.sink import VideoWriter

    info = video.info
    rate = None if info.frames_per_s is None else info.frames_per_s / request.stride
    writer = VideoWriter(request.draw, size=info.size, frames_per_s=rate, force=request.force)
    try:
        with writer:
            yield writer
    finally:
        written += [request.draw] if writer.frames_written else []


def _late_drawing(result: FramePoses, counter: LiveCounter) -> Any:
    from lbkit.motion.overlay import draw_live_frame

    count, phase = counter.count, counter.phase
    return lambda: draw_live_frame(result.image, result.poses, count=count, phase=phase)


def _tell_end(video: VideoSource, counter: LiveCounter, written: list[Path]) -> None:
    click.echo(f"{counter.count} squat{'' if counter.count == 1 else 's'}", err=True)
    if is_quiet():
        return
    if video.dropped_frames:
        click.echo(f"note: {video.dropped_frames} frames dropped, because newer ones came meanwhile", err=True)
    for path in written:
        click.echo(plain_line(f"written: {path}"), err=True)


def _joints_of(result: FramePoses, person: int | None) -> tuple[Any, Any]:
    """Return (6, 2) joints and (6,) scores of the person asked for, or of the one found with most certainty."""
    import numpy as np

    candidates = [row for row, number in enumerate(result.ids) if person in (None, number)]
    if not candidates:
        return np.full((6, 2), np.nan), np.zeros(6)
    row = max(candidates, key=lambda index: float(result.poses.person_scores[index]))
    return result.poses.xy[row], np.clip(result.poses.scores[row], 0.0, 1.0)
