from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lbkit.bench import cold, run
from lbkit.bench.pictures import FIGURES, readable_pictures, rendered_pictures, run_once
from lbkit.bench.run import BenchPlan, BenchRow, run_bench
from lbkit.bench.runners import arithmetic_of, load_runner
from lbkit.core.backend import ModelOutput
from lbkit.core.estimator import PoseEstimator
from lbkit.core.geometry import ImageSize
from lbkit.core.images import write_image
from lbkit.errors import ConfigError, InputError, LbkitError, ModelError
from lbkit.runtime.ort_backend import OrtBackend

SHORT = {"seconds": 0.01, "cold": False}


@pytest.fixture
def photos(toys: ModuleType, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    spots = np.array([[60, 50], [110, 60], [65, 110], [105, 120], [55, 170], [115, 180]], dtype=np.float64)
    for number in range(3):
        write_image(folder / f"{number}.png", toys.spotted_image(ImageSize(240, 170 + 10 * number), spots, spread_px=4))
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def test_every_batch_of_every_runner_is_a_row(toy_model: Path, photos: Path) -> None:
    rows = list(run_bench(BenchPlan((str(toy_model),), ("cpu", "cuda-not"), (1, 3), pictures=photos, **SHORT)))
    assert [(row.runner, row.batch) for row in rows] == [("cpu", 1), ("cpu", 3), ("cuda-not", 0)]
    assert "no provider 'cuda-not'" in rows[2].problem
    assert not rows[2].is_wrong
    for row in rows[:2]:
        assert row.times is not None
        assert row.times.people == row.batch
        assert (row.times.seconds > 0).all()
        record = json.loads(json.dumps(row.to_dict()))
        assert record["model_ms"]["p50"] <= record["model_ms"]["p95"] <= record["model_ms"]["p99"]
        assert record["total_ms"]["p50"] > record["model_ms"]["p50"]
        assert record["model_people_per_s"] > record["total_people_per_s"] > 0
        assert record["side_by_side"] is None or record["side_by_side"]["people_per_second"] > 0


@pytest.mark.parametrize(("threads", "streams"), [(1, None), (3, 3)])
def test_the_model_is_timed_in_streams_too(toy_model: Path, photos: Path, threads: int, streams: int | None) -> None:
    (row,) = run_bench(BenchPlan((str(toy_model),), ("cpu",), (6,), threads=threads, pictures=photos, **SHORT))
    assert (None if row.side_by_side is None else row.side_by_side.streams) == streams


def test_wrong_answers_are_not_timed(toy_model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shifted(OrtBackend):
        def run(self, crops: np.ndarray) -> ModelOutput:
            output = super().run(crops)
            assert output.heatmaps is not None
            return ModelOutput(output.heatmaps + np.float32(0.01), None)

    monkeypatch.setattr(run, "load_runner", lambda path, *_, **__: Shifted(path))
    (row,) = run_bench(BenchPlan((str(toy_model),), ("cpu",), (1,), pictures=photos, **SHORT))
    assert row.is_wrong
    assert row.times is None
    assert "its heatmaps differ by 0.01 from the cpu's" in row.problem
    assert json.dumps(row.to_dict())


def test_a_batch_that_fails_leaves_the_others(toy_model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(OrtBackend):
        def run(self, crops: np.ndarray) -> ModelOutput:
            if len(crops) == 2:
                raise ModelError("out of memory")
            return super().run(crops)

    monkeypatch.setattr(run, "load_runner", lambda path, *_, **__: Small(path))
    rows = list(run_bench(BenchPlan((str(toy_model),), ("cpu",), (2, 1), pictures=photos, **SHORT)))
    assert [row.problem for row in rows] == ["out of memory", ""]


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": ()},
        {"batches": (0,)},
        {"batches": (10**9,)},
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"runners": ()},
    ],
)
def test_absurd_plans(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        BenchPlan(**({"models": ("cnn",)} | wrong))


def test_a_row_has_times_or_a_problem() -> None:
    with pytest.raises(ValueError, match="either times or a problem"):
        BenchRow("m", "fp32", "cpu", 1, None)


def test_pictures(photos: Path, tmp_path: Path) -> None:
    assert [path.name for path in readable_pictures(photos)] == ["0.png", "1.png", "2.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no picture that can be read"):
        readable_pictures(tmp_path / "empty")
    assert len(readable_pictures(tmp_path / "photos")) == 3
    rendered = rendered_pictures(tmp_path)
    assert len(rendered) == FIGURES
    assert all(path.is_file() for path in rendered)


def test_one_run_takes_the_pictures_in_turn(toy_model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lbkit.bench import pictures as module

    read = module.read_image
    seen: list[str] = []
    monkeypatch.setattr(module, "read_image", lambda path: seen.append(path.name) or read(path))
    paths = readable_pictures(photos)
    seen.clear()
    estimator = PoseEstimator(OrtBackend(toy_model), batch_size=4)
    for first in (0, 4):
        assert len(run_once(estimator, paths, first=first, count=4)) == 4
    assert seen == ["0.png", "1.png", "2.png", "0.png", "1.png", "2.png", "0.png", "1.png"]


def test_cold_start_of_a_process(toy_model: Path) -> None:
    found = cold.cold_start(toy_model, "cpu", batch=2, threads=1)
    assert 0 < found.load_s < found.first_answer_s < 60
    assert found.peak_bytes is None or 30e6 < found.peak_bytes < 1e9
    with pytest.raises(LbkitError, match="a process that runs it on nowhere fails"):
        cold.cold_start(toy_model, "nowhere", batch=1, threads=None)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_a_process_that_says_much_or_never_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "program"
    talk = "head -c 300000 /dev/zero | tr '\\0' x >&2"
    program.write_text(f"#!/bin/sh\n{talk}\necho '{{\"load_s\": 1}}'\necho '{{\"peak_bytes\": 2}}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(cold.sys, "executable", str(program))
    assert cold.cold_start(tmp_path, "cpu", batch=1, threads=1).peak_bytes == 2
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(cold, "_TIMEOUT_S", 0.2)
    with pytest.raises(LbkitError, match="it ended with -9"):
        cold.cold_start(tmp_path, "cpu", batch=1, threads=1)


def test_the_arithmetic_of_a_runner(toys: ModuleType) -> None:
    contract = toys.toy_contract()
    assert arithmetic_of(contract, "openvino-bf16") == "bf16"
    assert arithmetic_of(contract, "openvino") == "fp32"
    assert arithmetic_of(contract.replace(precision="int8"), "openvino-bf16") == "int8"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason='needs pip install "lbkit[export]"')
def test_pytorch_runs_the_checkpoint_of_the_file(toys: ModuleType, tmp_path: Path) -> None:
    exported = Path(__file__).parents[2] / "exported" / "cnn.onnx"
    rows = list(run_bench(BenchPlan((str(exported),), ("torch",), (1,), threads=1, **SHORT)))
    assert [(row.runner, row.problem) for row in rows] == [("torch", "")]
    other = toys.toy_contract().replace(model="cnn")
    path = toys.save_toy_model(tmp_path / "toy.onnx", contract=other)
    with pytest.raises(ModelError, match="made from another checkpoint"):
        load_runner(path, "torch", threads=1)
    path = toys.save_toy_model(tmp_path / "int8.onnx", contract=other.replace(precision="int8"))
    with pytest.raises(ModelError, match="is int8, and its checkpoint is fp32"):
        load_runner(path, "torch", threads=1)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason='needs pip install "lbkit[export]"')
def test_a_compiler_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from lbkit.models.torch_backend import TorchBackend

    def fail(*_: object) -> ModelOutput:
        raise RuntimeError("InductorError:\n no C++ compiler")

    monkeypatch.setattr(TorchBackend, "compile", lambda _: None)
    monkeypatch.setattr(TorchBackend, "run", fail)
    exported = Path(__file__).parents[2] / "exported" / "cnn.onnx"
    backend = load_runner(exported, "torch-compile", threads=1)
    assert backend.contract.model == "cnn"
    with pytest.raises(ModelError, match=r"torch.compile fails \(RuntimeError: InductorError: no C\+\+ compiler\)"):
        backend.run(np.zeros((1, 256, 192, 3), np.uint8))


def test_without_pytorch_the_extra_is_named(toy_model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    rows = list(run_bench(BenchPlan((str(toy_model),), ("torch", "cpu"), (1,), pictures=photos, **SHORT)))
    assert 'pip install "lbkit[export]"' in rows[0].problem
    assert rows[1].times is not None
