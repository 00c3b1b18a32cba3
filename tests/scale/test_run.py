from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lbkit.core.geometry import ImageSize
from lbkit.core.keypoints import LOWER_BODY_6
from lbkit.core.poses import Poses
from lbkit.core.results import ImageResult
from lbkit.errors import ConfigError, ImageReadError, InputError, OutputError
from lbkit.scale.durable import sync_folder
from lbkit.scale.failures import append_failures
from lbkit.scale.manifest import read_manifest
from lbkit.scale.run import RunPlan, Watcher, default_part_size, opened_run, run_parts
from lbkit.scale.sole_use import sole_use

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("run_worker.py")


SILENT = Watcher()


def answer(path: Path) -> ImageResult:
    """Two people whose joints follow from the name; every seventh picture is broken."""
    number = int(path.stem)
    if number % 7 == 3:
        return ImageResult(path, None, problems=(ImageReadError("is broken", where=path),))
    count = number % 3
    xy = np.full((count, 6, 2), number, dtype=np.float32)
    scores, boxes = np.full((count, 6), 0.5, np.float32), np.zeros((count, 4), np.float32)
    poses = Poses(xy, scores, boxes, ImageSize(48, 64), LOWER_BODY_6)
    return ImageResult(path, poses, person_ids=(None,) * count)


def answers(pictures: Iterator[Path]) -> Iterator[ImageResult]:
    return (answer(path) for path in pictures)


def plan_of(folder: Path) -> RunPlan:
    return RunPlan(folder, {"model": "toy", "boxes": "whole"}, LOWER_BODY_6, part_size=10)


def names(count: int) -> list[Path | InputError]:
    return [Path(f"{number}.jpg") for number in range(count)]


def go_on(plan: RunPlan, *, count: int = 47, resume: bool = True, watcher: Watcher = SILENT) -> None:
    with opened_run(plan, sources=lambda: names(count), resume=resume) as manifest:
        run_parts(plan, manifest, infer=answers, watcher=watcher)


def contents(folder: Path) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    rows = [json.loads(line) for part in sorted(folder.glob("part-*")) for line in part.read_text().splitlines()]
    failures = folder / "failures.jsonl"
    lines = failures.read_text().splitlines() if failures.exists() else []
    return rows, [json.loads(line) for line in lines]


def assert_whole(folder: Path, count: int = 47) -> None:
    rows, failures = contents(folder)
    good = [number for number in range(count) if number % 7 != 3]
    assert [row["path"] for row in rows] == [f"{number}.jpg" for number in good]
    assert [failure["source"] for failure in failures] == [f"{number}.jpg" for number in range(3, count, 7)]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["people"] == sum(number % 3 for number in good)
    assert [
        path.name for path in folder.iterdir() if path.name.startswith(".") and not path.name.endswith("lock")
    ] == []


def test_parts_failures_and_manifest_hold_everything_once(tmp_path: Path) -> None:
    seen: list[object] = []
    watcher = Watcher(
        begin=lambda done, total: seen.append((done, total)), take=lambda result: seen.append(result.path)
    )
    go_on(plan_of(tmp_path / "run"), resume=False, watcher=watcher)
    assert_whole(tmp_path / "run")
    assert seen[0] == (0, 47)
    assert len(seen) == 48
    manifest = read_manifest(tmp_path / "run")
    assert manifest is not None
    assert [part.pictures for part in manifest.parts] == [10, 10, 10, 10, 7]
    _, failures = contents(tmp_path / "run")
    assert failures[0] == {"part": 0, "source": "3.jpg", "reason": "ImageReadError", "message": "3.jpg: is broken"}


def test_a_run_that_stops_keeps_what_it_has_and_goes_on(tmp_path: Path) -> None:
    plan, taken = plan_of(tmp_path), []
    stopping = Watcher(take=taken.append, is_stopping=lambda: len(taken) % 13 == 12)
    go_on(plan, resume=False, watcher=stopping)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert [part.pictures for part in manifest.parts] == [10, 2]
    with pytest.raises(OutputError, match=r"holds a run with 12 of 47 pictures done; give --resume"):
        go_on(plan, resume=False)
    go_on(plan)
    assert_whole(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("part-*")}
    go_on(plan)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("part-*")}


