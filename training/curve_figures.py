"""Loss and PCK of a run, or of the stages of one network, as two figures drawn from their curve files.

`python -m training.curve_figures RUN [RUN...] --output DIR --name fpn`
"""

from __future__ import annotations

import csv
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from lbkit.core.files import atomic_path, refuse_overwrite
from lbkit.errors import ConfigError, InputError, MissingDependencyError
from training.endings import errors_as_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES_NAME = "curves.csv"
DEFAULT_NAME = "curves"

LOSS_COLUMNS = ("train_loss_fixed", "val_loss_fixed", "train_loss_visible", "val_loss_visible")
PCK_COLUMNS = ("train_pck@0.05", "val_pck@0.05", "train_pck@0.10", "val_pck@0.10")

NOTE = (
    "1/6 divides the sum over the joints by 6, visible by the labelled joints. Missing joints make the loss by 1/6 "
    "look lower on validation, not a better network: an unlabelled joint adds 0 and the divisor stays 6."
)

CROPS_NOTE = "Training is measured on varied crops during the epoch, validation on plain crops after it."
STAGES_NOTE = "Stages with another crop size or sigma have losses on another scale: they are means over cells."
PCK_NOTE = "A joint is right within 0.05 or 0.10 of the height of the person's box made 4:3."

WIDTH_IN, AXES_HEIGHT_IN = 7.0, 2.75
DPI = 200
PALETTE_COLORS = 64
NOTE_POINTS, NOTE_CHARACTERS = 8.0, 116
LABEL_POINTS, SHOWN_CHARACTERS = 8.5, 28
TITLE_CHARACTERS = 60
STAGES_ROOM = 1.02
"""The axis of crops seen goes on this much beyond the last epoch."""

MANY_EPOCHS = 40
"""Runs with more have smaller marks."""

# Okabe and Ito's blue and vermilion: apart from each other for every kind of colour vision, and on paper.
TRAINING_COLOR, VALIDATION_COLOR = "#0072B2", "#D55E00"
_INK, _FAINT = "#222222", "#8a8a8a"
_LEFT_IN, _RIGHT_IN, _HEAD_IN, _ROW_IN, _NOTE_LINE_IN = 0.78, 0.2, 0.62, 0.19, 0.15
_AXES_WIDTH_IN = WIDTH_IN - _LEFT_IN - _RIGHT_IN
_LABEL_CHARACTER_IN = 0.62 * LABEL_POINTS / 72


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """What one run's curve file says, a value an epoch.

    Attributes:
        label: Name of the run in figures.
        epochs: (E,) epochs, rising.
        seen: (E,) crops trained on since the run began, rising.
        values: (E,) float64 by column, of those columns of the figures that the file has; NaN is a gap.
    """

    label: str
    epochs: NDArray[np.int64]
    seen: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]


def read_curves(run: Path, *, label: str | None = None) -> Curves:
    """Read the curve file of a run; columns that no figure shows are passed over.

    Args:
        run: The run's folder, or the file itself.
        label: Name of the run in figures; the folder's name when None.

    Raises:
        InputError: There is no such file, it has no row, is cut short, lacks a column, or a value is not a number.
    """
    path = run / CURVES_NAME if run.is_dir() else run
    rows = _rows(path)
    epochs = _rising(rows, "epoch", path)
    seen = _rising(rows, "seen", path)
    known = [name for name in (*LOSS_COLUMNS, *PCK_COLUMNS) if name in rows[0][1]]
    for wanted in (LOSS_COLUMNS, PCK_COLUMNS):
        if not set(wanted) & set(known):
            remedy = "give a curves.csv that the training wrote"
            raise InputError(f"line 1: none of the columns {', '.join(wanted)}", where=path, remedy=remedy)
    values = {name: np.array([_value(row[name], name, line, path) for line, row in rows]) for name in known}
    return Curves(label or path.resolve().parent.name, epochs, seen, values)


def loss_figure(stages: Sequence[Curves], *, title: str) -> Figure:
    """Return the figure of both reductions of the loss, training and validation.

    Args:
        stages: One run, drawn against epochs, or the stages of one network in order, drawn against crops seen.
        title: Title above the figure.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    notes = [NOTE, _measured_note(stages[-1]), CROPS_NOTE, STAGES_NOTE if len(stages) > 1 else ""]
    figure, axes = _empty_figure(stages, title=title, note=" ".join(note for note in notes if note))
    _draw_lines(axes, stages, {name: _legend_name(name, "1/6", "visible") for name in LOSS_COLUMNS})
    axes.set_ylabel("loss (mean squared error)", color=_INK)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0.0)
    return figure


def pck_figure(stages: Sequence[Curves], *, title: str) -> Figure:
    """Return the figure of PCK@0.05 and PCK@0.10, training and validation.

    Args:
        stages: One run, drawn against epochs, or the stages of one network in order, drawn against crops seen.
        title: Title above the figure.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure, axes = _empty_figure(stages, title=title, note=f"{PCK_NOTE} {CROPS_NOTE}")
    _draw_lines(axes, stages, {name: _legend_name(name, "0.05", "0.10") for name in PCK_COLUMNS})
    axes.set_ylabel("PCK (share of right joints)", color=_INK)
    axes.set_ylim(0.0, 1.0)
    return figure


