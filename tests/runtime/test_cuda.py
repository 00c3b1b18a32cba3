"""What is said when CUDA cannot run, with a stand-in for the driver; no GPU is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lbkit.runtime import cuda

LIBRARY_WORDS = (
    "Failed to load library /x/capi/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open "
    "shared object file: No such file or directory"
)


def fake_ort(*, cuda_version: str = "13.0", built_in: bool = True) -> SimpleNamespace:
    providers = [cuda.CUDA_PROVIDER] if built_in else []
    return SimpleNamespace(
        get_available_providers=lambda: [*providers, "CPUExecutionProvider"],
        cuda_version=cuda_version,
        __version__="1.31.1",
    )


def fake_driver(*, gpus: int = 1, version: int = 13010, init: int = 0) -> Any:
    def store(value: int) -> Any:
        def call(pointer: Any) -> int:
            pointer._obj.value = value
            return 0

        return call

    driver = SimpleNamespace(cuInit=lambda _: init, cuDeviceGetCount=store(gpus), cuDriverGetVersion=store(version))
    return lambda _: driver


def no_driver(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


def test_nothing_found_where_driver_and_gpu_are_there() -> None:
    assert cuda.find_cuda_obstacle(fake_ort(), load=fake_driver()) is None


def test_cpu_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "installed_ort_wheels", lambda: {"onnxruntime": "1.30.0"})
    obstacle = cuda.find_cuda_obstacle(fake_ort(built_in=False), load=fake_driver())
    assert obstacle is not None
    assert obstacle.problem == "onnxruntime 1.30.0 is built without CUDA"
    assert obstacle.remedy == 'run `pip uninstall -y onnxruntime` and then `pip install "lbkit[gpu]"`'


def test_no_driver() -> None:
    obstacle = cuda.find_cuda_obstacle(fake_ort(), load=no_driver)
    assert obstacle is not None
    assert "no NVIDIA driver" in obstacle.problem
    assert cuda.DRIVER_LIBRARY in obstacle.problem
    assert "nvidia-smi" in obstacle.remedy


@pytest.mark.parametrize("driver", [fake_driver(gpus=0), fake_driver(init=100)])
def test_no_gpu(monkeypatch: pytest.MonkeyPatch, driver: Any) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "finds no GPU" in str(cuda.find_cuda_obstacle(fake_ort(), load=driver))


def test_gpu_hidden_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    obstacle = str(cuda.find_cuda_obstacle(fake_ort(), load=fake_driver(init=100)))
    assert "CUDA_VISIBLE_DEVICES='-1' leaves no GPU" in obstacle
    assert "`unset CUDA_VISIBLE_DEVICES`" in obstacle


def test_driver_that_does_not_start() -> None:
    assert "CUDA error 999" in str(cuda.find_cuda_obstacle(fake_ort(), load=fake_driver(init=999)))


def test_driver_too_old_for_the_wheel() -> None:
    obstacle = str(cuda.find_cuda_obstacle(fake_ort(cuda_version="13.0"), load=fake_driver(version=12040)))
    assert "driver knows CUDA 12.4" in obstacle
    assert "built for CUDA 13.0" in obstacle


def test_older_minor_version_of_the_driver_is_enough() -> None:
    assert cuda.find_cuda_obstacle(fake_ort(cuda_version="12.8"), load=fake_driver(version=12040)) is None


@pytest.mark.parametrize(
    ("words", "library"),
    [
        (LIBRARY_WORDS, "libcublasLt.so.13"),
        ('Error loading "C:\\capi\\x.dll" which depends on "cudnn64_9.dll" which is missing.', "cudnn64_9.dll"),
        ("libcudnn.so.9: cannot open shared object file", "libcudnn.so.9"),
    ],
)
def test_missing_library_is_named(words: str, library: str) -> None:
    obstacle = cuda.explain_cuda_failure(fake_ort(), words, load=fake_driver())
    assert obstacle.problem.startswith(f"the library {library} cannot be loaded")
    assert "wants CUDA 13.0" in obstacle.problem


def test_libraries_come_with_the_wheels_extras_where_it_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_extras", lambda _: {"cuda", "cudnn", "symbolic"})
    obstacle = cuda.explain_cuda_failure(fake_ort(), LIBRARY_WORDS, load=fake_driver())
    assert obstacle.remedy == 'run `pip install "onnxruntime-gpu[cuda,cudnn]"`'


@pytest.mark.parametrize(
    ("version", "packages"),
    [("12.4", ("nvidia-cublas-cu12", "nvidia-cudnn-cu12")), ("13.0", ("nvidia-cublas ", "nvidia-cudnn-cu13"))],
)
def test_libraries_by_package_for_wheels_without_extras(
    monkeypatch: pytest.MonkeyPatch, version: str, packages: tuple[str, ...]
) -> None:
    monkeypatch.setattr(cuda, "_extras", lambda _: set())
    remedy = cuda.explain_cuda_failure(
        fake_ort(cuda_version=version), LIBRARY_WORDS, load=fake_driver(version=13000)
    ).remedy
    assert all(package in remedy for package in packages)


def test_driver_explains_before_a_library() -> None:
    assert "NVIDIA driver" in cuda.explain_cuda_failure(fake_ort(), LIBRARY_WORDS, load=no_driver).problem


def test_unknown_failure_hands_on_what_onnxruntime_says() -> None:
    obstacle = cuda.explain_cuda_failure(fake_ort(), "CUDA failure 804: oddity", load=fake_driver())
    assert "CUDA failure 804: oddity" in obstacle.problem


@pytest.mark.parametrize(
    "words", ["CUDA failure 2: out of memory", "CUDNN_STATUS_NOT_INITIALIZED cudnn", LIBRARY_WORDS]
)
def test_words_about_cuda(words: str) -> None:
    assert cuda.concerns_cuda(words)


@pytest.mark.parametrize("words", ["Failed to load model because protobuf parsing failed.", "Unknown opset 99"])
def test_words_about_the_model(words: str) -> None:
    assert not cuda.concerns_cuda(words)
