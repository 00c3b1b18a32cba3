from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

import lbkit.core.pipeline as pipeline
from lbkit.core.backend import ModelOutput
from lbkit.core.box_files import BoxTable, ImageBoxes, PersonBox
from lbkit.core.contract import ModelContract
from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import ImageSize
from lbkit.core.images import Picture, read_image, read_picture, write_image
from lbkit.core.overlays import PictureFolder, draw_results
from lbkit.core.pipeline import default_readers, map_ahead, run_inference
from lbkit.core.results import ImageResult
from lbkit.core.search import MAX_SEARCHES, PersonSearch
from lbkit.core.threads import thread_limits
from lbkit.errors import AnnotationError, BoxError, ImageReadError, InputError, ModelError, ModelMemoryError

WEIGHTS = np.array([[2, -1, -1], [-1, 2, -1], [-1, -1, 2], [1, 1, -2], [-2, 1, 1], [1, -2, 1]]) / 2


class Spots:
    """A backend whose joint k peaks where colour k is; it notes the size of each batch."""

    def __init__(self, contract: ModelContract) -> None:
        self.contract = contract
        self.batches: list[int] = []

    def run(self, crops: np.ndarray) -> ModelOutput:
        self.batches.append(len(crops))
        cells = crops.astype(np.float32).reshape(len(crops), 64, 4, 48, 4, 3).mean(axis=(2, 4)) / 255
        return ModelOutput(np.moveaxis(cells @ WEIGHTS.T.astype(np.float32), 3, 1), None)


@pytest.fixture
def spots(toys: ModuleType) -> Spots:
    return Spots(toys.toy_contract())


def legs(size: ImageSize, *, left: float = 0.3, top: float = 0.4) -> np.ndarray:
    """(6, 2) joints of someone standing in a picture."""
    shape = np.array([[0.3, 0], [0, 0.01], [0.32, 0.22], [0.02, 0.24], [0.31, 0.45], [0.03, 0.47]])
    return (shape + np.array([left, top])) * [size.width, size.height]


@pytest.fixture
def photos(tmp_path: Path, toys: ModuleType) -> list[Path]:
    """Six pictures of different sizes, each with the six spots at places of its own."""
    paths = []
    for number in range(6):
        size = ImageSize(260 + 20 * number, 170 + 10 * number)
        joints = legs(size, left=0.25 + 0.02 * number)
        paths.append(tmp_path / f"{number}.png")
        write_image(paths[-1], toys.spotted_image(size, joints, spread_px=5, background=60))
    return paths


def expected(number: int) -> np.ndarray:
    return legs(ImageSize(260 + 20 * number, 170 + 10 * number), left=0.25 + 0.02 * number)


def table(counts: Sequence[int]) -> BoxTable:
    """A box file with so many boxes on each of the pictures, all about the same person."""
    entries = {}
    for number, count in enumerate(counts):
        left, top = expected(number).min(axis=0) - 30
        right, bottom = expected(number).max(axis=0) + 30
        boxes = [PersonBox((left - n, top, right + n, bottom), f"line {n + 2}", 100 + n) for n in range(count)]
        entries[f"{number}.png"] = ImageBoxes(tuple(boxes), image_id=number)
    return BoxTable(Path("boxes.csv"), entries)


@pytest.mark.parametrize("boxes", ["whole", "auto"])
def test_every_joint_comes_back_where_it_is(spots: Spots, photos: list[Path], boxes: str) -> None:
    results = list(run_inference(photos, PoseEstimator(spots, batch_size=4), boxes=boxes))  # type: ignore[arg-type]
    assert [result.path for result in results] == photos
    for number, result in enumerate(results):
        assert result.poses is not None
        np.testing.assert_allclose(result.poses.xy[0], expected(number), atol=0.6)
        assert result.problems == ()
        assert result.image is None


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_batches_do_not_change_what_is_found(spots: Spots, photos: list[Path], batch_size: int) -> None:
    estimator = PoseEstimator(spots, batch_size=batch_size)
    for path, result in zip(photos, run_inference(photos, estimator), strict=True):
        alone = PoseEstimator(spots)(read_image(path))
        assert result.poses is not None
        np.testing.assert_array_equal(result.poses.xy, alone.xy)
        np.testing.assert_array_equal(result.poses.boxes_xyxy, alone.boxes_xyxy)
    together = estimator.find_persons([read_image(path) for path in photos])
    alone_xy = [PoseEstimator(spots).find_person(read_image(path)).xy for path in photos]
    np.testing.assert_array_equal([poses.xy for poses in together], alone_xy)


