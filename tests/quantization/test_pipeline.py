from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from lbkit.core.estimator import PoseEstimator
from lbkit.core.images import read_image
from lbkit.errors import AnnotationError, ConfigError, InputError, ModelError, OutputError, VerdictError
from lbkit.export.golden import read_golden
from lbkit.export.graph_edit import GraphEdit
from lbkit.quantization.comparison import AgreementPck, Joints, measure_agreement
from lbkit.quantization.options import ReductionOptions
from lbkit.quantization.people import Source
from lbkit.quantization.pipeline import Reduction, reduce_model
from lbkit.quantization.roles import cast_roles
from lbkit.runtime.ort_backend import OrtBackend


def options(**changes: Any) -> ReductionOptions:
    return ReductionOptions(**({"samples": 4, "batches": (1, 2), "threads": 1} | changes))


@pytest.fixture(scope="module")
def reduced(small_network: Any, people_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Reduction:
    """The small network in int8, calibrated and measured on parts of one root."""
    output = tmp_path_factory.mktemp("int8") / "small-int8.onnx"
    return reduce_model(small_network(), options=options(coco=people_root), output=output)


def test_everything_with_weights_runs_on_bytes(reduced: Reduction) -> None:
    edit = GraphEdit(onnx.load(reduced.path))
    kinds = {node.op_type for node in edit.graph.node}
    assert not kinds & {"ConvTranspose", "Cast", "Mul", "Relu"}
    assert reduced.int8 is not None
    assert (reduced.int8.layers, reduced.int8.in_8_bits, reduced.int8.deconvolutions) == (3, 3, 1)
    weights = [edit.constant(node.input[0]) for node in edit.nodes("DequantizeLinear")]
    signed = [weight for weight in weights if weight is not None and weight.dtype == np.int8]
    assert len(signed) == 3
    assert max(int(np.abs(weight.astype(int)).max()) for weight in signed) <= 64  # 7 bits: no overflow without VNNI


def test_the_heatmaps_are_not_rounded(reduced: Reduction) -> None:
    model = onnx.load(reduced.path)
    producer = GraphEdit(model).producer("heatmaps")
    assert producer is not None
    assert producer.op_type == "Transpose"
    assert [output.type.tensor_type.elem_type for output in model.graph.output] == [onnx.TensorProto.FLOAT]


def test_joints_are_those_of_the_fp32_file(reduced: Reduction, people_root: Path, roots: ModuleType) -> None:
    image = read_image(people_root / "val2017" / "000001.png")
    left, top, width, height = roots.BOX_XYWH
    poses = PoseEstimator(OrtBackend(reduced.path))(image, [[left, top, left + width, top + height]])
    assert np.linalg.norm(poses.xy[0] - roots.SPOTS, axis=1).max() < 1.5
    assert 0 < reduced.shift.mean_px < 0.5
    assert reduced.shift.joints == 6 * 4


def test_the_contract_and_the_json_tell_all_of_it(reduced: Reduction) -> None:
    contract = OrtBackend(reduced.path).contract
    assert contract == reduced.contract
    assert contract.precision == "int8"
    figures = {figure.metric: figure for figure in contract.evaluation}
    assert figures["pck@0.05 v>0"].persons == 4
    record = json.loads(reduced.sidecar.read_text())
    assert record["made_from"]["file"] == reduced.source.name
    report = record["reduction"]
    assert report["int8"]["method"] in {"minmax", "entropy", "percentile"}
    assert set(report["int8"]["tried"]) == {"minmax", "entropy", "percentile"}
    assert len(report["int8"]["layer_costs_px"]) == 3
    assert len(report["joints"]) == 6
    assert report["pck@0.05 v>0"]["before"] == 1.0
    assert [speed["batch"] for speed in report["speed"]["batches"]] == [1, 2]
    assert report["size_bytes"]["int8"] == reduced.path.stat().st_size < report["size_bytes"]["fp32"]


def test_golden_vectors_are_the_files_own(reduced: Reduction) -> None:
    record = json.loads(reduced.sidecar.read_text())["golden"]
    for batch in read_golden(record, where=str(reduced.sidecar)):
        heatmaps = OrtBackend(reduced.path).run(batch.crops).heatmaps
        assert heatmaps is not None
        np.testing.assert_allclose(heatmaps[tuple(batch.cells.T)], batch.values, atol=1e-5)
    assert record["tolerance"] == {"heatmaps": 2e-2, "keypoints_px": 1.0}


def test_nobody_is_both_calibrated_on_and_measured(reduced: Reduction) -> None:
    assert reduced.people == {
        "calibrated": "4 people of root0",
        "chosen": "4 people of root0",
        "measured": "4 people of root0, people not calibrated on",
    }


def test_one_root_given_twice_is_still_split(small_network: Any, people_root: Path) -> None:
    finder = PoseEstimator(OrtBackend(small_network(), threads=1))
    roles = cast_roles(options(calibration=people_root, coco=people_root / "."), finder)
    used = {*roles.calibrating.source.paths, *roles.choosing.source.paths}
    assert len(used) == 8
    assert len(roles.measuring) == 4
    assert not used & set(roles.measuring.source.paths)
    assert roles.measuring.source.name.endswith("people not calibrated on")


def test_a_fragile_layer_is_found_and_kept(small_network: Any, people_root: Path, tmp_path: Path) -> None:
    made = reduce_model(
        small_network(fragile=True),
        options=options(coco=people_root, method="minmax"),
        output=tmp_path / "fragile.onnx",
    )
    assert made.int8 is not None
    assert {cost.layer for cost in made.int8.costs[:2]} == {"fragile_a", "fragile_b"}
    assert made.int8.costs[1].mean_px > 10 * made.int8.costs[2].mean_px
    assert {cost.layer for cost in made.int8.costs if cost.is_kept} == {"fragile_a", "fragile_b"}
    assert made.shift.mean_px < 0.5
    assert made.int8.in_8_bits == 3


def test_a_decoder_in_the_graph_stays_in_float(small_network: Any, people_root: Path, tmp_path: Path) -> None:
    source = small_network(decoded=True)
    made = reduce_model(source, options=options(coco=people_root, method="minmax"), output=tmp_path / "d.onnx")
    edit = GraphEdit(onnx.load(made.path))
    behind = {"heatmaps"}
    for node in edit.graph.node:
        if behind & set(node.input):
            behind |= set(node.output)
            assert node.op_type not in {"QuantizeLinear", "DequantizeLinear"}
    assert OrtBackend(made.path).contract.outputs == ("keypoints", "heatmaps")
    assert made.shift.max_px <= 4 * np.sqrt(2)  # one cell


@pytest.mark.parametrize(
    ("limit", "message"), [({"require_speedup": 1e6}, "times as fast"), ({"max_drop": 0}, "drops by")]
)
def test_a_limit_that_is_not_kept_writes_nothing(
    small_network: Any,
    people_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: dict[str, float],
    message: str,
) -> None:
    if "max_drop" in limit:
        monkeypatch.setattr("lbkit.quantization.int8.MAX_KEPT", 0)
    source = small_network(fragile="max_drop" in limit)
    with pytest.raises(VerdictError, match=message):
        reduce_model(source, options=options(coco=people_root, method="minmax", **limit), output=tmp_path / "no.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_annotations_the_fp32_files_joints_are_the_labels(
    small_network: Any, people_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    photographs = options(calibration=people_root / "val2017", method="minmax")
    fragile = small_network(fragile=True)
    made = reduce_model(fragile, options=photographs, output=tmp_path / "kept.onnx")
    assert made.pck is None
    assert made.agreement is not None
    assert made.agreement.drop_points == 0.0
    assert made.agreement.joints == 6 * len(cast_roles(photographs, PoseEstimator(OrtBackend(fragile))).measuring)
    assert json.loads(made.sidecar.read_text())["reduction"]["agreement pck@0.05"]["drop_points"] == 0.0
    monkeypatch.setattr("lbkit.quantization.int8.MAX_KEPT", 0)
    with pytest.raises(VerdictError, match=r"agreement PCK@0\.05 drops by 100\.00 points, 24 of the 24 joints"):
        reduce_model(fragile, options=photographs, output=tmp_path / "lost.onnx")
    assert not (tmp_path / "lost.onnx").exists()
    assert "still move too far with 0 layers in fp32" in caplog.text


def test_agreement_counts_what_the_fp32_file_is_sure_of() -> None:
    """Boxes are 90 by 120, so 6 px are the limit; the last joint moves farther, but its score is low."""
    source = Source("two", (Path("a"), Path("b")), np.array([[0.0, 0.0, 90.0, 120.0]] * 2), None)
    points, scores = np.full((2, 6, 2), 50.0), np.full((2, 6), 0.9)
    scores[1, 5] = 0.29
    before = Joints(points, points, scores)
    moved = points.copy()
    moved[0, :2, 0] += np.array([5.9, 6.1])
    moved[1, 5] += 40.0
    assert measure_agreement(before, Joints(moved, moved, scores), source=source) == AgreementPck(9.09, 1, 11)
    moved[0, 2] = np.nan
    assert measure_agreement(before, Joints(moved, moved, scores), source=source) == AgreementPck(18.18, 2, 11)
    faint = Joints(points, points, 0.2 * scores)
    assert measure_agreement(faint, faint, source=source) is None


@pytest.mark.parametrize(
    ("lost", "joints", "most"),
    [(0, 5, 0), (1, 70, 0.5), (2, 215, 0.5), (3, 466, 0.5), (8, 1600, 0.5), (13, 1600, 0.5), (5, 5, 100)],
)
def test_a_few_lost_joints_may_be_chance(lost: int, joints: int, most: float) -> None:
    assert not AgreementPck(100 * lost / joints, lost, joints).exceeds(most)


@pytest.mark.parametrize(
    ("lost", "joints", "most"), [(1, 1000, 0), (2, 70, 0.5), (8, 570, 0.5), (14, 1600, 0.5), (12_000, 12_000, 99)]
)
def test_more_than_chance_explains_is_too_much(lost: int, joints: int, most: float) -> None:
    """14 of 1,600: the binomial distribution of rate 0.005 gives 8 on average, and 14 or more in 3.3 % of cases."""
    assert AgreementPck(100 * lost / joints, lost, joints).exceeds(most)


def test_fp16_keeps_decoder_and_interface_in_fp32(small_network: Any, people_root: Path, tmp_path: Path) -> None:
    made = reduce_model(
        small_network(decoded=True), options=options(precision="fp16", coco=people_root), output=tmp_path / "half.onnx"
    )
    model = onnx.load(made.path)
    edit = GraphEdit(model)
    kinds = {item.name: item.data_type for item in model.graph.initializer}
    assert kinds["answer_weight"] == kinds["doubling"] == onnx.TensorProto.FLOAT16
    assert kinds["stride"] == kinds["half_cell"] == onnx.TensorProto.FLOAT
    producer = edit.producer("heatmaps")
    assert producer is not None
    assert producer.op_type == "Cast"
    assert made.contract.precision == "fp16"
    assert made.shift.p99_px < 0.1
    assert made.int8 is None


def test_a_folder_of_photographs_without_annotations_serves(
    small_network: Any, people_root: Path, tmp_path: Path
) -> None:
    made = reduce_model(
        small_network(),
        options=options(calibration=people_root / "val2017", method="minmax"),
        output=tmp_path / "a.onnx",
    )
    assert made.pck is None
    assert made.contract.evaluation == ()
    assert made.people["calibrated"] == "4 people of val2017"


def test_a_file_that_takes_normalised_floats_keeps_doing_so(
    toys: ModuleType, people_root: Path, tmp_path: Path
) -> None:
    source = toys.save_toy_model(tmp_path / "floats.onnx", dtype="float32")
    made = reduce_model(source, options=options(coco=people_root, method="minmax", max_drop=100))
    assert made.path == tmp_path / "floats-int8.onnx"
    assert made.contract.input.dtype == "float32"
    assert made.int8 is not None
    assert not made.int8.takes_bytes
    assert made.int8.in_8_bits == 3


def test_a_table_of_boxes_serves(small_network: Any, people_root: Path, roots: ModuleType, tmp_path: Path) -> None:
    left, top, width, height = roots.BOX_XYWH
    table = people_root / "val2017" / "boxes.csv"
    rows = [f"{number:06d}.png,{left},{top},{left + width},{top + height}" for number in range(1, 7)]
    table.write_text("\n".join(["image,left,top,right,bottom", *rows]))
    made = reduce_model(
        small_network(), options=options(calibration=table, method="minmax", samples=2), output=tmp_path / "a.onnx"
    )
    assert made.people["calibrated"] == "2 people of boxes"


@pytest.mark.parametrize(
    ("kind", "problem"), [("empty", "no picture"), ("nobody", "no person was found"), ("gone", "no such file")]
)
def test_calibration_without_people_is_an_error(small_network: Any, tmp_path: Path, kind: str, problem: str) -> None:
    import cv2

    folder = tmp_path / "pictures"
    if kind != "gone":
        folder.mkdir()
    if kind == "nobody":
        cv2.imwrite(str(folder / "grey.png"), np.full((80, 60, 3), 128, np.uint8))
    with pytest.raises(InputError, match=problem):
        reduce_model(small_network(), options=options(calibration=folder), output=tmp_path / "no.onnx")
    assert not (tmp_path / "no.onnx").exists()


def test_annotations_that_label_nobody_are_an_error(small_network: Any, tmp_path: Path) -> None:
    (tmp_path / "annotations.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(AnnotationError, match="has nobody"):
        reduce_model(small_network(), options=options(calibration=tmp_path), output=tmp_path / "no.onnx")


def test_what_is_reduced_already_is_refused(reduced: Reduction, people_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is int8 already"):
        reduce_model(reduced.path, options=options(coco=people_root), output=tmp_path / "twice.onnx")


def test_files_that_are_there_stay(reduced: Reduction, people_root: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        reduce_model(reduced.source, options=options(coco=people_root), output=reduced.path)
    with pytest.raises(OutputError, match="the fp32 file itself"):
        reduce_model(reduced.source, options=options(coco=people_root), output=reduced.source, force=True)
    with pytest.raises(OutputError, match=r"should end in \.onnx"):
        reduce_model(reduced.source, options=options(coco=people_root), output=Path("file.bin"))


@pytest.mark.parametrize(
    "given",
    [
        {"precision": "int4"},
        {"method": "magic"},
        {"samples": 0},
        {"batches": (0,)},
        {"batches": (1, 10**6)},
        {"batches": ()},
        {"threads": 0},
        {"threads": 10**6},
        {"max_drop": -1},
        {"require_speedup": float("nan")},
    ],
)
def test_senseless_options_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        options(coco=Path("root"), **given)


def test_int8_needs_people() -> None:
    with pytest.raises(ConfigError, match="--calibration"):
        options()
