"""The official COCO archives: fetched so that a stop costs nothing, checked, and unpacked into COCO's folders."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import re
import shlex
import shutil
import ssl
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import Any, Final

from lbkit import __version__
from lbkit.core.files import atomic_path
from lbkit.errors import InputError, LbkitError, OutputError
from lbkit.scale.sole_use import sole_use

log = logging.getLogger(__name__)

Watch = Callable[[str, int, int], object]
"""Told what is being done, how many bytes of it are done and how many there are, again and again."""

COCO_URL: Final = "http://images.cocodataset.org"

_CHUNK_BYTES = 1 << 20
_PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE_NOT_SATISFIABLE = 416
_BLOCK_BYTES = 4096
"""What a small file may take on disk beyond its size."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive on the server and what it becomes on disk.

    Attributes:
        part: What it is called on the command line.
        path: Where it is, relative to the server's base URL.
        size_bytes: Its size.
        md5: Its MD5, in hexadecimal.
        unpacked_bytes: About what its files take on disk.
        folder: The folder that everything in it lies in.
        files: Names of files that the folder must hold to be whole.
        pictures: How many .jpg files the folder must hold to be whole.
    """

    part: str
    path: str
    size_bytes: int
    md5: str
    unpacked_bytes: int
    folder: str
    files: tuple[str, ...] = ()
    pictures: int = 0

    @property
    def name(self) -> str:
        """The archive's file name."""
        return self.path.rsplit("/", 1)[-1]


_ANNOTATION_FILES = tuple(
    f"{kind}_{split}2017.json" for kind in ("captions", "instances", "person_keypoints") for split in ("train", "val")
)

COCO_ARCHIVES: Final[Mapping[str, Archive]] = {
    archive.part: archive
    for archive in (
        Archive(
            "annotations",
            "annotations/annotations_trainval2017.zip",
            size_bytes=252_907_541,
            md5="f4bbac642086de4f52a3fdda2de5fa2c",
            unpacked_bytes=850_000_000,
            folder="annotations",
            files=_ANNOTATION_FILES,
        ),
        Archive(
            "val2017",
            "zips/val2017.zip",
            size_bytes=815_585_330,
            md5="442b8da7639aecaf257c1dceb8ba8c80",
            unpacked_bytes=850_000_000,
            folder="val2017",
            pictures=5_000,
        ),
        Archive(
            "train2017",
            "zips/train2017.zip",
            size_bytes=19_336_861_798,
            md5="cced6f7f71b7629ddf16f17bbcfab6b2",
            unpacked_bytes=20_000_000_000,
            folder="train2017",
            pictures=118_287,
        ),
    )
}
"""What is fetched, the smallest first; sizes and MD5 sums as published widely, checked after each download."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to put up with a server.

    Attributes:
        attempts: Tries in a row that bring nothing before it is given up.
        first_wait_s: Seconds before the second try; each further wait is twice as long.
        longest_wait_s: What no wait exceeds, whatever the server asks for.
        timeout_s: Seconds without a byte after which a connection counts as dropped.
    """

    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class DownloadReport:
    """What came of a download.

    Attributes:
        root: The COCO root.
        whole: Parts that are there and whole now.
        problems: Why the others are not, one each.
    """

    root: Path
    whole: tuple[str, ...]
    problems: tuple[LbkitError, ...]


def _ignore(what: str, done: int, total: int) -> None:
    """Watch nothing."""


def download_coco(
    root: Path,
    parts: Sequence[str] = tuple(COCO_ARCHIVES),
    *,
    archives: Mapping[str, Archive] = COCO_ARCHIVES,
    base_url: str = COCO_URL,
    keep_archives: bool = False,
    patience: Patience | None = None,
    watch: Watch = _ignore,
) -> DownloadReport:
    """Fetch, check and unpack parts of COCO into ROOT/annotations, ROOT/val2017 and ROOT/train2017.

    What is whole already is left alone; what was begun goes on. One part's failure does not keep the others.

    Args:
        root: The COCO root; it is made if need be.
        parts: Which archives, by their part's name.
        archives: The archives that there are, by part.
        base_url: Where their paths begin.
        keep_archives: Whether the archives stay on disk once they are unpacked.
        patience: How long to put up with a server.
        watch: Told of the progress.

    Raises:
        OutputError: The root cannot be made, lacks room, or another download is at work in it.
    """
    chosen = [archive for archive in archives.values() if archive.part in parts]
    with sole_use(root, work="download", option="--root"):
        todo = [archive for archive in chosen if not is_whole(root, archive)]
        _require_room(root, bytes_needed(root, todo, keep_archives=keep_archives))
        problems = []
        for archive in chosen:
            try:
                if archive in todo:
                    url = f"{base_url.rstrip('/')}/{archive.path}"
                    fetch(url, root / archive.name, archive=archive, patience=patience or Patience(), watch=watch)
                    unpack(root / archive.name, root, archive=archive, watch=watch)
                else:
                    log.info("%s is whole already", root / archive.folder)
                _tidy(root / archive.name, keep_archives=keep_archives)
            except LbkitError as error:
                problems.append(error)
        whole = tuple(archive.part for archive in chosen if is_whole(root, archive))
    return DownloadReport(root, whole, tuple(problems))


