"""What `lbkit infer` does with videos, streams and cameras."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lbkit.cli.messages import plain_line
from lbkit.cli.options import is_quiet
from lbkit.cli.report import native_stderr_silenced
from lbkit.errors import OutputError, VideoReadError

if TYPE_CHECKING:
    from lbkit.core.detections import PersonDetector
    from lbkit.core.estimator import PoseEstimator
    from lbkit.core.geometry import ImageArray
    from lbkit.core.keypoints import KeypointSchema
    from lbkit.video.pipeline import FramePoses, VideoBoxes
    from lbkit.video.sink import VideoWriter
    from lbkit.video.source import VideoInfo, VideoSource

DETECTOR_PREFIX = "detector:"
MAX_STRIDE = 1_000_000
_FILES_ONLY = ("coco:", ".csv")


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """What the command line asks for, besides the model.

    Attributes:
        sources: Files, addresses, cameras.
        boxes: auto, whole or detector:FILE.onnx.
        format: jsonl, csv, or parquet, which needs an output.
        output: Where the results go; stdout when None.
        draw: A video to write, or a folder of them; None draws none.
        min_score: Joints below are not drawn.
        force: Replace files that exist.
        stride: Every how many-th frame is looked at.
        show: Whether to show the frames in a window.
    """

    sources: tuple[str, ...]
    boxes: str
    format: str
    output: Path | None
    draw: Path | None
    min_score: float
    force: bool
    stride: int
    show: bool


def chosen_videos(sources: tuple[str, ...]) -> tuple[str, ...]:
    """Return the sources if they are videos, and nothing if they are pictures.

    Raises:
        UsageError: There are both.
    """
    from lbkit.video.source import is_video_source

    videos = tuple(source for source in sources if is_video_source(source))
    if videos and len(videos) < len(sources):
        other = next(source for source in sources if source not in videos)
        raise click.UsageError(
            f"{videos[0]} is a video and {other} is not: give videos and pictures in runs of their own."
        )
    return tuple(_expanded(videos))


def check_video_options(request: VideoRequest, *, heatmaps: Path | None, recursive: bool) -> None:
    """Raise where an option does not go with videos.

    Raises:
        UsageError: It does not.
    """
    if heatmaps is not None or recursive:
        raise click.UsageError("--heatmaps and --recursive are for pictures, not for videos.")
    if request.boxes.startswith(_FILES_ONLY[0]) or request.boxes.lower().endswith(_FILES_ONLY[1]):
        raise click.UsageError("a video takes --boxes auto, whole or detector:FILE.onnx.")
    if request.format == "coco":
        raise click.UsageError("--format coco is for pictures with COCO ids, not for videos.")
    if request.format == "parquet" and request.output is None:
        raise click.UsageError("--format parquet needs --output FILE.parquet.")
    if len(request.sources) > 1 and request.draw is not None and request.draw.suffix:
        raise click.UsageError(f"{len(request.sources)} videos need a folder to be drawn into: --draw DIR.")


def infer_videos(request: VideoRequest, *, model: str, runtime: dict[str, Any]) -> int:
    """Run the command on videos and return the exit code.

    Args:
        request: What is asked for.
        model: The model's name or file.
        runtime: Keyword arguments of `load_model`.
    """
    from lbkit.runtime.loading import load_model

    _check_drawings(request)
    estimator = load_model(model, **runtime)
    boxes = video_boxes(request.boxes, runtime)
    failures = 0
    with _results(request, estimator.contract.keypoints) as write, native_stderr_silenced():
        for source in request.sources:
            try:
                failures += _Run(request, source, estimator, boxes, write).run()
            except VideoReadError as error:
                click.echo(plain_line(f"error: {error}"), err=True)
                failures += 1
    if not is_quiet() and failures < len(request.sources):
        click.echo(f"next: {_next_command(request, model)}", err=True)
    return 1 if failures else 0


class _Run:
    """One video from its first frame to its last."""

    def __init__(
        self,
        request: VideoRequest,
        source: str,
        estimator: PoseEstimator,
        boxes: VideoBoxes,
        write: Callable[[FramePoses, str], object],
    ) -> None:
        self._request = request
        self._source = source
        self._estimator = estimator
        self._boxes = boxes
        self._write = write
        self._frames = 0
        self._ids: set[int] = set()
        self._seconds = 0.0
        self._drawn: Path | None = None

    def run(self) -> int:
        """Return 1 if some of it failed, else 0; Ctrl-C and errors come out after what was done is told."""
        from lbkit.video.source import open_video

        with open_video(self._source) as video:
            started = time.perf_counter()
            try:
                self._walk(video)
            finally:
                self._seconds = time.perf_counter() - started
                self._summarize(video)
            return int(video.broken_frames > 0)

    def _walk(self, video: VideoSource) -> None:
        from lbkit.video.pipeline import follow_people

        results = follow_people(video, self._estimator, boxes=self._boxes, stride=self._request.stride)
        with (
            contextlib.closing(results),  # type: ignore[type-var]  # a generator
            _optional_window(self._request) as window,
            self._writer(video.info) as writer,
            _Progress(video.info, self._request) as progress,
        ):
            for result in results:
                self._take(result, writer)
                progress.advance()
                if window is not None and not window.show(self._picture(result)):
                    return

    def _take(self, result: FramePoses, writer: VideoWriter | None) -> None:
        self._write(result, self._source)
        if writer is not None:
            writer.write(result.time_s, lambda: self._picture(result))
        self._frames += 1
        self._ids.update(result.ids)

    def _picture(self, result: FramePoses) -> ImageArray:
        from lbkit.video.annotation import annotated

        return annotated(result, min_score=self._request.min_score, shows_ids=len(self._ids) > 1)

    @contextlib.contextmanager
    def _writer(self, info: VideoInfo) -> Iterator[VideoWriter | None]:
        from lbkit.video.sink import VideoWriter

        if self._request.draw is None:
            yield None
            return
        path = _drawing_path(self._request.draw, self._source)
        rate = None if info.frames_per_s is None else info.frames_per_s / self._request.stride
        writer = VideoWriter(path, size=info.size, frames_per_s=rate, force=self._request.force)
        try:
            with writer:
                yield writer
        finally:
            self._drawn = path if writer.frames_written else None

    def _summarize(self, video: VideoSource) -> None:
        """Tell what became of the video, also where it was broken off."""
        name = video.info.name
        if video.broken_frames:
            click.echo(
                plain_line(f"error: {name}: {counted(video.broken_frames, 'frame')} broken and skipped"), err=True
            )
        if is_quiet():
            return
        rate = self._frames / self._seconds if self._seconds else 0.0
        people = f"{len(self._ids)} {'person' if len(self._ids) == 1 else 'people'}"
        frames = counted(self._frames, "frame")
        click.echo(plain_line(f"{name}: {frames}, {people} in {self._seconds:.2f} s ({rate:.1f} frames/s)"), err=True)
        if video.dropped_frames:
            why = "newer ones came while the model was busy"
            click.echo(f"note: {counted(video.dropped_frames, 'frame')} dropped, because {why}", err=True)
        if video.repaired_times:
            click.echo(f"note: {counted(video.repaired_times, 'frame')} had no increasing time of their own", err=True)
        if self._frames and not self._ids:
            click.echo("note: nobody was found", err=True)
        for path in filter(None, (self._drawn, self._request.output)):
            click.echo(plain_line(f"written: {path}"), err=True)


class _Progress:
    """A bar with frames/s and the remaining time on a terminal, and nothing elsewhere."""

    def __init__(self, info: VideoInfo, request: VideoRequest) -> None:
        is_clear = request.output is not None or not sys.stdout.isatty()
        self._shows = is_clear and sys.stderr.isatty() and not is_quiet()
        self._name = Path(info.name).name
        count = info.frame_count
        self._total = None if count is None else -(-count // request.stride)
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        if self._shows:
            from lbkit.cli.report import progress_bar

            self._bar = progress_bar("frames/s")
            self._bar.add_task(plain_line(self._name), total=self._total)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self) -> None:
        """Count a frame."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])


