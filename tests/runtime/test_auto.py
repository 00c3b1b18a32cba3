"""`--provider auto`: what agrees and is faster is taken, and remembered."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lbkit.core.backend import ModelOutput
from lbkit.core.estimator import PoseEstimator
from lbkit.errors import ModelNotFoundError, ProviderError
from lbkit.runtime import auto, choices
from lbkit.runtime.agreement import TOLERANCES, disagreement, person_crops, sample_crops
from lbkit.runtime.backends import load_backend
from lbkit.runtime.choices import Circumstances, choices_file, recall, remember


class Toy:
    """A backend that answers with constant maps after a while."""

    def __init__(
        self, contract: Any, provider: str, *, seconds: float = 0.0, shift: float = 0.0, streams: int = 1
    ) -> None:
        self.contract, self.provider, self.streams = contract, provider, streams
        self.seconds, self.shift = seconds, shift
        self.runs = 0

    def run(self, crops: np.ndarray) -> ModelOutput:
        self.runs += 1
        time.sleep(self.seconds)
        heatmaps = np.zeros((len(crops), 6, 64, 48), np.float32)
        heatmaps[:, :, 20, 30] = 1.0
        return ModelOutput(heatmaps + np.float32(self.shift), None)


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LBKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, toys: ModuleType) -> Callable[..., list[str]]:
    """Set what providers this machine has; the list returned names each load."""

    def set_up(**providers: Any) -> list[str]:
        loaded: list[str] = []

        def load(path: Path, *, provider: str, threads: int | None, streams: int | None) -> Toy:
            loaded.append(provider)
            found = providers[provider]
            if isinstance(found, Exception):
                raise found
            return Toy(toys.toy_contract(), provider, **found)

        monkeypatch.setattr(auto, "load_on", load)
        monkeypatch.setattr(auto, "candidates", lambda: [name for name in providers if name != "cpu"])
        return loaded

    return set_up


SLOW, FAST = {"seconds": 0.02}, {"seconds": 0.002}


def test_the_fastest_is_taken_and_remembered(machine: Any, toy_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lbkit")
    loaded = machine(cpu=SLOW, openvino=FAST)
    assert auto.load_fastest(toy_model).provider == "openvino"
    assert loaded == ["cpu", "openvino"]
    assert "provider auto: openvino (cpu " in caplog.text
    assert auto.load_fastest(toy_model).provider == "openvino"
    assert loaded[2:] == ["openvino"], "the second time nothing is measured"
    assert "openvino, as chosen before" in caplog.text


def test_what_does_more_side_by_side_is_the_fastest(machine: Any, toy_model: Path) -> None:
    machine(cpu={"seconds": 0.02, "streams": 8}, cuda={"seconds": 0.006})
    assert auto.load_fastest(toy_model, streams=None).provider == "cpu"
    machine(cpu={"seconds": 0.02}, cuda={"seconds": 0.006})
    assert auto.load_fastest(toy_model).provider == "cuda", "a choice holds for the streams asked for"


def test_several_streams_leave_out_what_takes_one(
    machine: Any, toy_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = machine(cpu=SLOW | {"streams": 2}, cuda=FAST, openvino=FAST | {"streams": 2})
    assert auto.load_fastest(toy_model, streams=2).provider == "openvino"
    assert loaded == ["cpu", "openvino"]
    assert "cuda" not in caplog.text


def test_what_is_hardly_faster_is_not_taken(machine: Any, toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(cpu={}, openvino={})
    monkeypatch.setattr(auto, "time_in_turn", lambda *_: [1.0, 0.97])
    assert auto.load_fastest(toy_model).provider == "cpu"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"shift": 0.1}, "its heatmaps differ by 0.1 from the cpu's"),
        ({"shift": float("nan")}, "not finite"),
        (ProviderError("cuda cannot run here: no driver"), "no driver"),
    ],
)
def test_what_disagrees_or_fails_is_not_taken(
    machine: Any, toy_model: Path, caplog: pytest.LogCaptureFixture, other: Any, reason: str
) -> None:
    machine(cpu=SLOW, cuda=other)
    assert auto.load_fastest(toy_model).provider == "cpu"
    assert "provider auto: not cuda, because" in caplog.text
    assert reason in caplog.text


def test_a_choice_that_fails_now_is_made_again(machine: Any, toy_model: Path) -> None:
    machine(cpu=SLOW, openvino=FAST)
    auto.load_fastest(toy_model)
    loaded = machine(cpu=SLOW, openvino=ProviderError("openvino is installed but broken"))
    assert auto.load_fastest(toy_model).provider == "cpu"
    assert loaded == ["openvino", "cpu", "openvino"]


def test_what_fails_once_is_tried_again(machine: Any, toy_model: Path) -> None:
    machine(cpu=SLOW, cuda=ProviderError("cuda cannot run here: its memory is full"))
    assert auto.load_fastest(toy_model).provider == "cpu"
    machine(cpu=SLOW, cuda=FAST)
    assert auto.load_fastest(toy_model).provider == "cuda"


def test_a_missing_file_is_the_usual_error(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        load_backend(tmp_path / "none.onnx", provider="auto")


def test_really(toy_model: Path) -> None:
    """On the machine at hand: one of the candidates, with the CPU's answers, and never bfloat16 or TensorRT."""
    assert not {"openvino-bf16", "tensorrt", "cpu"} & set(auto.candidates())
    crops = np.random.default_rng(0).integers(0, 256, (2, 256, 192, 3), dtype=np.uint8)
    expected = load_backend(toy_model).run(crops).heatmaps
    for _ in range(2):
        backend = load_backend(toy_model, provider="auto")
        assert backend.provider in ("cpu", *auto.candidates())
        np.testing.assert_allclose(backend.run(crops).heatmaps, expected, atol=1e-4)  # type: ignore[arg-type]


