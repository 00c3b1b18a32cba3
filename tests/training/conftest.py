from __future__ import annotations

from pathlib import Path

import pytest

from lbkit.core.geometry import ImageSize
from lbkit.synthetic.annotations import write_figures


@pytest.fixture(scope="session")
def figure_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one set of eight rendered people on disk."""
    folder = tmp_path_factory.mktemp("data")
    write_figures(folder, count=8, seed=5, size=ImageSize(200, 150), pose="standing")
    return folder


RECIPE = """
model = "cnn"
input_height = 64
input_width = 64
epochs = 2
batch_size = 2
workers = 0
precision = "fp32"
backbone_weights = "none"

[[sources]]
name = "figures"
annotations = "annotations.json"
images = "."
validation = 0.3
"""


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    path = tmp_path / "recipe-cnn.toml"
    path.write_text(RECIPE)
    return path
