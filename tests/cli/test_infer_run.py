"""`lbkit infer` into a folder: parts that outlive a kill."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lbkit.cli.infer_run import PART_FORMATS
from lbkit.cli.main import run
from lbkit.core.geometry import ImageSize
from lbkit.core.images import write_image
from lbkit.scale import parts

SIZE = ImageSize(90, 70)
START = "from lbkit.cli.main import main; main()"
COUNT = 60


@pytest.fixture(scope="module")
def photos(toys: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty small pictures with six spots each; every twentieth is broken."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(5)
    for number in range(COUNT):
        if number % 20 == 9:
            (folder / f"{number:02}.png").write_bytes(b"no picture")
            continue
        joints = rng.uniform(15, 55, size=(6, 2))
        write_image(folder / f"{number:02}.png", toys.spotted_image(SIZE, joints, spread_px=3, background=60))
    return folder


def line(photos: Path, model: Path, *more: object) -> list[str]:
    return ["infer", *map(str, (photos, "--boxes", "whole", "--model", model, *more))]


def rows(folder: Path) -> list[str]:
    return [text for part in sorted(folder.glob("part-*.jsonl")) for text in part.read_text().splitlines()]


def test_choices_are_those_of_the_library() -> None:
    assert PART_FORMATS == parts.PART_FORMATS


def test_a_folder_holds_what_one_file_would(photos: Path, toy_model: Path, tmp_path: Path, capsys) -> None:
    assert run(line(photos, toy_model, "--output", tmp_path / "one.jsonl")) == 1
    assert run(line(photos, toy_model, "--output", tmp_path / "run", "--part-size", 25)) == 1
    told = capsys.readouterr().err
    assert f"57 people of 60 pictures in 3 parts in {tmp_path / 'run'}; 3 failures are in" in told
    assert rows(tmp_path / "run") == (tmp_path / "one.jsonl").read_text().splitlines()
    failures = [json.loads(text) for text in (tmp_path / "run" / "failures.jsonl").read_text().splitlines()]
    assert [Path(failure["source"]).name for failure in failures] == ["09.png", "29.png", "49.png"]
    assert run(line(photos, toy_model, "--output", tmp_path / "run")) == 1
    assert "holds a run with 60 of 60 pictures done" in capsys.readouterr().err
    assert run(line(photos, toy_model, "--output", tmp_path / "run", "--resume")) == 1
    assert run([*line(photos, toy_model, "--output", tmp_path / "run", "--resume"), "--decoder", "argmax"]) == 1
    assert "was begun with decoder" in capsys.readouterr().err


def test_going_on_with_a_finished_run_says_its_counts_and_does_nothing(
    toys: ModuleType, toy_model: Path, tmp_path: Path, capsys
) -> None:
    """Nor does it start what it would run on: nobody listens at this address."""
    image = toys.spotted_image(SIZE, np.random.default_rng(1).uniform(15, 55, size=(6, 2)), spread_px=3, background=60)
    write_image(tmp_path / "photos" / "a.png", image)
    arguments = line(tmp_path / "photos", toy_model, "--output", tmp_path / "run")
    assert run(arguments) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("[!.]*")}
    capsys.readouterr()
    for more in ([], ["--engine", "ray", "--ray-address", "127.0.0.1:1", "--provider", "cuda"]):
        assert run([*arguments, "--resume", *more]) == 0
        assert capsys.readouterr().err.splitlines() == [
            "1 of 1 pictures were done before",
            f"1 person of 1 picture in 1 part in {tmp_path / 'run'}",
        ]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("[!.]*")} == before


def test_bfloat16_is_another_run(photos: Path, toy_model: Path, tmp_path: Path, capsys) -> None:
    run(line(photos, toy_model, "--output", tmp_path / "run"))
    manifest = tmp_path / "run" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"bfloat16": false', '"bfloat16": true'))
    capsys.readouterr()
    assert run(line(photos, toy_model, "--output", tmp_path / "run", "--resume")) == 1
    assert "was begun with bfloat16 True, and now it is False" in capsys.readouterr().err


def test_a_run_without_pictures_says_where_the_reason_is(toy_model: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "nothing").mkdir()
    assert run([*line(tmp_path / "nothing", toy_model, "--output", tmp_path / "run"), "--quiet"]) == 1
    where = tmp_path / "run" / "failures.jsonl"
    assert capsys.readouterr().err.splitlines() == [f"error: sources could not be used; they are in {where}"]
    assert "no picture in this folder" in where.read_text()


def test_boxes_that_changed_are_another_run(photos: Path, toy_model: Path, tmp_path: Path, capsys) -> None:
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("image,left,top,right,bottom\n00.png,0,0,60,80\n")
    arguments = ["infer", str(photos), "--boxes", str(boxes), "--model", str(toy_model), "-o", str(tmp_path / "run")]
    run(arguments)
    boxes.write_text("image,left,top,right,bottom\n00.png,0,0,61,80\n")
    capsys.readouterr()
    assert run([*arguments, "--resume"]) == 1
    assert "was begun with boxes" in capsys.readouterr().err


def test_the_same_words_in_another_folder_are_other_pictures(
    photos: Path, toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    arguments = line(Path(photos.name), toy_model, "--output", tmp_path / "run")
    monkeypatch.chdir(photos.parent)
    assert run(arguments) == 1
    assert run([*arguments, "--resume"]) == 1
    assert "was begun with" not in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert run([*arguments, "--resume"]) == 1
    assert "was begun with sources" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--resume",), "--resume needs a folder"),
        (("--output", "x.jsonl", "--part-size", "5"), "--part-size needs a folder"),
        (("--format", "parquet", "--output", "x.parquet"), "Parquet of pictures needs a folder"),
        (("--engine", "ray"), "--engine ray needs a folder"),
        (("--output", "run", "--format", "csv"), "a folder's parts are jsonl or parquet, not csv"),
        (("--output", "run", "--engine", "ray", "--draw", "d"), "do not go with --engine ray"),
        (("--output", "run", "--engine", "ray", "--boxes", "detector:x.onnx"), "--engine ray takes"),
        (("--output", "run", "--actors", "2"), "go with --engine ray"),
        (("--output", "run", "--part-size", "0"), "0 is not in the range"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["infer", "a.jpg", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_keeps_what_is_done(photos: Path, toy_model: Path, tmp_path: Path) -> None:
    many = tmp_path / "list.txt"
    many.write_text("".join(f"{photos / f'{number:02}.png'}\n" for number in range(COUNT)) * 40)
    command = [sys.executable, "-c", START, "infer", "-", "--boxes", "whole", "--model", str(toy_model)]
    command += ["--output", str(tmp_path / "run"), "--part-size", "100000"]
    with many.open() as stream:
        running = subprocess.Popen(command, stdin=stream, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: any(path.stat().st_size > 0 for path in (tmp_path / "run").glob(".part-*")))
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130, told
    assert "finishing the running batch" in told
    assert "give the same line with --resume to go on" in told
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert 0 < manifest["done"] < 40 * COUNT
    assert len(rows(tmp_path / "run")) == manifest["people"]
    finished = subprocess.run(
        [*command, "--resume"], input="", capture_output=True, text=True, check=False, timeout=120
    )
    assert finished.returncode == 1, finished.stderr
    assert f"{manifest['done']} of {40 * COUNT} pictures were done before" in finished.stderr
    assert len(rows(tmp_path / "run")) == 40 * 57


@pytest.mark.slow
def test_kills_lose_nothing(photos: Path, toy_model: Path, tmp_path: Path) -> None:
    chance = random.Random(3)
    command = [sys.executable, "-c", START, *line(photos, toy_model, "--output", tmp_path / "run")]
    command += ["--part-size", "4", "--resume", "-q"]
    expected = tmp_path / "one.jsonl"
    run(line(photos, toy_model, "--output", expected))
    for _ in range(5):
        running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.3, 1.0))
        running.send_signal(signal.SIGKILL)
        running.wait()
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert finished.returncode == 1, finished.stderr
    assert rows(tmp_path / "run") == expected.read_text().splitlines()
    assert not [name for name in (tmp_path / "run").iterdir() if name.name.startswith(".part")]


def wait_for(condition) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")