def _expanded(videos: tuple[str, ...]) -> Iterator[str]:
    """Yield the files that quoted patterns stand for, and everything else as it is."""
    import glob

    from lbkit.core.sources import natural_key

    for video in videos:
        is_pattern = glob.has_magic(video) and "://" not in video and not Path(video).exists()
        found = sorted(glob.iglob(video, recursive=True), key=natural_key) if is_pattern else [video]  # noqa: PTH207
        yield from found or [video]


def video_boxes(boxes: str, runtime: dict[str, Any]) -> VideoBoxes:
    """Return where people are looked for in a video, by `--boxes`.

    Args:
        boxes: auto, whole or detector:FILE.onnx.
        runtime: Keyword arguments of `load_model`.
    """
    if boxes.startswith(DETECTOR_PREFIX):
        return load_detector(boxes, runtime)
    return "whole" if boxes == "whole" else "auto"


def load_detector(boxes: str, runtime: dict[str, Any]) -> PersonDetector:
    """Load the detector of `--boxes detector:FILE.onnx`, on the CPU where ONNX Runtime has no such provider.

    Args:
        boxes: The option's value.
        runtime: Keyword arguments of `load_model`.
    """
    from lbkit.runtime.person_detector import OnnxPersonDetector
    from lbkit.runtime.providers import ORT_PROVIDERS

    provider = runtime["provider"] if runtime["provider"] in ORT_PROVIDERS else "cpu"
    return OnnxPersonDetector(Path(boxes.removeprefix(DETECTOR_PREFIX)), provider=provider, threads=runtime["threads"])


