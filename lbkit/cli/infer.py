"""`lbkit infer`: pictures to joints."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lbkit.cli.infer_run import STDOUT, RunOptions, box_settings, do_run, is_run_folder, make_plan, run_options
from lbkit.cli.infer_video import (
    DETECTOR_PREFIX,
    MAX_STRIDE,
    VideoRequest,
    check_video_options,
    chosen_videos,
    infer_videos,
    load_detector,
)
from lbkit.cli.options import (
    NearestChoice,
    Share,
    batch_size_option,
    decoder_option,
    force_option,
    is_quiet,
    model_option,
    provider_option,
    streams_option,
    threads_option,
)
from lbkit.cli.report import RunReport, native_stderr_silenced
from lbkit.errors import AnnotationError, InputError

if TYPE_CHECKING:
    from lbkit.core.estimator import PoseEstimator
    from lbkit.core.pipeline import BoxPlan
    from lbkit.core.results import ImageResult, ResultFormat

    _StringType = click.ParamType[str]
else:
    _StringType = click.ParamType  # not subscriptable before click 8.4

FORMAT_CHOICES: tuple[ResultFormat, ...] = ("jsonl", "csv", "coco")
"""Spelled out to keep NumPy out of `--help`; a test keeps it equal to `lbkit.core.results.RESULT_FORMATS`."""

COCO_PREFIX = "coco:"
COUNT_LIMIT = 200_000
"""Up to so many pictures are counted beforehand for the progress bar."""


class BoxesType(_StringType):
    """`whole`, `auto`, `coco:FILE.json`, `FILE.csv` or `detector:FILE.onnx`."""

    name = "boxes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value if it is one of the five kinds, or fail with what is meant."""
        text = str(value)
        is_file = any(text.startswith(prefix) and text != prefix for prefix in (COCO_PREFIX, DETECTOR_PREFIX))
        if not is_file and text not in ("whole", "auto") and not text.lower().endswith(".csv"):
            hint = f" Did you mean '{COCO_PREFIX}{text}'?" if text.lower().endswith(".json") else ""
            hint = hint or (f" Did you mean '{DETECTOR_PREFIX}{text}'?" if text.lower().endswith(".onnx") else "")
            kinds = "whole, auto, coco:FILE.json, FILE.csv, detector:FILE.onnx"
            self.fail(f"{text!r} is none of {kinds}.{hint}", param, ctx)
        return text