def is_whole(root: Path, archive: Archive) -> bool:
    """Tell whether an archive's folder holds all its files; each was put there whole, so their number is enough."""
    folder = root / archive.folder
    if not folder.is_dir():
        return False
    if not all((folder / name).is_file() and (folder / name).stat().st_size for name in archive.files):
        return False
    if not archive.pictures:
        return True
    # A killed run may leave a temporary file, whose name begins with a dot.
    return sum(path.suffix == ".jpg" and path.name[0] != "." for path in folder.iterdir()) >= archive.pictures


def bytes_needed(root: Path, archives: Sequence[Archive], *, keep_archives: bool) -> int:
    """Return about how much free disk fetching and unpacking archives one after another takes at its peak."""
    kept = peak = 0
    for archive in archives:
        target = root / archive.name
        fetched = archive.size_bytes if target.exists() else _size_bytes(_part(target))
        coming = max(archive.size_bytes - fetched, 0)
        peak = max(peak, kept + coming + archive.unpacked_bytes)
        kept += archive.unpacked_bytes + (coming if keep_archives else 0)
    return peak


def _require_room(root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if free < needed:
        raise OutputError(
            f"has {_readable(free)} free, and {_readable(needed)} are needed for the archives and what is in them",
            where=root,
            remedy="make room, give another --root, or fetch fewer parts",
        )


def _readable(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _part(target: Path) -> Path:
    """Where an archive grows until it is whole."""
    return target.with_name(f"{target.name}.part")


def _origin(target: Path) -> Path:
    """Where the URL and the server's mark of an archive's version are noted, for as long as we may delete it."""
    return target.with_name(f"{target.name}.origin.json")


def _tidy(target: Path, *, keep_archives: bool) -> None:
    """Remove an unpacked archive, but only one that was fetched here; one that somebody put there stays."""
    if not _origin(target).exists() or not target.exists():
        return
    if not keep_archives:
        target.unlink()
    _origin(target).unlink()


def fetch(url: str, target: Path, *, archive: Archive, patience: Patience, watch: Watch = _ignore) -> None:
    """Make sure of an archive at `target`, byte for byte the official one; go on where an earlier try stopped.

    The bytes gather in TARGET.part. They go on from there if the server's file is the same still by its ETag or date
    (If-Range, RFC 9110); of another server than the first, or one that marks no versions, size and MD5 alone tell.
    Both are checked in any case.

    Args:
        url: Where it is.
        target: Where it should be.
        archive: Its size and MD5.
        patience: How long to put up with the server.
        watch: Told of the progress.

    Raises:
        InputError: The server does not have it, has another file, or fails again and again.
        OutputError: There is another file at `target`, or the disk is full.
    """
    if target.exists():
        _require_official(target, archive)
        return
    transfer = _Transfer(url, target, archive=archive, patience=patience, watch=watch)
    try:
        transfer.run()
    except KeyboardInterrupt:
        log.warning("%s of %s are kept in %s", _readable(transfer.done), _readable(archive.size_bytes), transfer.part)
        raise
    log.info("%s: checking the MD5 sum", archive.name)
    found = _md5(transfer.part)
    if found != archive.md5:
        transfer.discard()
        raise InputError(
            f"its MD5 sum is {found} and the official archive's {archive.md5}; what came was removed",
            where=url,
            remedy="run the same line again, and if that ends alike, give another --url",
        )
    transfer.part.replace(target)


def _require_official(target: Path, archive: Archive) -> None:
    log.info("%s: there already, checking the MD5 sum", target)
    if not target.is_file() or target.stat().st_size != archive.size_bytes or _md5(target) != archive.md5:
        raise OutputError(
            "is there already and is not the official archive", where=target, remedy="move it away and run again"
        )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


class _PassingError(Exception):
    """A failure that another try may not meet.

    Args:
        problem: What happened.
        wait_s: How long the server asks to wait.
    """

    def __init__(self, problem: str, wait_s: float = 0.0) -> None:
        self.problem = problem
        self.wait_s = wait_s
        super().__init__(problem)


class _Transfer:
    """One archive on its way into its .part file.

    Args:
        url: Where it is.
        target: Where it should be in the end.
        archive: Its size and MD5.
        patience: How long to put up with the server.
        watch: Told of the progress.
    """

    def __init__(self, url: str, target: Path, *, archive: Archive, patience: Patience, watch: Watch) -> None:
        self.url = url
        self.archive = archive
        self.patience = patience
        self.watch = watch
        self.part = _part(target)
        self.origin = _origin(target)

    @property
    def done(self) -> int:
        """How many bytes have come."""
        return _size_bytes(self.part)

    def discard(self) -> None:
        """Forget what has come."""
        self.part.unlink(missing_ok=True)
        self.origin.unlink(missing_ok=True)

    def run(self) -> None:
        """Receive until the file has its size, trying again after failures that may pass.

        Raises:
            InputError: The server does not have the file, has another, or fails again and again.
            OutputError: The file cannot be written.
        """
        if self.done > self.archive.size_bytes:
            self.discard()
        if self.done:
            log.info("%s: going on after %s", self.archive.name, _readable(self.done))
        failures, farthest = 0, self.done
        while self.done < self.archive.size_bytes:
            problem, wait_s = self._try()
            if problem is None:
                continue
            # A server that begins anew each time gets nowhere by coming as far as it was.
            failures = 1 if self.done > farthest else failures + 1
            farthest = max(farthest, self.done)
            if failures >= self.patience.attempts:
                raise InputError(
                    f"{problem}, {failures} times in a row; {_readable(self.done)} have come and are kept",
                    where=self.url,
                    remedy="run the same line again later to go on",
                )
            wait_s = max(wait_s, self.patience.first_wait_s * 2 ** (failures - 1))
            wait_s = min(wait_s, self.patience.longest_wait_s)
            log.warning("%s: %s; trying again in %.0f s", self.archive.name, problem, wait_s)
            time.sleep(wait_s)

    def _try(self) -> tuple[str | None, float]:
        """Receive what one connection gives; return what went wrong, if anything, and the seconds to wait for."""
        try:
            self._receive()
        except _PassingError as error:
            return error.problem, error.wait_s
        except urllib.error.HTTPError as error:
            return self._http_problem(error)
        except (OSError, http.client.HTTPException) as error:  # dropped, refused, timed out, no such host
            return self._connection_problem(error), 0.0
        if self.done < self.archive.size_bytes:
            return "the connection closed early", 0.0
        return None, 0.0

    def _http_problem(self, error: urllib.error.HTTPError) -> tuple[str, float]:
        error.close()
        if error.code == _RANGE_NOT_SATISFIABLE:
            self.discard()
            return "the server has no more than what has come, which is therefore of another file", 0.0
        if error.code not in _PASSING_STATUSES:
            raise InputError(
                f"the server answers {error.code} {error.reason}", where=self.url, remedy="check --url and the proxy"
            ) from error
        asked = error.headers.get("Retry-After", "")
        return f"the server answers {error.code} {error.reason}", float(asked) if asked.isdecimal() else 0.0

    def _connection_problem(self, error: Exception) -> str:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError | http.client.InvalidURL):
            raise InputError(f"cannot be asked for ({reason})", where=self.url, remedy="check --url") from error
        return f"the connection failed ({str(reason) or type(reason).__name__})"

    def _receive(self) -> None:
        known = self._known_origin()
        request = urllib.request.Request(self.url, headers=self._headers(known))
        with urllib.request.urlopen(request, timeout=self.patience.timeout_s) as response:
            self._require_size(response)
            goes_on = response.status == http.client.PARTIAL_CONTENT and self._goes_on(response, known)
            with _writing(self.part):
                file = self.part.open("ab" if goes_on else "wb")
            with file:
                if not goes_on:
                    self._note_origin(response.headers)
                self._copy(response, file)

    def _headers(self, known: Mapping[str, Any]) -> dict[str, str]:
        headers = {"User-Agent": f"lbkit/{__version__}"}
        if self.done:
            headers["Range"] = f"bytes={self.done}-"
            if known.get("validator"):
                headers["If-Range"] = known["validator"]
        return headers

    def _known_origin(self) -> Mapping[str, Any]:
        """Return what was noted of this URL's file; another server's marks say nothing here, MD5 does."""
        try:
            noted = json.loads(self.origin.read_bytes())
        except (OSError, ValueError):
            return {}
        return noted if isinstance(noted, dict) and noted.get("url") == self.url else {}

    def _note_origin(self, headers: Message) -> None:
        with atomic_path(self.origin) as temporary:
            temporary.write_text(json.dumps({"url": self.url, "validator": _validator(headers)}), encoding="utf-8")

    def _require_size(self, response: http.client.HTTPResponse) -> None:
        total = _total_bytes(response)
        if total is not None and total != self.archive.size_bytes:
            raise InputError(
                f"the server's file has {total:,} bytes and the official archive {self.archive.size_bytes:,}",
                where=self.url,
                remedy="check --url and the proxy",
            )

    def _goes_on(self, response: http.client.HTTPResponse, known: Mapping[str, Any]) -> bool:
        """Tell that a partial answer continues what has come; begin anew if it does not."""
        found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        validator = known.get("validator")
        is_same = validator is None or _validator(response.headers) in (None, validator)
        if found is None or int(found[1]) != self.done or not is_same:
            self.discard()
            raise _PassingError("the server's file has changed, or its answer does not continue what has come")
        return True

    def _copy(self, response: http.client.HTTPResponse, file: Any) -> None:
        done = file.tell()
        while chunk := response.read1(_CHUNK_BYTES):
            done += len(chunk)
            if done > self.archive.size_bytes:
                raise InputError(
                    f"sends more than the official archive's {self.archive.size_bytes:,} bytes",
                    where=self.url,
                    remedy="check --url and the proxy",
                )
            with _writing(self.part):
                file.write(chunk)
            self.watch(self.archive.name, done, self.archive.size_bytes)


def _validator(headers: Message) -> str | None:
    """Return the server's mark of a file's version that If-Range takes: a strong ETag, or else the date."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _total_bytes(response: http.client.HTTPResponse) -> int | None:
    """Return the whole file's size, of which a partial answer is a part, or None where the server does not say."""
    if response.status == http.client.PARTIAL_CONTENT:
        found = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        return int(found[1]) if found else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tell the disk's errors from the network's, which are OSErrors too."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot be written ({error.strerror})", where=path, remedy="mend that and run the same line again to go on"
        ) from error