def test_the_time_is_limited() -> None:
    calls: list[int] = []
    functions = [lambda: calls.append(0) or time.sleep(0.05), lambda: calls.append(1)]
    started = time.perf_counter()
    slow, quick = auto.time_in_turn(functions, limit_s=0.06)
    assert time.perf_counter() - started < 0.3
    assert calls == [0, 1] * 2
    assert slow >= 0.05 > quick
    auto.time_in_turn([lambda: calls.append(2)], limit_s=5)
    assert calls.count(2) == auto.MOST_ROUNDS


HERE = Circumstances("hash", "cpu", 2, None, None, "{}")


@pytest.mark.parametrize(
    "change",
    [{"model": "x"}, {"cpu": "x"}, {"threads": 1}, {"streams": 2}, {"gpu": "x"}, {"versions": '{"openvino": "1"}'}],
)
def test_a_choice_holds_for_its_circumstances_alone(change: dict[str, Any]) -> None:
    remember(HERE, "openvino")
    assert recall(HERE) == "openvino"
    assert recall(dataclasses.replace(HERE, **change)) is None


def test_circumstances_are_the_machine_s(toy_model: Path) -> None:
    here = Circumstances.here(toy_model, threads=2, streams=None)
    assert here == Circumstances.here(toy_model, threads=2, streams=None)
    assert here.cpu
    assert "lbkit" in here.versions


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}', "\0\1", "[" * 100_000, '{"KEY": "warp-drive"}'])
def test_a_damaged_file_is_ignored_and_made_again(text: str) -> None:
    choices_file().parent.mkdir(parents=True)
    choices_file().write_text(text.replace("KEY", HERE.key))
    assert recall(HERE) is None
    remember(HERE, "cpu")
    assert recall(HERE) == "cpu"


def test_the_file_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "MOST_KEPT", 3)
    each = [dataclasses.replace(HERE, threads=threads) for threads in range(1, 6)]
    for circumstances in each:
        remember(circumstances, "cpu")
    assert [recall(circumstances) for circumstances in each] == [None, None, "cpu", "cpu", "cpu"]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    remember(HERE, "cpu")
    assert recall(HERE) is None


def maps(*, x: int = 30, value: float = 1.0) -> ModelOutput:
    heatmaps = np.zeros((1, 6, 64, 48), np.float32)
    heatmaps[:, :, 20, x] = value
    return ModelOutput(heatmaps, None)


