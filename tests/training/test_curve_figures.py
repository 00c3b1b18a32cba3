from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from lbkit.errors import ConfigError, InputError, MissingDependencyError, OutputError
from training import curve_figures
from training.curve_figures import (
    LOSS_COLUMNS,
    NOTE,
    PCK_COLUMNS,
    STAGES_NOTE,
    loss_figure,
    main,
    pck_figure,
    read_curves,
    refresh_curve_figures,
    write_curve_figures,
)

HEADER = ("epoch", "seen", "seconds", *LOSS_COLUMNS, *PCK_COLUMNS, "rate")


def row(epoch: int, **changes: Any) -> dict[str, Any]:
    """A row whose values tell their column and epoch."""
    values = {name: (index + 1) / 1000 / epoch for index, name in enumerate(LOSS_COLUMNS)}
    values |= {name: (index + 1) / 10 + epoch / 100 for index, name in enumerate(PCK_COLUMNS)}
    return {"epoch": epoch, "seen": 100 * epoch, "seconds": 1.5, "rate": "fast", **values, **changes}


def write_run(folder: Path, rows: list[Mapping[str, Any]], header: tuple[str, ...] = HEADER) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [",".join(header), *(",".join(str(entry[name]) for name in header) for entry in rows)]
    (folder / "curves.csv").write_text("\r\n".join(lines) + "\r\n", newline="")
    return folder


def lines_of(figure: Any) -> dict[str, Any]:
    """The curves of a figure by their names in its legend."""
    (axes,) = figure.axes
    named = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(named)
    return named


def texts_of(figure: Any) -> str:
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())


def test_a_run_is_drawn_against_its_epochs(tmp_path: Path) -> None:
    curves = read_curves(write_run(tmp_path / "fpn-1", [row(1), row(2), row(3)]))
    figure = loss_figure([curves], title="fpn: loss")
    lines = lines_of(figure)
    assert list(lines) == ["training, 1/6", "validation, 1/6", "training, visible", "validation, visible"]
    for index, line in enumerate(lines.values()):
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
        np.testing.assert_allclose(line.get_ydata(), [(index + 1) / 1000 / epoch for epoch in (1, 2, 3)])
    assert figure.axes[0].get_xlabel() == "epoch"
    lines = lines_of(pck_figure([curves], title="fpn: PCK"))
    assert list(lines) == ["training, 0.05", "validation, 0.05", "training, 0.10", "validation, 0.10"]
    for index, line in enumerate(lines.values()):
        np.testing.assert_allclose(line.get_ydata(), [(index + 1) / 10 + epoch / 100 for epoch in (1, 2, 3)])


def test_the_loss_figure_says_what_missing_joints_do(tmp_path: Path) -> None:
    last = {"train_loss_fixed": 0.9, "train_loss_visible": 1.0, "val_loss_fixed": 0.6, "val_loss_visible": 0.8}
    run = write_run(tmp_path / "run", [row(1), row(2, **last)])
    written = texts_of(loss_figure([read_curves(run)], title="a title"))
    assert NOTE in written
    assert "the divisor stays 6" in NOTE
    assert "below the visible loss by 10% in training and 25% in validation" in written
    assert "a title" in written
    assert STAGES_NOTE not in written
    assert NOTE not in texts_of(pck_figure([read_curves(run)], title=""))


def test_stages_are_joined_on_crops_seen(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", [row(1), row(2, seen=250)]),
        write_run(tmp_path / "b", [row(1, seen=40)]),
        write_run(tmp_path / "c", [row(1, seen=10), row(2, seen=30)]),
    ]
    figure = loss_figure([read_curves(run) for run in runs], title="")
    for line in lines_of(figure).values():
        np.testing.assert_array_equal(line.get_xdata(), [100, 250, 290, 300, 320])
    (axes,) = figure.axes
    begins = [line.get_xdata()[0] for line in axes.lines if line.get_label().startswith("_")]
    assert begins == [0, 250, 290]
    assert [text.get_text() for text in axes.texts] == ["a", "b", "c"]
    assert axes.get_xlabel() == "crops seen, all stages"
    assert STAGES_NOTE in texts_of(figure)