@dataclass(frozen=True, slots=True)
class _Request:
    """What the command line asks for, besides the model."""

    sources: tuple[str, ...]
    recursive: bool
    boxes: str
    format: ResultFormat
    output: Path | None
    draw: Path | None
    heatmaps: Path | None
    min_score: float
    force: bool


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCES...")
@model_option
@provider_option
@click.option(
    "--boxes",
    type=BoxesType(),
    default="auto",
    show_default=True,
    metavar="whole|coco:FILE.json|FILE.csv|detector:FILE.onnx|auto",
    help="Where people are: one fills the picture; boxes of a COCO or CSV file (image,left,top,right,bottom[,id]), "
    "matched by the picture's name; everybody a YOLOX or RTMDet person detector finds; or auto, which looks for one "
    "person by itself and in a video follows that person.",
)
@click.option(
    "--format",
    "result_format",
    type=NearestChoice((*FORMAT_CHOICES, "parquet")),
    help="jsonl: a line a picture; csv: a row a person; coco: a COCO results list, only with --boxes coco:FILE.json; "
    "parquet: a row a person, of pictures only into a folder.  [default: csv or parquet if --output ends so, else "
    "jsonl]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE|DIR",
    help="A file, which appears whole or not at all, or a folder (a name without a suffix) for long runs: parts, "
    "failures.jsonl and a manifest, which --resume goes on with after a stop, a crash or a kill.",
)
@click.option(
    "--draw",
    type=click.Path(path_type=Path),
    metavar="DIR|VIDEO",
    help="Draw the skeletons over the pictures; a video's into a video such as drawn.mp4.",
)
@click.option(
    "--heatmaps",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Draw each person's heatmaps beside the crop.",
)
@click.option(
    "--min-score",
    type=Share(),
    default=0.2,
    show_default=True,
    help="Joints below this score are not drawn; the written results have all.",
)
@click.option("--recursive", is_flag=True, help="Look into subfolders too.")
@click.option(
    "--stride",
    type=click.IntRange(1, MAX_STRIDE),
    default=1,
    show_default=True,
    metavar="N",
    help="Look at every N-th frame of a video.",
)
@click.option("--show", is_flag=True, help="Show a video's frames in a window as they are found; q ends.")
@run_options
@decoder_option
@batch_size_option
@threads_option
@streams_option
@force_option
@click.pass_context
def infer(ctx: click.Context, /, *, model: str, result_format: str | None, **chosen: Any) -> None:
    """Find hips, knees and ankles in pictures and videos.

    SOURCES are pictures, folders of them, quoted patterns such as 'photos/*.jpg', or - for a list of paths on stdin; or
    videos: files such as clip.mp4, cameras such as camera:0, streams such as rtsp://host/path. Results go to
    stdout or to --output, one after the other in the order of the sources; coordinates are pixels of the picture as it
    is shown, (0, 0) being the centre of the top-left one.

    A picture or box that cannot be used is reported, the others are still delivered, and the exit code is 1.
    """
    runtime = {name: chosen.pop(name) for name in ("provider", "decoder", "batch_size", "threads", "streams")}
    stride, show = chosen.pop("stride"), chosen.pop("show")
    run = RunOptions.taken_from(chosen)
    draws = chosen["draw"] is not None or chosen["heatmaps"] is not None
    videos = chosen_videos(chosen["sources"])
    is_run = is_run_folder(chosen["output"]) and not videos
    result_format = result_format or _format_of(chosen["output"])
    picture_format = None if videos else result_format
    run.check(is_folder=is_run, result_format=picture_format, boxes=chosen["boxes"], draws=draws)
    for option in ("threads", "streams"):
        if run.engine == "ray" and runtime[option] is not None:
            raise click.UsageError(f"--{option} does not go with --engine ray: give --cpus-per-actor.")
    if is_run:
        ctx.exit(_infer_into_folder(run, result_format, chosen, model=model, runtime=runtime))
    request = _checked_request(result_format=result_format, **chosen)
    if videos:
        ctx.exit(_infer_videos(request, videos, model=model, runtime=runtime, stride=stride, show=show))
    _check_picture_options(request, stride=stride, show=show)
    plan = _box_plan(request.boxes, runtime)
    report = RunReport(lambda: _count(request), shows_progress=request.output is not None or not sys.stdout.isatty())
    with _results_sink(request) as write:
        from lbkit.runtime.loading import load_model

        estimator = load_model(model, **runtime)
        with native_stderr_silenced(), report:
            _walk(request, estimator, plan, write, report)
    report.summarize()
    if not is_quiet():
        click.echo(f"next: {_next_command(request, model)}", err=True)
    ctx.exit(1 if report.has_failures else 0)


def _infer_videos(
    request: _Request, videos: tuple[str, ...], *, model: str, runtime: dict[str, Any], stride: int, show: bool
) -> int:
    shared = {name: getattr(request, name) for name in ("boxes", "format", "output", "draw", "min_score", "force")}
    wanted = VideoRequest(sources=videos, stride=stride, show=show, **shared)
    check_video_options(wanted, heatmaps=request.heatmaps, recursive=request.recursive)
    if runtime["streams"] not in (None, 1):
        raise click.UsageError("--streams is for pictures: a video's next frame waits for the joints of the last.")
    return infer_videos(wanted, model=model, runtime=runtime | {"streams": 1})