def test_what_a_crash_leaves_between_two_steps_is_mended(tmp_path: Path) -> None:
    class CrashError(Exception):
        pass

    plan, taken = plan_of(tmp_path), []

    def crash_late(result: ImageResult) -> None:
        taken.append(result)
        if len(taken) == 25:
            raise CrashError

    with pytest.raises(CrashError):
        go_on(plan, resume=False, watcher=Watcher(take=crash_late))
    # As after a kill: a part and its failures are there, but the manifest does not name them; a line is cut off.
    (tmp_path / "part-00002.jsonl").write_text('{"path": "half"')
    (tmp_path / ".part-00002-abc.jsonl").write_text("half")
    with (tmp_path / "failures.jsonl").open("a") as stream:
        stream.write('{"part": 2, "source": "24.jpg", "reason": "x", "message": "x"}\n{"part": 2, "sou')
    go_on(plan)
    assert_whole(tmp_path)


def test_the_list_is_that_of_the_beginning_and_sources_problems_come_once(tmp_path: Path) -> None:
    plan, taken = plan_of(tmp_path), []
    found = [*names(20), InputError("no picture matches", where="*.xyz"), Path("line\nend/5.jpg")]
    stopping = Watcher(take=taken.append, is_stopping=lambda: len(taken) >= 5)
    with opened_run(plan, sources=lambda: found, resume=False) as manifest:
        run_parts(plan, manifest, infer=answers, watcher=stopping)
    go_on(plan, count=3)  # the folder has lost pictures meanwhile
    rows, failures = contents(tmp_path)
    assert rows[-1]["path"] == "line\nend/5.jpg"
    assert len(rows) == 21 - 3
    assert [failure["part"] for failure in failures] == [None, 0, 1, 2]
    assert failures[0]["source"] == "*.xyz"


