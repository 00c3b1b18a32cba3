"""The downloader against a server on this machine that misbehaves in every way that servers do."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from filelock import FileLock

from lbkit.errors import InputError, OutputError
from training import data, download
from training.download import (
    COCO_ARCHIVES,
    Archive,
    DownloadReport,
    Patience,
    bytes_needed,
    download_coco,
    fetch,
    is_whole,
    next_command,
    unpack,
)

ROOT = Path(__file__).parent.parent.parent
HURRIED = Patience(attempts=3, first_wait_s=0.001, longest_wait_s=0.01, timeout_s=5.0)
PICTURES = {f"pics/{number:04}.jpg": os.urandom(20_000) for number in range(6)}
LABELS = {"labels/a.json": b'{"a": 1}', "labels/b.json": b"[]"}


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted({f"{name.split('/')[0]}/" for name in files}):
            archive.writestr(name, b"")
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def described(part: str, body: bytes, **changes: Any) -> Archive:
    base = Archive(
        part,
        f"zips/{part}.zip",
        size_bytes=len(body),
        md5=hashlib.md5(body, usedforsecurity=False).hexdigest(),
        unpacked_bytes=len(body),
        folder=part,
    )
    return replace(base, **changes)


PICS_ZIP, LABELS_ZIP = zipped(PICTURES), zipped(LABELS)
PICS = described("pics", PICS_ZIP, pictures=len(PICTURES))
LABELLED = described("labels", LABELS_ZIP, files=("a.json", "b.json"))
ARCHIVES = {archive.part: archive for archive in (LABELLED, PICS)}


@dataclass
class Behaviour:
    """What the server does; `answers` are taken by one request each before it behaves."""

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"one"'
    modified: str | None = None
    honours_range: bool = True
    honours_if_range: bool = True
    says_length: bool = True
    answers: list[Callable[[Handler], None]] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    behaviour: Behaviour

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.behaviour.requests.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
        if self.behaviour.answers:
            self.behaviour.answers.pop(0)(self)
        else:
            self.serve()

    def serve(self, *, limit: int | None = None, pause_s: float = 0.0, **changes: str | None) -> None:
        """Serve the file as asked, `limit` bytes of it at most, with changed or (None) omitted headers."""
        body = self.behaviour.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = self._start()
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        headers = {
            "ETag": self.behaviour.etag,
            "Last-Modified": self.behaviour.modified,
            "Content-Length": str(len(body) - start) if self.behaviour.says_length else None,
            "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}" if start else None,
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self._send(body[start:][:limit], pause_s)

    def _start(self) -> int:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not found or not self.behaviour.honours_range:
            return 0
        mark = self.headers.get("If-Range")
        current = (self.behaviour.etag, self.behaviour.modified)
        return 0 if self.behaviour.honours_if_range and mark and mark not in current else int(found[1])

    def _send(self, body: bytes, pause_s: float) -> None:
        step = 10_000 if pause_s else max(len(body), 1)
        for at in range(0, len(body), step):
            try:
                self.wfile.write(body[at : at + step])
                self.wfile.flush()
            except OSError:  # the other side has gone
                return
            if pause_s:
                time.sleep(pause_s)


@dataclass
class Server:
    url: str
    behaviour: Behaviour


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    behaviour = Behaviour({"/zips/pics.zip": PICS_ZIP, "/zips/labels.zip": LABELS_ZIP})
    handler = type("ThisHandler", (Handler,), {"behaviour": behaviour})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield Server(f"http://127.0.0.1:{running.server_port}", behaviour)
        running.shutdown()
        thread.join()


def drop_after(count: int) -> Callable[[Handler], None]:
    return lambda handler: handler.serve(limit=count)


def reset_after(count: int) -> Callable[[Handler], None]:
    """End the connection with a reset instead of a close."""

    def answer(handler: Handler) -> None:
        handler.serve(limit=count)
        time.sleep(0.05)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        handler.connection.close()

    return answer


def answer_status(code: int, **headers: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in {**headers, "Content-Length": "0"}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return answer


def fetch_pics(server: Server, folder: Path, *, patience: Patience = HURRIED, **changes: Any) -> Path:
    target = folder / "pics.zip"
    archive = replace(PICS, **changes)
    fetch(f"{server.url}/zips/pics.zip", target, archive=archive, patience=patience)
    return target


def part_of(folder: Path) -> Path:
    return folder / "pics.zip.part"


def stopped_after(count: int, server: Server, folder: Path) -> None:
    """Leave what a run leaves that was stopped after so many bytes."""
    server.behaviour.answers = [drop_after(count)]
    with pytest.raises(InputError, match="are kept"):
        fetch_pics(server, folder, patience=replace(HURRIED, attempts=1))
    assert part_of(folder).read_bytes() == PICS_ZIP[:count]
    server.behaviour.requests.clear()


def ranges(server: Server) -> list[str | None]:
    return [request.get("range") for request in server.behaviour.requests]


def test_a_plain_download(server: Server, tmp_path: Path) -> None:
    assert fetch_pics(server, tmp_path).read_bytes() == PICS_ZIP
    assert ranges(server) == [None]
    assert server.behaviour.requests[0]["user-agent"].startswith("lbkit/")
    assert not part_of(tmp_path).exists()


@pytest.mark.parametrize("drop", [drop_after, reset_after])
def test_dropped_connections_go_on(
    drop: Callable[[int], Callable[[Handler], None]], server: Server, tmp_path: Path
) -> None:
    """More drops than attempts: what counts is tries in a row that bring nothing."""
    server.behaviour.answers = [drop(7_000) for _ in range(6)]
    assert fetch_pics(server, tmp_path).read_bytes() == PICS_ZIP
    assert ranges(server) == [None, *(f"bytes={7_000 * count}-" for count in range(1, 7))]
    assert all(request["if-range"] == '"one"' for request in server.behaviour.requests[1:])


def test_tries_that_bring_nothing_are_given_up(server: Server, tmp_path: Path) -> None:
    server.behaviour.answers = [drop_after(0) for _ in range(9)]
    with pytest.raises(InputError, match=r"the connection closed early, 3 times in a row; 0 bytes have come"):
        fetch_pics(server, tmp_path)
    assert len(server.behaviour.requests) == 3


def test_beginning_anew_and_anew_is_given_up(server: Server, tmp_path: Path) -> None:
    server.behaviour.honours_range = False
    server.behaviour.answers = [drop_after(count) for count in (50_000, 30_000, 40_000, 50_000)]
    with pytest.raises(InputError, match="3 times in a row"):
        fetch_pics(server, tmp_path)
    assert len(server.behaviour.requests) == 3


def test_a_later_run_goes_on(server: Server, tmp_path: Path) -> None:
    stopped_after(50_000, server, tmp_path)
    assert fetch_pics(server, tmp_path).read_bytes() == PICS_ZIP
    assert ranges(server) == ["bytes=50000-"]


def test_the_date_marks_a_version_where_there_is_no_strong_etag(server: Server, tmp_path: Path) -> None:
    server.behaviour.etag, server.behaviour.modified = 'W/"weak"', "Wed, 11 Jul 2018 18:10:57 GMT"
    stopped_after(50_000, server, tmp_path)
    assert fetch_pics(server, tmp_path).read_bytes() == PICS_ZIP
    assert server.behaviour.requests[0]["if-range"] == server.behaviour.modified


def test_without_a_mark_size_and_md5_decide(server: Server, tmp_path: Path) -> None:
    server.behaviour.etag = None
    stopped_after(50_000, server, tmp_path)
    assert fetch_pics(server, tmp_path).read_bytes() == PICS_ZIP
    assert "if-range" not in server.behaviour.requests[0]


def test_another_server_goes_on_too(server: Server, tmp_path: Path) -> None:
    """Its mark of the version says nothing about what came from elsewhere, so none is sent."""
    stopped_after(50_000, server, tmp_path)
    server.behaviour.etag = '"other"'
    server.behaviour.files["/mirror/pics.zip"] = PICS_ZIP
    fetch(f"{server.url}/mirror/pics.zip", tmp_path / "pics.zip", archive=PICS, patience=HURRIED)
    assert (tmp_path / "pics.zip").read_bytes() == PICS_ZIP
    assert (server.behaviour.requests[0]["range"], "if-range" in server.behaviour.requests[0]) == (
        "bytes=50000-",
        False,
    )


def test_a_server_that_ignores_range_starts_again(server: Server, tmp_path: Path) -> None:
    stopped_after(50_000, server, tmp_path)
    server.behaviour.honours_range = False
    assert fetch_pics(server, tmp_path).read_bytes() == PICS_ZIP


def changed_file(server: Server, folder: Path) -> None:
    """Leave the beginning of another version of the file behind, of the same size."""
    other = bytes(byte ^ 0xFF for byte in PICS_ZIP)
    server.behaviour.files["/zips/pics.zip"] = other
    server.behaviour.answers = [drop_after(50_000)]
    with pytest.raises(InputError, match="are kept"):
        fetch_pics(server, folder, patience=replace(HURRIED, attempts=1))
    assert part_of(folder).read_bytes() == other[:50_000]
    server.behaviour.files["/zips/pics.zip"] = PICS_ZIP
    server.behaviour.etag = '"two"'


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_a_changed_file_is_not_spliced(honours_if_range: bool, server: Server, tmp_path: Path) -> None:
    changed_file(server, tmp_path)
    server.behaviour.honours_if_range = honours_if_range
    assert fetch_pics(server, tmp_path).read_bytes() == PICS_ZIP
    assert ranges(server)[1:] == (["bytes=50000-"] if honours_if_range else ["bytes=50000-", None])


def test_an_answer_from_elsewhere_in_the_file_is_not_spliced(server: Server, tmp_path: Path) -> None:
    stopped_after(50_000, server, tmp_path)
    size = len(PICS_ZIP)
    server.behaviour.answers = [lambda handler: handler.serve(Content_Range=f"bytes 40000-{size - 1}/{size}")]
    assert fetch_pics(server, tmp_path).read_bytes() == PICS_ZIP
    assert ranges(server) == ["bytes=50000-", None]


def test_a_range_that_the_server_lacks_starts_again(server: Server, tmp_path: Path) -> None:
    stopped_after(50_000, server, tmp_path)
    server.behaviour.answers = [answer_status(416)]
    assert fetch_pics(server, tmp_path).read_bytes() == PICS_ZIP
    assert ranges(server) == ["bytes=50000-", None]


def test_a_part_that_is_too_long_or_whole_already(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(PICS_ZIP + b"more")
    assert fetch_pics(server, tmp_path).read_bytes() == PICS_ZIP
    assert ranges(server) == [None]
    (tmp_path / "pics.zip").rename(part_of(tmp_path))
    assert fetch_pics(server, tmp_path).read_bytes() == PICS_ZIP
    assert len(server.behaviour.requests) == 1


@pytest.mark.parametrize("code", [404, 403, 410, 501])
def test_a_refusal_is_final(code: int, server: Server, tmp_path: Path) -> None:
    server.behaviour.answers = [answer_status(code)]
    with pytest.raises(InputError, match=rf"zips/pics\.zip: the server answers {code}"):
        fetch_pics(server, tmp_path)
    assert len(server.behaviour.requests) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [500, 502, 503, 504, 429])
def test_trouble_that_passes_is_waited_out(code: int, server: Server, tmp_path: Path) -> None:
    server.behaviour.answers = [answer_status(code), answer_status(code)]
    assert fetch_pics(server, tmp_path).read_bytes() == PICS_ZIP
    assert len(server.behaviour.requests) == 3


def test_waits_double_up_to_a_limit_and_heed_the_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    asked = [answer_status(503), answer_status(503, Retry_After="7"), *(answer_status(500) for _ in range(3))]
    server.behaviour.answers = [*asked, answer_status(503, Retry_After="9999")]
    patience = Patience(attempts=7, first_wait_s=1.0, longest_wait_s=12.0, timeout_s=5.0)
    assert fetch_pics(server, tmp_path, patience=patience).read_bytes() == PICS_ZIP
    assert waits == [1, 7, 4, 8, 12, 12]


def test_a_silent_server_is_a_dropped_connection(server: Server, tmp_path: Path) -> None:
    def stall(handler: Handler) -> None:
        handler.serve(limit=30_000)
        time.sleep(8)

    server.behaviour.answers = [stall]
    begun = time.monotonic()
    assert fetch_pics(server, tmp_path, patience=replace(HURRIED, timeout_s=0.5)).read_bytes() == PICS_ZIP
    assert time.monotonic() - begun < 7
    assert ranges(server) == [None, "bytes=30000-"]


def test_no_server(tmp_path: Path, server: Server) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = Server(f"http://127.0.0.1:{unused.getsockname()[1]}", server.behaviour)
        with pytest.raises(InputError, match=r"Connection refused\), 3 times in a row"):
            fetch_pics(nowhere, tmp_path)
    with pytest.raises(InputError, match="cannot be asked for"):
        fetch(f"{server.url}/with space", tmp_path / "pics.zip", archive=PICS, patience=HURRIED)


def test_another_size_is_refused_before_anything_is_fetched(server: Server, tmp_path: Path) -> None:
    size = len(PICS_ZIP)
    with pytest.raises(InputError, match=f"has {size:,} bytes and the official archive {size + 1:,}"):
        fetch_pics(server, tmp_path, size_bytes=size + 1)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_say_the_size(server: Server, tmp_path: Path) -> None:
    server.behaviour.says_length = False
    with pytest.raises(InputError, match="sends more than the official archive's 5,000 bytes"):
        fetch_pics(server, tmp_path, size_bytes=5_000)
    assert part_of(tmp_path).stat().st_size <= 5_000
    part_of(tmp_path).unlink()
    assert fetch_pics(server, tmp_path).read_bytes() == PICS_ZIP


def test_a_wrong_checksum_removes_what_came(server: Server, tmp_path: Path) -> None:
    server.behaviour.files["/zips/pics.zip"] = PICS_ZIP[:-1] + b"!"
    with pytest.raises(InputError, match=f"its MD5 sum is .* and the official archive's {PICS.md5}"):
        fetch_pics(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_is_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "pics.zip").write_bytes(PICS_ZIP)
    fetch_pics(server, tmp_path)
    (tmp_path / "pics.zip").write_bytes(PICS_ZIP[:-1] + b"!")
    with pytest.raises(OutputError, match="is not the official archive; move it away"):
        fetch_pics(server, tmp_path)
    assert server.behaviour.requests == []


def test_what_cannot_be_written_is_not_taken_for_the_network(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).mkdir()
    with pytest.raises(OutputError, match=r"pics\.zip\.part: cannot be written \(Is a directory\)"):
        fetch_pics(server, tmp_path)
    assert len(server.behaviour.requests) == 1


def get(server: Server, root: Path, **changes: Any) -> DownloadReport:
    settings = {"archives": ARCHIVES, "base_url": server.url, "patience": HURRIED, **changes}
    return download_coco(root, tuple(settings["archives"]), **settings)


def tree(root: Path) -> dict[str, bytes]:
    """Every file under a folder but the lock."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.name != ".download.lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def test_everything_is_fetched_checked_and_unpacked(server: Server, tmp_path: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}
    root = tmp_path / "new" / "coco"
    report = get(server, root, watch=lambda what, done, total: seen.setdefault(what, []).append((done, total)))
    assert report == DownloadReport(root, ("labels", "pics"), ())
    assert tree(root) == PICTURES | LABELS
    assert stat.S_IMODE((root / "pics" / "0000.jpg").stat().st_mode) & 0o444
    for name, size in (("pics.zip", len(PICS_ZIP)), ("unpacking pics.zip", 120_000)):
        assert seen[name][-1] == (size, size)
        assert seen[name] == sorted(seen[name])


