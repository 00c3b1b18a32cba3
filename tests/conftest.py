"""What several test folders share: the toy models, and a logger that no test leaves changed."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


def _load_neighbour(name: str) -> ModuleType:
    """Import a module beside this file; with pytest's importlib mode the folder is on no path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def toys() -> ModuleType:
    """The module `tests/toy_models.py`: `save_toy_model`, `toy_contract`, `spotted_image` and its constants."""
    return _load_neighbour("toy_models")


@pytest.fixture(scope="session")
def roots() -> ModuleType:
    """The module `tests/toy_roots.py`: `write_root`, `RootPerson` and its constants."""
    return _load_neighbour("toy_roots")


@pytest.fixture(scope="session")
def clips() -> ModuleType:
    """The module `tests/toy_clips.py`: `write_clip`, `write_sound` and what goes with them."""
    return _load_neighbour("toy_clips")


@pytest.fixture(scope="session")
def detectors() -> ModuleType:
    """The module `tests/toy_detectors.py`: `save_yolox` and `save_rtmdet`."""
    return _load_neighbour("toy_detectors")


@pytest.fixture(scope="session")
def toy_model(toys: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy model that takes uint8 pixels and puts out heatmaps, named `toy.onnx` in a folder of its own."""
    return toys.save_toy_model(tmp_path_factory.mktemp("toys") / "toy.onnx")


@pytest.fixture(autouse=True)
def _same_logging() -> Iterator[None]:
    """Put lbkit's logger back, which the command line sets up."""
    package = logging.getLogger("lbkit")
    level, handlers, propagate = package.level, list(package.handlers), package.propagate
    yield
    package.setLevel(level)
    package.handlers[:] = handlers
    package.propagate = propagate