def test_batches_run_over_people_not_pictures(spots: Spots, photos: list[Path]) -> None:
    boxes = table([3, 0, 4, 1, 6, 1])
    results = list(run_inference(photos, PoseEstimator(spots, batch_size=4), boxes=boxes))
    assert spots.batches == [4, 4, 4, 3]
    assert [len(result.poses) for result in results if result.poses is not None] == [3, 0, 4, 1, 6, 1]
    for number, result in enumerate(results):
        assert result.poses is not None
        assert result.person_ids == tuple(100 + n for n in range(len(result.poses)))
        assert result.image_id == number
        np.testing.assert_allclose(result.poses.xy, np.broadcast_to(expected(number), result.poses.xy.shape), atol=0.6)
        widths = result.poses.boxes_xyxy[:, 2] - result.poses.boxes_xyxy[:, 0]
        assert all(after - before == pytest.approx(2, abs=1e-3) for before, after in pairwise(widths))


def test_batches_run_side_by_side_in_streams(spots: Spots, photos: list[Path]) -> None:
    both = threading.Barrier(2, timeout=10)
    run = spots.run

    def run_two_at_once(crops: np.ndarray) -> ModelOutput:
        both.wait()
        return run(crops)

    one_by_one = list(run_inference(photos, PoseEstimator(spots, batch_size=1), boxes="whole"))
    spots.run = run_two_at_once  # type: ignore[method-assign]
    results = list(run_inference(photos, PoseEstimator(spots, batch_size=1, streams=2), boxes="whole"))
    assert [result.path for result in results] == photos
    for result, alone in zip(results, one_by_one, strict=True):
        np.testing.assert_array_equal(result.poses.xy, alone.poses.xy)  # type: ignore[union-attr]


@pytest.mark.parametrize("streams", [1, 3])
def test_which_people_share_a_batch_does_not_depend_on_chance(spots: Spots, photos: list[Path], streams: int) -> None:
    shared: list[list[list[bytes]]] = []
    for seed in range(3):
        chance, begun = np.random.default_rng(seed), []
        estimator = PoseEstimator(spots, batch_size=4, streams=streams)

        def dawdle(crops: np.ndarray, chance: Any = chance, begun: Any = begun) -> ModelOutput:
            begun.append([crop.tobytes() for crop in crops])
            time.sleep(chance.uniform(0, 0.005))
            return Spots.run(spots, crops)

        spots.run = dawdle  # type: ignore[method-assign]
        list(run_inference(photos * 3, estimator))
        shared.append(sorted(begun))
    assert shared[0] == shared[1] == shared[2]


def test_a_fault_in_one_stream_ends_the_walk_and_its_threads(spots: Spots, photos: list[Path]) -> None:
    run, runs = spots.run, itertools.count(1)

    def break_at_the_third(crops: np.ndarray) -> ModelOutput:
        if next(runs) == 3:
            raise ModelError("the third fails")
        return run(crops)

    spots.run = break_at_the_third  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="the third fails"):
        list(run_inference(photos * 5, PoseEstimator(spots, batch_size=1, streams=2), boxes="whole"))
    assert len(spots.batches) < 10
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("lbkit-stream")]


def test_searches_share_batches_round_by_round(spots: Spots, photos: list[Path]) -> None:
    PoseEstimator(spots, batch_size=3).find_persons([read_image(path) for path in photos])
    direct, spots.batches = spots.batches, []
    list(run_inference(photos, PoseEstimator(spots, batch_size=3)))
    assert sum(spots.batches) == sum(direct)
    assert len(photos) < sum(direct) <= MAX_SEARCHES * len(photos)
    assert spots.batches[:-1].count(3) >= len(spots.batches) - 2, "batches are full until the pictures run out"


