"""The model on every machine of a Ray cluster, with the results of one machine.

Ray Data spreads chunks of the list over a pool of actors that hold a session each; a chunk whose actor dies is done
again. The results come back in the list's order and are written by the run that asked (see `run_parts`), so the files
are those of a single machine: parts, failures and a manifest that a later run can go on from.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lbkit.core.pipeline import BoxPlan, run_inference
from lbkit.core.results import ImageResult
from lbkit.core.threads import thread_limits
from lbkit.errors import ConfigError, MissingDependencyError
from lbkit.runtime.loading import load_model
from lbkit.scale.run import Infer

CHUNK_PICTURES = 64
"""Pictures an actor does at a time: what its death costs, and enough for the model's batches to be full."""

WAVE_PICTURES = 200_000
"""Pictures handed to Ray at once, which bounds the memory for the list."""

LOCAL = "local"

KNOCK_S = 5.0


@dataclass(frozen=True, slots=True)
class RayPlan:
    """How a Ray cluster is used.

    Attributes:
        address: Of a running cluster, "auto" for the one this machine belongs to, or "local" to start one here.
        actors: Sessions; as many as the cluster's processors or GPUs hold when None.
        cpus_per_actor: Processors, and so threads, of a session.
        gpus_per_actor: Share of a GPU of a session.
        chunk: Pictures an actor does at a time.
    """

    address: str = LOCAL
    actors: int | None = None
    cpus_per_actor: int = 1
    gpus_per_actor: float = 0.0
    chunk: int = CHUNK_PICTURES


@dataclass(frozen=True, slots=True)
class Work:
    """What every actor does.

    Attributes:
        model: The ONNX file, which travels with the work.
        boxes: Where people are looked for.
        options: Keyword arguments of `load_model`: provider, decoder, batch_size.
    """

    model: Path
    boxes: BoxPlan
    options: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def ray_inference(work: Work, plan: RayPlan) -> Iterator[Infer]:
    """Join or start a Ray cluster, and leave or stop it at the end.

    The pictures must be there, under the same paths, on every machine, and so must lbkit in the same version.

    Args:
        work: What to do.
        plan: How the cluster is used.

    Yields:
        What `run_parts` takes: one result for each picture, in their order.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: There is no cluster at the address, or not an actor fits on it.
    """
    ray = _import_ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster started here tells nobody
    try:
        _join(ray, plan)
        options = {**work.options, "threads": plan.cpus_per_actor, "streams": None}
        parts = ray.put(work.model.read_bytes()), ray.put(work.boxes)
        pool = ray.data.ActorPoolStrategy(size=plan.actors or actors_that_fit(ray, plan))

        def infer(pictures: Iterator[Path]) -> Iterator[ImageResult]:
            while wave := list(itertools.islice(pictures, WAVE_PICTURES)):
                chunks = [wave[start : start + plan.chunk] for start in range(0, len(wave), plan.chunk)]
                rows = [{"pictures": pickle.dumps(chunk)} for chunk in chunks]
                done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                    _Worker,
                    fn_constructor_args=(*parts, options, str(Path.cwd())),
                    compute=pool,
                    num_cpus=plan.cpus_per_actor,
                    num_gpus=plan.gpus_per_actor or None,
                )
                for row in done.iter_rows():
                    yield from pickle.loads(row["results"])

        yield infer
    finally:
        ray.shutdown()


class _Worker:
    """An actor: one session, and one chunk of pictures after the other."""

    def __init__(self, model: Any, boxes: Any, options: Mapping[str, Any], folder: str) -> None:
        import ray

        os.chdir(folder)  # relative paths mean what they mean where the run was started
        self._boxes: BoxPlan = ray.get(boxes)
        with tempfile.TemporaryDirectory(prefix="lbkit-") as temporary:
            path = Path(temporary) / "model.onnx"
            path.write_bytes(ray.get(model))
            self._estimator = load_model(path, **options)

    def __call__(self, row: Mapping[str, bytes]) -> dict[str, bytes]:
        pictures: list[Path] = pickle.loads(row["pictures"])
        results = run_inference(pictures, self._estimator, boxes=self._boxes, readers=1)
        return {"results": pickle.dumps(list(results))}


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        remedy = 'pip install "lbkit[ray]"'
        raise MissingDependencyError("--engine ray needs Ray, which is not installed", remedy=remedy) from error
    return ray


def _join(ray: Any, plan: RayPlan) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if plan.address == LOCAL:
            ray.init(address="local", num_cpus=thread_limits().threads, include_dashboard=False, **quiet)
        else:
            _knock(plan.address)
            ray.init(address=plan.address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"no Ray cluster can be reached ({words})",
            where=plan.address,
            remedy="check `ray status` there, or leave --ray-address out to start one on this machine",
        ) from error
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _knock(address: str) -> None:
    """Raise OSError or ValueError where nobody listens, on which Ray itself would wait for minutes."""
    if address == "auto":
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    if not parts.hostname or not parts.port:
        raise ValueError("an address is HOST:PORT, ray://HOST:PORT or auto")
    socket.create_connection((parts.hostname, parts.port), timeout=KNOCK_S).close()


def actors_that_fit(ray: Any, plan: RayPlan) -> int:
    """Return how many sessions a cluster holds at once.

    Args:
        ray: The module, connected to the cluster.
        plan: What a session takes.

    Raises:
        ConfigError: Not one.
    """
    there = ray.cluster_resources()
    fitting = int(there.get("CPU", 0) // plan.cpus_per_actor)
    if plan.gpus_per_actor:
        fitting = min(fitting, int(there.get("GPU", 0) // plan.gpus_per_actor + 1e-6))
    if fitting < 1:
        has = f"{there.get('CPU', 0):g} processors and {there.get('GPU', 0):g} GPUs"
        wanted = f"{plan.cpus_per_actor} processors and {plan.gpus_per_actor:g} GPUs"
        raise ConfigError(
            f"not one session fits on the cluster: it has {has}, and a session takes {wanted}",
            where=plan.address,
            remedy="ask for less with --cpus-per-actor and --gpus-per-actor",
        )
    return fitting
