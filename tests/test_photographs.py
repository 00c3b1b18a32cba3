"""The shipped models on real photographs: a COCO root in LBKIT_COCO, else skipped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lbkit.cli.main import run
from lbkit.core.coco import read_coco
from lbkit.core.codec import decode_heatmaps
from lbkit.core.contract import DECODERS
from lbkit.core.estimator import PoseEstimator
from lbkit.core.images import read_image
from lbkit.core.preprocess import crop_person
from lbkit.evaluation.persons import CocoRoot, EvaluatedPersons, evaluate_persons
from lbkit.export.options import ExportOptions
from lbkit.export.pipeline import export_model
from lbkit.models.checkpoint import load_checkpoint
from lbkit.models.torch_backend import TorchBackend
from lbkit.runtime.loading import load_model
from lbkit.runtime.ort_backend import OrtBackend

REPOSITORY = Path(__file__).parent.parent
CHECKPOINTS = sorted((REPOSITORY / "training" / "checkpoints").glob("*.safetensors"))
SHIPPED = sorted((REPOSITORY / "exported").glob("[!.]*.onnx"))
REDUCED = [path for path in SHIPPED if path.stem.endswith(("-int8", "-fp16"))]
MAX_DROP = 0.005
HEATMAP_TOLERANCE = 1e-4
KEYPOINT_TOLERANCE_PX = 0.01

assert CHECKPOINTS
assert SHIPPED

pytestmark = [
    pytest.mark.coco,
    pytest.mark.skipif("LBKIT_COCO" not in os.environ, reason="LBKIT_COCO names no COCO root"),
]


@pytest.fixture(scope="module")
def root() -> CocoRoot:
    return CocoRoot(Path(os.environ["LBKIT_COCO"]))


@pytest.fixture(scope="module")
def measured(root: CocoRoot) -> Callable[[Path], EvaluatedPersons]:
    """Run a file over everybody, once."""
    return cache(lambda path: evaluate_persons(load_model(path), root))


@pytest.fixture(scope="module")
def bare_contract_crops(root: CocoRoot) -> tuple[np.ndarray, list]:
    """Ten people's crops and transforms, from pictures and boxes of all sizes."""
    contract = load_checkpoint(CHECKPOINTS[0]).contract
    coco = read_coco(root.annotations)
    people = [person for person in coco.persons if person.labelled_joints == 6][:40:4]
    cut = []
    for person in people:
        image = read_image(root.images / coco.images[person.image_id].file_name)
        cut.append(crop_person(image, person.box_xyxy, contract=contract))
    return np.stack([crop for crop, _ in cut]), [transform for _, transform in cut]


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_exported_files_agree_with_pytorch(
    path: Path, dtype: str, bare_contract_crops: tuple[np.ndarray, list], tmp_path: Path
) -> None:
    """Heatmaps to 1e-4, and every decoder's joints to 0.01 px of the photograph, in one file's heatmaps."""
    crops, transforms = bare_contract_crops
    reference = TorchBackend(path)
    report = export_model(
        path.stem, checkpoint=path, output=tmp_path / "model.onnx", options=ExportOptions(input_dtype=dtype)
    )
    backend = OrtBackend(report.path)
    expected = reference.run(crops).heatmaps
    assert expected is not None
    for batch in (1, 2, 5):
        found = backend.run(crops[:batch]).heatmaps
        assert found is not None
        assert np.abs(found - expected[:batch]).max() <= HEATMAP_TOLERANCE
        for decoder in DECODERS:
            moved = _moved_px(found, expected[:batch], transforms[:batch], decoder=decoder)
            assert moved <= KEYPOINT_TOLERANCE_PX, decoder


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoders_in_the_graph_agree_with_the_host(
    decoder: str, bare_contract_crops: tuple[np.ndarray, list], tmp_path: Path
) -> None:
    crops, transforms = bare_contract_crops
    path = next(path for path in CHECKPOINTS if path.stem == "cnn")
    options = ExportOptions(decoder=decoder)  # type: ignore[arg-type]
    report = export_model("cnn", checkpoint=path, output=tmp_path / "model.onnx", options=options)
    in_graph = PoseEstimator(OrtBackend(report.path)).predict(list(crops), transforms)
    on_host = PoseEstimator(TorchBackend(path), decoder=decoder).predict(list(crops), transforms)  # type: ignore[arg-type]
    assert np.abs(in_graph[..., :2] - on_host[..., :2]).max() <= KEYPOINT_TOLERANCE_PX
    np.testing.assert_allclose(in_graph[..., 2], on_host[..., 2], atol=HEATMAP_TOLERANCE)


def _moved_px(found: np.ndarray, expected: np.ndarray, transforms: list, *, decoder: str) -> float:
    spec = load_checkpoint(CHECKPOINTS[0]).contract.heatmap
    pair = [decode_heatmaps(maps, spec=spec, decoder=decoder)[..., :2] for maps in (found, expected)]  # type: ignore[arg-type]
    in_image = [[t.to_image(xy) for t, xy in zip(transforms, joints, strict=True)] for joints in pair]
    return float(np.linalg.norm(np.array(in_image[0]) - np.array(in_image[1]), axis=-1).max())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_models_are_as_good_as_their_contract_says(
    path: Path, root: CocoRoot, measured: Callable[[Path], EvaluatedPersons]
) -> None:
    persons = measured(path)
    contract = load_model(path).contract
    figures = {figure.metric: figure for figure in contract.evaluation if figure.data == root.folder.name}
    measured_elsewhere = bool(contract.evaluation) and not figures
    if measured_elsewhere:
        pytest.skip(f"{path.name} was measured on other data than {root.folder.name}")
    assert figures["pck@0.05 v>0"].persons == len(persons.image_ids)
    assert persons.pck(0.05) == pytest.approx(figures["pck@0.05 v>0"].value, abs=0.002)
    assert persons.pck(0.05, min_visibility=2) == pytest.approx(figures["pck@0.05 v=2"].value, abs=0.002)


