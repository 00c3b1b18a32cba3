from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from lbkit.core.threads import thread_limits
from lbkit.errors import ProviderError
from lbkit.runtime import cuda, probe, providers
from lbkit.runtime.cuda import CUDA_PROVIDER
from lbkit.runtime.probe_graph import PROBE_INPUT, PROBE_MODEL, probe_answer
from lbkit.runtime.providers import TENSORRT_PROVIDER

CPU_PROVIDER = "CPUExecutionProvider"


class FakeOrt:
    """An onnxruntime that claims CUDA and whose sessions run where `runs_on` says, or raise."""

    cuda_version = "13.0"
    __version__ = "1.31.1"

    def __init__(self, *, runs_on: list[str], error: Exception | None = None) -> None:
        self.runs_on = runs_on
        self.error = error
        self.asked: list[Any] = []

    def get_available_providers(self) -> list[str]:
        return [TENSORRT_PROVIDER, CUDA_PROVIDER, CPU_PROVIDER]

    def SessionOptions(self) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace()

    def set_default_logger_severity(self, severity: int) -> None:
        self.severity = severity

    def InferenceSession(  # noqa: N802
        self, *model_and_options: Any, providers: list[Any], enable_fallback: int
    ) -> SimpleNamespace:
        assert len(model_and_options) == 2
        self.asked.append(providers)
        assert enable_fallback == 0
        if self.error and providers != [CPU_PROVIDER]:
            raise self.error
        runs_on = [CPU_PROVIDER] if providers == [CPU_PROVIDER] else self.runs_on
        return SimpleNamespace(get_providers=lambda: runs_on)


def use(monkeypatch: pytest.MonkeyPatch, fake: FakeOrt) -> FakeOrt:
    monkeypatch.setattr(providers, "import_onnxruntime", lambda: fake)
    monkeypatch.setattr(cuda, "find_cuda_obstacle", lambda *_, **__: None)
    return fake


def test_probe_model_is_valid_onnx() -> None:
    onnx.checker.check_model(onnx.load_from_string(PROBE_MODEL), full_check=True)


def test_cpu_session_runs_and_counts_right() -> None:
    opened = providers.open_session(PROBE_MODEL)
    (answer,) = opened.session.run(None, {"x": PROBE_INPUT})
    assert opened.provider == "cpu"
    np.testing.assert_allclose(answer, probe_answer())


@pytest.mark.parametrize(("asked", "used"), [(None, thread_limits().threads), (3, 3)])
def test_threads_of_a_session(asked: int | None, used: int) -> None:
    session = providers.open_session(PROBE_MODEL, threads=asked).session
    assert session.get_session_options().intra_op_num_threads == used


def test_unknown_provider_is_answered_with_the_nearest() -> None:
    with pytest.raises(ProviderError, match=r"no provider 'cudda'; there are cpu, cuda, .*, auto; did you mean cuda\?"):
        providers.open_session(PROBE_MODEL, provider="cudda")


def test_gpu_is_not_answered_with_cpu() -> None:
    with pytest.raises(ProviderError) as caught:
        providers.open_session(PROBE_MODEL, provider="gpu")
    assert caught.value.remedy is None


def test_cuda_that_silently_falls_to_the_cpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = use(monkeypatch, FakeOrt(runs_on=[CPU_PROVIDER]))
    with pytest.raises(ProviderError, match="cuda cannot run here: "):
        providers.open_session(PROBE_MODEL, provider="cuda")
    assert fake.severity == 2  # back to ONNX Runtime's default


def test_cuda_session_that_runs_there(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = use(monkeypatch, FakeOrt(runs_on=[CUDA_PROVIDER, CPU_PROVIDER]))
    assert providers.open_session(PROBE_MODEL, provider="cuda").provider == "cuda"
    assert fake.asked == [[(CUDA_PROVIDER, {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}), CPU_PROVIDER]]


def test_cuda_failure_at_start_is_a_provider_error(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeOrt(runs_on=[], error=RuntimeError("CUDA failure 2: out of memory")))
    with pytest.raises(ProviderError, match="cuda cannot run here"):
        providers.open_session(PROBE_MODEL, provider="cuda")


def test_fault_of_the_model_is_not_blamed_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeOrt(runs_on=[], error=RuntimeError("no such operator Frobnicate")))
    with pytest.raises(RuntimeError, match="Frobnicate"):
        providers.open_session(PROBE_MODEL, provider="cuda")


