"""What a run over many pictures tells on stderr: problems as they come, a progress bar on a terminal, a summary."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from lbkit.cli.messages import plain_line
from lbkit.cli.options import is_quiet
from lbkit.errors import AnnotationError, BoxError, ImageReadError, LbkitError, OutputError

if TYPE_CHECKING:
    from lbkit.core.results import ImageResult

_REASONS: tuple[tuple[type[LbkitError], str, str], ...] = (
    (ImageReadError, "unreadable picture", "unreadable pictures"),
    (BoxError, "unusable box", "unusable boxes"),
    (AnnotationError, "problem with the box file", "problems with the box file"),
    (OutputError, "drawing not written", "drawings not written"),
    (LbkitError, "source without pictures", "sources without pictures"),
)
"""What a problem is called in the summary, by the first class that fits."""


class RunReport:
    """Counts what came of a run and tells it on stderr; use it as a context about the run.

    Args:
        count: Says how many inputs there are, or None if that is not known; asked only if a progress bar is shown.
        shows_progress: Whether a progress bar may be shown; it never is away from a terminal.
    """

    def __init__(self, count: Callable[[], int | None], *, shows_progress: bool) -> None:
        self._count = count
        self._shows_progress = shows_progress and sys.stderr.isatty() and not is_quiet()
        self._failures: Counter[tuple[str, str]] = Counter()
        self._pictures = self._people = self._unnamed = 0
        self._progress: Any = None
        self._seconds = 0.0

    def __enter__(self) -> RunReport:
        if self._shows_progress:
            self._progress = progress_bar("images/s")
            self._progress.add_task("infer", total=self._count())
            self._progress.start()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._seconds = time.perf_counter() - self._started
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    @property
    def has_failures(self) -> bool:
        """Whether any problem was told."""
        return bool(self._failures)

    @property
    def names_nothing(self) -> bool:
        """Whether there were pictures and the box file names none of them."""
        return 0 < self._pictures == self._unnamed

    def take(self, result: ImageResult) -> None:
        """Count a result and tell its problems."""
        if result.poses is not None:
            self._pictures += 1
            self._people += len(result.poses)
            self._unnamed += not result.is_in_box_file
        self.tell(result.problems)
        if self._progress is not None:
            self._progress.advance(self._progress.task_ids[0])

    def tell(self, problems: Iterable[LbkitError]) -> None:
        """Report problems, a line each."""
        for problem in problems:
            self._failures[_reason(problem)] += 1
            line = plain_line(f"error: {problem}")
            if self._progress is None:
                click.echo(line, err=True)
            else:
                self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def summarize(self) -> None:
        """Say what was done, and how often what failed."""
        if self._failures:
            parts = (f"{count} {one if count == 1 else many}" for (one, many), count in self._failures.items())
            click.echo(f"failed: {', '.join(parts)}", err=True)
        if is_quiet():
            return
        rate = self._pictures / self._seconds if self._seconds else 0.0
        pictures = f"{self._pictures} picture{'' if self._pictures == 1 else 's'}"
        people = f"{self._people} {'person' if self._people == 1 else 'people'}"
        click.echo(f"{pictures}, {people} in {self._seconds:.2f} s ({rate:.1f} images/s)", err=True)
        if 0 < self._unnamed < self._pictures:
            click.echo(f"note: the box file names {self._pictures - self._unnamed} of {pictures}", err=True)


def _reason(problem: LbkitError) -> tuple[str, str]:
    return next((one, many) for kind, one, many in _REASONS if isinstance(problem, kind))


def progress_bar(speed_unit: str) -> Any:
    """Return a bar on stderr with counts, speed and remaining time, not yet started.

    Args:
        speed_unit: What the speed is told in, such as "images/s".
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class SpeedColumn(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f} {speed_unit}")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        SpeedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


@contextlib.contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Keep what the picture libraries print from between our lines; Python's own stderr stays.

    libjpeg, libpng, libtiff and OpenCV write warnings to descriptor 2 without naming the file; a picture they cannot
    read is reported by us. Only done where Python's stderr is that descriptor.
    """
    python_stderr = sys.stderr
    try:
        is_native = python_stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):
        is_native = False
    if not is_native:
        yield
        return
    saved = os.dup(2)
    with (
        open(saved, "w", buffering=1, encoding=python_stderr.encoding, errors="backslashreplace") as stream,  # noqa: PTH123
        open(os.devnull, "w") as nowhere,  # noqa: PTH123
    ):
        os.dup2(nowhere.fileno(), 2)
        sys.stderr = stream
        try:
            yield
        finally:
            sys.stderr = python_stderr
            os.dup2(saved, 2)
