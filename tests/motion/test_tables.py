"""Results leave as JSON, CSV and Parquet with the same names and numbers."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from motion_sessions import faultless

from lbkit.errors import MissingDependencyError, OutputError
from lbkit.motion.angles import COLUMNS
from lbkit.motion.measures import MEASURES
from lbkit.motion.squat import NOTICE, analyze_squats
from lbkit.motion.synthetic import PlannedSquat
from lbkit.motion.tables import (
    FRAME_COLUMNS,
    REPETITION_COLUMNS,
    analysis_json,
    frame_rows,
    repetition_rows,
    write_table,
)

ANALYSIS = analyze_squats(faultless(PlannedSquat(), PlannedSquat(depth_deg=60, descent_s=0.4), azimuth_deg=90))


def test_json_holds_everything_and_no_nan() -> None:
    found = json.loads("".join(analysis_json(ANALYSIS, source="clip.mp4")), parse_constant=pytest.fail)
    assert found["count"] == len(found["repetitions"]) == 2
    assert found["view"]["name"] == "side"
    assert found["warnings"][0]["code"] == "view_side"
    assert found["notice"] == NOTICE
    assert len(found["frames"]) == len(ANALYSIS.phases)
    first, second = found["repetitions"]
    assert set(MEASURES) < set(first)
    assert first["max_valgus_deg"] is None
    assert first["reasons"]["max_valgus_deg"] == "view"
    assert {item["code"] for item in second["feedback"]} == {"depth_shallow", "descent_fast"}
    assert all(item["limit"] and item["source"] and item["sentence"] for item in second["feedback"])
    bottom = [frame for frame in found["frames"] if frame["phase"] == "bottom" and frame["repetition"] == 1]
    assert max(frame["left_knee_flexion_deg"] for frame in bottom) == pytest.approx(95, abs=5)
    frame = bottom[0]
    assert frame["reasons"]["pelvic_obliquity_deg"] == "view"


def test_csv_has_a_row_a_frame_and_a_row_a_repetition(tmp_path: Path) -> None:
    write_table(tmp_path / "frames.csv", frame_rows(ANALYSIS), columns=FRAME_COLUMNS, force=False)
    write_table(tmp_path / "repetitions.csv", repetition_rows(ANALYSIS), columns=REPETITION_COLUMNS, force=False)
    frames = list(csv.DictReader((tmp_path / "frames.csv").open(encoding="utf-8")))
    assert len(frames) == len(ANALYSIS.phases)
    assert set(COLUMNS) < set(frames[0])
    assert frames[0]["pelvic_obliquity_deg"] == ""
    assert "pelvic_obliquity_deg=view" in frames[0]["reasons"]
    repetitions = list(csv.DictReader((tmp_path / "repetitions.csv").open(encoding="utf-8")))
    assert [row["number"] for row in repetitions] == ["1", "2"]
    assert repetitions[1]["feedback"] == "depth_shallow descent_fast"


def test_parquet_has_the_same(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_table(tmp_path / "frames.parquet", frame_rows(ANALYSIS), columns=FRAME_COLUMNS, force=False)
    table = parquet.read_table(tmp_path / "frames.parquet")
    assert table.num_rows == len(ANALYSIS.phases)
    assert table.column("time_s").to_pylist() == [row["time_s"] for row in frame_rows(ANALYSIS)]


def test_parquet_without_pyarrow_names_the_line_that_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"lbkit\[parquet\]"):
        write_table(tmp_path / "frames.parquet", [], columns=FRAME_COLUMNS, force=False)


def test_tables_are_not_overwritten_and_need_a_known_name(tmp_path: Path) -> None:
    path = tmp_path / "repetitions.csv"
    write_table(path, [], columns=FRAME_COLUMNS, force=False)
    with pytest.raises(OutputError, match="exists already"):
        write_table(path, repetition_rows(ANALYSIS), columns=REPETITION_COLUMNS, force=False)
    write_table(path, repetition_rows(ANALYSIS), columns=REPETITION_COLUMNS, force=True)
    assert path.stat().st_size > 200
    with pytest.raises(OutputError, match="no name for a table"):
        write_table(tmp_path / "table.xls", [], columns=FRAME_COLUMNS, force=False)


def test_json_comes_in_small_pieces_that_hold_every_frame_once() -> None:
    long = analyze_squats(faultless(*[PlannedSquat()] * 25, azimuth_deg=90, fps=15))
    assert len(long.phases) > 1024
    pieces = list(analysis_json(long, source="clip.mp4"))
    frames = json.loads("".join(pieces))["frames"]
    assert [frame["time_s"] for frame in frames] == [row["time_s"] for row in frame_rows(long)]
    assert [frame["depth_deg"] for frame in frames] == [row["depth_deg"] for row in frame_rows(long)]
    assert max(map(len, pieces[1:])) < 2000


def test_rows_hold_what_the_columns_say() -> None:
    assert tuple(frame_rows(ANALYSIS)[0]) == FRAME_COLUMNS
    assert tuple(repetition_rows(ANALYSIS)[0]) == REPETITION_COLUMNS
    assert frame_rows(ANALYSIS, frames=range(3, 5)) == frame_rows(ANALYSIS)[3:5]
