"""Whole commands, each in a process of its own, and what they cost from start to exit (POSIX only)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

# A new program inherits the peak memory of the process that it was forked from, so it is started by this small one,
# which has loaded next to nothing. -S and -I keep it small.
_STARTER = """
import json, os, sys, time
report, command = sys.argv[1], sys.argv[2:]
started = time.perf_counter()
_, status, usage = os.wait4(os.posix_spawn(command[0], command, os.environ), 0)
seconds = time.perf_counter() - started
code = os.waitstatus_to_exitcode(status)
with open(report, "w") as stream:
    json.dump([code, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss], stream)
"""
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
_LBKIT = "from lbkit.cli.main import main; main()"


@dataclass(frozen=True, slots=True)
class ProcessCost:
    """What one process cost and printed.

    Attributes:
        seconds: From its start to its exit.
        cpu_seconds: Processor time of all its threads, in user and kernel mode.
        peak_bytes: Most memory that it held at once (resident set).
        stdout: What it printed.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    stdout: str


def lbkit_command(*arguments: str | Path) -> list[str]:
    """Return the command line of `lbkit`: the script beside this Python, or its one line where there is none."""
    script = Path(sys.executable).with_name("lbkit")
    start = [str(script)] if script.is_file() else [sys.executable, "-c", _LBKIT]
    return [*start, *map(str, arguments)]


def run_process(command: Sequence[str]) -> ProcessCost:
    """Run a command and measure it.

    Args:
        command: The program's path and its arguments.

    Raises:
        ClickException: It did not end with 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "cost.json"
        starter = [sys.executable, "-I", "-S", "-c", _STARTER, str(report), *command]
        done = subprocess.run(starter, capture_output=True, text=True, check=False, env=environment())
        if done.returncode != 0:
            raise click.ClickException(f"{command[0]} cannot be started:\n{done.stderr}")
        code, seconds, cpu_seconds, maxrss = json.loads(report.read_text(encoding="utf-8"))
    if code != 0:
        raise click.ClickException(f"{' '.join(command)} ended with {code}:\n{done.stderr}")
    return ProcessCost(seconds, cpu_seconds, maxrss * _MAXRSS_BYTES, done.stdout)


def environment() -> dict[str, str]:
    """Return the environment with this lbkit's folder on the path, so that a checkout needs no installation."""
    import lbkit

    root = str(Path(lbkit.__file__).parents[1])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
