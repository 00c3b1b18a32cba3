"""The report of an analysis as one picture: depth and knees over time with every repetition, and each one's bottom."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from lbkit.core.files import atomic_path, refuse_overwrite
from lbkit.core.geometry import ImageArray
from lbkit.errors import MissingDependencyError, OutputError
from lbkit.motion.repetitions import Repetition
from lbkit.motion.squat import NOTICE, SquatAnalysis

PICTURE_SUFFIXES: Final = (".png",)
MAX_BOTTOMS: Final = 12
"""So many repetitions are shown with their picture; more would be too small to see."""

_COLUMNS: Final = 4
_WIDTH_IN: Final = 12.0
_MOST_IN: Final = 4.0
_COLORS: Final = {"left": "#d55e00", "right": "#0072b2", "depth": "#333333"}


def write_chart(
    path: Path, analysis: SquatAnalysis, *, bottoms: Mapping[int, ImageArray], title: str, force: bool = False
) -> None:
    """Write a PNG with the angles over time, repetitions shaded, and the bottom frame of each.

    Args:
        path: Where to.
        analysis: What was found.
        bottoms: (H, W, 3) uint8 RGB pictures by number of repetition; those that are missing are left out.
        title: Its heading.
        force: Replace what is there.

    Raises:
        OutputError: The suffix is not .png, or the file exists already or cannot be written.
        MissingDependencyError: Matplotlib is not installed.
    """
    check_chart_name(path)
    refuse_overwrite(path, force=force)
    shown = [item for item in analysis.repetitions if item.number in bottoms][:MAX_BOTTOMS]
    rows = -(-len(shown) // _COLUMNS)
    size = analysis.mended.track.image_size
    picture_in = min(_WIDTH_IN / _COLUMNS * size.height / size.width, _MOST_IN) + 0.5
    figure = _matplotlib("figure").Figure(figsize=(_WIDTH_IN, 5.0 + picture_in * rows), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=14)
    areas = figure.add_gridspec(2 + rows, _COLUMNS, height_ratios=[2.6, 1.6] + [picture_in] * rows)
    _draw_flexion(figure.add_subplot(areas[0, :]), analysis)
    _draw_height(figure.add_subplot(areas[1, :]), analysis)
    for place, item in enumerate(shown):
        axes = figure.add_subplot(areas[2 + place // _COLUMNS, place % _COLUMNS])
        axes.imshow(bottoms[item.number])
        axes.set_axis_off()
        axes.set_title(_bottom_title(item), fontsize=9)
    figure.supxlabel(NOTICE, fontsize=8, color="#666666")
    with atomic_path(path) as temporary:
        _matplotlib("backends.backend_agg").FigureCanvasAgg(figure).print_png(str(temporary))


def check_chart_name(path: Path) -> None:
    """Raise unless a chart can be written under a name.

    Raises:
        OutputError: The suffix is not .png.
        MissingDependencyError: Matplotlib is not installed.
    """
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise OutputError("is no name for a report", where=path, remedy="end it in .png")
    _matplotlib("figure")


def _matplotlib(name: str) -> Any:
    try:
        return importlib.import_module(f"matplotlib.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        raise MissingDependencyError(
            "the report needs matplotlib, which is not installed", remedy='run `pip install "lbkit[motion]"`'
        ) from error


def _draw_flexion(axes: Any, analysis: SquatAnalysis) -> None:
    time = analysis.angles.time_s
    axes.plot(time, analysis.signal.depth_deg, color=_COLORS["depth"], linewidth=1.6, label="depth, counted on")
    for side in ("left", "right"):
        values = analysis.angles.column(f"{side}_knee_flexion_deg")
        if np.isfinite(values).any():
            axes.plot(time, values, color=_COLORS[side], linewidth=1.1, label=f"{side} knee flexion, in the picture")
    highest = np.nanmax(analysis.signal.depth_deg, initial=60.0)
    for item in analysis.repetitions:
        axes.axvspan(item.start_s, item.end_s, color="#009e73", alpha=0.13, linewidth=0)
        axes.text(item.deepest_s, highest + 4, str(item.number), ha="center", fontweight="bold")
    axes.set_ylabel("degrees")
    axes.set_ylim(-5, highest + 16)
    axes.set_xlim(time[0], time[-1] if len(time) > 1 else time[0] + 1)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=9)


def _draw_height(axes: Any, analysis: SquatAnalysis) -> None:
    time = analysis.angles.time_s
    axes.plot(time, 100 * analysis.signal.height_ratio, color="#7a4fa3", linewidth=1.4)
    for item in analysis.repetitions:
        axes.axvspan(item.start_s, item.end_s, color="#009e73", alpha=0.13, linewidth=0)
    axes.set_ylabel("hip height,\n% of standing")
    axes.set_xlabel("seconds")
    axes.set_xlim(time[0], time[-1] if len(time) > 1 else time[0] + 1)
    axes.grid(alpha=0.25)


def _bottom_title(item: Repetition) -> str:
    depth = item.measures["depth_deg"]
    text = f"{item.number}: {item.deepest_s:.1f} s"
    text += "" if depth is None else f", {depth:.0f}\N{DEGREE SIGN}"
    codes = [remark.code.replace("_", " ") for remark in item.remarks]
    return text + ("\n" + ",\n".join(codes) if codes else "")
