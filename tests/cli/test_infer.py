from __future__ import annotations

import csv
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from lbkit.cli.infer import FORMAT_CHOICES
from lbkit.core.geometry import ImageSize
from lbkit.core.images import read_image, write_image
from lbkit.core.results import RESULT_FORMATS

SIZE = ImageSize(300, 220)
JOINTS = np.array([[150.0, 120], [80, 124], [155, 180], [78, 186], [148, 240], [84, 236]])
BOX = (40, 60, 190, 290)
START = "from lbkit.cli.main import main; main()"


Infer = Callable[..., Any]


@pytest.fixture
def infer(toy_model: Path, lbkit: Infer, monkeypatch: pytest.MonkeyPatch) -> Infer:
    """Run `lbkit infer` with the toy model, as the command line does."""

    def call(*arguments: object, model: Path = toy_model, stdin: bytes = b"") -> Any:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        return lbkit("infer", *arguments, "--model", model)

    return call


@pytest.fixture
def photo(tmp_path: Path, toys: ModuleType) -> Path:
    path = tmp_path / "photos" / "good.png"
    write_image(path, toys.spotted_image(SIZE, JOINTS, spread_px=5, background=60))
    return path


def xy(person: dict[str, Any]) -> np.ndarray:
    return np.array([[joint["x"], joint["y"]] for joint in person["keypoints"].values()])


def coco_file(folder: Path, *annotations: dict[str, Any], names: tuple[str, ...] = ("good.png",)) -> Path:
    path = folder / "people.json"
    images = [{"id": 7 + number, "file_name": name} for number, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "annotations": list(annotations)}))
    return path


def annotation(ann_id: int, bbox: tuple[float, ...] = (40, 60, 150, 230), **more: Any) -> dict[str, Any]:
    return {"id": ann_id, "image_id": 7, "bbox": list(bbox), **more}


@pytest.mark.parametrize("boxes", ["whole", "auto", "csv", "coco"])
def test_the_joints_come_back_where_they_are(infer: Infer, photo: Path, tmp_path: Path, boxes: str) -> None:
    if boxes == "csv":
        (tmp_path / "b.csv").write_text(f"image,left,top,right,bottom\ngood.png,{','.join(map(str, BOX))}\n")
        boxes = str(tmp_path / "b.csv")
    elif boxes == "coco":
        boxes = f"coco:{coco_file(tmp_path, annotation(70))}"
    outcome = infer(photo, "--boxes", boxes)
    assert outcome.code == 0
    (record,) = outcome.records
    assert (record["path"], record["width"], record["height"]) == (str(photo), 220, 300)
    np.testing.assert_allclose(xy(record["people"][0]), JOINTS, atol=0.6)
    assert outcome.err.splitlines()[0].startswith("1 picture, 1 person in ")
    assert outcome.err.splitlines()[-1].startswith("next: lbkit ")


def test_results_come_in_the_order_of_the_sources(infer: Infer, photo: Path, tmp_path: Path) -> None:
    for name in ("frame10.png", "frame9.png", "deep/z.png"):
        (tmp_path / "more" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, tmp_path / "more" / name)
    listed = f"{photo}\n".encode()
    outcome = infer(tmp_path / "more", "-", tmp_path / "more" / "*9.png", "--boxes", "whole", stdin=listed)
    names = [Path(record["path"]).name for record in outcome.records]
    assert names == ["frame9.png", "frame10.png", "good.png", "frame9.png"]
    recursive = infer(tmp_path / "more", "--recursive", "--boxes", "whole")
    assert [Path(record["path"]).name for record in recursive.records] == ["frame9.png", "frame10.png", "z.png"]


def truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    content = cv2.imencode(path.suffix, noise)[1].tobytes()
    path.write_bytes(content[: len(content) // 2])


def bomb(path: Path) -> None:
    write_image(path, np.zeros((3, 5, 3), np.uint8))
    content = bytearray(path.read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") + (50_000).to_bytes(4, "big")
    path.write_bytes(content)


BAD_PICTURES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "truncated jpeg": ("bad.jpg", truncated, "cut short"),
    "truncated png": ("bad.png", truncated, "cut short"),
    "empty": ("bad.jpg", lambda path: path.write_bytes(b""), "is empty"),
    "text": ("bad.jpg", lambda path: path.write_text("hello, I am text"), "but text"),
    "bomb": ("bad.png", bomb, "200 megapixels"),
    "missing": ("bad.jpg", lambda _: None, "no such file"),
    "folder without pictures": ("bad", lambda path: path.mkdir(), "no picture in this folder"),
    "pattern without pictures": ("bad*.jpg", lambda _: None, "no picture matches"),
    "binary": ("bad.jpg", lambda path: path.write_bytes(bytes(range(64))), "not a picture"),
}


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_a_bad_source_is_one_line_and_the_good_one_is_delivered(
    infer: Infer, photo: Path, tmp_path: Path, kind: str
) -> None:
    name, make, words = BAD_PICTURES[kind]
    bad = tmp_path / name
    make(bad)
    outcome = infer(bad, photo, bad, "--boxes", "whole", "--output", tmp_path / "out.jsonl")
    assert outcome.code == 1
    assert len(outcome.errors) == 2
    for error in outcome.errors:
        assert error.startswith(f"{bad}: ")
        assert words in error
        assert "; " in error, "no remedy"
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    np.testing.assert_allclose(xy(json.loads(line)["people"][0]), JOINTS, atol=0.6)
    assert any(line.startswith("failed: 2 ") for line in outcome.err.splitlines())


@pytest.mark.parametrize("as_coco", [True, False])
def test_bad_boxes_are_each_one_line_and_the_good_ones_are_delivered(
    infer: Infer, photo: Path, tmp_path: Path, as_coco: bool
) -> None:
    bad = [(50, 60, 0, 20), (900, 10, 30, 40), (float("nan"), 1, 20, 30)]
    if as_coco:
        entries = [annotation(70 + n, box) for n, box in enumerate(bad)] + [annotation(80), annotation(81, iscrowd=1)]
        boxes, origin = f"coco:{coco_file(tmp_path, *entries)}", "annotation 7"
    else:
        rows = [f"good.png,{x},{y},{x + w},{y + h}" for x, y, w, h in bad] + ["good.png,40,60,190,290"]
        (tmp_path / "b.csv").write_text("\n".join(["image,left,top,right,bottom", *rows]))
        boxes, origin = str(tmp_path / "b.csv"), "line "
    outcome = infer(photo, "--boxes", boxes)
    assert outcome.code == 1
    assert len(outcome.errors) == 3
    assert all(error.startswith(f"{photo}: {origin}") for error in outcome.errors)
    (record,) = outcome.records
    (person,) = record["people"]
    np.testing.assert_allclose(xy(person), JOINTS, atol=0.6)
    assert person.get("ann_id") == (80 if as_coco else None)


def test_bad_lines_of_a_box_table_are_reported(infer: Infer, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("image,left,top,right,bottom\ngood.png,1,x,2,3\ngood.png,40,60,190,290\n")
    outcome = infer(photo, "--boxes", tmp_path / "b.csv")
    assert outcome.code == 1
    assert outcome.errors == [f"{tmp_path / 'b.csv'}: line 2: top should be a number, got 'x'; mend it or leave it out"]
    assert len(outcome.records[0]["people"]) == 1


@pytest.mark.parametrize("content", [b"no json", b"{}", b'{"images": [{"id": 1}], "annotations": []}'])
def test_a_broken_coco_file_ends_the_run_and_writes_nothing(
    infer: Infer, photo: Path, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "people.json"
    path.write_bytes(content)
    outcome = infer(photo, "--boxes", f"coco:{path}", "--output", tmp_path / "out.jsonl")
    assert outcome.code == 1
    assert len(outcome.errors) == 1
    assert outcome.errors[0].startswith(f"{path}: ")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_box_file_of_other_pictures_is_an_error(infer: Infer, photo: Path, tmp_path: Path) -> None:
    boxes = coco_file(tmp_path, names=("other.jpg",))
    outcome = infer(photo, "--boxes", f"coco:{boxes}")
    assert outcome.code == 1
    assert "names none of the pictures" in outcome.errors[0]
    assert outcome.records[0]["people"] == []


def test_a_picture_not_in_the_box_file_is_noted(infer: Infer, photo: Path, tmp_path: Path) -> None:
    shutil.copy(photo, photo.with_name("other.png"))
    boxes = coco_file(tmp_path, annotation(70))
    outcome = infer(photo.parent, "--boxes", f"coco:{boxes}")
    assert outcome.code == 0
    assert [len(record["people"]) for record in outcome.records] == [1, 0]
    assert "note: the box file names 1 of 2 pictures" in outcome.err


def test_a_picture_of_one_pixel_is_refused_and_the_smallest_delivered(infer: Infer, tmp_path: Path) -> None:
    write_image(tmp_path / "1.png", np.full((1, 1, 3), 9, np.uint8))
    write_image(tmp_path / "8.png", np.full((8, 9, 3), 9, np.uint8))
    outcome = infer(tmp_path / "1.png", tmp_path / "8.png", "--draw", tmp_path / "d", "--heatmaps", tmp_path / "h")
    assert outcome.code == 1
    assert "1.png: is 1x1 pixels, too small to show a person; give a picture of at least 8 pixels a side" in outcome.err
    assert len(outcome.records) == 1
    assert read_image(tmp_path / "d" / "8.jpg").shape == (8, 9, 3)


def test_the_table_and_the_coco_list_hold_the_same_joints(infer: Infer, photo: Path, tmp_path: Path) -> None:
    boxes = f"coco:{coco_file(tmp_path, annotation(70))}"
    (row,) = csv.DictReader(io.StringIO(infer(photo, "--boxes", boxes, "--format", "csv").out))
    assert (row["ann_id"], row["width"], row["height"]) == ("70", "220", "300")
    assert float(row["right_knee_x"]) == pytest.approx(78, abs=0.6)
    assert float(row["right_knee_y"]) == pytest.approx(186, abs=0.6)
    (entry,) = json.loads(infer(photo, "--boxes", boxes, "--format", "coco").out)
    assert (entry["image_id"], entry["ann_id"], entry["category_id"]) == (7, 70, 1)
    assert entry["bbox"] == [40, 60, 150, 230]
    keypoints = np.array(entry["keypoints"]).reshape(17, 3)
    np.testing.assert_allclose(keypoints[11:, :2], JOINTS, atol=0.6)


def test_the_suffix_of_the_output_chooses_the_table(infer: Infer, photo: Path, tmp_path: Path) -> None:
    assert infer(photo, "--output", tmp_path / "out.csv").code == 0
    assert (tmp_path / "out.csv").read_text().startswith("path,width,height,person")
    assert infer(photo, "--output", "-").records[0]["path"] == str(photo)


def test_an_existing_output_is_kept_without_force(infer: Infer, photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("mine")
    outcome = infer(photo, "--output", target)
    assert outcome.code == 1
    assert outcome.errors == [f"{target}: exists already; give --force to replace it, or another name"]
    assert target.read_text() == "mine"
    assert infer(photo, "--output", target, "--force").code == 0
    assert json.loads(target.read_text())["path"] == str(photo)


def test_results_never_replace_the_boxes_they_are_made_with(infer: Infer, photo: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(text := f"image,left,top,right,bottom\n{photo.name},10,10,200,200\n")
    outcome = infer(photo, "--boxes", boxes, "--output", tmp_path / "." / "boxes.csv", "--force")
    assert outcome.code == 2
    assert "the boxes are read from it" in " ".join(outcome.err.split())
    assert boxes.read_text() == text


def test_pictures_are_drawn_and_kept_without_force(infer: Infer, photo: Path, tmp_path: Path) -> None:
    folders = ("--draw", tmp_path / "d", "--heatmaps", tmp_path / "h")
    assert infer(photo, *folders).code == 0
    overlay, panel = tmp_path / "d" / "good.jpg", tmp_path / "h" / "good.jpg"
    assert read_image(overlay).shape == (300, 220, 3)
    assert read_image(panel).shape[1] > 900
    before = overlay.read_bytes()
    again = infer(photo, *folders)
    assert again.code == 1
    assert [error.split(": ")[0] for error in again.errors] == [str(overlay), str(panel)]
    assert len(again.records) == 1
    assert infer(photo, *folders, "--force", "--min-score", "1").code == 0
    assert overlay.read_bytes() != before


def test_heatmaps_of_a_model_that_has_none_are_refused(
    infer: Infer, photo: Path, tmp_path: Path, toys: ModuleType
) -> None:
    model = toys.save_toy_model(tmp_path / "keypoints.onnx", outputs=("keypoints",))
    outcome = infer(photo, "--heatmaps", tmp_path / "h", "--output", tmp_path / "out.jsonl", model=model)
    assert outcome.code == 1
    assert len(outcome.errors) == 1
    assert "no heatmaps" in outcome.errors[0]
    assert "--keep-heatmaps" in outcome.errors[0]
    assert not (tmp_path / "h").exists()
    assert not (tmp_path / "out.jsonl").exists()
    assert infer(photo, model=model).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "SOURCES"),
        (("a.jpg", "--boxes", "everywhere"), "none of whole, auto, coco:FILE.json, FILE.csv"),
        (("a.jpg", "--boxes", "people.json"), "Did you mean 'coco:people.json'?"),
        (("a.jpg", "--format", "jsnl"), "Did you mean 'jsonl'?"),
        (("a.jpg", "--format", "coco"), "--boxes coco:FILE.json"),
        (("a.jpg", "--draw", "d", "--heatmaps", "d"), "folders of their own"),
        (("a.jpg", "--min-score", "2"), "0<=x<=1"),
        (("a.jpg", "--min-score", "nan"), "0<=x<=1"),
        (("a.jpg", "--batch-size", "0"), "1<=x<=1024"),
        (("a.jpg", "--batch-size", "1000000000"), "1<=x<=1024"),
        (("a.jpg", "--threads", "100000"), "1<=x<=1024"),
        (("a.mp4", "--stride", "99999999999999999999"), "1<=x<=1000000"),
        (("a.mp4", "--output", "a.mp4", "--force"), "end its name in .jsonl or .csv"),
        (("a.jpg", "--output", "b.JPG"), "end its name in .jsonl or .csv"),
    ],
)
def test_wrong_usage_is_code_2(infer: Infer, arguments: tuple[str, ...], words: str) -> None:
    outcome = infer(*arguments)
    assert outcome.code == 2
    assert words in " ".join(outcome.err.split())


def test_quiet_leaves_only_errors(infer: Infer, photo: Path, tmp_path: Path) -> None:
    outcome = infer(photo, tmp_path / "none.jpg", "--quiet")
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        f"error: {tmp_path / 'none.jpg'}: no such file; check the path",
        "failed: 1 unreadable picture",
    ]


def test_a_crash_in_the_middle_leaves_no_output(
    infer: Infer, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lbkit.core.results as results

    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(results.JsonLinesWriter, "rows", interrupt)
    outcome = infer(photo, "--output", tmp_path / "out.jsonl")
    assert outcome.code != 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["photos"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals and a shell")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_in_the_middle_leaves_no_output(photo: Path, toy_model: Path, tmp_path: Path, name: str) -> None:
    """The list on stdin is held open, so that the run is surely in its middle when the temporary file is there."""
    heard = f"import signal; signal.signal(signal.{name}, signal.SIG_DFL); "  # nohup hands SIGHUP on as ignored
    command = [
        sys.executable,
        "-c",
        heard + START,
        "infer",
        "-",
        "--model",
        toy_model,
        "--output",
        tmp_path / "out" / "o.jsonl",
    ]
    number = getattr(signal, name)
    with subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("out/.o-*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate()
    assert process.returncode == 128 + number
    assert said.decode() == f"error: ended by {name}\n"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.parametrize(
    ("closed", "code", "words"),
    [
        ("<&-", 0, ""),
        ("2>&-", 0, ""),
        (">&-", 1, "error: the output cannot be written (Bad file descriptor)\n"),
        ("- <&-", 1, "the list on stdin is empty"),
        ("-o {output} <&- >&- 2>&-", 0, ""),
    ],
)
def test_closed_standard_streams(
    photo: Path, toy_model: Path, tmp_path: Path, closed: str, code: int, words: str
) -> None:
    line = shlex.join([sys.executable, "-c", START, "infer", str(photo), "--model", str(toy_model), "-q"])
    output = tmp_path / "out.jsonl"
    line += " " + closed.format(output=shlex.quote(str(output)))
    done = subprocess.run(line, shell=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr.decode()
    assert words in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    if "-o" in closed:
        assert len(output.read_text().splitlines()) == 1


def test_the_choices_are_the_library_s() -> None:
    assert FORMAT_CHOICES == RESULT_FORMATS


def start(*arguments: object, **more: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", START, "infer", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, **more)


def test_nothing_else_is_printed_in_a_pipe(photo: Path, toy_model: Path, tmp_path: Path) -> None:
    """The picture libraries' own warnings and the progress bar stay out of both streams."""
    corrupt = bytearray(cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))[1])
    corrupt[2000:2300] = bytes(300)
    (tmp_path / "corrupt.jpg").write_bytes(corrupt)
    damaged = bytearray(photo.read_bytes())
    damaged[200:260] = bytes(60)
    (tmp_path / "damaged.png").write_bytes(damaged)
    done = start(tmp_path / "corrupt.jpg", tmp_path / "damaged.png", photo, "--model", toy_model)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    first, *rest = done.stderr.decode().splitlines()
    assert first.startswith(f"error: {tmp_path / 'damaged.png'}: cannot be decoded: the PNG is damaged")
    assert [line.split()[0] for line in rest] == ["failed:", "2", "next:"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_shows_progress(photo: Path, toy_model: Path, tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-c",
        "from lbkit.cli.main import main; main()",
        "infer",
        photo.parent,
        tmp_path / "x.jpg",
    ]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "150"}
    command += ["--model", toy_model, "--output", tmp_path / "out.jsonl"]
    with subprocess.Popen(list(map(str, command)), stderr=theirs, stdout=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 65536):
                seen += chunk
        except OSError:  # how Linux says that the other end has gone
            pass
    os.close(ours)
    assert process.returncode == 1
    assert b"images/s" in seen
    assert b"2/2" in seen or b"1/2" in seen or b"0/2" in seen
    assert f"error: {tmp_path / 'x.jpg'}: no such file".encode() in seen


def test_inference_imports_no_training_package(photo: Path, toy_model: Path) -> None:
    script = (
        "import sys; from lbkit.cli.main import run; code = run(sys.argv[1:]); "
        "heavy = {'torch', 'torchvision', 'onnx', 'pycocotools', 'matplotlib', 'PIL', 'rich'} & set(sys.modules); "
        "sys.exit(code or ', '.join(sorted(heavy)) or None)"
    )
    command = [sys.executable, "-c", script, "infer", str(photo), "--model", str(toy_model), "--format", "csv"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
