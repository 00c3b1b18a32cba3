"""The walk over many pictures: reading, warping and the model overlap, and the model's batches run over people."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lbkit.core.backend import ModelOutput
from lbkit.core.box_files import BoxTable, ImageBoxes, PersonBox
from lbkit.core.boxes import box_problem, whole_image_box
from lbkit.core.contract import ModelContract
from lbkit.core.detections import PersonDetector
from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import CropTransform, FloatArray, ImageArray, ImageSize
from lbkit.core.images import read_picture
from lbkit.core.poses import Poses
from lbkit.core.preprocess import crop_person
from lbkit.core.results import ImageResult, PersonView
from lbkit.core.search import PersonSearch
from lbkit.core.threads import thread_limits
from lbkit.errors import AnnotationError, BoxError, ImageReadError, InputError, ModelError

logger = logging.getLogger(__name__)

BoxPlan = BoxTable | PersonDetector | Literal["whole", "auto"]
"""Where people are looked for: in a file's or a detector's boxes, on the whole picture, or in a box found by the model
itself."""

MAX_READERS = 8
"""Each holds a decoded picture, of 600 MB at worst."""

HELD_BYTES = 256 * 2**20
"""Pictures held at once, read ahead or waiting for their people, stay about within this; one is always allowed."""

REDUCTIONS = (8, 4, 2)
MAX_REDUCED_SCALE = 0.5
"""A JPEG is decoded at 1/8, 1/4 or 1/2 of its size where every crop still has two of its pixels or more a side for one.
On the photographs of the val2017 subset enlarged five times, 75 of 157 were then read reduced, and PCK@0.05 went from
0.521 to 0.522 (fpn-int8) and stayed at 0.265 (cnn-int8); with one pixel for one it fell to 0.517 and 0.264."""

SEARCHED_SHARE = 1 / 3
"""A person who is looked for should be seen whole pixel by pixel down to this share of the picture's sides; for smaller
ones the picture is read again."""

ItemT = TypeVar("ItemT")
OutcomeT = TypeVar("OutcomeT")


def run_inference(
    pictures: Iterable[Path | InputError],
    estimator: PoseEstimator,
    *,
    boxes: BoxPlan = "auto",
    keep_images: bool = False,
    keep_heatmaps: bool = False,
    readers: int | None = None,
) -> Iterator[ImageResult]:
    """Find the joints of the people on many pictures, in the order given.

    Pictures are read and warped by some threads while others run the model, a batch in each of the estimator's
    streams; memory does not grow with their number. What is wrong with a picture or box is in its result, and the
    others go on. While this runs, OpenCV's own threads are switched off, because the pictures themselves are spread
    over threads.

    Args:
        pictures: Paths, or errors to be passed on in their place (see `find_pictures`).
        estimator: The model.
        boxes: Where people are looked for.
        keep_images: Give each result its picture.
        keep_heatmaps: Give each result its people's crops and heatmaps.
        readers: Threads that read; by the processors granted, up to `MAX_READERS`, when None.

    Yields:
        One result for each of `pictures`.

    Raises:
        ModelError: The model put out something that is not a finite number, or no heatmaps to keep.
    """
    if keep_heatmaps and "heatmaps" not in estimator.contract.outputs:
        raise ModelError(
            f"the model {estimator.contract.model} puts out keypoints alone, no heatmaps",
            remedy="export it with `--decode none` or with `--keep-heatmaps`",
        )
    keeps_pixels = keep_images or boxes == "auto"
    loader = _Loader(estimator.contract, boxes, keeps_pixels=keeps_pixels, reduces=not keep_images)
    count = readers or default_readers()
    with (
        single_threaded_opencv(),
        ThreadPoolExecutor(count, "lbkit-reader") as pool,
        _Batcher(estimator, keep_images=keep_images, keep_heatmaps=keep_heatmaps) as batcher,
    ):
        ahead = count + estimator.batch_size * estimator.streams
        loaded = map_ahead(pool, loader.load, pictures, ahead=lambda: loader.ahead(ahead))
        for job in loaded:
            batcher.admit(job)
            batcher.run_full()
            yield from batcher.finished()
        while batcher.is_busy:
            batcher.run_on()
            yield from batcher.finished()


def largest_reduction(boxes_xyxy: Iterable[ArrayLike], contract: ModelContract) -> int:
    """Return how far a picture may be reduced while it is read, for the people in some boxes: 1, 2, 4 or 8.

    Args:
        boxes_xyxy: (4,) boxes in edge coordinates of the whole picture.
        contract: The model's contract.
    """
    scales = [_crop_scale(box, contract) for box in boxes_xyxy]
    return next((r for r in REDUCTIONS if all(scale * r <= MAX_REDUCED_SCALE for scale in scales)), 1)


def map_ahead(
    pool: Executor, function: Callable[[ItemT], OutcomeT], items: Iterable[ItemT], *, ahead: Callable[[], int]
) -> Iterator[OutcomeT]:
    """Map by a pool's threads in order, with a bounded number of items under way.

    Args:
        pool: Runs the function.
        function: What to do with an item.
        items: Drawn one by one, as there is room.
        ahead: How many items may be under way, or done and not yet taken; asked anew each time.
    """
    pending: deque[Future[OutcomeT]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            while len(pending) > ahead():
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def default_readers() -> int:
    """Return how many threads should read pictures: the processors granted to this process, at most `MAX_READERS`."""
    return min(thread_limits().threads, MAX_READERS)


@dataclass(slots=True, eq=False)
class _Cut:
    """A crop that waits for the model."""

    job: _Job
    person: int
    crop: ImageArray
    transform: CropTransform


@dataclass(slots=True, eq=False)
class _Job:
    """A picture on its way.

    `keypoints` is (N, K, 3) and filled person by person; `search` is there when the one person has no box yet.
    """

    path: Path | None
    size: ImageSize | None = None
    image: ImageArray | None = None
    reduction: int = 1
    boxes_xyxy: FloatArray = field(default_factory=lambda: np.zeros((0, 4)))
    keypoints: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0, 3)))
    person_ids: tuple[int | str | None, ...] = ()
    image_id: int | None = None
    problems: list[InputError] = field(default_factory=list)
    is_in_box_file: bool = True
    search: PersonSearch | None = None
    cuts: list[_Cut] = field(default_factory=list)
    views: dict[int, PersonView] = field(default_factory=dict)
    open_persons: int = 0

    @property
    def held_bytes(self) -> int:
        return 0 if self.image is None else self.image.nbytes


class _Loader:
    """Reads pictures and cuts their people out, in the pool's threads."""

    def __init__(self, contract: ModelContract, boxes: BoxPlan, *, keeps_pixels: bool, reduces: bool) -> None:
        self._contract = contract
        self._boxes = boxes
        self._keeps_pixels = keeps_pixels
        self._reduces = reduces
        self._latest_bytes = 1

    def ahead(self, most: int) -> int:
        """Return how many pictures may be read ahead, judged by the size of the latest one."""
        return max(1, min(most, HELD_BYTES // self._latest_bytes)) if self._keeps_pixels else most

    def load(self, picture: Path | InputError) -> _Job:
        if isinstance(picture, InputError):
            return _Job(None, problems=[picture])
        try:
            return self._load(picture)
        except ImageReadError as error:
            return _Job(picture, problems=[error])
        except Exception as error:  # a fault of ours or of OpenCV on one picture must not cost the others
            logger.debug("reading %s failed", picture, exc_info=True)
            return _Job(picture, problems=[_unforeseen(error, picture)])

    def _load(self, picture: Path) -> _Job:
        read = read_picture(picture, wanted_reduction=lambda size: self._wanted_reduction(picture, size))
        image = read.pixels
        self._latest_bytes = image.nbytes
        job = _Job(picture, size=read.size, image=image, reduction=read.reduction)
        self._place_people(job, image)
        for person, box in enumerate(job.boxes_xyxy):
            crop, transform = crop_person(image, box, contract=self._contract, reduction=read.reduction)
            job.cuts.append(_Cut(job, person, crop, transform))
        job.open_persons = len(job.cuts)
        job.keypoints = np.zeros((len(job.cuts), len(self._contract.keypoints), 3))
        if not self._keeps_pixels:
            job.image = None
        return job

    def _wanted_reduction(self, picture: Path, size: ImageSize) -> int:
        """Say how far a picture of that size may be reduced for the people wanted on it."""
        if not self._reduces or not isinstance(self._boxes, BoxTable | str):  # a detector sees all of it
            return 1
        if isinstance(self._boxes, BoxTable):
            entry = self._boxes.find(picture) or ImageBoxes(())
            boxes = [box.xyxy for box in entry.boxes if box_problem(box.xyxy, size) is None]
        else:
            share = SEARCHED_SHARE if self._boxes == "auto" else 1.0
            boxes = [(0.0, 0.0, size.width * share, size.height * share)]
        return largest_reduction(boxes, self._contract)

    def _place_people(self, job: _Job, image: ImageArray) -> None:
        assert job.size is not None  # that of the picture, of which `image` may be a reduction
        size = job.size
        if isinstance(self._boxes, BoxTable):
            self._take_boxes(job, self._boxes, size)
            return
        if not isinstance(self._boxes, str):
            job.boxes_xyxy = self._boxes.detect(image).boxes_xyxy
            job.person_ids = (None,) * len(job.boxes_xyxy)
            return
        if self._boxes == "auto":
            job.search = PersonSearch(size)
        job.boxes_xyxy = whole_image_box(size)[None]
        job.person_ids = (None,)

    def _take_boxes(self, job: _Job, table: BoxTable, size: ImageSize) -> None:
        assert job.path is not None  # only a picture that was read gets here
        entry = table.find(job.path)
        job.is_in_box_file = entry is not None
        entry = entry or ImageBoxes(())
        good, job.problems = _checked(entry, job.path, table.path, size)
        job.boxes_xyxy = np.array([box.xyxy for box in good], dtype=np.float64).reshape(-1, 4)
        job.person_ids = tuple(box.person_id for box in good)
        job.image_id = entry.image_id


def _crop_scale(box_xyxy: ArrayLike, contract: ModelContract) -> float:
    """Return the input pixels per picture pixel of a person's crop."""
    return CropTransform.from_box(box_xyxy, contract.input.size, padding=contract.crop.padding).scale


def _unforeseen(error: Exception, picture: Path) -> ImageReadError:
    if isinstance(error, MemoryError):
        remedy = "give fewer or smaller pictures, or --batch-size 1"
        return ImageReadError("does not fit into memory", where=picture, remedy=remedy)
    words = " ".join(str(error).split())[:200]
    problem = f"cannot be used ({type(error).__name__}: {words})"
    return ImageReadError(problem, where=picture, remedy="convert it to PNG; -vv shows where it fails, which is a bug")


def _checked(
    entry: ImageBoxes, picture: Path, box_file: Path, size: ImageSize
) -> tuple[list[PersonBox], list[InputError]]:
    """Split a picture's boxes into the usable ones and what is wrong with the others."""
    good: list[PersonBox] = []
    problems: list[InputError] = [AnnotationError(text, where=picture, remedy="mend it") for text in entry.problems]
    for box in entry.boxes:
        problem = box_problem(box.xyxy, size)
        if problem is None:
            good.append(box)
        else:
            where = f"{box.origin} of {box_file.name}"
            problems.append(BoxError(f"{where}: {problem}", where=picture, remedy="mend the box or leave it out"))
    return good, problems


@dataclass(slots=True, eq=False)
class _Flight:
    """A batch under way."""

    cuts: list[_Cut]
    answer: Future[tuple[NDArray[np.float64], ModelOutput]]


class _Batcher:
    """Gathers people from picture after picture, runs full batches, and gives the pictures back in order.

    Batches run in threads, as many side by side as the estimator has streams. Their answers are taken in the order in
    which they were begun, so that which people share a batch does not depend on chance. To be left as a context.
    """

    def __init__(self, estimator: PoseEstimator, *, keep_images: bool, keep_heatmaps: bool) -> None:
        self._estimator = estimator
        self._keep_images = keep_images
        self._keep_heatmaps = keep_heatmaps
        self._jobs: deque[_Job] = deque()
        self._cuts: deque[_Cut] = deque()
        self._held_bytes = 0
        self._flights: deque[_Flight] = deque()
        self._most_flights = 2 * estimator.streams  # one to go on with in each stream
        self._pool = ThreadPoolExecutor(estimator.streams, "lbkit-stream")

    def __enter__(self) -> _Batcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def is_busy(self) -> bool:
        return bool(self._cuts or self._flights)

    def run_full(self) -> None:
        """Begin batches while there are people enough for one, or while the pictures that wait are too large."""
        while True:
            is_heavy = self._held_bytes > HELD_BYTES
            if len(self._cuts) >= self._estimator.batch_size or (self._cuts and is_heavy):
                self._begin()
            elif self._flights and is_heavy and self._jobs[0].open_persons:  # until a picture can be let go
                self._take_oldest()
            else:
                return

    def run_on(self) -> None:
        """Begin what there is as long as a stream has nothing to do, and take the oldest answer."""
        while self._cuts and len(self._flights) < self._estimator.streams:
            self._begin()
        self._take_oldest()

    def admit(self, job: _Job) -> None:
        self._jobs.append(job)
        self._cuts.extend(job.cuts)
        job.cuts = []
        self._held_bytes += job.held_bytes

    def _begin(self) -> None:
        """Run the model on as many waiting crops as a batch holds, once fewer batches than allowed are under way."""
        if len(self._flights) >= self._most_flights:
            self._take_oldest()
        batch = [self._cuts.popleft() for _ in range(min(len(self._cuts), self._estimator.batch_size))]
        crops, transforms = [cut.crop for cut in batch], [cut.transform for cut in batch]
        answer = self._pool.submit(self._estimator.predict_batch, crops, transforms)
        self._flights.append(_Flight(batch, answer))

    def _take_oldest(self) -> None:
        flight = self._flights.popleft()
        keypoints, output = flight.answer.result()
        for row, cut in enumerate(flight.cuts):
            self._take(cut, keypoints[row], output, row)

    def finished(self) -> Iterator[ImageResult]:
        """Yield the results of the oldest pictures as far as all their people are done."""
        while self._jobs and not self._jobs[0].open_persons:
            job = self._jobs.popleft()
            self._held_bytes -= job.held_bytes
            yield self._result(job)

    def _take(self, cut: _Cut, joints: NDArray[np.float64], output: ModelOutput, row: int) -> None:
        job = cut.job
        is_best = job.search is None or job.search.record(joints)
        if is_best:
            job.keypoints[cut.person] = joints
            if self._keep_heatmaps:
                job.views[cut.person] = _view(cut.crop, output, row)
        if job.search is None or job.search.is_over:
            job.open_persons -= 1
        else:
            self._cuts.append(self._next_cut(cut, job.search.box_xyxy))

    def _next_cut(self, cut: _Cut, box_xyxy: FloatArray) -> _Cut:
        job, contract = cut.job, self._estimator.contract
        if job.reduction > 1 and _crop_scale(box_xyxy, contract) * job.reduction > MAX_REDUCED_SCALE:
            self._read_whole(job)
        assert job.image is not None  # kept for as long as a search goes on
        crop, transform = crop_person(job.image, box_xyxy, contract=contract, reduction=job.reduction)
        return _Cut(job, cut.person, crop, transform)

    def _read_whole(self, job: _Job) -> None:
        """Read a picture again, because the person found on its reduction is small; keep that if it is gone."""
        assert job.path is not None
        try:
            read = read_picture(job.path, wanted_reduction=lambda _: 1)
        except ImageReadError as error:
            logger.warning("%s: is judged at 1/%d of its size", error, job.reduction)
            return
        if read.size != job.size:
            logger.warning("%s has changed while it was read: is judged as it was, at 1/%d", job.path, job.reduction)
            return
        self._held_bytes += read.pixels.nbytes - job.held_bytes
        job.image, job.reduction = read.pixels, 1

    def _result(self, job: _Job) -> ImageResult:
        boxes = job.boxes_xyxy if job.search is None else job.search.joints_box_xyxy[None]
        return ImageResult(
            path=job.path,
            poses=None if job.size is None else self._poses(job.keypoints, boxes, job.size),
            person_ids=job.person_ids,
            image_id=job.image_id,
            problems=tuple(job.problems),
            is_in_box_file=job.is_in_box_file,
            image=job.image if self._keep_images else None,
            views=tuple(job.views[person] for person in sorted(job.views)),
        )

    def _poses(self, keypoints: NDArray[np.float64], boxes: FloatArray, size: ImageSize) -> Poses:
        if not len(keypoints):
            return Poses.empty(size, self._estimator.contract.keypoints)
        return self._estimator.poses(keypoints, boxes, image_size=size)


def _view(crop: ImageArray, output: ModelOutput, row: int) -> PersonView:
    assert output.heatmaps is not None  # the contract promises them; checked before the walk
    return PersonView(crop, output.heatmaps[row].copy())


@contextmanager
def single_threaded_opencv() -> Iterator[None]:
    """Keep OpenCV to one thread a call while pictures themselves are spread over threads."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
