"""A process of its own that loads a model and runs it: how long until its first answer, and the memory it took.

`python -m lbkit.bench.cold FILE RUNNER BATCH THREADS`: prints a JSON line at its first answer, for one person, and
another after batches. Started by `cold_start`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from lbkit.errors import LbkitError

BATCHES = 3
_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class ColdStart:
    """What a fresh process needs.

    Attributes:
        first_answer_s: From its start to its first answer, files being in the system's cache.
        load_s: To load the model, of that.
        peak_bytes: Most memory held at once, with batches; None where the system does not say.
    """

    first_answer_s: float
    load_s: float
    peak_bytes: int | None


def cold_start(path: Path, runner: str, *, batch: int, threads: int | None) -> ColdStart:
    """Start a process that loads a model and runs it.

    Args:
        path: An ONNX file exported by lbkit.
        runner: See `lbkit.bench.runners.load_runner`.
        batch: People in the batches that follow the first answer.
        threads: Threads inside the model; what CPU affinity and cgroup grant when None.

    Raises:
        LbkitError: The process failed.
    """
    words = [str(path), runner, str(batch), str(threads or 0)]
    command = [sys.executable, "-m", "lbkit.bench.cold", *words]
    with tempfile.TemporaryFile("w+", errors="replace") as complaints:  # a pipe that nobody reads would fill up
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True) as process:
            assert process.stdout is not None
            watch = threading.Timer(_TIMEOUT_S, process.kill)
            watch.daemon = True
            watch.start()
            try:
                first = process.stdout.readline()
                seconds = time.perf_counter() - started
                rest = process.stdout.read()
            finally:
                process.wait()
                watch.cancel()
        complaints.seek(0)
        complaint = complaints.read()
    if process.returncode != 0 or not first or not rest:
        lines = complaint.strip().splitlines() or [f"it ended with {process.returncode}"]
        raise LbkitError(f"a process that runs it on {runner} fails ({lines[-1]})", where=path)
    return ColdStart(seconds, json.loads(first)["load_s"], json.loads(rest)["peak_bytes"])


def main(arguments: list[str]) -> None:
    """Load and run; what is measured goes to stdout."""
    from lbkit.bench.runners import load_runner
    from lbkit.runtime.agreement import sample_crops

    path, runner, batch, threads = Path(arguments[0]), arguments[1], int(arguments[2]), int(arguments[3]) or None
    started = time.perf_counter()
    backend = load_runner(path, runner, threads=threads)
    loaded = time.perf_counter()
    backend.run(sample_crops(backend.contract, 1))
    print(json.dumps({"load_s": loaded - started}), flush=True)
    crops = sample_crops(backend.contract, batch)
    for _ in range(BATCHES):
        backend.run(crops)
    print(json.dumps({"peak_bytes": peak_bytes()}), flush=True)


def peak_bytes() -> int | None:
    """Return the most memory that this process held at once (resident set); None where the system does not say.

    Linux's VmHWM begins anew with a program; getrusage's figure begins with that of the process it was forked from.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return _rusage_bytes()
    found = [line.split() for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(found[0][1]) if found else None


def _rusage_bytes() -> int | None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def to_dict(cold: ColdStart | None) -> dict[str, float | int | None] | None:
    """Return it as JSON can hold it."""
    return None if cold is None else asdict(cold)


if __name__ == "__main__":
    main(sys.argv[1:])
