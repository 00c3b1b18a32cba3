"""Charts as inline SVG: a histogram and lines, with axes, ticks and a legend, readable in light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH_PX, HEIGHT_PX = 640, 320
_LEFT_PX, _RIGHT_PX, _TOP_PX, _BOTTOM_PX = 64, 16, 12, 46
_LEGEND_LINE_PX = 18

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56b4e9")
"""Okabe and Ito's colours, apart for every kind of colour vision; the yellow is darkened to show on white."""

DASHES = ("", "7 4", "2 3", "9 3 2 3")
"""Lines differ in their dashes too once the colours are used up."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """A linear map from data to SVG pixels."""

    low: float
    high: float
    start_px: float
    end_px: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start_px + share * (self.end_px - self.start_px), 2)


def histogram_svg(values: ArrayLike, *, bins: int | Sequence[float], x_label: str, log_counts: bool = False) -> str:
    """Return a histogram of the finite values.

    Args:
        values: Any shape; what is not finite is left out.
        bins: Number of bins of equal width, or their edges.
        x_label: Name of the values, with their unit.
        log_counts: Whether bars grow with the logarithm of one plus their count.
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    finite = flat[np.isfinite(flat)]
    edges_given = bins if isinstance(bins, int) else np.asarray(bins, dtype=np.float64)
    counts, edges = np.histogram(finite, bins=edges_given)
    heights = np.log10(1.0 + counts) if log_counts else counts.astype(np.float64)
    x = _Scale(float(edges[0]), float(edges[-1]), _LEFT_PX, WIDTH_PX - _RIGHT_PX)
    y = _Scale(0.0, max(float(heights.max()), 0.3) * 1.05, HEIGHT_PX - _BOTTOM_PX, _TOP_PX)
    bars = []
    for count, height, left, right in zip(counts, heights, edges[:-1], edges[1:], strict=True):
        width = max(x(right) - x(left) - 1, 0.5)
        box = f'x="{x(left)}" y="{y(height)}" width="{width:.2f}" height="{y(0) - y(height):.2f}"'
        bars.append(f'<rect class="bar" {box}><title>{_number(left)} to {_number(right)}: {int(count)}</title></rect>')
    y_ticks = _log_ticks(int(counts.max())) if log_counts else _count_ticks(int(counts.max()))
    axes = _axes(x, y, x_ticks=nice_ticks(x.low, x.high), y_ticks=y_ticks, labels=(x_label, "count"))
    return _svg(axes + bars, height=HEIGHT_PX)


def line_chart_svg(series: Mapping[str, tuple[ArrayLike, ArrayLike]], *, x_label: str, y_label: str) -> str:
    """Return lines over common axes with a legend below; a value that is not finite interrupts its line.

    Args:
        series: (M,) x and (M,) y by name.
        x_label: Name of x, with its unit.
        y_label: Name of y, with its unit.

    Raises:
        ValueError: A line's x and y differ in length.
    """
    lines = {name: _line_points(name, *pair) for name, pair in series.items()}
    finite = [points[np.isfinite(points).all(axis=1)] for points in lines.values()]
    every = np.concatenate([*finite, np.zeros((0, 2))])
    every = every if len(every) else np.array([[0.0, 0.0], [1.0, 1.0]])
    x = _Scale(*_limits(every[:, 0]), _LEFT_PX, WIDTH_PX - _RIGHT_PX)
    y = _Scale(*_limits(every[:, 1]), HEIGHT_PX - _BOTTOM_PX, _TOP_PX)
    y_ticks = [(tick, _number(tick)) for tick in nice_ticks(y.low, y.high)]
    parts = _axes(x, y, x_ticks=nice_ticks(x.low, x.high), y_ticks=y_ticks, labels=(x_label, y_label))
    for index, (name, points) in enumerate(lines.items()):
        style = _line_style(index)
        parts += _line_marks(points, x, y, style=style, color=COLORS[index % len(COLORS)])
        top = HEIGHT_PX + 6 + index * _LEGEND_LINE_PX
        parts.append(f'<line x1="{_LEFT_PX}" y1="{top}" x2="{_LEFT_PX + 28}" y2="{top}" {style}/>')
        parts.append(f'<text x="{_LEFT_PX + 36}" y="{top + 4}">{escape(name)}</text>')
    return _svg(parts, height=HEIGHT_PX + _LEGEND_LINE_PX * len(lines))


