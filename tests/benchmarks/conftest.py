from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def run_benchmark() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script of the benchmarks with this checkout's lbkit."""

    def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        code = f"import sys, runpy; sys.path[:0] = [{str(FOLDER)!r}, {str(FOLDER.parent)!r}]; "
        code += f"sys.argv = {[script, *map(str, arguments)]!r}; runpy.run_path({str(FOLDER / script)!r}, "
        code += "run_name='__main__')"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    return run
