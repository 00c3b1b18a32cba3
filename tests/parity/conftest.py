"""Shipped files, and copies of them in which one thing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from lbkit.models.checkpoint import CHECKPOINTS_VARIABLE  # noqa: E402

REPOSITORY = Path(__file__).parents[2]

Change = Callable[[Any], None]


@pytest.fixture(autouse=True)
def _checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find the shipped checkpoints from any folder, and leave the batch of 64 to the test that asks for it."""
    monkeypatch.setenv(CHECKPOINTS_VARIABLE, str(REPOSITORY / "training" / "checkpoints"))
    monkeypatch.setattr("lbkit.parity.batches.DYNAMIC_BATCHES", (1, 2))


@pytest.fixture(scope="session")
def shipped() -> Callable[[str], Path]:
    """Give a shipped ONNX file by its name."""
    return lambda name: REPOSITORY / "exported" / f"{name}.onnx"


@pytest.fixture(scope="session")
def checkpoint() -> Callable[[str], Path]:
    """Give a shipped checkpoint by its name."""
    return lambda name: REPOSITORY / "training" / "checkpoints" / f"{name}.safetensors"


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[Path, Change], Path]:
    """Give a copy of a file whose model was changed."""

    def change(path: Path, how: Change) -> Path:
        model = onnx.load(path)
        how(model)
        target = tmp_path / f"changed-{path.name}"
        onnx.save(model, target)
        return target

    return change


@pytest.fixture(scope="session")
def decoding(tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[[str], Path]) -> Path:
    """A cnn that decodes in its graph and puts out keypoints alone."""
    pytest.importorskip("onnxscript")
    from lbkit.export.options import ExportOptions
    from lbkit.export.pipeline import export_model

    path = tmp_path_factory.mktemp("decoding") / "decoding.onnx"
    export_model("cnn", checkpoint=checkpoint("cnn"), output=path, options=ExportOptions(decoder="dark"))
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two small pictures."""
    from lbkit.core.images import write_image

    folder = tmp_path / "pictures"
    rng = np.random.default_rng(1)
    for number, shape in enumerate(((61, 83, 3), (120, 47, 3))):
        write_image(folder / f"{number}.png", rng.integers(0, 256, shape, dtype=np.uint8))
    return folder