def test_what_is_whole_is_left_alone(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path)
    server.behaviour.requests.clear()
    report = get(server, tmp_path)
    assert (report.whole, server.behaviour.requests) == (("labels", "pics"), [])
    (tmp_path / "pics" / "0003.jpg").unlink()
    (tmp_path / "labels" / "b.json").write_bytes(b"")  # as if cut off
    assert not any(is_whole(tmp_path, archive) for archive in ARCHIVES.values())
    (tmp_path / "pics" / ".0003-killed.jpg").touch()
    assert not is_whole(tmp_path, PICS)
    (tmp_path / "labels" / "b.json").unlink()
    assert get(server, tmp_path).problems == ()
    assert tree(tmp_path) == PICTURES | LABELS | {"pics/.0003-killed.jpg": b""}


def test_archives_can_be_kept(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path, keep_archives=True)
    assert tree(tmp_path) == PICTURES | LABELS | {"pics.zip": PICS_ZIP, "labels.zip": LABELS_ZIP}
    get(server, tmp_path)  # they are the user's now
    assert (tmp_path / "pics.zip").exists()


def test_an_archive_that_somebody_put_there_is_used_and_stays(server: Server, tmp_path: Path) -> None:
    (tmp_path / "pics.zip").write_bytes(PICS_ZIP)
    get(server, tmp_path)
    assert tree(tmp_path) == PICTURES | LABELS | {"pics.zip": PICS_ZIP}
    assert [request["path"] for request in server.behaviour.requests] == ["/zips/labels.zip"]