def _infer_into_folder(
    run: RunOptions, part_format: str | None, chosen: dict[str, Any], *, model: str, runtime: dict[str, Any]
) -> int:
    from lbkit.core.sources import STDIN_SOURCE, find_pictures
    from lbkit.runtime.loading import find_model, load_model

    request = _checked_request(result_format="jsonl", **chosen)
    # The machine that asks a cluster need not have what its sessions run on.
    here = runtime if run.engine == "local" else runtime | {"provider": "cpu"}
    plan, estimator = _box_plan(request.boxes, here), load_model(model, **here)
    path = find_model(model)
    settings = {
        "model": hashlib.sha256(path.read_bytes()).hexdigest(),
        "decoder": estimator.decoder,
        "bfloat16": runtime["provider"] == "openvino-bf16",  # the others' answers are alike
        "boxes": box_settings(request.boxes),
        # in full, because the same words mean other pictures in another folder
        "sources": [given if given == STDIN_SOURCE else str(Path.cwd() / given) for given in request.sources],
        "recursive": request.recursive,
    }
    folder = make_plan(
        chosen["output"], run, part_format=part_format, settings=settings, keypoints=estimator.contract.keypoints
    )

    def sources() -> Iterator[Path | InputError]:
        return find_pictures(request.sources, listed=_stdin_lines(), recursive=request.recursive)

    if run.engine == "local":
        remade = replace(request, force=request.force or run.resume)  # drawings of an unfinished part are there already
        local = contextlib.nullcontext(lambda pictures: _results(remade, estimator, plan, pictures))
        return do_run(folder, run, sources=sources, engine=local)
    from lbkit.scale.ray_job import LOCAL, RayPlan, Work, ray_inference

    options = {name: runtime[name] for name in ("provider", "decoder", "batch_size")}
    cluster = RayPlan(
        address=run.ray_address or LOCAL,
        actors=run.actors,
        cpus_per_actor=run.cpus_per_actor,
        gpus_per_actor=run.num_gpus_per_actor,
    )
    return do_run(folder, run, sources=sources, engine=ray_inference(Work(path, plan, options), cluster))


def _check_picture_options(request: _Request, *, stride: int, show: bool) -> None:
    if stride != 1 or show:
        raise click.UsageError("--stride and --show are for videos.")
    if request.draw is not None and request.draw.is_file():
        raise click.UsageError(f"--draw: {request.draw} is a file, and pictures are drawn into a folder.")


def _checked_request(
    *, result_format: Any, boxes: str, output: Path | None, draw: Path | None, **others: Any
) -> _Request:
    output = None if output == STDOUT else output
    result_format = result_format or "jsonl"
    if result_format == "coco" and not boxes.startswith(COCO_PREFIX):
        raise click.UsageError(
            "--format coco needs --boxes coco:FILE.json, because its rows name that file's image ids."
        )
    if draw is not None and draw == others["heatmaps"]:
        raise click.UsageError("--draw and --heatmaps need folders of their own.")
    _check_output(output, boxes)
    return _Request(format=result_format, boxes=boxes, output=output, draw=draw, **others)


def _format_of(output: Path | None) -> str | None:
    """Return the format that an output's suffix names, if it names one."""
    suffix = "" if output is None else output.suffix.lower()
    return {".csv": "csv", ".parquet": "parquet"}.get(suffix)


def _check_output(output: Path | None, boxes: str) -> None:
    """Refuse to write results under a name that only what is read can have, whatever --force says."""
    from lbkit.core.image_header import PICTURE_SUFFIXES
    from lbkit.video.source import VIDEO_SUFFIXES

    if output is None or output.is_dir():
        return
    if output.suffix.lower() in PICTURE_SUFFIXES | VIDEO_SUFFIXES:
        hint = "results are text: end its name in .jsonl or .csv. Pictures and videos are drawn by --draw."
        raise click.UsageError(f"--output {output}: {hint}")
    box_file = Path(boxes.removeprefix(COCO_PREFIX).removeprefix(DETECTOR_PREFIX))
    if output.exists() and box_file.exists() and output.samefile(box_file):
        raise click.UsageError(f"--output {output}: the boxes are read from it; give another name.")


