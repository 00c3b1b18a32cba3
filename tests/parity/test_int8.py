"""What the int8 limits let through, and what they do not: shipped files, and files whose ranges or scales are wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import helper, numpy_helper  # noqa: E402

from lbkit.evaluation.persons import CocoRoot  # noqa: E402
from lbkit.evaluation.truth import read_truth  # noqa: E402
from lbkit.export.metadata import embed_contract  # noqa: E402
from lbkit.parity.check import CheckOptions, check_models  # noqa: E402
from lbkit.parity.definitions import CandidateReport  # noqa: E402
from lbkit.parity.report import culprit_text  # noqa: E402
from lbkit.parity.samples import annotated_samples, synthetic_samples  # noqa: E402
from lbkit.quantization.static import measure_ranges, prepare_graph, quantize_graph  # noqa: E402
from lbkit.runtime.ort_backend import OrtBackend  # noqa: E402

Named = Callable[[str], Path]
Changed = Callable[[Path, Callable[[Any], None]], Path]

NAMES = ("cnn", "fpn", "baseline")
PHOTOGRAPHS = 24


@pytest.fixture(scope="module")
def rendered() -> Any:
    """As many rendered people as `lbkit parity-check` takes by itself."""
    return synthetic_samples(24, seed=0)


@pytest.fixture(scope="module")
def photographed() -> Any:
    folder = os.environ.get("LBKIT_COCO")
    if not folder:
        pytest.skip("LBKIT_COCO is not set")
    return annotated_samples(read_truth(CocoRoot(Path(folder)), limit=PHOTOGRAPHS))


@pytest.fixture(scope="module")
def calibrated(shipped: Named, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Give a shipped network in int8 with ranges by min-max of crops that show nobody."""
    folder = tmp_path_factory.mktemp("calibrated")

    def make(name: str, kind: str) -> Path:
        path = folder / f"{name}-{kind}.onnx"
        if not path.exists():
            source = shipped(name)
            contract = OrtBackend(source).contract
            prepared = prepare_graph(onnx.load(source))
            ranges = measure_ranges(prepared, strange_crops(kind), spec=contract.input, method="minmax")
            model = quantize_graph(prepared, ranges)
            embed_contract(model, contract.replace(precision="int8", evaluation=()))
            onnx.save(model, path)
        return path

    return make


def strange_crops(kind: str) -> np.ndarray:
    """Return eight crops of noise, or of saturated blocks of 16 px."""
    rng = np.random.default_rng(0)
    if kind == "noise":
        return rng.integers(0, 256, (8, 256, 192, 3)).astype(np.uint8)
    blocks = 255 * rng.integers(0, 2, (8, 16, 12, 3))
    return np.repeat(np.repeat(blocks, 16, axis=1), 16, axis=2).astype(np.uint8)


def check_one(path: Path, samples: Any) -> CandidateReport:
    report = check_models([str(path)], samples, options=CheckOptions()).report
    assert report.problems == ()
    return report.candidates[0]


def broken(report: CandidateReport) -> set[str]:
    return {finding.measure for finding in report.findings if not finding.passed}


@pytest.mark.parametrize("name", NAMES)
def test_shipped_files_pass_with_margin(name: str, shipped: Named, rendered: Any) -> None:
    report = check_one(shipped(f"{name}-int8"), rendered)
    assert report.passed, culprit_text(report)
    assert report.measures.moved_share == 0
    assert report.measures.undecided_share is not None
    assert report.measures.undecided_share <= 0.03


@pytest.mark.parametrize(("name", "kind"), [("cnn", "noise"), ("fpn", "blocks")])
def test_ranges_of_crops_that_show_nobody_fail(
    name: str, kind: str, calibrated: Callable[[str, str], Path], rendered: Any
) -> None:
    report = check_one(calibrated(name, kind), rendered)
    assert broken(report) >= {"input_px_max", "moved_share"}, culprit_text(report)


@pytest.mark.parametrize("place", [0, 5, 9])
def test_a_layer_of_twice_its_scale_fails(place: int, shipped: Named, changed: Changed, rendered: Any) -> None:
    def double(model: Any) -> None:
        scales = [tensor for tensor in model.graph.initializer if tensor.name.endswith(".weight_scale")]
        scale = scales[place]
        scale.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(scale), scale.name))

    report = check_one(changed(shipped("cnn-int8"), double), rendered)
    assert "heatmaps_p99" in broken(report), culprit_text(report)


def test_a_peak_where_the_reference_has_none_is_not_excused(shipped: Named, changed: Changed, rendered: Any) -> None:
    """One cell of 3,072 is 0.25 too high: only faint peaks lose to it, and no figure of the heatmaps shows it."""

    def spot(model: Any) -> None:
        last = next(node for node in model.graph.node if "heatmaps" in node.output)
        last.output[0] = "own"
        lift = np.zeros((1, 1, 64, 48), np.float32)
        lift[..., 3, 2] = 0.25
        model.graph.initializer.append(numpy_helper.from_array(lift, "lift"))
        model.graph.node.append(helper.make_node("Add", ["own", "lift"], ["heatmaps"]))

    report = check_one(changed(shipped("fpn-int8"), spot), rendered)
    assert broken(report) >= {"input_px_max", "moved_share"}
    assert not broken(report) & {"heatmaps_max", "heatmaps_p99", "undecided_share"}
    assert report.measures.undecided_share is not None
    assert report.measures.undecided_share <= 0.02
    assert report.culprit == "input keypoints"


@pytest.mark.coco
@pytest.mark.parametrize("name", NAMES)
def test_photographs_shipped_files_pass(name: str, shipped: Named, photographed: Any) -> None:
    report = check_one(shipped(f"{name}-int8"), photographed)
    assert report.passed, culprit_text(report)


@pytest.mark.coco
@pytest.mark.parametrize(("name", "kind"), [("cnn", "noise"), ("fpn", "noise"), ("fpn", "blocks")])
def test_photographs_ranges_of_crops_that_show_nobody_fail(
    name: str, kind: str, calibrated: Callable[[str, str], Path], photographed: Any
) -> None:
    report = check_one(calibrated(name, kind), photographed)
    assert broken(report) >= {"input_px_max", "moved_share", "undecided_share"}, culprit_text(report)
