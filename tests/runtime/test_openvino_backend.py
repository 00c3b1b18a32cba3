from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import types
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from lbkit.core.contract import ModelContract
from lbkit.core.threads import thread_limits
from lbkit.errors import ContractError, MissingDependencyError, ModelError, ModelMemoryError, ProviderError
from lbkit.runtime import openvino_library
from lbkit.runtime.openvino_backend import OpenVinoBackend, compile_on_cpu
from lbkit.runtime.ort_backend import OrtBackend
from lbkit.runtime.probe import ProviderStatus, probe_provider
from lbkit.runtime.probe_graph import PROBE_MODEL
from lbkit.runtime.streams import MAX_STREAMS

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason='openvino is not installed: pip install "lbkit[openvino]"'
)

VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"dtype": "float32"},
    {"outputs": ("keypoints",)},
    {"outputs": ("keypoints", "heatmaps")},
)


def random_crops(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 256, 192, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def core() -> Any:
    return pytest.importorskip("openvino", reason='pip install "lbkit[openvino]"').Core()


def has_bf16(core: Any) -> bool:
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@needs_openvino
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_answers_are_onnxruntime_s(toys: ModuleType, tmp_path: Path, variant: dict[str, Any]) -> None:
    path = toys.save_toy_model(tmp_path / "toy.onnx", **variant)
    here, there = OpenVinoBackend(path), OrtBackend(path)
    assert here.contract == there.contract
    assert here.provider == "openvino"
    for count in (3, 1, 5):
        crops = random_crops(count)
        output, expected = here.run(crops), there.run(crops)
        for name in here.contract.outputs:
            np.testing.assert_allclose(getattr(output, name), getattr(expected, name), atol=1e-4)
            assert getattr(output, name).dtype == np.float32


@needs_openvino
def test_fp32_is_asked_for_and_read_back(core: Any) -> None:
    """OpenVINO by itself takes bfloat16 on a CPU that has it."""
    model = core.read_model(PROBE_MODEL)
    by_itself = core.compile_model(model, "CPU").get_property("INFERENCE_PRECISION_HINT").get_type_name()
    assert by_itself == ("bf16" if has_bf16(core) else "f32")
    pinned = compile_on_cpu(core, model, provider="openvino", threads=1)
    assert pinned.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


@needs_openvino
def test_bf16_is_another_provider_and_gives_other_numbers(core: Any, toy_model: Path) -> None:
    if not has_bf16(core):
        with pytest.raises(ProviderError, match="openvino-bf16 cannot run here: this CPU has no bfloat16"):
            OpenVinoBackend(toy_model, provider="openvino-bf16")
        return
    crops = random_crops(2)
    exact, rounded = (
        OpenVinoBackend(toy_model).run(crops),
        OpenVinoBackend(toy_model, provider="openvino-bf16").run(crops),
    )
    assert exact.heatmaps is not None
    assert rounded.heatmaps is not None
    assert 1e-5 < np.abs(exact.heatmaps - rounded.heatmaps).max() < 0.05


def test_a_cpu_without_bf16_is_told() -> None:
    fake = SimpleNamespace(get_property=lambda *_: ["FP32", "INT8"])
    with pytest.raises(ProviderError, match=r"no bfloat16 instructions; choose `--provider openvino`"):
        compile_on_cpu(fake, None, provider="openvino-bf16", threads=1)


def test_arithmetic_other_than_asked_for_is_an_error() -> None:
    compiled = SimpleNamespace(get_property=lambda _: SimpleNamespace(get_type_name=lambda: "bf16"))
    fake = SimpleNamespace(compile_model=lambda *_: compiled)
    with pytest.raises(ProviderError, match="OpenVINO computes in bf16, and f32 is asked for"):
        compile_on_cpu(fake, None, provider="openvino", threads=1)


CPUS = thread_limits().threads


@needs_openvino
@pytest.mark.parametrize(
    ("threads", "streams", "used", "side_by_side"),
    [(None, 1, CPUS, 1), (1, None, 1, 1), (None, None, CPUS, min(CPUS, MAX_STREAMS))],
)
def test_threads_and_streams(
    toy_model: Path, threads: int | None, streams: int | None, used: int, side_by_side: int
) -> None:
    backend = OpenVinoBackend(toy_model, threads=threads, streams=streams)
    compiled = backend._idle.get().get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == used
    assert compiled.get_property("NUM_STREAMS") == side_by_side
    assert backend.streams == side_by_side
    assert backend._idle.qsize() == side_by_side - 1


@needs_openvino
def test_answers_stay_when_the_next_batch_runs(toy_model: Path) -> None:
    backend = OpenVinoBackend(toy_model)
    first = backend.run(random_crops(1)).heatmaps
    assert first is not None
    kept = first.copy()
    backend.run(255 - random_crops(1))
    np.testing.assert_array_equal(first, kept)


@needs_openvino
@pytest.mark.parametrize("data", [b"hello, this is text", b""])
def test_file_that_is_not_onnx(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=rf"^{path}: is not an ONNX file, or a damaged one"):
        OpenVinoBackend(path)


@needs_openvino
def test_contracts_are_checked_as_onnxruntime_s(toys: ModuleType, tmp_path: Path) -> None:
    without = toys.save_toy_model(tmp_path / "without.onnx", contract="")
    with pytest.raises(ContractError, match="carries no lbkit contract"):
        OpenVinoBackend(without)
    contract: ModelContract = toys.toy_contract(dtype="float32")
    with pytest.raises(ContractError, match=r"images is tensor\(uint8\), expected tensor\(float\)"):
        OpenVinoBackend(toys.save_toy_model(tmp_path / "wrong.onnx", contract=contract))
    fixed = toys.save_toy_model(tmp_path / "fixed.onnx", batch=1)
    with pytest.raises(ContractError, match="images has a fixed batch of 1, expected a dynamic one"):
        OpenVinoBackend(fixed)


@needs_openvino
def test_an_operator_that_openvino_lacks(toy_model: Path, tmp_path: Path) -> None:
    model = onnx.load(toy_model)
    model.graph.node[-1].domain = "nowhere"
    model.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(ModelError, match=r"odd\.onnx: "):
        OpenVinoBackend(tmp_path / "odd.onnx")


@needs_openvino
@pytest.mark.parametrize(("error", "kind"), [(MemoryError(), ModelMemoryError), (RuntimeError("x"), ModelError)])
def test_failure_while_running(toy_model: Path, error: Exception, kind: type[Exception]) -> None:
    def fail(*given: object, **options: object) -> None:
        raise error

    backend = OpenVinoBackend(toy_model)
    backend._idle.get()
    backend._idle.put(SimpleNamespace(infer=fail))
    with pytest.raises(kind, match="running 2 crops"):
        backend.run(random_crops(2))


@needs_openvino
def test_probe() -> None:
    assert probe_provider("openvino") == ProviderStatus("openvino", works=True)


def test_missing_openvino_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        MissingDependencyError, match=r'openvino is not installed; run `pip install "lbkit\[openvino\]"`'
    ):
        openvino_library.import_openvino()


def test_half_installed_openvino_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", types.ModuleType("openvino"))
    with pytest.raises(ProviderError, match=r"broken \(its files are gone\); run `pip uninstall -y openvino`"):
        openvino_library.import_openvino()


@pytest.mark.parametrize(
    "error", [ImportError("libopenvino.so.2640"), ModuleNotFoundError("no _pyopenvino", name="openvino._pyopenvino")]
)
def test_openvino_that_does_not_load_is_broken(monkeypatch: pytest.MonkeyPatch, error: ImportError) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ProviderError, match=f"openvino is installed but broken .{error}"):
        openvino_library.import_openvino()


def test_nobody_imports_openvino_who_does_not_ask_for_it(toy_model: Path) -> None:
    script = "import sys, lbkit; lbkit.load_model(sys.argv[1]); print('openvino' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, str(toy_model)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