def test_labels_of_short_stages_cover_neither_each_other_nor_the_border(tmp_path: Path) -> None:
    seen = [1000, 10, 10, 300, 20]
    runs = [write_run(tmp_path / f"a-rather-long-name-{i}", [row(1, seen=count)]) for i, count in enumerate(seen)]
    figure = pck_figure([read_curves(run) for run in runs], title="five")
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    texts = (*axes.texts, *axes.get_legend().get_texts(), *figure.texts, axes.xaxis.label)
    boxes = {text.get_text(): text.get_window_extent(canvas.get_renderer()) for text in texts}
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes.values())
    covered = [(a, b) for a, b in itertools.combinations(boxes, 2) if boxes[a].overlaps(boxes[b])]
    assert covered == []


def test_values_that_are_no_numbers_are_gaps(tmp_path: Path) -> None:
    rows = [row(1), row(2, **{"val_pck@0.05": "nan", "train_loss_fixed": ""}), row(3, val_loss_visible="inf")]
    curves = read_curves(write_run(tmp_path / "run", rows))
    drawn = lines_of(pck_figure([curves], title=""))["validation, 0.05"].get_ydata()
    np.testing.assert_array_equal(np.isnan(drawn), [False, True, False])
    assert math.isnan(curves.values["train_loss_fixed"][1])
    assert math.isnan(curves.values["val_loss_visible"][2])
    assert "below the visible loss by 67% in training." in texts_of(loss_figure([curves], title=""))


def test_a_run_without_validation_has_its_training_lines_alone(tmp_path: Path) -> None:
    empty = {name: "" for name in (*LOSS_COLUMNS, *PCK_COLUMNS) if name.startswith("val")}
    blank = read_curves(write_run(tmp_path / "blank", [row(1, **empty)]))
    header = tuple(name for name in HEADER if not name.startswith("val"))
    absent = read_curves(write_run(tmp_path / "absent", [row(1)], header))
    for curves in (blank, absent):
        assert list(lines_of(loss_figure([curves], title=""))) == ["training, 1/6", "training, visible"]
        assert list(lines_of(pck_figure([curves], title=""))) == ["training, 0.05", "training, 0.10"]


def test_a_run_that_diverged_at_once_is_drawn_all_the_same(tmp_path: Path) -> None:
    nowhere = dict.fromkeys((*LOSS_COLUMNS, *PCK_COLUMNS), "nan")
    figure = loss_figure([read_curves(write_run(tmp_path / "run", [row(1, **nowhere)]))], title="")
    assert [text.get_text() for text in figure.axes[0].texts] == ["no value is a number"]


def test_the_files_are_small_pictures_twice_as_wide_as_they_are_shown(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, [row(epoch) for epoch in range(1, 31)]) for name in ("a", "b", "c")]
    written = write_curve_figures(runs, output=tmp_path / "out", name="fpn", title="fpn at $5 and $6")
    assert [path.name for path in written] == ["fpn-loss.png", "fpn-pck.png"]
    for path in written:
        height, width = cv2.imread(str(path)).shape[:2]
        assert width == 1400
        assert 800 < height < 1100
        assert path.stat().st_size < 80_000
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"fpn-loss.png", "fpn-pck.png"}