def _box_plan(boxes: str, runtime: dict[str, Any]) -> BoxPlan:
    from lbkit.core.box_files import read_coco_boxes, read_csv_boxes
    from lbkit.core.pipeline import default_readers
    from lbkit.core.threads import checked_threads

    if boxes == "whole":
        return "whole"
    if boxes == "auto":
        return "auto"
    if boxes.startswith(DETECTOR_PREFIX):
        side_by_side = max(1, checked_threads(runtime["threads"]) // default_readers())
        return load_detector(boxes, runtime | {"threads": side_by_side})  # each reader runs it
    if boxes.startswith(COCO_PREFIX):
        return read_coco_boxes(Path(boxes.removeprefix(COCO_PREFIX)))
    return read_csv_boxes(Path(boxes))


@contextlib.contextmanager
def _results_sink(request: _Request) -> Iterator[Callable[[str], object]]:
    """Give a function that writes text to stdout, or to the output file, which appears when all is written."""
    from lbkit.core.results import result_file

    if request.output is None:
        # As bytes, so that a file name that is not UTF-8 comes out as it is.
        yield lambda text: click.echo(text.encode("utf-8", "surrogateescape"), nl=False)
    else:
        with result_file(request.output, force=request.force) as stream:
            yield stream.write


def _walk(
    request: _Request, estimator: PoseEstimator, plan: BoxPlan, write: Callable[[str], object], report: RunReport
) -> None:
    from lbkit.core.box_files import BoxTable
    from lbkit.core.results import result_writer
    from lbkit.core.sources import find_pictures

    writer = result_writer(request.format, estimator.contract.keypoints)
    table = plan if isinstance(plan, BoxTable) else None
    if table is not None:
        report.tell(table.problems)
    write(writer.begin())
    pictures = find_pictures(request.sources, listed=_stdin_lines(), recursive=request.recursive)
    for result in _results(request, estimator, plan, pictures):
        write(writer.rows(result))
        report.take(result)
    write(writer.end())
    if table is not None and report.names_nothing:
        remedy = "check that its image names are those of the sources"
        report.tell([AnnotationError("names none of the pictures", where=table.path, remedy=remedy)])


def _results(
    request: _Request, estimator: PoseEstimator, plan: BoxPlan, pictures: Iterable[Path | InputError]
) -> Iterator[ImageResult]:
    from lbkit.core.overlays import PictureFolder, draw_results
    from lbkit.core.pipeline import run_inference

    results = run_inference(
        pictures,
        estimator,
        boxes=plan,
        keep_images=request.draw is not None,
        keep_heatmaps=request.heatmaps is not None,
    )
    overlays = None if request.draw is None else PictureFolder(request.draw, force=request.force)
    panels = None if request.heatmaps is None else PictureFolder(request.heatmaps, force=request.force)
    return draw_results(results, overlays=overlays, panels=panels, min_score=request.min_score)


def _stdin_lines() -> Iterator[str]:
    return (os.fsdecode(line) for line in sys.stdin.buffer)


def _count(request: _Request) -> int | None:
    """Count the pictures, or return None where that takes long or eats up stdin."""
    from lbkit.core.sources import STDIN_SOURCE, find_pictures

    if STDIN_SOURCE in request.sources:
        return None
    pictures = find_pictures(request.sources, recursive=request.recursive)
    count = sum(1 for _ in itertools.islice(pictures, COUNT_LIMIT + 1))
    return None if count > COUNT_LIMIT else count


def _next_command(request: _Request, model: str) -> str:
    if request.draw is not None and request.heatmaps is not None:
        return "lbkit doctor"
    sources = shlex.join(request.sources) if len(request.sources) <= 2 else "SOURCES"
    boxes = "" if request.boxes == "auto" else f" --boxes {shlex.quote(request.boxes)}"
    show = "--draw drawn" if request.draw is None else "--heatmaps heatmaps"
    return f"lbkit infer {sources} --model {shlex.quote(model)}{boxes} {show}"