def unpack(path: Path, root: Path, *, archive: Archive, watch: Watch = _ignore) -> None:
    """Unpack an archive under `root`, each file whole or not at all; files that are there already are left alone.

    Args:
        path: The archive.
        root: The COCO root.
        archive: What it should become.
        watch: Told of the progress.

    Raises:
        InputError: It is broken or lacks files, or an entry lies outside its folder; then nothing is written.
        OutputError: A file of that name and another size is there, or the disk is full.
    """
    try:
        with zipfile.ZipFile(path) as content:
            members = _members(content, archive, where=path)
            missing = [member for member in members if not _is_there(root / member.filename, member)]
            _require_room(root, sum(member.file_size + _BLOCK_BYTES for member in missing))
            _write_members(content, missing, root=root, what=f"unpacking {archive.name}", watch=watch)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise InputError(f"is no whole ZIP archive ({error})", where=path, remedy="remove it and run again") from error
    if not is_whole(root, archive):
        raise InputError(
            "does not hold all that it should", where=path, remedy="remove it and run again, with another --url"
        )


def _members(content: zipfile.ZipFile, archive: Archive, *, where: Path) -> list[zipfile.ZipInfo]:
    """Return the files in an archive once it is sure that every entry stays in its folder."""
    for member in content.infolist():
        place = PurePosixPath(member.filename)
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        is_odd = ".." in place.parts or any(char in member.filename for char in "\\:")
        if is_link or is_odd or place.is_absolute() or place.parts[:1] != (archive.folder,):
            raise InputError(
                f"would write outside {archive.folder}/ (entry {member.filename!r}); nothing was unpacked",
                where=where,
                remedy="remove it and get it from elsewhere, with --url",
            )
    return [member for member in content.infolist() if not member.is_dir()]