def test_what_cannot_be_read_stands_in_its_place(spots: Spots, photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    inputs = [tmp_path / "none.jpg", photos[0], InputError("no picture", where="x"), tmp_path / "cut.jpg", photos[1]]
    results = list(run_inference(inputs, PoseEstimator(spots)))
    assert [result.poses is not None for result in results] == [False, True, False, False, True]
    assert [type(problem) for result in results for problem in result.problems] == [
        ImageReadError,
        InputError,
        ImageReadError,
    ]
    assert results[2].path is None
    assert results[3].path == tmp_path / "cut.jpg"


def test_unusable_boxes_are_each_reported_and_the_others_delivered(spots: Spots, photos: list[Path]) -> None:
    good = table([1]).find(Path("0.png"))
    assert good is not None
    bad = [(5, 5, 5, 90), (900, 10, 990, 60), (float("nan"), 1, 2, 3), (0, 0, float("inf"), 9), (0, 0, 1e9, 5)]
    boxes = [PersonBox(xyxy, f"line {n + 2}", n) for n, xyxy in enumerate(bad)]
    entry = ImageBoxes((*boxes[:2], *good.boxes, *boxes[2:]), problems=("annotation 9 of x: no box",))
    (result,) = run_inference(photos[:1], PoseEstimator(spots), boxes=BoxTable(Path("d/boxes.csv"), {"0.png": entry}))
    assert result.poses is not None
    assert result.person_ids == (100,)
    np.testing.assert_allclose(result.poses.xy[0], expected(0), atol=0.6)
    annotation, *others = result.problems
    assert isinstance(annotation, AnnotationError)
    assert [type(problem) for problem in others] == [BoxError] * 5
    for number, (problem, words) in enumerate(
        zip(others, ["no area", "outside", "not a finite", "not a finite", "beyond any picture"], strict=True), start=2
    ):
        assert str(problem).startswith(f"{photos[0]}: line {number} of boxes.csv: box (")
        assert words in str(problem)


def test_a_picture_that_the_box_file_does_not_name_is_empty(spots: Spots, photos: list[Path]) -> None:
    results = list(run_inference(photos[:3], PoseEstimator(spots), boxes=table([1, 0])))
    assert [len(result.poses) for result in results if result.poses is not None] == [1, 0, 0]
    assert [result.is_in_box_file for result in results] == [True, True, False]


def test_the_smallest_picture_is_no_trouble(spots: Spots, tmp_path: Path) -> None:
    write_image(tmp_path / "8.png", np.full((8, 9, 3), 7, np.uint8))
    for boxes in ("whole", "auto"):
        (result,) = run_inference([tmp_path / "8.png"], PoseEstimator(spots), boxes=boxes)  # type: ignore[arg-type]
        assert result.poses is not None
        assert np.isfinite(result.poses.xy).all()


def test_pictures_and_heatmaps_are_kept_when_asked(spots: Spots, photos: list[Path]) -> None:
    estimator = PoseEstimator(spots, batch_size=4)
    for boxes in (table([1, 3]), "auto"):
        results = list(run_inference(photos[:2], estimator, boxes=boxes, keep_images=True, keep_heatmaps=True))  # type: ignore[arg-type]
        for path, result in zip(photos, results, strict=False):
            np.testing.assert_array_equal(result.image, read_image(path))
            assert result.poses is not None
            assert len(result.views) == len(result.poses)
            for person, view in enumerate(result.views):
                again = estimator.backend.run(view.crop[None]).heatmaps
                np.testing.assert_array_equal(view.heatmaps, again[0])  # type: ignore[index]
                np.testing.assert_allclose(view.heatmaps.max(axis=(1, 2)), result.poses.scores[person], atol=1e-6)


def test_a_model_without_heatmaps_cannot_give_them(toys: ModuleType, photos: list[Path]) -> None:
    backend = Spots(toys.toy_contract(outputs=("keypoints",), decoder="argmax"))
    with pytest.raises(ModelError, match=r"no heatmaps; .*--keep-heatmaps"):
        next(run_inference(photos, PoseEstimator(backend), keep_heatmaps=True))


def test_numbers_that_are_not_finite_are_never_delivered(spots: Spots, photos: list[Path]) -> None:
    spots.run = lambda crops: ModelOutput(np.full((len(crops), 6, 64, 48), np.nan, np.float32), None)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="not finite"):
        list(run_inference(photos, PoseEstimator(spots)))