def test_one_failure_does_not_keep_the_others(server: Server, tmp_path: Path) -> None:
    del server.behaviour.files["/zips/labels.zip"]
    report = get(server, tmp_path)
    assert report.whole == ("pics",)
    assert [str(problem).split(":")[-1].strip()[:22] for problem in report.problems] == ["the server answers 404"]


def test_a_file_of_another_size_is_not_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "0002.jpg").write_bytes(b"mine")
    report = get(server, tmp_path)
    assert isinstance(report.problems[0], OutputError)
    assert "0002.jpg: is there already and is not the archive's file" in str(report.problems[0])
    assert tree(tmp_path / "pics") == {"0002.jpg": b"mine"}
    (tmp_path / "pics" / "0002.jpg").unlink()
    server.behaviour.requests.clear()
    assert get(server, tmp_path).problems == ()
    assert server.behaviour.requests == []  # the archive was still there
    assert tree(tmp_path) == PICTURES | LABELS


def test_an_interrupted_unpacking_goes_on(server: Server, tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if what == "unpacking pics.zip" and done >= 60_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(server, tmp_path, watch=interrupt)
    assert len(list((tmp_path / "pics").iterdir())) == 3
    before = (tmp_path / "pics" / "0001.jpg").stat().st_mtime_ns
    server.behaviour.requests.clear()
    assert get(server, tmp_path).problems == ()
    assert server.behaviour.requests == []
    assert tree(tmp_path) == PICTURES | LABELS
    assert (tmp_path / "pics" / "0001.jpg").stat().st_mtime_ns == before


def test_room_is_asked_for_first(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 200_000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"has 200 kB free, and 24\d kB are needed"):
        get(server, tmp_path)
    assert server.behaviour.requests == []
    usage.free = 300_000
    assert get(server, tmp_path).problems == ()


def test_bytes_needed(tmp_path: Path) -> None:
    first = described("one", b"x" * 100, unpacked_bytes=150)
    second = described("two", b"x" * 1000, unpacked_bytes=1100)
    pair = [first, second]
    assert bytes_needed(tmp_path, [], keep_archives=False) == 0
    assert bytes_needed(tmp_path, pair, keep_archives=False) == 150 + 1000 + 1100
    assert bytes_needed(tmp_path, pair, keep_archives=True) == 250 + 1000 + 1100
    assert bytes_needed(tmp_path, pair[::-1], keep_archives=False) == 1000 + 1100
    (tmp_path / "two.zip.part").write_bytes(b"x" * 400)
    assert bytes_needed(tmp_path, pair, keep_archives=False) == 150 + 600 + 1100
    (tmp_path / "two.zip").write_bytes(b"x" * 1000)
    assert bytes_needed(tmp_path, pair, keep_archives=False) == 150 + 1100


def test_two_downloads_do_not_work_in_one_place(server: Server, tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".download.lock", is_singleton=False),
        pytest.raises(OutputError, match="another download is at work there"),
    ):
        get(server, tmp_path)
    assert get(server, tmp_path).problems == ()