def test_a_run_goes_on_only_with_what_it_was_begun_with(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    go_on(plan, resume=False)
    other = replace(plan, settings={**plan.settings, "model": "another"})
    with pytest.raises(ConfigError, match="was begun with model 'toy', and now it is 'another'"):
        go_on(other)


def test_folders_that_are_no_run_s_or_in_use_or_damaged_are_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").touch()
    with pytest.raises(OutputError, match=r"is no run's folder and has files in it, 'holiday\.jpg'"):
        go_on(plan_of(tmp_path / "full"))
    assert (tmp_path / "full" / "holiday.jpg").exists()
    with sole_use(tmp_path / "used", work="run", option="--output"), pytest.raises(OutputError, match="another run"):
        go_on(plan_of(tmp_path / "used"))
    go_on(plan_of(tmp_path / "run"))
    manifest = tmp_path / "run" / "manifest.json"
    whole = manifest.read_text()
    (tmp_path / "run" / "part-00001.jsonl").rename(tmp_path / "kept")
    with pytest.raises(InputError, match=r"part-00001\.jsonl is gone"):
        go_on(plan_of(tmp_path / "run"))
    (tmp_path / "kept").rename(tmp_path / "run" / "part-00001.jsonl")
    odd = whole.replace('"first": 10', '"first": 11'), whole.replace('"pictures": 7,', '"pictures": "7",')
    for text in (whole[:50], "[]", "{}", *odd):
        manifest.write_text(text)
        with pytest.raises(InputError, match="manifest"):
            go_on(plan_of(tmp_path / "run"))
    manifest.write_text(whole.replace('"pictures": 47', '"pictures": 48'))
    with pytest.raises(InputError, match="has 47 pictures, and the manifest says 48"):
        go_on(plan_of(tmp_path / "run"))


def test_each_step_is_on_the_disk_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut finds: content before its name, the name before what speaks of it."""
    told: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        told.append(("sync", Path(f"/proc/self/fd/{descriptor}").resolve().name))
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        told.append((f"rename to {Path(target).name}", Path(source).name))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    go_on(plan_of(tmp_path / "run"), count=13, resume=False)
    renames = [index for index, (what, _) in enumerate(told) if what != "sync"]
    assert [told[index][0].removeprefix("rename to ") for index in renames] == [
        "pictures.jsonl",
        "manifest.json",
        "part-00000.jsonl",
        "manifest.json",
        "part-00001.jsonl",
        "manifest.json",
    ]
    for index in renames:
        assert told[index - 1] == ("sync", told[index][1])  # the content, under its temporary name
        assert told[index + 1] == ("sync", "run")  # the name
    appended = [index for index, entry in enumerate(told) if entry == ("sync", "failures.jsonl")]
    assert [told[index + 1] for index in appended] == [("sync", "run"), told[renames[-1] - 1]]
    assert told.index(("sync", tmp_path.name)) < renames[2]  # the run's folder in the one about it


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_only_a_file_system_that_cannot_sync_folders_is_let_off(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", refuse)
    if number == errno.EINVAL:
        sync_folder(tmp_path)
        return
    with pytest.raises(OutputError, match=r"cannot be written \(no\)"):
        sync_folder(tmp_path)


def test_failures_that_find_the_disk_full_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    go_on(plan_of(tmp_path), count=3, resume=False)
    (tmp_path / "failures.jsonl").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"failures\.jsonl: cannot be written \(No space left on device\)"):
        append_failures(tmp_path, ["{}\n"])


def test_files_of_others_in_the_folder_stay(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    go_on(plan, resume=False)
    for name in ("part-list.txt", "part-00009.jsonl.gz", "notes.md"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "part-00009.jsonl").write_text("left by a crash")
    go_on(plan)
    assert not (tmp_path / "part-00009.jsonl").exists()
    assert {(tmp_path / name).read_text() for name in ("part-list.txt", "part-00009.jsonl.gz", "notes.md")} == {"mine"}


def test_a_manifest_of_a_newer_version_says_so(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    go_on(plan, resume=False)
    record = json.loads((tmp_path / "manifest.json").read_text())
    record["lbkit_run"] = 2
    record["parts"][0]["sha256"] = "of a later version"
    (tmp_path / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="is of version 2, and this lbkit reads version 1; go on with the lbkit that"):
        go_on(plan)


def test_a_run_over_very_many_has_larger_parts() -> None:
    """With every part the manifest of all parts is written: 100,000 of them would be written in 5 billion lines."""
    assert [default_part_size(count) for count in (0, 5_000, 10**6, 10**8)] == [1000, 1000, 1000, 10_000]


def test_parquet_parts_hold_a_row_a_person(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    plan = replace(plan_of(tmp_path), part_format="parquet")
    go_on(plan, resume=False)
    rows = [row for part in sorted(tmp_path.glob("part-*.parquet")) for row in parquet.read_table(part).to_pylist()]
    expected = [(f"{n}.jpg", person) for n in range(47) if n % 7 != 3 for person in range(1, n % 3 + 1)]
    assert [(row["path"], row["person"]) for row in rows] == expected
    assert rows[0]["left_hip_x"] == 1.0
    assert rows[0]["right_ankle_score"] == 0.5
    assert (rows[0]["width"], rows[0]["height"], rows[0]["ann_id"]) == (64, 48, None)


@pytest.mark.slow
def test_twenty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    command = [sys.executable, str(WORKER), str(tmp_path / "run"), "400"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    kills = 0
    for _ in range(60):
        running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert running.stdout is not None
        running.stdout.readline()  # it has begun
        time.sleep(chance.uniform(0.0, 0.06))
        running.send_signal(signal.SIGKILL)
        _, errors = running.communicate()
        assert not errors, errors
        kills += running.returncode == -signal.SIGKILL
        if kills >= 20:
            break
    assert kills >= 20
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path / "run", 400)