def test_reading_goes_on_while_the_model_runs(
    spots: Spots, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_during_run = threading.Event()
    running = threading.Event()

    def read_and_note(path: Path, **options: Any) -> Picture:
        if path == photos[5]:
            running.wait(timeout=10)
            read_during_run.set()
        return read_picture(path, **options)

    run = spots.run

    def wait_for_a_reader(crops: np.ndarray) -> ModelOutput:
        running.set()
        assert read_during_run.wait(timeout=10), "no picture was read while the model ran"
        return run(crops)

    spots.run = wait_for_a_reader  # type: ignore[method-assign]
    monkeypatch.setattr(pipeline, "read_picture", read_and_note)
    assert len(list(run_inference(photos, PoseEstimator(spots, batch_size=3), boxes="whole", readers=2))) == 6


@pytest.mark.parametrize(("held_bytes", "most_ahead"), [(2**30, 2 + 4 + 4 + 2 * 4 + 1), (1, 2 + 4 + 1)])
def test_only_so_many_pictures_are_taken_ahead(
    spots: Spots, photos: list[Path], monkeypatch: pytest.MonkeyPatch, held_bytes: int, most_ahead: int
) -> None:
    monkeypatch.setattr(pipeline, "HELD_BYTES", held_bytes)
    drawn = 0

    def endless() -> Iterator[Path]:
        nonlocal drawn
        while True:
            drawn += 1
            yield photos[drawn % 6]

    walk = run_inference(endless(), PoseEstimator(spots, batch_size=4), boxes="whole", keep_images=True, readers=2)
    for taken in range(1, 40):
        next(walk)
        assert drawn - taken <= most_ahead
    walk.close()


def test_large_pictures_run_before_their_batch_is_full(
    spots: Spots, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "HELD_BYTES", 1)
    results = list(run_inference(photos, PoseEstimator(spots, batch_size=64), boxes="whole", keep_images=True))
    assert spots.batches == [1] * 6
    assert len(results) == 6


def test_pictures_given_back_make_room_for_others(
    spots: Spots, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "HELD_BYTES", 400_000)  # the first three pictures exceed it, then the next two
    list(run_inference(photos, PoseEstimator(spots, batch_size=64), boxes="whole", keep_images=True))
    assert spots.batches == [3, 2, 1]


def test_a_search_that_gets_worse_keeps_its_best_round(spots: Spots, photos: list[Path]) -> None:
    run = spots.run

    def fading(crops: np.ndarray) -> ModelOutput:
        heatmaps = run(crops).heatmaps
        assert heatmaps is not None
        return ModelOutput(heatmaps * np.float32(0.5 ** len(spots.batches)), None)

    spots.run = fading  # type: ignore[method-assign]
    (result,) = run_inference(photos[:1], PoseEstimator(spots), keep_heatmaps=True)
    assert len(spots.batches) > 1
    assert result.poses is not None
    np.testing.assert_array_equal(result.poses.boxes_xyxy, [[0, 0, 170, 260]])
    np.testing.assert_allclose(result.views[0].heatmaps.max(axis=(1, 2)), result.poses.scores[0], atol=1e-6)
    assert result.poses.scores[0].max() > 0.3


def test_opencv_s_threads_and_ours_are_put_back_also_after_a_break(spots: Spots, photos: list[Path]) -> None:
    cv2.setNumThreads(2)
    before = cv2.getNumThreads(), threading.active_count()
    walk = run_inference(photos, PoseEstimator(spots, batch_size=1))
    next(walk)
    assert cv2.getNumThreads() == 1
    walk.close()
    assert (cv2.getNumThreads(), threading.active_count()) == before


def test_map_ahead_keeps_the_order_and_stops_early() -> None:
    gate = threading.Event()
    begun: list[int] = []

    def slow_first(number: int) -> int:
        begun.append(number)
        if number == 0:
            gate.wait(timeout=10)
        elif number == 2:
            gate.set()
        return number * number

    with ThreadPoolExecutor(2) as pool:
        assert list(map_ahead(pool, slow_first, range(5), ahead=lambda: 3)) == [0, 1, 4, 9, 16]


def test_map_ahead_gives_up_what_has_not_begun_when_it_is_closed() -> None:
    gate, begun = threading.Event(), threading.Semaphore(0)
    done: list[int] = []

    def wait_after_the_first(number: int) -> int:
        begun.release()
        if number:
            gate.wait(timeout=10)
        done.append(number)
        return number

    with ThreadPoolExecutor(1) as pool:
        walk = map_ahead(pool, wait_after_the_first, range(1000), ahead=lambda: 3)
        assert next(walk) == 0
        assert begun.acquire(timeout=10)
        assert begun.acquire(timeout=10)
        walk.close()
        gate.set()
    assert done == [0, 1]


def test_there_is_at_least_one_reader() -> None:
    assert default_readers() == min(thread_limits().threads, pipeline.MAX_READERS)


def search_with(scores: Sequence[float], spreads: Sequence[float]) -> PersonSearch:
    """A search told so many rounds, each of legs of one spread about the same place."""
    search = PersonSearch(ImageSize(400, 300))
    for score, spread in zip(scores, spreads, strict=True):
        assert not search.is_over
        joints = (legs(ImageSize(400, 300)) - [150, 200]) * spread + [150, 200]
        search.record(np.column_stack([joints, np.full(6, score)]))
    return search


def test_the_best_round_of_a_search_wins() -> None:
    search = search_with([0.3, 0.9, 0.5], [1.0, 0.6, 1.0])
    assert search.is_over
    assert search.joints[0, 2] == 0.9
    first_box = search_with([0.3], [1.0]).box_xyxy
    np.testing.assert_array_equal(search.joints_box_xyxy, first_box)


def test_a_search_ends_when_its_box_has_settled() -> None:
    search = search_with([0.3, 0.4], [1.0, 1.0])
    assert search.is_over
    assert search.joints[0, 2] == 0.4


def overlay_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_drawings_keep_the_stem_and_number_what_would_collide(spots: Spots, photos: list[Path], tmp_path: Path) -> None:
    twins = [tmp_path / "a" / "1.png", tmp_path / "b" / "1.png", tmp_path / "c" / "1-2.png", tmp_path / "d" / "1.PNG"]
    for number, twin in enumerate(twins):
        write_image(twin, read_image(photos[number]))
    out = tmp_path / "out"
    for _ in range(2):
        results = run_inference(twins, PoseEstimator(spots), boxes="whole", keep_images=True)
        drawn = list(draw_results(results, overlays=PictureFolder(out, force=True)))
        assert [result.problems for result in drawn] == [()] * 4
        assert overlay_names(out) == ["1-2-2.jpg", "1-2.jpg", "1-3.jpg", "1.jpg"]
    for name, twin in zip(["1.jpg", "1-2.jpg", "1-2-2.jpg", "1-3.jpg"], twins, strict=True):
        assert read_image(out / name).shape == read_image(twin).shape


def test_drawings_show_the_joints_and_the_results_let_go_of_the_pixels(
    spots: Spots, photos: list[Path], tmp_path: Path
) -> None:
    results = run_inference(photos[:2], PoseEstimator(spots), boxes=table([1, 2]), keep_images=True, keep_heatmaps=True)
    folders = {
        "overlays": PictureFolder(tmp_path / "o", force=False),
        "panels": PictureFolder(tmp_path / "p", force=False),
    }
    drawn = list(draw_results(results, min_score=0.0, **folders))
    assert [(result.image, result.views) for result in drawn] == [(None, ())] * 2
    assert overlay_names(tmp_path / "o") == ["0.jpg", "1.jpg"]
    assert overlay_names(tmp_path / "p") == ["0.jpg", "1-person1.jpg", "1-person2.jpg"]
    overlay = read_image(tmp_path / "o" / "0.jpg").astype(int)
    changed = np.abs(overlay - read_image(photos[0])).sum(axis=2) > 100
    for x, y in np.round(expected(0)).astype(int):
        assert changed[y - 2 : y + 3, x - 2 : x + 3].any()
    assert changed.mean() < 0.2


def test_an_existing_drawing_is_a_problem_of_its_picture_alone(
    spots: Spots, photos: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "1.jpg").write_text("mine")

    def draw(*, force: bool) -> list[ImageResult]:
        results = run_inference(photos[:3], PoseEstimator(spots), keep_images=True)
        return list(draw_results(results, overlays=PictureFolder(tmp_path / "out", force=force)))

    assert [len(result.problems) for result in draw(force=False)] == [0, 1, 0]
    assert (tmp_path / "out" / "1.jpg").read_text() == "mine"
    assert [len(result.problems) for result in draw(force=True)] == [0, 0, 0]
    assert read_image(tmp_path / "out" / "1.jpg").shape == read_image(photos[1]).shape


def test_nothing_is_drawn_into_the_folder_of_the_sources(spots: Spots, photos: list[Path], tmp_path: Path) -> None:
    write_image(tmp_path / "0.jpg", read_image(photos[0]))
    before = (tmp_path / "0.jpg").read_bytes()
    results = run_inference([tmp_path / "0.jpg"], PoseEstimator(spots), keep_images=True)
    (result,) = draw_results(results, overlays=PictureFolder(tmp_path / "x" / "..", force=True))
    assert "folder of its own" in str(result.problems[0])
    assert (tmp_path / "0.jpg").read_bytes() == before


def large_jpeg(toys: ModuleType, path: Path, size: ImageSize, joints: np.ndarray) -> Path:
    write_image(path, toys.spotted_image(size, joints, spread_px=12, background=60))
    return path


@pytest.fixture
def reductions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How far each picture that is read was reduced."""
    seen: list[int] = []
    monkeypatch.setattr(pipeline, "SEARCHED_SHARE", 0.9)  # so that pictures need not be of 12 megapixels

    def read_and_note(path: Path, **options: Any) -> Picture:
        picture = read_picture(path, **options)
        seen.append(picture.reduction)
        return picture

    monkeypatch.setattr(pipeline, "read_picture", read_and_note)
    return seen


@pytest.mark.parametrize(
    ("boxes", "size"),
    [("whole", ImageSize(901, 677)), ("table", ImageSize(1001, 753)), ("auto", ImageSize(1001, 753))],
)
def test_a_large_jpeg_is_read_reduced_and_the_joints_stay_where_they_are(
    spots: Spots, toys: ModuleType, tmp_path: Path, reductions: list[int], size: ImageSize, boxes: str
) -> None:
    """A quarter of the picture's pixels are seen along each axis, and half a reduced pixel off would be 1.5 px."""
    joints = legs(size)
    path = large_jpeg(toys, tmp_path / "large.jpg", size, joints)
    box = PersonBox((40.0, 30.0, size.width - 20.0, size.height - 10.0), "line 2", None)
    plan: Any = BoxTable(Path("b.csv"), {path.name: ImageBoxes((box,))}) if boxes == "table" else boxes
    estimator = PoseEstimator(spots)
    (reduced,) = run_inference([path], estimator, boxes=plan)
    (whole,) = run_inference([path], estimator, boxes=plan, keep_images=True)
    assert reductions[0] > 1
    assert reductions[-1] == 1, "a picture that is kept is kept whole"
    assert reduced.poses is not None
    assert whole.poses is not None
    assert reduced.poses.image_size == whole.poses.image_size == size
    input_px = size.height * 1.25 / 256
    np.testing.assert_allclose(reduced.poses.xy, whole.poses.xy, atol=0.12 * input_px)
    np.testing.assert_allclose(reduced.poses.xy[0], joints, atol=0.35 * input_px)


def test_a_small_person_on_a_large_picture_is_seen_whole(
    spots: Spots, toys: ModuleType, tmp_path: Path, reductions: list[int]
) -> None:
    size = ImageSize(1000, 750)
    near = legs(ImageSize(400, 300)) + np.array([300, 400])
    path = tmp_path / "far.jpg"
    write_image(path, toys.spotted_image(size, near, spread_px=5, background=60))
    box = np.concatenate([near.min(axis=0) - 40, near.max(axis=0) + 40])
    table = BoxTable(Path("b.csv"), {path.name: ImageBoxes((PersonBox(tuple(box), "line 2", None),))})
    (result,) = run_inference([path], PoseEstimator(spots), boxes=table)
    assert reductions == [1]
    (searched,) = run_inference([path], PoseEstimator(spots), boxes="auto")
    assert reductions == [1, 2, 1], "read again when the search comes near"
    for found in (result, searched):
        assert found.poses is not None
        np.testing.assert_allclose(found.poses.xy[0], near, atol=1.5)


@pytest.mark.parametrize("goes", [True, False])
def test_a_picture_that_goes_or_changes_during_its_search_is_judged_as_it_was(
    spots: Spots, toys: ModuleType, tmp_path: Path, reductions: list[int], caplog: pytest.LogCaptureFixture, goes: bool
) -> None:
    size = ImageSize(1000, 750)
    path = tmp_path / "far.jpg"
    near = legs(ImageSize(400, 300)) + np.array([300, 400])
    write_image(path, toys.spotted_image(size, near, spread_px=5, background=60))
    run = spots.run

    def run_and_remove(crops: np.ndarray) -> ModelOutput:
        path.unlink(missing_ok=True)
        if not goes:
            write_image(path, np.zeros((30, 40, 3), np.uint8))
        return run(crops)

    spots.run = run_and_remove  # type: ignore[method-assign]
    (result,) = run_inference([path], PoseEstimator(spots))
    assert result.poses is not None
    assert ("judged at 1/2 of its size" if goes else "has changed while it was read") in caplog.text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("a fault\nof ours"), r"cannot be used \(RuntimeError: a fault of ours\)"),
        (cv2.error("bad"), r"cannot be used \(error: bad\)"),
        (MemoryError(), "does not fit into memory"),
    ],
)
def test_a_fault_on_one_picture_leaves_the_others(
    spots: Spots, photos: list[Path], monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fail_once(path: Path, **options: Any) -> Picture:
        if path == photos[1]:
            raise error
        return read_picture(path, **options)

    monkeypatch.setattr(pipeline, "read_picture", fail_once)
    results = list(run_inference(photos[:3], PoseEstimator(spots), boxes="whole"))
    assert [result.poses is not None for result in results] == [True, False, True]
    (problem,) = results[1].problems
    assert isinstance(problem, ImageReadError)
    assert re.search(words, str(problem))


def test_a_batch_that_does_not_fit_is_halved(
    spots: Spots, photos: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    run = spots.run

    def run_three_at_most(crops: np.ndarray) -> ModelOutput:
        if len(crops) > 3:
            raise ModelMemoryError("out of memory", where="toy.onnx")
        return run(crops)

    spots.run = run_three_at_most  # type: ignore[method-assign]
    results = list(run_inference(photos, PoseEstimator(spots, batch_size=6), boxes=table([3, 2, 4, 1, 1, 1])))
    assert spots.batches == [3, 3, 3, 3]
    assert caplog.text.count("out of memory with a batch of 6: going on with 3") == 1
    for number, result in enumerate(results):
        assert result.poses is not None
        np.testing.assert_allclose(result.poses.xy, np.broadcast_to(expected(number), result.poses.xy.shape), atol=0.6)


def test_a_crop_that_does_not_fit_beside_others_runs_alone(spots: Spots, photos: list[Path]) -> None:
    """Memory for one run: the second of two side by side fails, and succeeds when nothing else runs."""
    run, lock, inside = spots.run, threading.Lock(), 0
    failures = 0

    def run_one_at_a_time(crops: np.ndarray) -> ModelOutput:
        nonlocal inside, failures
        with lock:
            if inside:
                failures += 1
                raise ModelMemoryError("out of memory")
            inside += 1
        try:
            time.sleep(0.02)
            return run(crops)
        finally:
            with lock:
                inside -= 1

    spots.run = run_one_at_a_time  # type: ignore[method-assign]
    results = list(run_inference(photos * 2, PoseEstimator(spots, batch_size=1, streams=2), boxes="whole"))
    assert failures
    assert all(result.poses is not None and len(result.poses) == 1 for result in results)
