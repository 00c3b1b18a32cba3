"""The model on every machine of a Ray cluster, with the results of one machine.

Ray Data spreads chunks of the list over a pool of actors that hold a session each; a chunk whose actor dies is done
again. The results come back in the list's order and are written by the run that asked (see `run_parts`), so the files
are those of a single machine: parts, failures and a manifest that a later run can go on from.
"""

from __future__ import annotations

import copy
import itertools
import logging
import os
import pickle
import socket
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lbkit.core.pipeline import BoxPlan, run_inference
from lbkit.core.results import ImageResult
from lbkit.core.threads import thread_limits
from lbkit.errors import ConfigError, ImageReadError, LbkitError, MissingDependencyError
from lbkit.runtime.loading import load_model
from lbkit.scale.run import Infer

CHUNK_PICTURES = 64
"""Pictures an actor does at a time: what its death costs, and enough for the model's batches to be full."""

WAVE_PICTURES = 200_000
"""Pictures handed to Ray at once, which bounds the memory for the list."""

MAX_RETRIES = 2
"""How often a chunk is done again whose session died; a picture that kills every session would be tried for ever."""

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
    """Join or start a Ray cluster, and leave or stop it at the end; a Ray that the caller has joined is used and left.

    The pictures must be there, under the same paths, on every machine, and so must lbkit in the same version. A picture
    that kills whichever session reads it has a result that says so.

    Args:
        work: What to do.
        plan: How the cluster is used.

    Yields:
        What `run_parts` takes: one result for each picture, in their order.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: There is no cluster at the address, the caller has joined another, or not an actor fits on it.
        LbkitError: A session cannot be opened there, as where the provider does not run.
    """
    ray = _import_ray()
    with _joined(ray, plan), _own_data_context(ray):
        try:
            yield _Job(ray, work, plan).infer
        except ray.exceptions.RayError as error:
            raise ConfigError(
                f"the cluster gives up ({_last_line(error)})",
                where=plan.address,
                remedy="check that lbkit is installed on every machine in this version, then give --resume",
            ) from error


class _Job:
    """The work of one run, spread over the cluster's sessions."""

    def __init__(self, ray: Any, work: Work, plan: RayPlan) -> None:
        self._ray, self._plan = ray, plan
        options = {**work.options, "threads": plan.cpus_per_actor, "streams": None}
        shared = (ray.put(work.model.read_bytes()), ray.put(work.boxes))
        self._session = (shared, options, str(Path.cwd()))
        self._pool = ray.data.ActorPoolStrategy(size=plan.actors or actors_that_fit(ray, plan))
        self._spare: Any = None

    def infer(self, pictures: Iterator[Path]) -> Iterator[ImageResult]:
        """Yield a result for each picture, in their order."""
        size = self._plan.chunk
        while wave := list(itertools.islice(pictures, WAVE_PICTURES)):
            chunks = [wave[start : start + size] for start in range(0, len(wave), size)]
            done = 0
            for row in self._answers(chunks):
                yield from self._one_by_one(chunks[done : row["chunk"]])
                yield from _results(row)
                done = row["chunk"] + 1
            yield from self._one_by_one(chunks[done:])

    def _answers(self, chunks: list[list[Path]]) -> Iterator[dict[str, Any]]:
        """Return the chunks' answers in their order; those whose sessions died again and again are left out."""
        rows = [{"chunk": number, "pictures": pickle.dumps(chunk)} for number, chunk in enumerate(chunks)]
        data = self._ray.data.from_items(rows, override_num_blocks=len(rows))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of max_task_retries, for which there is no other name
            done = data.map(
                _Worker,
                fn_constructor_args=self._session,
                compute=self._pool,
                num_cpus=self._plan.cpus_per_actor,
                num_gpus=self._plan.gpus_per_actor or None,
                max_task_retries=MAX_RETRIES,
            )
        return iter(done.iter_rows())

    def _one_by_one(self, chunks: list[list[Path]]) -> Iterator[ImageResult]:
        """Find the pictures that kill their session: each runs by itself, in a session beside the pool."""
        for picture in itertools.chain.from_iterable(chunks):
            session = self._spare_session()
            try:
                row = self._ray.get(session.answer.remote(0, pickle.dumps([picture])))
            except self._ray.exceptions.RayActorError:
                self._spare = None
                problem = "kills the program that reads it"
                yield ImageResult(
                    picture, None, problems=(ImageReadError(problem, where=picture, remedy="convert it to PNG"),)
                )
            else:
                yield from _results(row)

    def _spare_session(self) -> Any:
        """Return an actor that takes no processor of the pool's, which would wait for it, and no GPU."""
        if self._spare is None:
            shared, options, folder = self._session
            options = {**options, "provider": "cpu"} if self._plan.gpus_per_actor else options
            self._spare = self._ray.remote(num_cpus=0)(_Worker).remote(shared, options, folder)
            self._ray.get(self._spare.__ray_ready__.remote())
        return self._spare


