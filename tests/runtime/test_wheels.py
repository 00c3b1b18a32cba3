from __future__ import annotations

import importlib
import sys
import types

import pytest

from lbkit.errors import MissingDependencyError, ProviderError
from lbkit.runtime import wheels


def install(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    named = {name.replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(wheels, "installed_version", named.get)


def test_one_wheel_does_not_clash(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxruntime_gpu="1.31.1")
    assert wheels.wheel_clash() is None


def test_two_wheels_clash_and_the_gpu_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxruntime="1.30.0", onnxruntime_gpu="1.31.1")
    clash = wheels.wheel_clash()
    assert clash is not None
    assert "onnxruntime 1.30.0 and onnxruntime-gpu 1.31.1" in clash.problem
    assert "`pip uninstall -y onnxruntime onnxruntime-gpu`" in clash.remedy
    assert '`pip install "lbkit[gpu]"`' in clash.remedy


def test_a_wheel_without_an_extra_is_kept_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxruntime="1.30.0", onnxruntime_openvino="1.24.1")
    assert '`pip install "onnxruntime-openvino"`' in str(wheels.wheel_clash())


def test_versions_come_from_metadata() -> None:
    assert wheels.installed_version("numpy") == importlib.import_module("numpy").__version__
    assert wheels.installed_version("no-such-package-as-this") is None


def test_missing_onnxruntime_names_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "lbkit\[cpu\]"'):
        wheels.import_onnxruntime()


def test_folder_left_by_an_uninstalled_twin_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxruntime="1.30.0")
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    with pytest.raises(ProviderError, match=r"broken \(its files are gone\).*pip uninstall -y onnxruntime`"):
        wheels.import_onnxruntime()


@pytest.mark.parametrize("error", [ImportError("libfoo.so.1"), ModuleNotFoundError("no capi", name="onnxruntime.capi")])
def test_library_that_does_not_load_is_broken(monkeypatch: pytest.MonkeyPatch, error: ImportError) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ProviderError, match=f"broken .{error}"):
        wheels.import_onnxruntime()