def write_curve_figures(
    runs: Sequence[Path],
    *,
    output: Path,
    name: str = DEFAULT_NAME,
    title: str | None = None,
    labels: Sequence[str] = (),
    force: bool = False,
) -> tuple[Path, Path]:
    """Write NAME-loss.png and NAME-pck.png of a run or of the stages of one network; return their paths.

    Args:
        runs: Folders of runs, in order.
        output: Folder of the figures; it is made if need be.
        name: What the files' names begin with.
        title: Title of both figures; the runs' labels when None.
        labels: A label a run; the folders' names when empty.
        force: Replace files that exist.

    Raises:
        ConfigError: There are not as many labels as runs, or no run.
        InputError: A curve file cannot be used.
        MissingDependencyError: matplotlib is not installed.
        OutputError: A file exists already or cannot be written.
    """
    if not runs or (labels and len(labels) != len(runs)):
        raise ConfigError(f"{len(labels)} labels for {len(runs)} runs", remedy="give one label a run, or none")
    targets = (output / f"{name}-loss.png", output / f"{name}-pck.png")
    for target in targets:
        refuse_overwrite(target, force=force)
    given: Sequence[str | None] = labels or [None] * len(runs)
    stages = [read_curves(run, label=label) for run, label in zip(runs, given, strict=True)]
    heading = _short(", ".join(stage.label for stage in stages) if title is None else title, TITLE_CHARACTERS)
    figures = (loss_figure(stages, title=f"{heading}: loss"), pck_figure(stages, title=f"{heading}: PCK"))
    for figure, target in zip(figures, targets, strict=True):
        save_figure(figure, target, colors=PALETTE_COLORS)
    return targets


def refresh_curve_figures(run: Path) -> tuple[Path, Path]:
    """Draw a run's two figures beside its curve file, over those of an earlier epoch; return their paths.

    Raises:
        InputError: The curve file cannot be used.
        MissingDependencyError: matplotlib is not installed.
        OutputError: A file cannot be written.
    """
    return write_curve_figures([run], output=run, force=True)


def new_figure(width_in: float, height_in: float, *, dpi: int) -> Figure:
    """Return an empty white figure that belongs to no window and to no global state.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            f"figures need matplotlib, which cannot be imported ({error})", remedy="run `pip install 'lbkit[train]'`"
        ) from error
    return Figure(figsize=(width_in, height_in), dpi=dpi, facecolor="white")


def save_figure(figure: Figure, path: Path, *, colors: int | None = None) -> None:
    """Write a figure as PNG so that the file appears whole or not at all; an existing file is replaced.

    Args:
        figure: The figure.
        path: Where to.
        colors: Size of a palette, which makes files of lines and text a third as large; None keeps all colours.

    Raises:
        OutputError: The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image  # matplotlib requires it

    # Not savefig, whose size a user's matplotlibrc may change.
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    if colors is not None:
        image = image.quantize(colors, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG", optimize=True)


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return a curve file's rows by line number, each with a value for every column."""
    text = _text(path)
    lines = text.splitlines()
    if not lines:
        raise InputError("is empty", where=path, remedy="give the curves.csv of a run that has finished an epoch")
    if not text.endswith(("\n", "\r")):
        remedy = "copy it again, or end the line if it is complete"
        raise InputError(f"line {len(lines)} has no end: the file is cut short", where=path, remedy=remedy)
    reader = csv.DictReader(lines)
    try:
        rows = [(reader.line_num, _complete(row, reader.line_num, path)) for row in reader]
    except csv.Error as error:
        raise InputError(f"line {reader.line_num} is not CSV ({error})", where=path) from error
    if not rows:
        raise InputError("has a header and no row", where=path, remedy="wait for the end of the run's first epoch")
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        remedy = f"give the folder of a run, which holds {CURVES_NAME} after its first epoch"
        raise InputError("no such file", where=path, remedy=remedy) from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path, remedy="check the path") from error
    except UnicodeDecodeError as error:
        raise InputError("is not text in UTF-8", where=path, remedy="give the curves.csv of a run") from error


