"""The fastest provider that gives the CPU's answers: timed once for a model on a machine, then remembered."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lbkit.core.backend import ModelOutput, RuntimeBackend
from lbkit.core.threads import checked_threads
from lbkit.errors import LbkitError
from lbkit.runtime.agreement import disagreement, person_crops, sample_crops
from lbkit.runtime.backends import load_on
from lbkit.runtime.choices import Circumstances, recall, remember
from lbkit.runtime.cuda import find_cuda_obstacle
from lbkit.runtime.openvino_library import openvino_version
from lbkit.runtime.providers import EXECUTION, PROVIDERS, OrtProviderName, ProviderName
from lbkit.runtime.streams import SIDE_BY_SIDE
from lbkit.runtime.wheels import import_onnxruntime

logger = logging.getLogger(__name__)

TIME_LIMIT_S = 1.0
"""Rounds end after this; each candidate has run at least `LEAST_ROUNDS` times by then."""

LEAST_ROUNDS, MOST_ROUNDS = 2, 10
BATCH = 2
COMPARED = 4
"""Rendered people that answers are compared on."""

WORTH = 0.95
"""Another provider than the CPU must take no more than this share of its time to be chosen."""

_SINGLE_SYSTEM: tuple[OrtProviderName, ...] = ("coreml", "directml")


def load_fastest(path: Path, *, threads: int | None = None, streams: int | None = 1) -> RuntimeBackend:
    """Load a model on the fastest provider that agrees with the CPU.

    Candidates are those whose libraries are installed and that compute in the file's own precision: `openvino-bf16` is
    never taken, and neither is `tensorrt`, which builds for minutes. A choice is not remembered where a candidate
    failed, because what was in its way may be gone the next time.

    Args:
        path: An ONNX file exported by lbkit.
        threads: Threads of the model; what CPU affinity and cgroup grant when None.
        streams: Runs that go side by side; None for as many as serve each provider best. More than one leaves the CPU's
            providers alone.

    Raises:
        LbkitError: The model does not load on the CPU either.
    """
    path = Path(path)
    load = partial(load_on, path, threads=threads, streams=streams)
    cpu = None if path.is_file() else load(provider="cpu")  # raises: there is no such file
    circumstances = Circumstances.here(path, threads=checked_threads(threads), streams=streams)
    known = recall(circumstances)
    if known is not None:
        try:
            backend = load(provider=known)
        except LbkitError as error:
            logger.info("provider auto: %s was chosen before and fails now (%s)", known, error)
        else:
            logger.info("provider auto: %s, as chosen before", known)
            return backend
    cpu = cpu or load(provider="cpu")
    names = [name for name in candidates() if streams in (None, 1) or name in SIDE_BY_SIDE]
    agreeing, failed = _agreeing(cpu, names, load)
    chosen = _fastest([cpu, *agreeing])
    if not failed:  # a GPU whose memory another program holds may be free the next time
        remember(circumstances, _name(chosen))
    return chosen


def candidates() -> list[ProviderName]:
    """Return the providers besides the CPU that may run here, judged without making a session."""
    found: list[ProviderName] = []
    onnxruntime = import_onnxruntime()
    obstacle = find_cuda_obstacle(onnxruntime)
    if obstacle is None:
        found.append("cuda")
    else:
        logger.debug("provider auto: not cuda, because %s", obstacle.problem)
    built_in = onnxruntime.get_available_providers()
    found += [name for name in _SINGLE_SYSTEM if EXECUTION[name] in built_in]
    if openvino_version() is not None:
        found.append("openvino")
    return found


def _agreeing(
    cpu: RuntimeBackend, names: Sequence[ProviderName], load: Callable[..., RuntimeBackend]
) -> tuple[list[RuntimeBackend], list[ProviderName]]:
    """Load the candidates that give the CPU's answers, and name those that do not run; what is wrong is logged."""
    crops = person_crops(cpu.contract, COMPARED)
    expected = cpu.run(crops)
    good: list[RuntimeBackend] = []
    failed: list[ProviderName] = []
    for name in names:
        try:
            backend = load(provider=name)
            problem = disagreement(backend.run(crops), expected, contract=cpu.contract)
        except LbkitError as error:
            logger.warning("provider auto: not %s, because %s", name, error)
            failed.append(name)
            continue
        if problem is None:
            good.append(backend)
        else:
            logger.warning("provider auto: not %s, because %s", name, problem)
    return good, failed


def _fastest(backends: list[RuntimeBackend]) -> RuntimeBackend:
    """Return the backend that does most crops a second, the CPU's being the first.

    A run is timed alone: streams of one thread each hardly slow each other.
    """
    if len(backends) == 1:
        logger.info("provider auto: %s, the only one that runs here", backends[0].provider)
        return backends[0]
    crops = sample_crops(backends[0].contract, BATCH)
    alone = time_in_turn([_runner(backend, crops) for backend in backends])
    seconds = [took / backend.streams for took, backend in zip(alone, backends, strict=True)]
    told = ", ".join(f"{each.provider} {1e3 * took:.1f} ms" for each, took in zip(backends, seconds, strict=True))
    best = int(np.argmin(seconds))
    chosen = backends[best if seconds[best] <= WORTH * seconds[0] else 0]
    logger.info("provider auto: %s (%s for %d crops)", chosen.provider, told, BATCH)
    return chosen


def _runner(backend: RuntimeBackend, crops: NDArray[np.uint8]) -> Callable[[], ModelOutput]:
    return lambda: backend.run(crops)


def time_in_turn(functions: list[Callable[[], object]], *, limit_s: float = TIME_LIMIT_S) -> list[float]:
    """Return the least seconds that each function took, called in turn until the time is over.

    Args:
        functions: What to time; each has run once before.
        limit_s: No new round begins after it, but for the first `LEAST_ROUNDS`.
    """
    best = [float("inf")] * len(functions)
    started = time.perf_counter()
    for round_number in range(MOST_ROUNDS):
        if round_number >= LEAST_ROUNDS and time.perf_counter() - started > limit_s:
            break
        for index, function in enumerate(functions):
            begin = time.perf_counter()
            function()
            best[index] = min(best[index], time.perf_counter() - begin)
    return best


def _name(backend: RuntimeBackend) -> ProviderName:
    return next(name for name in PROVIDERS if name == backend.provider)
