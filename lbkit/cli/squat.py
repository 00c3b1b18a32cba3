"""`lbkit squat`: squats counted and described, from a video or a camera."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lbkit.cli.infer_video import DETECTOR_PREFIX, MAX_STRIDE, counted, video_boxes
from lbkit.cli.messages import plain_line
from lbkit.cli.options import (
    DEFAULT_MODEL,
    force_option,
    is_quiet,
    json_option,
    model_option,
    provider_option,
    threads_option,
)
from lbkit.cli.report import native_stderr_silenced, progress_bar
from lbkit.errors import InputError, OutputError

if TYPE_CHECKING:
    from lbkit.core.estimator import PoseEstimator
    from lbkit.core.geometry import ImageArray
    from lbkit.core.tracks import PoseTrack
    from lbkit.motion.limits import SquatLimits
    from lbkit.motion.repetitions import Repetition
    from lbkit.motion.squat import SquatAnalysis
    from lbkit.video.pipeline import FramePoses, VideoBoxes
    from lbkit.video.source import VideoInfo, VideoSource

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
LEAST_PCK = 0.4
"""Below this PCK@0.05 of a model, squats are guesses: a cnn of 0.27 miscounted two of four clips; one of 0.34 counted
all four right, and sees knees and pelvis lean where a better model does not."""

OTHERS_SHARE = 0.3
"""Somebody else seen in so many of the frames is told of."""


@dataclass(frozen=True, slots=True)
class SquatRequest:
    """What the command line asks for, besides the model.

    Attributes:
        source: A file, an address or a camera.
        boxes: auto, whole or detector:FILE.onnx.
        person: Whose squats, of several; the longest seen when None.
        stride: Every how many-th frame is looked at.
        live: Whether to tell each repetition as it ends.
        as_json: Whether to print JSON.
        frames: A table to write, a row a frame.
        repetitions: A table to write, a row a repetition.
        draw: A video to write.
        report: A picture to write.
        limits: A file of limits.
        force: Replace files that exist.
    """

    source: str
    boxes: str
    person: int | None
    stride: int
    live: bool
    as_json: bool
    frames: Path | None
    repetitions: Path | None
    draw: Path | None
    report: Path | None
    limits: Path | None
    force: bool


def _file_option(name: str, metavar: str, text: str) -> Callable[[Decorated], Decorated]:
    return click.option(name, type=click.Path(dir_okay=False, path_type=Path), metavar=metavar, help=text)


@click.command()
@click.argument("source", metavar="VIDEO")
@model_option
@provider_option
@click.option(
    "--boxes",
    default="auto",
    show_default=True,
    metavar="auto|whole|detector:FILE.onnx",
    help="Where people are: one is looked for and followed; one fills the picture; or a YOLOX or RTMDet detector says.",
)
@click.option(
    "--person", type=click.IntRange(min=0), metavar="ID", help="Whose squats, where a detector finds several."
)
@click.option(
    "--stride", type=click.IntRange(1, MAX_STRIDE), default=1, show_default=True, metavar="N", help="Every N-th frame."
)
@click.option("--live", is_flag=True, help="Print a line as each repetition ends; cameras and streams are always live.")
@json_option
@_file_option("--frames", "FILE.csv|.parquet", "Write angles and phases, a row a frame.")
@_file_option("--repetitions", "FILE.csv|.parquet", "Write a row a repetition.")
@_file_option("--draw", "VIDEO.mp4", "Write the video with skeleton, angles and count.")
@_file_option("--report", "FILE.png", "Write a picture of the curves and of every bottom.")
@_file_option("--limits", "FILE.toml", "Limits of your own, in the form of lbkit/motion/limits.toml.")
@threads_option
@force_option
@click.pass_context
def squat(ctx: click.Context, /, *, model: str, provider: str, threads: int | None, **chosen: Any) -> None:
    """Count the squats in a video and tell depth, tempo and evenness of each.

    VIDEO is a file, camera:0, or an address such as rtsp://host/path. A repetition is a way down from standing and up
    again, at least as deep as a quarter squat and a good part of the person's usual depth; one that the recording cuts
    off counts if its bottom is seen. What cannot be measured from where the camera stands is left empty, with the
    reason.
    """
    request = SquatRequest(**chosen)
    _check(request)
    limits = _limits(request)
    from lbkit.runtime.loading import load_model

    estimator = load_model(model, provider=provider, threads=threads)
    _warn_of_weak(estimator, model)
    boxes = video_boxes(request.boxes, {"provider": provider, "threads": threads})
    from lbkit.video.source import open_video

    with native_stderr_silenced(), open_video(request.source) as video:
        if request.live or video.info.is_live:
            from lbkit.cli.squat_live import count_live

            ctx.exit(count_live(request, video, estimator, boxes=boxes, limits=limits))
        tracks, error = _follow(request, video, estimator, boxes)
    if tracks is None:
        raise error or InputError("holds no frames", where=request.source)
    analysis = _analyze(request, tracks, limits, min_score=measuring_score(estimator))
    if video.broken_frames:
        from lbkit.motion.squat import Warn

        broken = Warn("broken_frames", f"{counted(video.broken_frames, 'frame')} broken and skipped.")
        analysis = replace(analysis, warnings=(*analysis.warnings, broken))
    code = _deliver(request, analysis, info=video.info, model=model)
    if error is not None:
        raise error
    ctx.exit(max(code, tell_broken(video)))


def tell_broken(video: VideoSource) -> int:
    """Say how many frames were broken and return the exit code that goes with it."""
    if not video.broken_frames:
        return 0
    problem = f"{video.info.name}: {counted(video.broken_frames, 'frame')} broken and skipped"
    click.echo(plain_line(f"error: {problem}"), err=True)
    return 1


def _check(request: SquatRequest) -> None:
    """Refuse before anything is computed what could not be written afterwards."""
    from lbkit.core.files import refuse_overwrite
    from lbkit.motion.chart import check_chart_name
    from lbkit.motion.tables import check_table_name

    if request.boxes not in ("auto", "whole") and (not _has_detector(request) or request.boxes == DETECTOR_PREFIX):
        raise click.UsageError(f"--boxes {request.boxes!r} is none of auto, whole, detector:FILE.onnx.")
    if request.report is not None:
        check_chart_name(request.report)
    for path in (request.frames, request.repetitions):
        if path is not None:
            check_table_name(path)
    if request.draw is not None:
        from lbkit.video.sink import check_video_name

        check_video_name(request.draw)
    written = [path for path in (request.frames, request.repetitions, request.draw, request.report) if path is not None]
    for path in written:
        refuse_overwrite(path, force=request.force)
        if path.resolve() in (
            Path(request.source).resolve(),
            *(other.resolve() for other in written if other is not path),
        ):
            raise click.UsageError(f"{path} is named twice.")


def _has_detector(request: SquatRequest) -> bool:
    return request.boxes.startswith(DETECTOR_PREFIX)


def _limits(request: SquatRequest) -> SquatLimits:
    from lbkit.motion.limits import default_limits, read_limits

    return default_limits() if request.limits is None else read_limits(request.limits)


def _warn_of_weak(estimator: PoseEstimator, model: str) -> None:
    from lbkit.video.tracking import measured_pck

    exactness = measured_pck(estimator.contract)
    if exactness is not None and exactness < LEAST_PCK:
        problem = f"{model} finds {exactness:.0%} of joints (PCK@0.05): counts and angles may be wrong"
        click.echo(plain_line(f"warning: {problem}; give --model {DEFAULT_MODEL}"), err=True)


def measuring_score(estimator: PoseEstimator) -> float:
    """Return the score below which the model's joints are not measured on: a weak model's peaks are low."""
    from lbkit.video.tracking import person_score_limit

    return person_score_limit(estimator.contract)


def _follow(
    request: SquatRequest, video: VideoSource, estimator: PoseEstimator, boxes: VideoBoxes
) -> tuple[list[PoseTrack] | None, BaseException | None]:
    """Return everybody's tracks, and what ended the video early: a broken file or Ctrl-C, with what was seen till then.

    The frames themselves are let go, so that an hour of video takes no more memory than a minute.
    """
    from lbkit.errors import VideoReadError
    from lbkit.video.pipeline import follow_people, pose_tracks

    ended: list[BaseException] = []
    count = 0

    def frames() -> Iterator[FramePoses]:
        nonlocal count
        results = follow_people(video, estimator, boxes=boxes, stride=request.stride)
        with contextlib.closing(results), _progress(request, video.info) as advance:  # type: ignore[type-var]
            try:
                for result in results:
                    count += 1
                    advance()
                    yield result
            except (VideoReadError, KeyboardInterrupt) as error:
                ended.append(error)

    tracks = pose_tracks(frames())
    return (tracks if count else None), (ended[0] if ended else None)


@contextlib.contextmanager
def _progress(request: SquatRequest, info: VideoInfo) -> Iterator[Any]:
    if is_quiet() or not sys.stderr.isatty():
        yield lambda: None
        return
    bar = progress_bar("frames/s")
    total = None if info.frame_count is None else -(-info.frame_count // request.stride)
    task = bar.add_task(plain_line(Path(info.name).name), total=total)
    with bar:
        yield lambda: bar.advance(task)


def _analyze(request: SquatRequest, tracks: list[PoseTrack], limits: SquatLimits, *, min_score: float) -> SquatAnalysis:
    from lbkit.motion.squat import analyze_squats

    track = _chosen(request, tracks)
    if _has_detector(request):
        track = replace(track, company=None)  # others have tracks of their own
    if len(track.time_s) == 1:
        remedy = "give a video, or a smaller --stride"
        raise InputError("only one frame was looked at, and a squat is a movement", where=request.source, remedy=remedy)
    try:
        return analyze_squats(track, limits=limits, min_score=min_score)
    except InputError as error:
        raise InputError(error.problem, where=request.source, remedy=error.remedy) from error


def _chosen(request: SquatRequest, tracks: list[PoseTrack]) -> PoseTrack:
    """Return the track of the person asked for, or of who was seen longest; the others are told of."""
    if not tracks:
        raise InputError(
            "nobody was found in any frame",
            where=request.source,
            remedy="film the whole person from hip to foot, or give --boxes whole where one person fills the picture",
        )
    seen = {track.track_id: float(track.found.any(axis=1).mean()) for track in tracks}
    ids = ", ".join(map(str, seen))
    if request.person is not None and request.person not in seen:
        raise InputError(f"has no person {request.person}", where=request.source, remedy=f"there are {ids}")
    wanted = max(seen, key=lambda number: seen[number]) if request.person is None else request.person
    others = [number for number, share in seen.items() if number != wanted and share > OTHERS_SHARE]
    if others and request.person is None:
        names = ", ".join(map(str, others))
        click.echo(f"warning: person {wanted} was seen longest; --person takes another: {names}", err=True)
    return next(track for track in tracks if track.track_id == wanted)


def _deliver(request: SquatRequest, analysis: SquatAnalysis, *, info: VideoInfo, model: str) -> int:
    """Write the tables, print, and write what needs the video once more; a file that cannot be written stops no other.

    Returns:
        The exit code.
    """
    written: list[Path] = []
    problems: list[OutputError] = []

    def write(path: Path | None, step: Callable[[Path, SquatRequest, SquatAnalysis, VideoInfo], None]) -> None:
        if path is None:
            return
        try:
            step(path, request, analysis, info)
            written.append(path)
        except OutputError as error:
            problems.append(error)

    write(request.frames, _write_frames)
    write(request.repetitions, _write_repetitions)
    _print(request, analysis)
    write(request.draw, _write_video)
    write(request.report, _write_report)
    _tell_written(request, written, model=model)
    for problem in problems:
        click.echo(plain_line(f"error: {problem}"), err=True)
    return 1 if problems else 0


def _write_frames(path: Path, request: SquatRequest, analysis: SquatAnalysis, _: VideoInfo) -> None:
    from lbkit.motion.tables import FRAME_COLUMNS, all_frame_rows, write_table

    write_table(path, all_frame_rows(analysis), columns=FRAME_COLUMNS, force=request.force)


def _write_repetitions(path: Path, request: SquatRequest, analysis: SquatAnalysis, _: VideoInfo) -> None:
    from lbkit.motion.tables import REPETITION_COLUMNS, repetition_rows, write_table

    write_table(path, repetition_rows(analysis), columns=REPETITION_COLUMNS, force=request.force)


def _tell_written(request: SquatRequest, written: list[Path], *, model: str) -> None:
    if is_quiet():
        return
    for path in written:
        click.echo(plain_line(f"written: {path}"), err=True)
    if request.draw is None:
        named = "" if model == DEFAULT_MODEL else f" --model {shlex.quote(model)}"
        click.echo(
            f"next: lbkit squat {shlex.quote(request.source)}{named} --draw squats.mp4 --report squats.png", err=True
        )


def _print(request: SquatRequest, analysis: SquatAnalysis) -> None:
    from lbkit.motion.squat import NOTICE
    from lbkit.motion.tables import analysis_json

    if request.as_json:
        for piece in analysis_json(analysis, source=request.source):
            click.echo(piece, nl=False)
        click.echo()
        return
    count = len(analysis.repetitions)
    view = f"{analysis.view.name} view" if analysis.view.name != "unknown" else "view unknown"
    click.echo(plain_line(f"{request.source}: {count} squat{'' if count == 1 else 's'}, {view}"))
    for item in analysis.repetitions:
        click.echo(repetition_line(item))
        for remark in item.remarks:
            click.echo(f"      {remark.sentence}")
    for warning in analysis.warnings:
        click.echo(f"note: {warning.sentence}")
    if {"somebody_else", "person_changed"} & {warning.code for warning in analysis.warnings}:
        better = "" if _has_detector(request) else "; --boxes detector:FILE.onnx tells people apart"
        click.echo(f"note: --draw shows whose squats these are{better}")
    click.echo(NOTICE)


def repetition_line(item: Repetition) -> str:
    """Return one repetition as a line of text."""
    values = item.measures
    how = "" if values["max_knee_flexion_deg"] is not None else " by the hips' height"
    tempo = ", ".join(
        f"{name} {value:.1f} s"
        for name, value in (("down", values["descent_s"]), ("held", values["bottom_s"]), ("up", values["ascent_s"]))
        if value is not None
    )
    hips = {True: ", hips below knees", False: ", hips above knees", None: ", hips level with knees"}
    where = "" if values["hip_above_knee_legs"] is None else hips[item.hip_below_knee]
    cut = "" if item.cut == "no" else " (cut off)"
    depth = f"{values['depth_deg']:.0f}\N{DEGREE SIGN}{how}"
    return f"{item.number:3d}  {item.start_s:6.1f} to {item.end_s:5.1f} s{cut}  {depth}{where}; {tempo}"


def _write_video(path: Path, request: SquatRequest, analysis: SquatAnalysis, info: VideoInfo) -> None:
    """Read the video again, now that the counts are known, and draw over it."""
    from lbkit.video.sink import VideoWriter

    rate = None if info.frames_per_s is None else info.frames_per_s / request.stride
    with VideoWriter(path, size=info.size, frames_per_s=rate, force=request.force) as writer:
        for row, (time_s, image) in enumerate(_frames_again(request, count=len(analysis.phases))):
            writer.write(time_s, _late_drawing(image, analysis, row))


def _write_report(path: Path, request: SquatRequest, analysis: SquatAnalysis, info: VideoInfo) -> None:
    """Read the video again as far as the last bottom that is shown."""
    from lbkit.motion.chart import MAX_BOTTOMS, write_chart
    from lbkit.motion.overlay import draw_squat_frame

    wanted = {item.deepest_frame: item.number for item in analysis.repetitions[:MAX_BOTTOMS]}
    frames = _frames_again(request, count=max(wanted, default=-1) + 1)
    bottoms = {
        wanted[row]: draw_squat_frame(image, analysis, row) for row, (_, image) in enumerate(frames) if row in wanted
    }
    title = f"{Path(info.name).name}: {len(analysis.repetitions)} squats, {analysis.view.name} view"
    write_chart(path, analysis, bottoms=bottoms, title=title, force=request.force)


def _late_drawing(image: ImageArray, analysis: SquatAnalysis, row: int) -> Any:
    from lbkit.motion.overlay import draw_squat_frame

    return lambda: draw_squat_frame(image, analysis, row)


def _frames_again(request: SquatRequest, *, count: int) -> Iterator[tuple[float, ImageArray]]:
    """Yield times and pictures of the frames that were analysed, which after Ctrl-C are not all."""
    from itertools import islice

    from lbkit.video.source import open_video

    with open_video(request.source) as video:
        for frame in islice(video.frames(stride=request.stride), count):
            yield frame.time_s, frame.image