def test_a_root_that_cannot_be(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written to"):
        get(server, tmp_path / "file" / "coco")


def link_entry() -> zipfile.ZipInfo:
    link = zipfile.ZipInfo("pics/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return link


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/tmp/evil",
        "pics/../../evil",
        "other/evil",
        "evil",
        "pics\\..\\..\\evil",
        "C:/evil",
        "pics/x:y",
        link_entry(),
    ],
    ids=lambda name: getattr(name, "filename", name),
)
def test_nothing_is_unpacked_outside(name: str | zipfile.ZipInfo, tmp_path: Path) -> None:
    path = tmp_path / "in" / "pics.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pics/0000.jpg", b"fine")
        archive.writestr(name, "/etc")
    with pytest.raises(InputError, match=r"would write outside pics/ .*nothing was unpacked"):
        unpack(path, tmp_path / "root", archive=PICS)
    assert sorted(tree(tmp_path)) == ["in/pics.zip"]


def test_broken_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pics.zip"
    for body, problem in (
        (b"nothing", "is no whole ZIP archive"),
        (PICS_ZIP[:-100], "is no whole ZIP archive"),
        (PICS_ZIP.replace(PICTURES["pics/0000.jpg"], bytes(20_000)), "Bad CRC-32"),
        (zipped({"pics/0001.jpg": PICTURES["pics/0001.jpg"]}), "does not hold all that it should"),
    ):
        path.write_bytes(body)
        with pytest.raises(InputError, match=problem):
            unpack(path, tmp_path, archive=PICS)
        assert not (tmp_path / "pics" / "0000.jpg").exists()
    path.write_bytes(PICS_ZIP)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(OutputError, match="are needed"):
        unpack(path, tmp_path / "new", archive=PICS)