def _complete(row: Mapping[str | None, str | list[str] | None], line: int, path: Path) -> dict[str, str]:
    absent = [name for name, value in row.items() if value is None]
    if absent or None in row:
        problem = f"has no value for {absent[0]}" if absent else "has more values than the header has columns"
        raise InputError(f"line {line} {problem}", where=path, remedy="mend the line or take it out")
    return {str(name): str(value) for name, value in row.items()}


def _value(text: str, name: str, line: int, path: Path) -> float:
    """Return a cell's number; an empty or an infinite one is a gap, as NaN is."""
    try:
        number = float(text) if text.strip() else math.nan
    except ValueError:
        problem = f"line {line}: {name} should be a number, got {text!r}"
        raise InputError(problem, where=path, remedy="mend the line or take it out") from None
    return number if math.isfinite(number) else math.nan


def _rising(rows: Sequence[tuple[int, Mapping[str, str]]], name: str, path: Path) -> NDArray[np.int64]:
    """Return a column of whole numbers, each greater than the one before."""
    if name not in rows[0][1]:
        raise InputError(f"line 1: no column {name}", where=path, remedy="give a curves.csv that the training wrote")
    before = 0
    for line, row in rows:
        number = _value(row[name], name, line, path)
        if not number.is_integer() or not before < number < 2**53:
            problem = f"line {line}: {name} should be a whole number greater than {before}, got {row[name]!r}"
            raise InputError(problem, where=path, remedy="mend the line, or give one file a run")
        before = int(number)
    return np.array([int(float(row[name])) for _, row in rows], dtype=np.int64)


def _measured_note(last: Curves) -> str:
    """Say how much the missing joints do to the loss by 1/6 in the last epoch, where the file has both losses."""
    shares = []
    for part, word in (("train", "training"), ("val", "validation")):
        both = (last.values.get(f"{part}_loss_{reduction}") for reduction in ("fixed", "visible"))
        fixed, visible = (math.nan if column is None else float(column[-1]) for column in both)
        if visible > 0 and math.isfinite(fixed):
            shares.append(f"{1 - fixed / visible:.0%} in {word}")
    if not shares:
        return ""
    return f"In the last epoch the loss by 1/6 is below the visible loss by {' and '.join(shares)}."


def _legend_name(column: str, first: str, second: str) -> str:
    part = "training" if column.startswith("train") else "validation"
    return f"{part}, {first if column.endswith(('fixed', '0.05')) else second}"


def _positions(stages: Sequence[Curves]) -> tuple[NDArray[np.int64], list[int]]:
    """Return every row's place on the axis, and where each stage begins: epochs of one run, crops seen of several."""
    if len(stages) == 1:
        return stages[0].epochs, [0]
    begins = np.cumsum([0, *(int(stage.seen[-1]) for stage in stages)])
    places = [stage.seen + begin for stage, begin in zip(stages, begins, strict=False)]
    return np.concatenate(places), begins[:-1].tolist()


def _empty_figure(stages: Sequence[Curves], *, title: str, note: str) -> tuple[Figure, Axes]:
    """Return a figure with title, x-axis, stages and note, and the axes to draw in."""
    lines = textwrap.wrap(note, NOTE_CHARACTERS)
    labels = _stage_labels(stages)
    labels_in = _ROW_IN * (1 + max((label.row for label in labels), default=-1))
    bottom, top = 0.62 + _NOTE_LINE_IN * len(lines), _HEAD_IN + labels_in
    height = bottom + AXES_HEIGHT_IN + top
    figure = new_figure(WIDTH_IN, height, dpi=DPI)
    axes = figure.add_axes(
        (_LEFT_IN / WIDTH_IN, bottom / height, _AXES_WIDTH_IN / WIDTH_IN, AXES_HEIGHT_IN / height), label="curves"
    )
    heading: dict[str, Any] = {"fontsize": 11, "fontweight": "bold", "va": "top", "color": _INK, "parse_math": False}
    figure.text(0.1 / WIDTH_IN, 1 - 0.1 / height, title, **heading)
    figure.text(0.1 / WIDTH_IN, 0.1 / height, "\n".join(lines), fontsize=NOTE_POINTS, va="bottom", color=_INK)
    axes.grid(visible=True, axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, colors=_INK)
    _set_up_axis(axes, stages)
    for label in labels:
        _mark_stage(axes, label)
    return figure, axes


def _set_up_axis(axes: Axes, stages: Sequence[Curves]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    places, _ = _positions(stages)
    last = int(places[-1])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    if len(stages) == 1:
        axes.set_xlabel("epoch", color=_INK)
        margin = 0.03 * (last - int(places[0])) + 0.1
        axes.set_xlim(int(places[0]) - margin, last + margin)
        return
    axes.set_xlabel("crops seen, all stages", color=_INK)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place:,.0f}"))
    axes.set_xlim(0, last * STAGES_ROOM)


