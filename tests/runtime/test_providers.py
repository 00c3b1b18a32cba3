from __future__ import annotations

import logging
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
from lbkit.runtime import probe, providers
from lbkit.runtime.cuda import CUDA_PROVIDER
from lbkit.runtime.probe_graph import PROBE_INPUT, PROBE_MODEL, probe_answer
from lbkit.runtime.wheels import Obstacle

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
        return [CUDA_PROVIDER, CPU_PROVIDER]

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
    monkeypatch.setattr(providers, "find_cuda_obstacle", lambda _: None)
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
    with pytest.raises(ProviderError, match=r"no provider 'cudda'; there are cpu, cuda, auto; did you mean cuda\?"):
        providers.open_session(PROBE_MODEL, provider="cudda")


def test_gpu_is_not_answered_with_cpu() -> None:
    with pytest.raises(ProviderError) as caught:
        providers.open_session(PROBE_MODEL, provider="gpu")
    assert str(caught.value) == "no provider 'gpu'; there are cpu, cuda, auto"


def test_cuda_that_silently_falls_to_the_cpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = use(monkeypatch, FakeOrt(runs_on=[CPU_PROVIDER]))
    with pytest.raises(ProviderError, match="cuda cannot run here: "):
        providers.open_session(PROBE_MODEL, provider="cuda")
    assert fake.severity == 2  # back to ONNX Runtime's default


def test_cuda_session_that_runs_there(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = use(monkeypatch, FakeOrt(runs_on=[CUDA_PROVIDER, CPU_PROVIDER]))
    assert providers.open_session(PROBE_MODEL, provider="cuda").provider == "cuda"
    assert fake.asked == [[(CUDA_PROVIDER, {"cudnn_conv_algo_search": "HEURISTIC"}), CPU_PROVIDER]]


def test_cuda_failure_at_start_is_a_provider_error(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeOrt(runs_on=[], error=RuntimeError("CUDA failure 2: out of memory")))
    with pytest.raises(ProviderError, match="cuda cannot run here"):
        providers.open_session(PROBE_MODEL, provider="cuda")


def test_fault_of_the_model_is_not_blamed_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeOrt(runs_on=[], error=RuntimeError("no such operator Frobnicate")))
    with pytest.raises(RuntimeError, match="Frobnicate"):
        providers.open_session(PROBE_MODEL, provider="cuda")


def test_auto_takes_cuda_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FakeOrt(runs_on=[CUDA_PROVIDER, CPU_PROVIDER]))
    assert providers.open_session(PROBE_MODEL, provider="auto").provider == "cuda"


def test_auto_takes_the_cpu_and_warns_where_a_session_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(monkeypatch, FakeOrt(runs_on=[CPU_PROVIDER]))
    assert providers.open_session(PROBE_MODEL, provider="auto").provider == "cpu"
    assert "provider auto: cpu, because cuda cannot run here" in caplog.text


def test_auto_does_not_try_cuda_where_it_certainly_cannot_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lbkit")
    fake = use(monkeypatch, FakeOrt(runs_on=[CUDA_PROVIDER]))
    monkeypatch.setattr(providers, "find_cuda_obstacle", lambda _: Obstacle("no driver", "get one"))
    assert providers.open_session(PROBE_MODEL, provider="auto").provider == "cpu"
    assert fake.asked == [[CPU_PROVIDER]]
    assert "provider auto: cpu, because no driver" in caplog.text


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
    assert providers.open_session(toy_model, provider="auto").provider == "cuda"