def test_the_official_table() -> None:
    assert list(COCO_ARCHIVES) == ["annotations", "val2017", "train2017"]
    for archive in COCO_ARCHIVES.values():
        assert re.fullmatch("[0-9a-f]{32}", archive.md5)
        assert archive.unpacked_bytes > archive.size_bytes
        assert archive.files or archive.pictures
    assert sum(archive.size_bytes for archive in COCO_ARCHIVES.values()) == pytest.approx(20.4e9, rel=0.01)
    assert "person_keypoints_train2017.json" in COCO_ARCHIVES["annotations"].files


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        (("annotations", "val2017", "train2017"), "subset {root}/annotations/person_keypoints_train2017.json --rule "),
        (
            ("annotations", "train2017"),
            " --images {root}/train2017 --output {root}/annotations/lower-body-train2017.json",
        ),
        (("annotations", "val2017"), "person_keypoints_val2017.json --rule lower-body --images {root}/val2017 "),
        (("annotations",), "person_keypoints_train2017.json --rule lower-body --output "),
        (("val2017",), "download --root {root} --part annotations"),
    ],
)
def test_next_command(whole: tuple[str, ...], expected: str) -> None:
    line = next_command(DownloadReport(Path("a b"), whole, ()))
    assert expected.format(root="'a b'") in line