def test_the_colours_survive_the_palette(tmp_path: Path) -> None:
    (path, _) = write_curve_figures([write_run(tmp_path / "run", [row(1), row(2)])], output=tmp_path)
    image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(int)
    for color in ((255, 255, 255), (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        near = np.abs(image - np.array(color)).max(axis=2) <= 8
        assert near.sum() > 1000


def test_a_running_training_replaces_its_own_figures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [row(1)])
    first = {path.name: path.read_bytes() for path in refresh_curve_figures(run)}
    assert set(first) == {"curves-loss.png", "curves-pck.png"}
    assert {path.name: path.read_bytes() for path in refresh_curve_figures(run)} == first
    write_run(run, [row(1), row(2)])
    assert all(path.read_bytes() != first[path.name] for path in refresh_curve_figures(run))


def test_a_figure_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", [row(1)])
    before = {path: path.read_bytes() for path in refresh_curve_figures(run)}

    def broken(image: Any, path: Path, **options: Any) -> None:
        path.write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OutputError, match="cannot be written"):
        refresh_curve_figures(run)
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in run.iterdir()} == {"curves.csv", "curves-loss.png", "curves-pck.png"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n", r"line 1: no column epoch|has a header and no row"),
        (b"epoch,seen,train_loss_fixed,val_pck@0.05\n", "has a header and no row"),
        (b"epoch,seen,train_loss_fixed,val_pck@0.05\n1,10,0.5,0.5\n2,20,0.\n", "line 3 has no value for val_pck@0.05"),
        (b"epoch,seen,train_loss_fixed,val_pck@0.05\n1,10,0.5,0.5\n2,20,0.4,0.", "line 3 has no end: the file is cut"),
        (b"epoch,seen,train_loss_fixed,val_pck@0.05\n1,10,0.5,0.5,7\n", "line 2 has more values than the header"),
        (b"epoch,seen,train_loss_fixed,val_pck@0.05\n1,10,low,0.5\n", "line 2: train_loss_fixed .* got 'low'"),
        (b"epoch,seen,train_loss_fixed,val_pck@0.05\none,10,1,0.5\n", "line 2: epoch should be a number, got 'one'"),
        (b"epoch,seen,train_loss_fixed,val_pck@0.05\n1.5,10,1,0.5\n", "line 2: epoch should be a whole number"),
        (b"epoch,seen,train_loss_fixed,val_pck@0.05\n,10,1,0.5\n", "line 2: epoch should be a whole number"),
        (b"epoch,seen,train_loss_fixed,val_pck@0.05\n1,9,1,1\n2,9,1,1\n", "line 3: seen .* greater than 9, got '9'"),
        (b"epoch,seen,train_loss_fixed,val_pck@0.05\n2,9,1,1\n1,19,1,1\n", "line 3: epoch .* greater than 2, got '1'"),
        (b"epoch,train_loss_fixed,val_pck@0.05\n1,1,1\n", "line 1: no column seen"),
        (b"epoch,seen,train_loss_fixed\n1,1,1\n", "line 1: none of the columns train_pck@0.05"),
        (b"\xff\xfe\x00e\n", "not text in UTF-8"),
    ],
)
def test_bad_curve_files_are_named_with_their_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "curves.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_curves(tmp_path)
    assert caught.value.where == str(tmp_path / "curves.csv")


def test_a_missing_curve_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"curves\.csv: no such file"):
        read_curves(tmp_path)
    with pytest.raises(InputError, match="absent: no such file"):
        read_curves(tmp_path / "absent")


def test_without_matplotlib_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", [row(1)])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lbkit\[train\]'"):
        refresh_curve_figures(run)
    assert [path.name for path in run.iterdir()] == ["curves.csv"]


def test_drawing_leaves_no_global_state(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [row(1)])
    code = (
        "import sys, pathlib; from training.curve_figures import refresh_curve_figures\n"
        f"refresh_curve_figures(pathlib.Path({str(run)!r}))\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    root = Path(curve_figures.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_the_command_draws_a_chain_and_overwrites_only_when_told(tmp_path: Path) -> None:
    runs = [str(write_run(tmp_path / name, [row(1)])) for name in ("one", "two")]
    arguments = [*runs, "--output", str(tmp_path / "out"), "--name", "fpn", "--label", "half size", "--label", "full"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert result.output.count("wrote") == 2
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert "give --force" in refused.output
    assert CliRunner().invoke(main, [*arguments, "--force"]).exit_code == 0
    for wrong, message in ((["--name", "a/b"], "is not the beginning"), (["--label", "third"], "3 labels for 2 runs")):
        answer = CliRunner().invoke(main, [*arguments, *wrong])
        assert answer.exit_code in (1, 2)
        assert message in answer.output


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 runs"):
        write_curve_figures([], output=tmp_path)