class _Worker:
    """An actor: one session, and one chunk of pictures after the other."""

    def __init__(self, shared: tuple[Any, Any], options: Mapping[str, Any], folder: str) -> None:
        import ray

        model, boxes = shared
        os.chdir(folder)  # relative paths mean what they mean where the run was started
        self._boxes: BoxPlan = ray.get(boxes)
        self._problem: LbkitError | None = None
        with tempfile.TemporaryDirectory(prefix="lbkit-") as temporary:
            path = Path(temporary) / "model.onnx"
            path.write_bytes(ray.get(model))
            try:
                self._estimator = load_model(path, **options)
            except LbkitError as error:  # told as an answer: Ray would wrap it into pages, or begin again for ever
                self._problem = error

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return self.answer(row["chunk"], row["pictures"])

    def answer(self, chunk: int, pickled: bytes) -> dict[str, Any]:
        """Return the chunk's number and, pickled, its results, or the error that there are none for."""
        if self._problem is not None:
            return {"chunk": chunk, "results": pickle.dumps(self._problem)}
        pictures: list[Path] = pickle.loads(pickled)
        try:
            results = list(run_inference(pictures, self._estimator, boxes=self._boxes, readers=1))
        except LbkitError as error:
            return {"chunk": chunk, "results": pickle.dumps(error)}
        return {"chunk": chunk, "results": pickle.dumps(results)}


def _results(row: Mapping[str, Any]) -> list[ImageResult]:
    answer: list[ImageResult] | LbkitError = pickle.loads(row["results"])
    if isinstance(answer, LbkitError):
        raise answer
    return answer


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        remedy = 'pip install "lbkit[ray]"'
        raise MissingDependencyError("--engine ray needs Ray, which is not installed", remedy=remedy) from error
    return ray


@contextmanager
def _joined(ray: Any, plan: RayPlan) -> Iterator[None]:
    """Be connected to the cluster for the block; leave it afterwards only where it was joined here."""
    if ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if plan.address not in (LOCAL, "auto", there):
            remedy = "call ray.shutdown() first, or leave the address out to use the cluster that was joined"
            raise ConfigError(f"this program has joined the cluster {there}", where=plan.address, remedy=remedy)
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster started here tells nobody
    try:
        _join(ray, plan)
        yield
    finally:
        ray.shutdown()


def _join(ray: Any, plan: RayPlan) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if plan.address == LOCAL:
            ray.init(address="local", num_cpus=thread_limits().threads, include_dashboard=False, **quiet)
        else:
            _knock(plan.address)
            ray.init(address=plan.address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"no Ray cluster can be reached ({_first_line(error)})",
            where=plan.address,
            remedy="check `ray status` there, or leave --ray-address out to start one on this machine",
        ) from error


@contextmanager
def _own_data_context(ray: Any) -> Iterator[None]:
    """Set what Ray Data should do for the block: keep the order, go on past a chunk that fails, and say nothing."""
    logger = logging.getLogger("ray.data")
    before, level = ray.data.DataContext.get_current(), logger.level
    context = copy.deepcopy(before)
    context.execution_options.preserve_order = True
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    ray.data.DataContext._set_current(context)
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ray.data.DataContext._set_current(before)
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _last_line(error: Exception) -> str:
    """Return the end of a traceback of another process, which is where its error stands."""
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__


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