@pytest.mark.parametrize("path", REDUCED, ids=lambda path: path.stem)
def test_reduced_files_lose_half_a_point_at_most(path: Path, measured: Callable[[Path], EvaluatedPersons]) -> None:
    full = path.with_name(f"{path.stem.rpartition('-')[0]}.onnx")
    assert measured(full).pck(0.05) - measured(path).pck(0.05) <= MAX_DROP


def test_eval_is_a_gate_on_the_shipped_cnn(root: CocoRoot, capsys: pytest.CaptureFixture[str]) -> None:
    """PyTorch and ONNX give the same figures, those of a plain count, and the limits hold on forty photographs."""
    pytest.importorskip("pycocotools")
    models = [
        str(REPOSITORY / "exported" / "cnn.onnx"),
        str(REPOSITORY / "training" / "checkpoints" / "cnn.safetensors"),
    ]
    limits = ["--limit", "40", "--min-pck", "0.15", "--min-ap", "0.02"]
    assert run(["eval", *models, "--coco", str(root.folder), *limits, "--json"]) == 0
    in_ort, in_torch = json.loads(capsys.readouterr().out)["models"]
    for rule, estimates in in_ort["curve"].items():
        for found, expected in zip(estimates, in_torch["curve"][rule], strict=True):
            assert found["value"] == pytest.approx(expected["value"], abs=0.001)
    assert in_ort["oks"]["ap"] == pytest.approx(in_torch["oks"]["ap"], abs=0.001)
    assert in_ort["data"]["images"] == 40
    assert run(["eval", models[0], "--coco", str(root.folder), "--limit", "5", "--min-pck", "0.99", "-q"]) == 3


def test_eval_counts_as_training_does(root: CocoRoot, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pycocotools")
    persons = evaluate_persons(load_model(SHIPPED[0]), root)
    assert run(["eval", str(SHIPPED[0]), "--coco", str(root.folder), "--json", "-q"]) == 0
    evaluation = json.loads(capsys.readouterr().out)["models"][0]
    for place, threshold in enumerate(evaluation["thresholds"]):
        assert evaluation["curve"]["v>0"][place]["value"] == pytest.approx(persons.pck(threshold), abs=1e-6)
        assert evaluation["curve"]["v=2"][place]["value"] == pytest.approx(
            persons.pck(threshold, min_visibility=2), abs=1e-6
        )
        whole = persons.fully_labelled()
        assert evaluation["curve"]["all six"][place]["value"] == pytest.approx(whole.pck(threshold), abs=1e-6)


def test_shipped_files_do_what_their_checkpoints_do(
    root: CocoRoot, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parity gate on two dozen photographs, each model against its own checkpoint."""
    monkeypatch.setenv("LBKIT_CHECKPOINTS", str(REPOSITORY / "training" / "checkpoints"))
    arguments = ["parity-check", *map(str, SHIPPED), "--coco", str(root.folder), "--limit", "24", "--json", "-q"]
    assert run(arguments) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [Path(model["file"]).name for model in models] == [path.name for path in SHIPPED]
    for model in models:
        assert model["persons"] >= 24
        assert model["precision"] == ("int8" if model["file"].endswith("-int8.onnx") else "fp32")
        if model["precision"] == "fp32":
            assert model["measures"]["input_px_max"] <= 0.05
            assert model["measures"]["undecided_share"] == 0
        assert [batch["batch"] for batch in model["batches"]] == [1, 2, 7, 64]


def test_infer_writes_coco_results_that_pycocotools_scores(root: CocoRoot, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    output = tmp_path / "results.json"
    arguments = ["infer", root.images, "--boxes", f"coco:{root.annotations}", "--format", "coco", "--output", output]
    assert run([*map(str, arguments), "--model", str(SHIPPED[0]), "-q"]) == 0
    rows = json.loads(output.read_text())
    persons = [person for person in read_coco(root.annotations).persons if not person.is_crowd]
    assert {row["ann_id"] for row in rows} == {person.ann_id for person in persons}
    loaded = COCO(str(root.annotations)).loadRes(str(output))
    assert len(loaded.getAnnIds()) == len(rows)
    estimator = PoseEstimator(OrtBackend(SHIPPED[0]))
    person = persons[3]
    coco = read_coco(root.annotations)
    poses = estimator(read_image(root.images / coco.images[person.image_id].file_name), person.box_xyxy)
    row = next(row for row in rows if row["ann_id"] == person.ann_id)
    keypoints = np.array(row["keypoints"]).reshape(17, 3)[11:17, :2]
    np.testing.assert_allclose(keypoints, poses.xy[0], atol=0.01)


def test_a_person_is_found_without_a_box(root: CocoRoot) -> None:
    """On pictures of one person the search by itself must come near what the annotated box gives."""
    coco = read_coco(root.annotations)
    alone = [people[0] for people in coco.persons_by_image().values() if len(people) == 1]
    alone = [person for person in alone if person.labelled_joints == 6]
    assert len(alone) >= 10
    estimator = load_model(SHIPPED[-1])
    near = []
    for person in alone:
        image = read_image(root.images / coco.images[person.image_id].file_name)
        searched, boxed = estimator(image), estimator(image, person.box_xyxy)
        height = person.box_xyxy[3] - person.box_xyxy[1]
        near.append(np.linalg.norm(searched.xy - boxed.xy, axis=-1) <= 0.1 * height)
    assert np.mean(near) >= 0.5
