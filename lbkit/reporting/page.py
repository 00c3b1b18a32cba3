"""One HTML page that holds everything it shows: no other file, no script, nothing from a network."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import cv2
from numpy.typing import ArrayLike

from lbkit.core.files import atomic_path, refuse_overwrite
from lbkit.core.geometry import ImageArray
from lbkit.reporting.charts import histogram_svg, line_chart_svg

Cell = str | int | float | None
"""What a table holds; None is shown as a dash."""

JPEG_QUALITY = 88
PNG_PIXELS = 64 * 64
"""Pictures of at most so many pixels are kept exactly, as PNG; larger ones are JPEG."""

_NUMBER = re.compile(
    r"[-+\N{MINUS SIGN}]?[0-9][0-9.,]*(e[-+]?[0-9]+)?( ?[^\s0-9]{1,6})?(\s*[\[(][^\])]*[\])])?|\N{EN DASH}|nan|inf"
)
"""A number, perhaps with a unit and an interval in brackets, as columns of figures have them."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --paper: #fdfdfc; --faint: #6a6a72; --rule: #d9d9dd; --bar: #0072b2;
  --good: #0a6b3c; --good-paper: #e3f4ea; --bad: #a3201a; --bad-paper: #fbe7e5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --paper: #17171a; --faint: #a0a0a8; --rule: #3a3a40;
  --bar: #56b4e9; --good: #8fe0b4; --good-paper: #14331f; --bad: #ffb3ac; --bad-paper: #421815; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.verdict { padding: .7rem 1rem; border-radius: .4rem; font-weight: 600; }
.passed { color: var(--good); background: var(--good-paper); }
.failed { color: var(--bad); background: var(--bad-paper); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0; }
caption, figcaption { color: var(--faint); text-align: left; font-size: .9em; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
th.number, td.number { text-align: right; white-space: nowrap; }
figure { margin: .6rem 0; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem;
  align-items: start; }
.pictures figure { margin: 0; } .pictures figcaption { overflow-wrap: anywhere; } img { max-width: 100%; height: auto; }
svg { max-width: 100%; height: auto; font: 12px system-ui, sans-serif; } svg text { fill: var(--ink); }
svg .grid { stroke: var(--rule); } svg .axis { stroke: var(--faint); fill: none; } svg .bar { fill: var(--bar); }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Page:
    """A report that grows from top to bottom; every text is escaped.

    Args:
        title: Heading of the page and of its window.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []

    def verdict(self, passed: bool, text: str) -> None:  # noqa: FBT001 - the one thing that a verdict says
        """Add the answer, green or red, in words that begin with "Passed" or "Failed"."""
        kind = "passed" if passed else "failed"
        self._parts.append(f'<p class="verdict {kind}">{kind.capitalize()}: {escape(text)}</p>')

    def heading(self, text: str) -> None:
        """Add a heading below the title's level."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str = "") -> None:
        """Add a table; columns of numbers, with or without unit and interval, are aligned to the right.

        Args:
            header: C names.
            rows: C cells each; floats are shown to four significant digits, None as a dash.
            caption: Text above the table.

        Raises:
            ValueError: A row has another number of cells than the header.
        """
        texts = [[_cell_text(cell) for cell in row] for row in rows]
        for number, row in enumerate(texts):
            if len(row) != len(header):
                raise ValueError(f"row {number} has {len(row)} cells, and the header has {len(header)}")
        kinds = [_column_class([row[column] for row in texts]) for column in range(len(header))]
        head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, header, strict=True))
        body = "".join(f"<tr>{_cells(row, kinds)}</tr>" for row in texts)
        told = f"<caption>{escape(caption)}</caption>" if caption else ""
        self._parts.append(
            f'<div class="scroll"><table>{told}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )

    def pictures(self, pictures: Iterable[tuple[ImageArray, str]]) -> None:
        """Add a grid of pictures with captions.

        Args:
            pictures: (H, W, 3) uint8 RGB and text.
        """
        figures = "".join(_picture(image, caption) for image, caption in pictures)
        self._parts.append(f'<div class="pictures">{figures}</div>')

    def histogram(
        self, values: ArrayLike, *, bins: int | Sequence[float], x_label: str, caption: str, log_counts: bool = False
    ) -> None:
        """Add a histogram (see `histogram_svg`)."""
        self._figure(histogram_svg(values, bins=bins, x_label=x_label, log_counts=log_counts), caption)

    def line_chart(
        self, series: Mapping[str, tuple[ArrayLike, ArrayLike]], *, x_label: str, y_label: str, caption: str
    ) -> None:
        """Add lines over common axes (see `line_chart_svg`)."""
        self._figure(line_chart_svg(series, x_label=x_label, y_label=y_label), caption)

    def to_html(self) -> str:
        """Return the page."""
        title, parts = escape(self._title), "\n".join(self._parts)
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n<link rel="icon" href="data:,">\n'
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{parts}\n</body>\n</html>\n"
        )

    def write(self, path: Path, *, force: bool = False) -> None:
        """Write the page as one file.

        Args:
            path: The file; its folder is made.
            force: Replace what is there.

        Raises:
            OutputError: The file exists or cannot be written.
        """
        refuse_overwrite(path, force=force)
        with atomic_path(path) as temporary:
            # A file name that is no valid text holds surrogates, which UTF-8 cannot take.
            temporary.write_bytes(self.to_html().encode("utf-8", errors="backslashreplace"))

    def _figure(self, content: str, caption: str) -> None:
        told = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self._parts.append(f"<figure>{content}{told}</figure>")


def _cell_text(cell: Cell) -> str:
    if cell is None:
        return "\N{EN DASH}"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _column_class(texts: Sequence[str]) -> str:
    told = [text for text in texts if text]
    return ' class="number"' if told and all(_NUMBER.fullmatch(text) for text in told) else ""


def _cells(row: Sequence[str], kinds: Sequence[str]) -> str:
    return "".join(f"<td{kind}>{escape(text)}</td>" for kind, text in zip(kinds, row, strict=True))


def _picture(image: ImageArray, caption: str) -> str:
    height, width = image.shape[:2]
    is_small = height * width <= PNG_PIXELS
    flags = [] if is_small else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, data = cv2.imencode(".png" if is_small else ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    source = f"data:image/{'png' if is_small else 'jpeg'};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
    told = escape(caption)
    return (
        f'<figure><img src="{source}" width="{width}" height="{height}" loading="lazy" alt="{told}">'
        f"<figcaption>{told}</figcaption></figure>"
    )
