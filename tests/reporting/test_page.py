from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from lbkit.errors import OutputError
from lbkit.reporting.charts import histogram_svg, line_chart_svg, nice_ticks
from lbkit.reporting.page import Page

EVIL = "<script>alert(\"x\")</script> & 'quoted'"


class TagBalance(HTMLParser):
    """Checks that every tag that opens closes in order."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def full_page() -> Page:
    page = Page(EVIL)
    page.verdict(False, EVIL)
    page.heading(EVIL)
    page.paragraph(EVIL)
    page.table(["name", "px"], [[EVIL, 1.25], ["b", None]], caption=EVIL)
    page.pictures([(np.full((80, 60, 3), 200, np.uint8), EVIL), (np.zeros((8, 8, 3), np.uint8), "small")])
    page.histogram([0.0, 1.0, np.nan], bins=4, x_label=EVIL, caption=EVIL, log_counts=True)
    page.line_chart({EVIL: ([0, 1, 2], [0.1, 0.5, 0.9])}, x_label=EVIL, y_label=EVIL, caption=EVIL)
    return page


def test_everything_is_escaped_balanced_and_inside() -> None:
    html = full_page().to_html()
    parser = TagBalance()
    parser.feed(html)
    assert parser.open == []
    assert "script" not in parser.seen
    assert "<script" not in html
    sources = re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^"\s>)]+)', html)
    assert len(sources) == 3
    assert all(source.startswith("data:") for source in sources)
    assert set(re.findall(r"https?://[^\s\"']+", html)) == {"http://www.w3.org/2000/svg"}


def test_verdict_says_so_in_words() -> None:
    page = Page("t")
    page.verdict(True, "within limits")
    assert '<p class="verdict passed">Passed: within limits</p>' in page.to_html()


def test_numbers_are_right_aligned_by_column() -> None:
    page = Page("t")
    page.table(["model", "pck", "px", "file"], [["cnn", "0.91 [0.89, 0.93]", 1.23456, "1.jpg"], ["b", None, 2, "a b"]])
    html = page.to_html()
    assert '<td class="number">0.91 [0.89, 0.93]</td><td class="number">1.235</td><td>1.jpg</td>' in html
    assert html.count('<th class="number">') == 2


def test_rows_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="row 0 has 1 cells, and the header has 2"):
        Page("t").table(["a", "b"], [["x"]])


def test_pictures_keep_their_colours() -> None:
    image = np.zeros((20, 10, 3), np.uint8)
    image[..., 0] = 250
    page = Page("t")
    page.pictures([(image, "red")])
    found = re.search(r'src="data:image/png;base64,([^"]+)" width="10" height="20"', page.to_html())
    assert found
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(found[1]), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    np.testing.assert_array_equal(decoded[..., ::-1], image)


def test_histogram_bars_hold_the_counts() -> None:
    root = ElementTree.fromstring(histogram_svg([0, 0.1, 0.9, np.nan, np.inf], bins=[0, 0.5, 1.0], x_label="px"))
    bars = [node for node in root.iter() if node.tag.endswith("rect")]
    titles = [node.text for bar in bars for node in bar]
    assert titles == ["0 to 0.5: 2", "0.5 to 1: 1"]
    assert float(bars[0].attrib["height"]) == pytest.approx(2 * float(bars[1].attrib["height"]), abs=0.02)


@pytest.mark.parametrize("log_counts", [False, True])
@pytest.mark.parametrize("values", [[], [np.nan], [3.0], [0.0] * 1000 + [5.0]])
def test_histogram_of_odd_values_is_still_well_formed(values: list[float], log_counts: bool) -> None:
    text = histogram_svg(values, bins=5, x_label="x", log_counts=log_counts)
    assert "nan" not in text
    ElementTree.fromstring(text)


def test_lines_are_where_the_data_is() -> None:
    root = ElementTree.fromstring(line_chart_svg({"a": ([0, 1], [0, 10])}, x_label="x", y_label="y"))
    line = next(node for node in root.iter() if node.tag.endswith("polyline"))
    (x0, y0), (x1, y1) = (map(float, pair.split(",")) for pair in line.attrib["points"].split())
    assert (x0, y0, x1, y1) == (64, 274, 624, 12)


@pytest.mark.parametrize("ys", [[], [np.nan, np.nan, np.nan], [1, np.nan, 2], [5, 5, 5]])
def test_lines_of_odd_values_are_still_well_formed(ys: list[float]) -> None:
    text = line_chart_svg({"a": (range(len(ys)), ys)}, x_label="x", y_label="y")
    assert "nan" not in text
    ElementTree.fromstring(text)


def test_many_lines_are_told_apart() -> None:
    text = line_chart_svg({str(i): ([0, 1], [i, i]) for i in range(14)}, x_label="x", y_label="y")
    styles = re.findall(r"<polyline[^>]*(stroke=.*?)/>", text)
    assert len(set(styles)) == 14


def test_a_line_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="line 'a' has 2 x and 1 y"):
        line_chart_svg({"a": ([0, 1], [0])}, x_label="x", y_label="y")


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.2), (-3, 17), (0, 1e-9), (5, 5), (1e6, 1.3e6)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert 1 <= len(ticks) <= 7
    assert low <= min(ticks) <= max(ticks) <= high


def test_page_is_written_whole_and_not_over_another(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "report.html"
    page = Page("t")
    page.paragraph("naïve \udcff")
    page.write(target)
    assert "naïve \\udcff" in target.read_text(encoding="utf-8")
    with pytest.raises(OutputError, match="--force"):
        page.write(target)
    page.write(target, force=True)
    assert [file.name for file in target.parent.iterdir()] == ["report.html"]