def nice_ticks(low: float, high: float, *, most: int = 7) -> list[float]:
    """Return at most `most` round numbers within a range, one, two or five times a power of ten apart."""
    if not high > low:
        return [low]
    raw = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _count_ticks(highest: int) -> list[tuple[float, str]]:
    return [(tick, _number(tick)) for tick in nice_ticks(0.0, max(highest, 1)) if tick == int(tick)]


def _log_ticks(highest: int) -> list[tuple[float, str]]:
    decades = [0, *(10**power for power in range(len(str(max(highest, 1)))))]
    return [(math.log10(1 + count), str(count)) for count in decades if count <= max(highest, 1)]


def _line_points(name: str, xs: ArrayLike, ys: ArrayLike) -> NDArray[np.float64]:
    x, y = np.asarray(xs, dtype=np.float64).ravel(), np.asarray(ys, dtype=np.float64).ravel()
    if len(x) != len(y):
        raise ValueError(f"line {name!r} has {len(x)} x and {len(y)} y")
    return np.stack([x, y], axis=1)


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the range of the values; one value alone is given room on both sides."""
    low, high = float(values.min()), float(values.max())
    room = 0.0 if high > low else max(abs(low) * 0.1, 0.5)
    return low - room, high + room


def _line_style(index: int) -> str:
    dash = DASHES[index // len(COLORS) % len(DASHES)]
    return f'stroke="{COLORS[index % len(COLORS)]}" stroke-width="2" fill="none"' + (
        f' stroke-dasharray="{dash}"' if dash else ""
    )


def _line_marks(points: NDArray[np.float64], x: _Scale, y: _Scale, *, style: str, color: str) -> list[str]:
    """Draw runs of finite points; a run of one is a dot."""
    is_finite = np.isfinite(points).all(axis=1)
    runs = np.split(points, np.flatnonzero(np.diff(is_finite)) + 1) if len(points) else []
    marks = []
    for run in runs:
        if not np.isfinite(run).all():
            continue
        text = " ".join(f"{x(a)},{y(b)}" for a, b in run)
        dot = f'<circle cx="{x(run[0, 0])}" cy="{y(run[0, 1])}" r="3" fill="{color}"/>'
        marks.append(f'<polyline points="{text}" {style}/>' if len(run) > 1 else dot)
    return marks


def _axes(
    x: _Scale, y: _Scale, *, x_ticks: list[float], y_ticks: list[tuple[float, str]], labels: tuple[str, str]
) -> list[str]:
    bottom, right = HEIGHT_PX - _BOTTOM_PX, WIDTH_PX - _RIGHT_PX
    parts = []
    for value, text in y_ticks:
        parts.append(f'<line class="grid" x1="{_LEFT_PX}" y1="{y(value)}" x2="{right}" y2="{y(value)}"/>')
        parts.append(f'<text x="{_LEFT_PX - 8}" y="{y(value) + 4}" text-anchor="end">{text}</text>')
    for value in x_ticks:
        parts.append(f'<line class="axis" x1="{x(value)}" y1="{bottom}" x2="{x(value)}" y2="{bottom + 5}"/>')
        parts.append(f'<text x="{x(value)}" y="{bottom + 18}" text-anchor="middle">{_number(value)}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT_PX},{_TOP_PX}V{bottom}H{right}"/>')
    middle_x, middle_y = (_LEFT_PX + right) / 2, (_TOP_PX + bottom) / 2
    parts.append(f'<text x="{middle_x}" y="{bottom + 37}" text-anchor="middle">{escape(labels[0])}</text>')
    turned = f'transform="translate(14 {middle_y}) rotate(-90)"'
    parts.append(f'<text {turned} text-anchor="middle">{escape(labels[1])}</text>')
    return parts


def _svg(parts: Sequence[str], *, height: int) -> str:
    size = f'viewBox="0 0 {WIDTH_PX} {height}" width="{WIDTH_PX}" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{"".join(parts)}</svg>'


def _number(value: float) -> str:
    return f"{value:.6g}"