def _is_there(path: Path, member: zipfile.ZipInfo) -> bool:
    if not path.exists():
        return False
    if not path.is_file() or path.stat().st_size != member.file_size:
        raise OutputError(
            "is there already and is not the archive's file", where=path, remedy="move it away and run again"
        )
    return True


def _write_members(
    content: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], *, root: Path, what: str, watch: Watch
) -> None:
    total = sum(member.file_size for member in members)
    done = 0
    for member in members:
        with (
            atomic_path(root / member.filename) as temporary,
            content.open(member) as source,
            temporary.open("wb") as file,
        ):
            shutil.copyfileobj(source, file, _CHUNK_BYTES)
        done += member.file_size
        watch(what, done, total)


def next_command(report: DownloadReport) -> str:
    """Return the command line to try after a download: a subset of what is there, or what else to fetch first."""
    root = shlex.quote(str(report.root))
    if "annotations" not in report.whole and not is_whole(report.root, COCO_ARCHIVES["annotations"]):
        return f"python -m training.data download --root {root} --part annotations"
    split = "train2017" if "train2017" in report.whole or "val2017" not in report.whole else "val2017"
    pictures = f" --images {root}/{split}" if split in report.whole else ""
    return (
        f"python -m training.data subset {root}/annotations/person_keypoints_{split}.json"
        f" --rule lower-body{pictures} --output {root}/annotations/lower-body-{split}.json"
    )