def test_agreement(toys: ModuleType) -> None:
    contract = toys.toy_contract()
    assert disagreement(maps(), maps(), contract=contract) is None
    assert disagreement(maps(value=1.00005), maps(), contract=contract) is None
    assert "heatmaps differ" in str(disagreement(maps(value=1.0005), maps(), contract=contract))
    assert disagreement(maps(value=1.02), maps(), contract=contract, arithmetic="bf16") is None
    int8 = contract.replace(precision="int8")
    assert disagreement(maps(value=1.05), maps(), contract=int8) is None
    assert "heatmaps differ" in str(disagreement(maps(x=29), maps(), contract=int8))


def test_a_remembered_choice_renders_nobody(machine: Any, toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(cpu=SLOW, openvino=FAST)
    auto.load_fastest(toy_model)
    monkeypatch.setattr(auto, "person_crops", lambda *_: pytest.fail("rendered"))
    assert auto.load_fastest(toy_model).provider == "openvino"


def test_faint_maps_are_held_to_their_own_height(toys: ModuleType) -> None:
    contract = toys.toy_contract().replace(precision="int8")
    assert disagreement(maps(value=0.1), maps(value=0.11), contract=contract) is None
    assert "heatmaps differ" in str(disagreement(maps(value=0.1), maps(value=0.15), contract=contract))


def test_one_joint_of_six_that_is_wrong_is_told(toys: ModuleType) -> None:
    """A median over the joints would not show it; heatmaps a little apart do not either, where arithmetic is coarse."""
    contract = toys.toy_contract().replace(precision="int8")
    broad, other = maps(), maps()
    assert broad.heatmaps is not None
    assert other.heatmaps is not None
    broad.heatmaps[:, 3, 20, 33], other.heatmaps[:, 3, 20, 33] = 0.95, 1.05
    assert "one joint of ten lies " in str(disagreement(other, broad, contract=contract))
    other.heatmaps[:, 3, 20, 33] = 0.95
    assert disagreement(other, broad, contract=contract) is None


def test_agreement_of_keypoints(toys: ModuleType) -> None:
    contract = toys.toy_contract(outputs=("keypoints",), decoder="argmax")
    joints = np.ones((1, 6, 3), np.float32)

    def told(change: tuple[float, float, float]) -> str:
        moved = joints + np.array(change, np.float32)
        return str(disagreement(ModelOutput(None, moved), ModelOutput(None, joints), contract=contract))

    assert told((0.0, 0.0, 0.0)) == "None"
    assert "lies 0.5 px or more from" in told((0.5, 0.0, 0.0))
    assert "scores differ by 0.01" in told((0.0, 0.0, 0.01))


@pytest.mark.parametrize("name", ["cnn", "fpn", "cnn-int8"])
def test_openvino_agrees_with_half_the_tolerance_on_rendered_people(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    path = Path(__file__).parents[2] / "exported" / f"{name}.onnx"
    cpu, other = (load_backend(path, provider=provider, threads=1) for provider in ("cpu", "openvino"))
    crops = person_crops(cpu.contract, 2)
    half = {key: dataclasses.replace(each, cells=each.cells / 2, joints_px=each.joints_px / 2)
            for key, each in TOLERANCES.items()}  # fmt: skip
    monkeypatch.setattr("lbkit.runtime.agreement.TOLERANCES", half)
    expected = cpu.run(crops)
    assert disagreement(other.run(crops), expected, contract=cpu.contract) is None
    assert "differ" in str(disagreement(other.run(crops[:, :, ::-1]), expected, contract=cpu.contract))


def test_a_network_sees_the_rendered_people(toys: ModuleType) -> None:
    path = Path(__file__).parents[2] / "exported" / "fpn.onnx"
    estimator = PoseEstimator(load_backend(path, threads=1))
    crops = person_crops(estimator.contract, 10)
    assert crops.shape == (10, 256, 192, 3)
    np.testing.assert_array_equal(crops[8:], crops[:2])
    np.testing.assert_array_equal(crops[:3], person_crops(estimator.contract, 3))
    scores = estimator.predict_input(list(crops[:4]))[..., 2]
    assert scores.min() >= 0.3


def test_sample_crops_are_the_same_each_time_and_differ_among_themselves(toys: ModuleType) -> None:
    crops = sample_crops(toys.toy_contract(), 3)
    assert crops.shape == (3, 256, 192, 3)
    assert crops.dtype == np.uint8
    np.testing.assert_array_equal(crops, sample_crops(toys.toy_contract(), 3))
    assert np.abs(crops[0].astype(int) - crops[1]).mean() > 10
