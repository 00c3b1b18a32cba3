"""Results drawn into folders, under their sources' names and never over anything by accident."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from lbkit.core.draw import DEFAULT_MIN_SCORE, draw_heatmaps, draw_poses
from lbkit.core.geometry import ImageArray
from lbkit.core.images import write_image
from lbkit.core.pipeline import map_ahead
from lbkit.core.results import ImageResult
from lbkit.errors import OutputError

SUFFIX = ".jpg"
DRAWING_THREADS = 2


class PictureFolder:
    """Names and writes pictures: a source's stem, and `-2`, `-3` and so on where another source took it before.

    Names depend on the order of the sources alone. Writing may be done in threads.

    Args:
        folder: Where the pictures go; it is made when the first one is written.
        force: Replace files that were there before.
    """

    def __init__(self, folder: Path, *, force: bool) -> None:
        self.folder = folder
        self._force = force
        self._taken: set[str] = set()

    def claim(self, source: Path, *, number: int | None = None) -> Path:
        """Return the path for a source's picture; call it in the order of the sources.

        Args:
            source: The picture that the new one is made from.
            number: Counts several pictures of one source.
        """
        stem = source.stem if number is None else f"{source.stem}-person{number}"
        name, count = stem, 1
        # Case is folded, because on some file systems a.jpg and A.jpg are one file.
        while name.casefold() in self._taken:
            count += 1
            name = f"{stem}-{count}"
        self._taken.add(name.casefold())
        return self.folder / f"{name}{SUFFIX}"

    def write(self, target: Path, image: ImageArray, *, source: Path) -> None:
        """Write a picture under a path that was claimed.

        Args:
            target: What `claim` returned.
            image: (H, W, 3) uint8 RGB.
            source: The picture it is made from.

        Raises:
            OutputError: It exists already, would land among the sources, or cannot be written.
        """
        if self.folder.resolve() == source.parent.resolve():
            raise OutputError(
                "would be written beside its source and might replace one",
                where=target,
                remedy="give a folder of its own",
            )
        if target.exists() and not self._force:
            raise OutputError("exists already", where=target, remedy="give --force to replace it, or another folder")
        write_image(target, image)


def draw_results(
    results: Iterable[ImageResult],
    *,
    overlays: PictureFolder | None = None,
    panels: PictureFolder | None = None,
    min_score: float = DEFAULT_MIN_SCORE,
) -> Iterator[ImageResult]:
    """Draw results in threads as they come, and give them on in order without their pixels.

    Args:
        results: With pictures kept for overlays, and with views kept for panels.
        overlays: Where the skeletons over the pictures go; None draws none.
        panels: Where each person's heatmaps go; None draws none.
        min_score: Joints below this score are not drawn.

    Yields:
        The results; a drawing that could not be written is among their problems.
    """
    if overlays is None and panels is None:
        yield from results
        return
    with ThreadPoolExecutor(DRAWING_THREADS, "lbkit-draw") as pool:
        drawings = (_drawing(result, overlays, panels, min_score) for result in results)
        yield from map_ahead(pool, _Drawing.finish, drawings, ahead=lambda: 2 * DRAWING_THREADS)


@dataclass(frozen=True, slots=True)
class _Drawing:
    """A result and the files that its drawings go to, by folder."""

    result: ImageResult
    overlays: PictureFolder | None
    overlay: Path | None
    panels: PictureFolder | None
    panel_paths: tuple[Path, ...]
    min_score: float

    def finish(self) -> ImageResult:
        """Draw, write, and let go of the pixels."""
        problems = tuple(error for error in (self._write_overlay(), *self._write_panels()) if error is not None)
        return replace(self.result, image=None, views=(), problems=(*self.result.problems, *problems))

    def _write_overlay(self) -> OutputError | None:
        result = self.result
        if self.overlays is None or self.overlay is None or result.image is None or result.poses is None:
            return None
        return self._write(
            self.overlays, self.overlay, draw_poses(result.image, result.poses, min_score=self.min_score)
        )

    def _write_panels(self) -> Iterator[OutputError | None]:
        if self.panels is None or self.result.poses is None:
            return
        names = self.result.poses.keypoints.names
        for path, view in zip(self.panel_paths, self.result.views, strict=True):
            yield self._write(self.panels, path, draw_heatmaps(view.crop, view.heatmaps, names))

    def _write(self, folder: PictureFolder, target: Path, image: ImageArray) -> OutputError | None:
        assert self.result.path is not None  # a target was claimed for it
        try:
            folder.write(target, image, source=self.result.path)
        except OutputError as error:
            return error
        return None


def _drawing(
    result: ImageResult, overlays: PictureFolder | None, panels: PictureFolder | None, min_score: float
) -> _Drawing:
    """Choose the file names, which must be done in the order of the sources."""
    overlay: Path | None = None
    panel_paths: tuple[Path, ...] = ()
    if result.path is not None and result.poses is not None:
        overlay = overlays.claim(result.path) if overlays else None
        panel_paths = _panel_paths(result.path, len(result.views), panels) if panels else ()
    return _Drawing(result, overlays, overlay, panels, panel_paths, min_score)


def _panel_paths(source: Path, count: int, panels: PictureFolder) -> tuple[Path, ...]:
    """One person's panel has the source's name alone; several are numbered."""
    if count == 1:
        return (panels.claim(source),)
    return tuple(panels.claim(source, number=number) for number in range(1, count + 1))