@dataclass(frozen=True, slots=True)
class _StageLabel:
    """A stage's label above the axes: where its line is, and which side of it and which row the text takes."""

    begin: int
    text: str
    is_left_of_line: bool
    row: int


def _stage_labels(stages: Sequence[Curves]) -> list[_StageLabel]:
    """Place the labels of several stages so that none covers another or leaves the figure; one run has none."""
    places, begins = _positions(stages)
    inches = _AXES_WIDTH_IN / (int(places[-1]) * STAGES_ROOM)
    taken: list[list[tuple[float, float]]] = []
    labels = []
    for stage, begin in zip(stages, begins, strict=True) if len(stages) > 1 else ():
        text, at = _short(stage.label), begin * inches
        length = _LABEL_CHARACTER_IN * (len(text) + 1)
        is_left = at + length > _AXES_WIDTH_IN + _RIGHT_IN
        span = (at - length, at) if is_left else (at, at + length)
        row = next((i for i, spans in enumerate(taken) if all(_apart(span, other) for other in spans)), len(taken))
        taken[row : row + 1] = [[*(taken[row] if row < len(taken) else []), span]]
        labels.append(_StageLabel(begin, text, is_left, row))
    return labels


def _apart(first: tuple[float, float], second: tuple[float, float]) -> bool:
    return first[1] <= second[0] or second[1] <= first[0]


def _short(text: str, most: int = SHOWN_CHARACTERS) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _mark_stage(axes: Axes, label: _StageLabel) -> None:
    """Draw a thin line where a stage begins, up to its label above the axes."""
    foot = 1 + label.row * _ROW_IN / AXES_HEIGHT_IN
    axes.axvline(
        label.begin, ymax=foot + 0.8 * _ROW_IN / AXES_HEIGHT_IN, color=_FAINT, linewidth=0.8, zorder=1, clip_on=False
    )
    axes.annotate(
        label.text,
        (label.begin, foot),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-3 if label.is_left_of_line else 3, 2),
        textcoords="offset points",
        horizontalalignment="right" if label.is_left_of_line else "left",
        fontsize=LABEL_POINTS,
        color=_INK,
        parse_math=False,
    )


def _draw_lines(axes: Axes, stages: Sequence[Curves], names: Mapping[str, str]) -> None:
    """Draw a line a column: colours tell training from validation, strokes the first two columns from the others."""
    places, _ = _positions(stages)
    drawn = 0
    for index, (column, name) in enumerate(names.items()):
        values = np.concatenate([stage.values.get(column, np.full(len(stage.epochs), np.nan)) for stage in stages])
        if np.isfinite(values).any():
            drawn += 1
            axes.plot(places, values, label=name, **_stroke(index, len(places)))
    if not drawn:
        axes.text(0.5, 0.5, "no value is a number", transform=axes.transAxes, ha="center", color=_INK)
        return
    labels_in = max((label.row + 1 for label in _stage_labels(stages)), default=0) * _ROW_IN
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1 + (labels_in + 0.02) / AXES_HEIGHT_IN),
        ncol=drawn,
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
        columnspacing=1.6,
        handlelength=2.4,
        borderaxespad=0.2,
    )


def _stroke(index: int, epochs: int) -> dict[str, Any]:
    """Return how the line of a column looks; points are marked, as one between two gaps has no line."""
    is_first = index < 2
    return {
        "color": TRAINING_COLOR if index % 2 == 0 else VALIDATION_COLOR,
        "linestyle": "-" if is_first else (0, (4, 2)),
        "linewidth": 1.8 if is_first else 1.4,
        "marker": "o" if is_first else "s",
        "markersize": 4.0 if epochs <= MANY_EPOCHS else 1.5,
        "markerfacecolor": None if is_first else "white",
        "clip_on": False,
        "zorder": 3,
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to.")
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="What the files' names begin with.")
@click.option("--title", help="Title of the figures.  [default: the runs' labels]")
@click.option("--label", "labels", multiple=True, help="A run's label, once a run in their order.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
def main(
    runs: tuple[Path, ...], output: Path, *, name: str, title: str | None, labels: tuple[str, ...], force: bool
) -> None:
    """Draw RUN's loss and PCK as NAME-loss.png and NAME-pck.png; several runs are the stages of one network."""
    if not name or Path(name).name != name:
        raise click.BadParameter(f"{name!r} is not the beginning of a file's name", param_hint="--name")
    with errors_as_lines(on_interrupt="figures drawn so far are whole"):
        written = write_curve_figures(runs, output=output, name=name, title=title, labels=labels, force=force)
    for path in written:
        click.echo(f"wrote {path}")


if __name__ == "__main__":
    main()
