"""Buckets, padding and bindings with a stand-in for the session; no GPU is needed, and none has run this yet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lbkit.runtime import cuda_graphs
from lbkit.runtime.cuda_graphs import BATCH_BUCKETS, GraphRunner, bucket_of


class FakeValue:
    """A tensor on the GPU."""

    made = 0

    def __init__(self, shape: list[int], dtype: Any, device: str, number: int) -> None:
        assert (device, number) == ("cuda", 0)
        type(self).made += 1
        self.array = np.full(shape, 99, dtype)

    def update_inplace(self, data: np.ndarray) -> None:
        assert data.shape == self.array.shape
        self.array[:] = data

    def numpy(self) -> np.ndarray:
        return self.array.copy()


class FakeSession:
    """Puts out each crop's sum and its negative; notes the graph of each run."""

    def __init__(self) -> None:
        self.graphs: list[str] = []

    def io_binding(self) -> SimpleNamespace:
        bound: dict[str, FakeValue] = {}
        bind = bound.__setitem__
        return SimpleNamespace(bound=bound, bind_ortvalue_input=bind, bind_ortvalue_output=bind)

    def run_with_iobinding(self, binding: SimpleNamespace, options: SimpleNamespace) -> None:
        self.graphs.append(options.entries["gpu_graph_id"])
        sums = binding.bound["images"].array.reshape(len(binding.bound["images"].array), -1).sum(axis=1)
        binding.bound["heatmaps"].array[:] = sums[:, None]
        binding.bound["keypoints"].array[:] = -1.0 * sums[:, None, None]


def run_options() -> SimpleNamespace:
    entries: dict[str, str] = {}
    return SimpleNamespace(entries=entries, add_run_config_entry=entries.__setitem__)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    FakeValue.made = 0
    value = SimpleNamespace(ortvalue_from_shape_and_type=FakeValue)
    monkeypatch.setattr(
        cuda_graphs, "import_onnxruntime", lambda: SimpleNamespace(OrtValue=value, RunOptions=run_options)
    )
    return FakeSession()


def no_driver(name: str) -> Any:
    raise OSError(name)


def runner(session: FakeSession, load: Any = no_driver) -> GraphRunner:
    shapes: dict[str, tuple[int, ...]] = {"heatmaps": (5,), "keypoints": (2, 3)}
    return GraphRunner(session, input_name="images", output_shapes=shapes, load=load)


@pytest.mark.parametrize(("count", "bucket"), [(1, 1), (2, 2), (3, 4), (5, 8), (33, 64), (64, 64), (65, 64)])
def test_the_smallest_bucket_that_holds_them(count: int, bucket: int) -> None:
    assert bucket_of(count) == bucket


def feed(count: int) -> np.ndarray:
    return np.arange(1, count + 1, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)


@pytest.mark.parametrize("count", [1, 3, 64, 65, 130])
def test_padding_never_shows(session: FakeSession, count: int) -> None:
    graphs = runner(session)
    graphs.run(feed(count)[::-1])  # what is left in the buffers must not matter
    heatmaps, keypoints = graphs.run(feed(count))
    assert (heatmaps.shape, keypoints.shape) == ((count, 5), (count, 2, 3))
    np.testing.assert_array_equal(heatmaps[:, 0], 4.0 * np.arange(1, count + 1))
    np.testing.assert_array_equal(keypoints[:, 1, 2], -4.0 * np.arange(1, count + 1))


def test_one_graph_and_one_set_of_buffers_a_bucket(session: FakeSession) -> None:
    graphs = runner(session)
    for count in (3, 4, 3, 1, 130):
        graphs.run(feed(count))
    assert session.graphs == ["4", "4", "4", "1", "64", "64", "2"]
    assert FakeValue.made == 3 * 4  # input and two outputs for the buckets 1, 2, 4 and 64


def test_answers_stay_when_the_next_batch_runs(session: FakeSession) -> None:
    graphs = runner(session)
    (first, _) = graphs.run(feed(2))
    graphs.run(feed(2)[::-1])
    np.testing.assert_array_equal(first[:, 0], [4, 8])


def test_host_buffers_are_page_locked_where_the_driver_allows(session: FakeSession) -> None:
    locked: list[int] = []
    driver = SimpleNamespace(cuMemHostRegister_v2=lambda *given: locked.append(given[1].value) or 0)
    runner(session, lambda _: driver).run(feed(3))
    assert locked == [4 * 2 * 2]
    refusing = SimpleNamespace(cuMemHostRegister_v2=lambda *_: 201)
    (heatmaps, _) = runner(session, lambda _: refusing).run(feed(3))
    np.testing.assert_array_equal(heatmaps[:, 0], [4, 8, 12])


def test_buckets_rise() -> None:
    assert list(BATCH_BUCKETS) == sorted(set(BATCH_BUCKETS))
    assert BATCH_BUCKETS[0] == 1