@contextlib.contextmanager
def _results(request: VideoRequest, keypoints: KeypointSchema) -> Iterator[Callable[[FramePoses, str], object]]:
    """Give what writes a frame's result, told the video's name too."""
    from lbkit.video.results import csv_header, csv_rows, json_line, parquet_table, table_rows

    if request.format == "parquet" and request.output is not None:
        with parquet_table(request.output, keypoints, force=request.force) as add:
            yield lambda result, path: add(table_rows(result, path=path))
        return
    row = csv_rows if request.format == "csv" else json_line
    with _text(request) as write:
        if request.format == "csv":
            write(csv_header(keypoints))
        yield lambda result, path: write(row(result, path=path))


@contextlib.contextmanager
def _text(request: VideoRequest) -> Iterator[Callable[[str], object]]:
    from lbkit.video.sink import kept_text_file

    if request.output is None:
        yield lambda text: click.echo(text.encode("utf-8", "surrogateescape"), nl=False)
        return
    with kept_text_file(request.output, force=request.force) as stream:
        yield stream.write


@contextlib.contextmanager
def _optional_window(request: VideoRequest) -> Iterator[Any]:
    if not request.show:
        yield None
        return
    from lbkit.video.window import LiveWindow

    with LiveWindow("lbkit: q to end") as window:
        yield window


def _check_drawings(request: VideoRequest) -> None:
    """Refuse before anything is computed what could not be drawn."""
    if request.draw is None:
        return
    from lbkit.core.files import refuse_overwrite
    from lbkit.video.sink import check_video_name

    for source in request.sources:
        path = _drawing_path(request.draw, source)
        check_video_name(path)
        refuse_overwrite(path, force=request.force)


def _drawing_path(draw: Path, source: str) -> Path:
    """Return the video to write: the one named, or in a folder one of the source's name."""
    path = draw
    if draw.is_dir() or not draw.suffix:
        name = Path(source.rstrip("/")).name if "://" in source else Path(source).name
        path = draw / f"{Path(name.replace(':', '-')).stem or 'stream'}.mp4"
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise OutputError("is the video that is read", where=path, remedy="give another name")
    return path


def counted(count: int, what: str) -> str:
    """Return a number with its noun, such as `2 frames`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def _next_command(request: VideoRequest, model: str) -> str:
    sources = shlex.join(request.sources) if len(request.sources) <= 2 else "SOURCES"
    if request.draw is not None:
        return f"lbkit squat {shlex.quote(request.sources[0])} --model {shlex.quote(model)}"
    boxes = "" if request.boxes == "auto" else f" --boxes {shlex.quote(request.boxes)}"
    target = "drawn.mp4" if len(request.sources) == 1 else "drawn"
    return f"lbkit infer {sources} --model {shlex.quote(model)}{boxes} --draw {target}"
