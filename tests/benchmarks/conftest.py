from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lbkit.core.geometry import ImageSize
from lbkit.core.images import write_image

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def run_benchmark() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script of the benchmarks with this checkout's lbkit, in its folder; keywords go into the environment."""

    def run(script: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        root = str(FOLDER.parent)
        paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        return subprocess.run(
            [sys.executable, str(FOLDER / script), *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=root,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment,
        )

    return run


@pytest.fixture(scope="session")
def photos(toys: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures that the toy model finds joints on."""
    folder = tmp_path_factory.mktemp("photos")
    spots = np.array([[60, 50], [110, 60], [65, 110], [105, 120], [55, 170], [115, 180]])
    for index in range(3):
        image = toys.spotted_image(ImageSize(240, 170 + 10 * index), spots, spread_px=4.0)
        write_image(folder / f"{index}.png", image)
    return folder
