from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from lbkit.core.detections import Detections
from lbkit.core.pipeline import run_inference
from lbkit.core.results import ImageResult
from lbkit.errors import ConfigError, MissingDependencyError, ModelError
from lbkit.runtime.loading import load_model
from lbkit.scale.ray_job import RayPlan, Work, actors_that_fit, ray_inference
from lbkit.scale.run import Infer, RunPlan, Watcher, opened_run, run_parts

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Forty pictures with one bright pixel each; the seventh is broken."""
    rng = np.random.default_rng(3)
    paths = []
    for number in range(40):
        image = np.zeros((90, 120, 3), np.uint8)
        image[rng.integers(20, 70), rng.integers(20, 100)] = 255
        paths.append(tmp_path / f"{number:02}.png")
        cv2.imwrite(str(paths[-1]), image)
    paths[6].write_bytes(b"no picture")
    return paths


def run(plan: RunPlan, pictures: list[Path], infer: Infer, watcher: Watcher) -> None:
    with opened_run(plan, sources=lambda: pictures, resume=False) as manifest:
        run_parts(plan, manifest, infer=infer, watcher=watcher)


@pytest.mark.slow
def test_a_cluster_writes_what_one_machine_writes_though_a_worker_is_killed(
    toys: ModuleType, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    model = tmp_path / "toy.onnx"
    toys.save_toy_model(model)
    estimator = load_model(model, batch_size=4)
    settings = {"model": "toy"}
    alone = RunPlan(tmp_path / "alone", settings, estimator.contract.keypoints, part_size=15)
    many = RunPlan(tmp_path / "many", settings, estimator.contract.keypoints, part_size=15)
    run(alone, pictures, lambda paths: run_inference(paths, estimator, boxes="whole"), Watcher())
    killed: list[int] = []

    def kill_one(_result: ImageResult) -> None:
        workers = ray_workers()
        if not killed and workers:
            os.kill(workers[0], signal.SIGKILL)
            killed.append(workers[0])

    work = Work(model, "whole", {"batch_size": 4})
    with ray_inference(work, RayPlan(actors=2, chunk=4)) as infer:
        run(many, pictures, infer, Watcher(take=kill_one))
    assert killed
    for name in ("failures.jsonl", "manifest.json", "pictures.jsonl", "part-00000.jsonl", "part-00002.jsonl"):
        assert (many.folder / name).read_text() == (alone.folder / name).read_text(), name
    assert "06.png" in (many.folder / "failures.jsonl").read_text()


class Deadly:
    """A detector that one picture's size kills, and the program with it."""

    def detect(self, image: np.ndarray) -> Detections:
        if image.shape[0] == 77:
            os.kill(os.getpid(), signal.SIGKILL)
        return Detections(boxes_xyxy=np.array([[0.0, 0, 60, 80]]), scores=np.ones(1))


@pytest.mark.slow
def test_a_ray_that_was_there_before_is_used_and_left(
    toys: ModuleType, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And on it: a picture that kills every session is told, its neighbours are done, and so is an error's reason."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cv2.imwrite(str(pictures[17]), np.zeros((77, 60, 3), np.uint8))
    model = toys.save_toy_model(tmp_path / "toy.onnx")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        before = ray.data.DataContext.get_current()
        with ray_inference(Work(model, Deadly()), RayPlan(actors=1, chunk=4)) as infer:  # type: ignore[arg-type]
            results = list(infer(iter(pictures)))
        assert [result.path for result in results] == pictures
        assert [number for number, result in enumerate(results) if result.poses is None] == [6, 17]
        assert str(results[17].problems[0]) == f"{pictures[17]}: kills the program that reads it; convert it to PNG"
        with (
            pytest.raises(ModelError, match="is not an ONNX file"),
            ray_inference(Work(pictures[0], "whole"), RayPlan(actors=1)) as infer,
        ):
            list(infer(iter(pictures)))
        refused = pytest.raises(ConfigError, match=r"^10\.0\.0\.1:1: this program has joined the cluster .*:")
        with refused, ray_inference(Work(model, "whole"), RayPlan(address="10.0.0.1:1")):
            pass
        assert ray.is_initialized()
        assert ray.data.DataContext.get_current() is before
    finally:
        ray.shutdown()


def ray_workers() -> list[int]:
    """Return the processes of this machine that are actors of ours."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if line.startswith(b"ray::MapWorker"):
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("address", ["127.0.0.1:1", "somewhere", "ray://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_said(address: str, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    refused = pytest.raises(ConfigError, match=f"^{address}: no Ray cluster can be reached")
    with refused, ray_inference(Work(tmp_path / "none.onnx", "whole"), RayPlan(address=address)):
        pass


class SmallCluster:
    """Says what a cluster has."""

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 7.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("cpus", "gpus", "actors"), [(1, 0.0, 7), (2, 0.0, 3), (1, 0.25, 4), (1, 1.0, 1), (8, 0.0, None), (1, 2.0, None)]
)
def test_as_many_sessions_as_fit(cpus: int, gpus: float, actors: int | None) -> None:
    plan = RayPlan(cpus_per_actor=cpus, gpus_per_actor=gpus)
    if actors is not None:
        assert actors_that_fit(SmallCluster(), plan) == actors
        return
    with pytest.raises(ConfigError, match=r"not one session fits on the cluster: it has 7 processors and 1 GPUs"):
        actors_that_fit(SmallCluster(), plan)


def test_ray_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(MissingDependencyError, match=r"lbkit\[ray\]"),
        ray_inference(Work(tmp_path, "whole"), RayPlan()),
    ):
        pass