def test_graphs_are_recorded_where_the_model_allows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = use(monkeypatch, FakeOrt(runs_on=[CUDA_PROVIDER, CPU_PROVIDER]))
    opened = providers.open_session(PROBE_MODEL, provider="cuda", graphs=True)
    assert opened.replays_graphs
    assert fake.asked == [
        [
            (CUDA_PROVIDER, {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0", "enable_cuda_graph": "1"}),
            CPU_PROVIDER,
        ]
    ]


def test_a_model_that_allows_no_graphs_runs_without(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = use(monkeypatch, FakeOrt(runs_on=[CUDA_PROVIDER, CPU_PROVIDER]))
    make = fake.InferenceSession

    def refuse_graphs(*given: Any, providers: list[Any], enable_fallback: int) -> SimpleNamespace:
        session = make(*given, providers=providers, enable_fallback=enable_fallback)
        if "enable_cuda_graph" in providers[0][1]:
            raise RuntimeError("This session cannot use the graph capture feature")
        return session

    monkeypatch.setattr(fake, "InferenceSession", refuse_graphs)
    opened = providers.open_session(PROBE_MODEL, provider="cuda", graphs=True)
    assert (opened.provider, opened.replays_graphs) == ("cuda", False)
    assert [asked[0][1].get("enable_cuda_graph") for asked in fake.asked] == ["1", None]


@pytest.fixture
def gpu_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("LBKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(providers, "read_gpu_name", lambda: "Toy 100 sm_90")
    return "Toy 100 sm_90"


def test_tensorrt_keeps_its_engines_and_falls_back_to_cuda(
    monkeypatch: pytest.MonkeyPatch, gpu_name: str, tmp_path: Path
) -> None:
    fake = use(monkeypatch, FakeOrt(runs_on=[TENSORRT_PROVIDER, CUDA_PROVIDER, CPU_PROVIDER]))
    assert providers.open_session(PROBE_MODEL, provider="tensorrt").provider == "tensorrt"
    ((tensorrt, options), (cuda, _), cpu) = fake.asked[0]
    assert (tensorrt, cuda, cpu) == (TENSORRT_PROVIDER, CUDA_PROVIDER, CPU_PROVIDER)
    assert options["trt_engine_cache_enable"] == "True"
    assert Path(options["trt_engine_cache_path"]).parent == tmp_path / "tensorrt"


def test_tensorrt_that_falls_to_cuda_is_an_error(monkeypatch: pytest.MonkeyPatch, gpu_name: str) -> None:
    use(monkeypatch, FakeOrt(runs_on=[CUDA_PROVIDER, CPU_PROVIDER]))
    with pytest.raises(ProviderError, match="tensorrt cannot run here: "):
        providers.open_session(PROBE_MODEL, provider="tensorrt")


@pytest.mark.parametrize(
    ("name", "platform", "words"),
    [
        ("coreml", "linux", "coreml cannot run here: it exists on macOS alone; choose `--provider cpu`"),
        ("directml", "darwin", "directml cannot run here: it exists on Windows alone; choose `--provider cpu`"),
        ("directml", "win32", 'is built without it; run `pip uninstall -y .*`pip install "onnxruntime-directml"`'),
    ],
)
def test_a_provider_of_another_system(monkeypatch: pytest.MonkeyPatch, name: str, platform: str, words: str) -> None:
    use(monkeypatch, FakeOrt(runs_on=[]))
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(ProviderError, match=words):
        providers.open_session(PROBE_MODEL, provider=name)


def test_openvino_is_no_session_of_onnxruntime() -> None:
    with pytest.raises(ProviderError, match="openvino is not run by a session"):
        providers.open_session(PROBE_MODEL, provider="openvino")


def test_strict_cuda_without_a_gpu_says_one_line_and_nothing_else(toy_model: Path) -> None:
    """In a fresh process, because ONNX Runtime writes to the file descriptor; hiding GPUs makes it fail anywhere."""
    script = (
        "import sys, lbkit\n"
        "try: lbkit.load_model(sys.argv[1], provider='cuda')\n"
        "except lbkit.LbkitError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(toy_model)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("ProviderError cuda cannot run here: ")
    assert done.stdout.count("\n") == 1
    assert "`" in done.stdout  # a command that mends it


def test_words_of_a_failed_start_come_from_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    with providers._captured_stderr() as said:
        os.write(2, b"\x1b[1;31m[E:onnxruntime] [ONNXRuntimeError] : 1 : FAIL : libcudnn.so.9: cannot open\n\x1b[m")
    assert providers.ort_words(said[0]) == "libcudnn.so.9: cannot open"
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Failed : really", "Failed : really"),
        ("plain words\nsecond line", "plain words"),
        ("", ""),
    ],
)
def test_ort_words(text: str, words: str) -> None:
    assert providers.ort_words(text) == words


def test_probe_of_the_cpu() -> None:
    assert probe.probe_provider("cpu") == probe.ProviderStatus("cpu", works=True)


def test_probe_tells_a_provider_that_computes_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "probe_answer", lambda: probe_answer() + 1)
    status = probe.probe_provider("cpu")
    assert not status.works
    assert "cpu computes" in status.problem


def test_probe_tells_a_session_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(probe, "open_session", fail)
    status = probe.probe_provider("cuda")
    assert "does not run on cuda (no kernel image)" in status.problem
    assert status.remedy


def test_status_cannot_contradict_itself() -> None:
    with pytest.raises(ValueError, match="either works or has a problem"):
        probe.ProviderStatus("cpu", works=False)


@pytest.mark.gpu
def test_cuda_really_runs(toy_model: Path) -> None:
    status = probe.probe_provider("cuda")
    if not status.works:
        pytest.skip(status.problem)
    assert providers.open_session(toy_model, provider="cuda").provider == "cuda"