def small_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "COCO_ARCHIVES", ARCHIVES)
    monkeypatch.setattr(
        data, "download_coco", lambda *args, **kwargs: download_coco(*args, archives=ARCHIVES, **kwargs)
    )


def test_command(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small_table(monkeypatch)
    arguments = ["download", "--root", str(tmp_path), "--url", server.url]
    caplog.set_level("INFO")
    result = CliRunner().invoke(data.main, arguments)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first == f"whole in {tmp_path}: labels, pics"
    assert second.startswith("next: python -m training.data ")
    assert "pics.zip: 100 %" in caplog.text
    (tmp_path / "pics" / "0000.jpg").unlink()
    del server.behaviour.files["/zips/pics.zip"]
    result = CliRunner().invoke(data.main, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {server.url}/zips/pics.zip: the server answers 404")
    assert "whole in" in result.stdout


def test_command_failures(tmp_path: Path, server: Server) -> None:
    def code(*arguments: object) -> int:
        return CliRunner().invoke(data.main, ["download", *map(str, arguments)]).exit_code

    assert code() == 2
    assert code("--root", tmp_path, "--part", "test2017") == 2
    for url in ("file:///etc", "images.cocodataset.org", "http://"):
        assert code("--root", tmp_path, "--url", url) == 2
    (tmp_path / "file").touch()
    assert code("--root", tmp_path / "file" / "coco", "--url", server.url) == 1


PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
from training import data, download
pics = download.Archive("pics", "zips/pics.zip", {size}, "{md5}", unpacked_bytes=1000, folder="pics", pictures=6)
data.COCO_ARCHIVES = table = {{"pics": pics}}
data.download_coco = lambda root, parts, **rest: download.download_coco(root, parts, archives=table, **rest)
data.main(["download", "--root", sys.argv[1], "--url", sys.argv[2]])
"""


def start_program(server: Server, root: Path) -> subprocess.Popen[str]:
    program = PROGRAM.format(size=PICS.size_bytes, md5=PICS.md5)
    command = [sys.executable, "-c", program, str(root), server.url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_leaves_what_came(number: signal.Signals, server: Server, tmp_path: Path) -> None:
    server.behaviour.answers = [lambda handler: handler.serve(pause_s=0.2)]
    running = start_program(server, tmp_path)
    wait_for(lambda: part_of(tmp_path).exists() and part_of(tmp_path).stat().st_size >= 20_000)
    running.send_signal(number)
    stdout, stderr = running.communicate(timeout=20)
    came = part_of(tmp_path).read_bytes()
    assert 20_000 <= len(came) < len(PICS_ZIP)
    assert came == PICS_ZIP[: len(came)]
    assert stdout == ""
    if number == signal.SIGINT:
        assert running.returncode == 130, stderr
        assert stderr.splitlines()[-1] == "interrupted; run the same line again to go on"
        assert f"of {len(PICS_ZIP) / 1000:.3g} kB are kept in {part_of(tmp_path)}" in stderr
        assert "Traceback" not in stderr
    again = start_program(server, tmp_path)
    stdout, stderr = again.communicate(timeout=20)
    assert again.returncode == 0, stderr
    assert server.behaviour.requests[-1]["range"] == f"bytes={len(came)}-"
    assert tree(tmp_path) == PICTURES
    assert "whole in" in stdout
    assert "\r" not in stderr  # no progress bar in a pipe
    assert "\x1b" not in stderr


def test_a_part_is_noted_with_its_origin(server: Server, tmp_path: Path) -> None:
    stopped_after(50_000, server, tmp_path)
    note = json.loads((tmp_path / "pics.zip.origin.json").read_text())
    assert note == {"url": f"{server.url}/zips/pics.zip", "validator": '"one"'}
    (tmp_path / "pics.zip.origin.json").write_text("broken")
    assert fetch_pics(server, tmp_path).read_bytes() == PICS_ZIP


def test_progress_is_drawn_on_a_terminal_only() -> None:
    from rich.console import Console

    drawn, plain = io.StringIO(), io.StringIO()
    for stream, is_terminal in ((drawn, True), (plain, False)):
        console = Console(file=stream, force_terminal=is_terminal, width=100)
        with data._Progress(console) as watch:
            for done in range(0, 101, 10):
                watch("pics.zip", done * 1000, 100_000)
    assert "pics.zip" in drawn.getvalue()
    assert "100.0/100.0 kB" in drawn.getvalue()
    assert plain.getvalue() == ""
