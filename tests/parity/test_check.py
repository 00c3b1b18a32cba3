"""Each kind of mistake is made in a shipped file, and the check names the stage where it was made."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import helper, numpy_helper  # noqa: E402

from lbkit.core.backend import ModelOutput  # noqa: E402
from lbkit.core.contract import CONTRACT_KEY, ModelContract  # noqa: E402
from lbkit.errors import ConfigError, InputError  # noqa: E402
from lbkit.evaluation.persons import CocoRoot  # noqa: E402
from lbkit.evaluation.truth import read_truth  # noqa: E402
from lbkit.evaluation.walk import crop_key  # noqa: E402
from lbkit.parity.batches import batch_findings, return_freed_memory  # noqa: E402
from lbkit.parity.check import CheckOptions, check_models  # noqa: E402
from lbkit.parity.definitions import STAGES, CandidateReport  # noqa: E402
from lbkit.parity.report import culprit_text  # noqa: E402
from lbkit.parity.samples import annotated_samples, folder_samples, synthetic_samples  # noqa: E402

Changed = Callable[[Path, Callable[[Any], None]], Path]
Named = Callable[[str], Path]

BISECT = CheckOptions(bisect=True)


@pytest.fixture(scope="module")
def few() -> Any:
    return synthetic_samples(3, seed=4)


def check_one(path: Path, samples: Any, options: CheckOptions = BISECT) -> CandidateReport:
    report = check_models([str(path)], samples, options=options).report
    assert report.problems == ()
    assert report.passed == report.candidates[0].passed
    return report.candidates[0]


def statuses(report: CandidateReport) -> dict[str, str]:
    return {stage.name: stage.status for stage in report.stages}


def initializer(model: Any, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name)).copy()


def set_initializer(model: Any, name: str, value: np.ndarray) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value.astype(numpy_helper.to_array(tensor).dtype), name))


@pytest.mark.parametrize("name", ["cnn", "fpn", "baseline"])
def test_shipped_files_pass_and_every_node_is_compared(name: str, shipped: Named, few: Any) -> None:
    report = check_one(shipped(name), few)
    assert report.passed
    assert statuses(report) == dict.fromkeys(STAGES, "passed")
    assert report.persons == 3
    assert report.measures.input_px_max is not None
    assert report.measures.input_px_max < 0.01
    assert report.contract_differences == ()
    assert report.node is not None
    assert report.node.node is None
    assert report.node.compared == report.node.nodes > 30


def test_batches_of_1_2_7_and_64_equal_singles(shipped: Named, few: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(Path(__file__).parents[2])
    report = check_one(shipped("cnn"), few, CheckOptions())
    assert [finding.batch for finding in report.batches] == [1, 2, 7, 64]
    assert max(finding.difference for finding in report.batches) <= 1e-4


@pytest.mark.parametrize("input_dtype", ["uint8", "float32"])
@pytest.mark.parametrize("decoder", ["argmax", "soft-argmax", "quarter", "dark"])
@pytest.mark.slow
def test_every_decoder_and_input_passes(
    decoder: Any, input_dtype: Any, checkpoint: Named, few: Any, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    from lbkit.export.options import ExportOptions
    from lbkit.export.pipeline import export_model

    options = ExportOptions(decoder=decoder, input_dtype=input_dtype)
    path = export_model("cnn", checkpoint=checkpoint("cnn"), output=tmp_path / "x.onnx", options=options).path
    report = check_one(path, few, CheckOptions())
    assert report.passed, culprit_text(report)
    assert statuses(report)["heatmaps"] == "passed"


def test_swapped_channels_are_blamed_on_the_tensor(shipped: Named, changed: Changed, few: Any) -> None:
    def swap(model: Any) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "bgr"))
        transpose = model.graph.node[0]
        assert transpose.input[0] == "images"
        transpose.input[0] = "turned"
        model.graph.node.insert(0, helper.make_node("Gather", ["images", "bgr"], ["turned"], axis=3))

    report = check_one(changed(shipped("cnn"), swap), few)
    assert report.culprit == "tensor"
    assert statuses(report)["crop"] == "passed"


def test_swapped_channels_inside_the_first_weights_are_blamed_on_the_heatmaps(
    shipped: Named, changed: Changed, few: Any
) -> None:
    def swap(model: Any) -> None:
        weight = initializer(model, "network.stem.0.weight")
        set_initializer(model, "network.stem.0.weight", weight[:, ::-1])

    report = check_one(changed(shipped("cnn"), swap), few)
    assert report.culprit == "heatmaps"
    assert statuses(report)["tensor"] == "passed"
    assert report.node is not None
    assert report.node.module == "network.stem.0"


def test_a_perturbed_weight_is_blamed_on_its_module(shipped: Named, changed: Changed, few: Any) -> None:
    name = "network.blocks.2.second.0.weight"

    def perturb(model: Any) -> None:
        weight = initializer(model, name)
        weight[3] *= 1.5
        set_initializer(model, name, weight)

    report = check_one(changed(shipped("cnn"), perturb), few)
    assert report.culprit == "heatmaps"
    assert report.node is not None
    assert report.node.module == "network.blocks.2.second.0"
    assert report.node.op_type == "Conv"
    assert "PyTorch's network.blocks.2.second.0" in culprit_text(report)


def test_another_resize_is_blamed_on_its_node(shipped: Named, changed: Changed, few: Any) -> None:
    """What a converter or an opset of another default does: the nearest cell is rounded the other way."""

    def reround(model: Any) -> None:
        resize = next(node for node in model.graph.node if node.op_type == "Resize")
        mode = next(attribute for attribute in resize.attribute if attribute.name == "nearest_mode")
        assert mode.s == b"floor"
        mode.s = b"ceil"

    report = check_one(changed(shipped("fpn"), reround), few)
    assert report.culprit == "heatmaps"
    assert report.node is not None
    assert report.node.op_type == "Resize"
    assert report.node.module == "network"


def test_the_plain_pixel_rule_is_blamed_on_the_decoder(decoding: Path, changed: Changed, few: Any) -> None:
    """x = 4 * cell instead of 4 * (cell + 0.5) - 0.5: 1.5 px off along both axes."""

    def plain(model: Any) -> None:
        scale = [
            node
            for node in model.graph.node
            if node.op_type == "Mul" and any(_scalar(model, name) == 4.0 for name in node.input)
        ][-1]
        before = next(node for node in model.graph.node if node.output[0] in scale.input)
        behind = next(node for node in model.graph.node if scale.output[0] in node.input)
        for number, node in enumerate((before, behind)):
            place = next(i for i, name in enumerate(node.input) if _scalar(model, name) in (0.5, -0.5))
            model.graph.initializer.append(numpy_helper.from_array(np.array(0.0, np.float32), f"zero{number}"))
            node.input[place] = f"zero{number}"

    assert check_one(decoding, few).passed
    report = check_one(changed(decoding, plain), few)
    assert report.culprit == "input keypoints"
    assert statuses(report)["heatmaps"] == "passed"
    assert report.measures.decode_px_max == pytest.approx(1.5 * np.sqrt(2), abs=0.01)


def _scalar(model: Any, name: str) -> float | None:
    for tensor in model.graph.initializer:
        if tensor.name == name and numpy_helper.to_array(tensor).size == 1:
            return float(numpy_helper.to_array(tensor).reshape(()))
    return None


def test_numbers_that_are_not_finite_fail(shipped: Named, changed: Changed, few: Any) -> None:
    def spoil(model: Any) -> None:
        bias = initializer(model, "network.head.2.bias")
        bias[2] = np.nan
        set_initializer(model, "network.head.2.bias", bias)

    report = check_one(changed(shipped("cnn"), spoil), few)
    assert report.culprit == "heatmaps"
    assert report.measures.unfinite == 3 * 64 * 48
    assert "not finite" in culprit_text(report)


def test_a_result_that_hangs_on_the_batch_fails(shipped: Named, changed: Changed, few: Any) -> None:
    """Quantisation parameters taken from the whole batch do this: each crop's answer depends on its neighbours."""

    def couple(model: Any) -> None:
        last = next(node for node in model.graph.node if "heatmaps" in node.output)
        last.output[0] = "own"
        model.graph.initializer.append(numpy_helper.from_array(np.array(0.05, np.float32), "share"))
        model.graph.node.extend(
            [
                helper.make_node("ReduceMax", ["own", "batch_axis"], ["most"], keepdims=1),
                helper.make_node("Mul", ["most", "share"], ["little"]),
                helper.make_node("Add", ["own", "little"], ["heatmaps"]),
            ]
        )
        model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "batch_axis"))

    report = check_one(changed(shipped("cnn"), couple), few)
    assert not report.passed
    assert statuses(report)["batch"] == "failed"
    assert report.batches[0].difference == 0.0
    assert report.batches[1].difference > 1e-3


@pytest.mark.parametrize("decided", [True, False])
def test_keypoints_are_compared_even_where_no_map_is_decided(
    monkeypatch: pytest.MonkeyPatch, toys: Any, *, decided: bool
) -> None:
    """Maps without a decided joint leave nothing out, or a file whose batches are wrong would pass."""
    contract = toys.toy_contract(outputs=("keypoints",), decoder="argmax")

    def run(crops: np.ndarray) -> ModelOutput:
        return ModelOutput(None, np.full((len(crops), 6, 3), float(len(crops)), np.float32))

    backend = SimpleNamespace(run=run)
    monkeypatch.setattr("lbkit.parity.batches.load_backend", lambda *_, **__: backend)
    model: Any = SimpleNamespace(path=Path("toy.onnx"), provider="cpu", contract=contract)
    crop = np.zeros((256, 192, 3), np.uint8)
    cuts: Any = [SimpleNamespace(crops={crop_key(contract): (crop, None)})]
    single, several = batch_findings(model, cuts, decided=np.full((1, 6), decided), threads=1)
    assert single.difference == 0.0
    assert several.difference == 1.0


def test_memory_that_was_freed_goes_back_to_the_system() -> None:
    import ctypes

    if not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("another C library")

    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    blocks = [bytes(100_000) for _ in range(2000)]  # small enough for the heap, where a last block holds them
    last = bytes(100_000)
    del blocks
    held = resident_mb()
    return_freed_memory()
    assert resident_mb() < held - 100
    assert len(last) == 100_000


def recontract(model: Any, change: Callable[[ModelContract], ModelContract]) -> None:
    entry = next(entry for entry in model.metadata_props if entry.key == CONTRACT_KEY)
    entry.value = change(ModelContract.from_json(entry.value, where="test")).to_json()


def test_another_padding_is_blamed_on_the_crop(shipped: Named, changed: Changed, few: Any) -> None:
    def widen(model: Any) -> None:
        recontract(model, lambda old: old.replace(crop=dataclasses.replace(old.crop, padding=1.5)))

    report = check_one(changed(shipped("cnn"), widen), few)
    assert report.culprit == "crop"
    assert [difference.field for difference in report.contract_differences] == ["crop.padding"]
    assert statuses(report)["heatmaps"] == "passed"
    assert "crop.padding is 1.5, the checkpoint has 1.25" in culprit_text(report)


def test_a_contract_that_lies_fails_though_every_stage_passes(shipped: Named, changed: Changed, few: Any) -> None:
    def lie(model: Any) -> None:
        recontract(model, lambda old: old.replace(training_data=("something else",)))

    report = check_one(changed(shipped("cnn"), lie), few)
    assert report.culprit == "contract"
    assert "failed" not in statuses(report).values()


def test_files_that_cannot_be_checked_are_told_and_the_others_still_checked(
    shipped: Named, checkpoint: Named, changed: Changed, few: Any, tmp_path: Path
) -> None:
    def estrange(model: Any) -> None:
        recontract(model, lambda old: old.replace(weights_sha256="0" * 64))

    strange, broken = changed(shipped("cnn"), estrange), tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    models = [str(strange), str(broken), str(tmp_path / "absent.onnx"), str(shipped("cnn"))]
    report = check_models(models, few, options=CheckOptions()).report
    assert [item.name for item in report.candidates] == ["cnn.onnx"]
    assert report.candidates[0].passed
    assert not report.passed
    texts = {problem.model: problem.text for problem in report.problems}
    assert len(texts) == 3
    assert "no checkpoint has its weights (sha256 000000000000; " in texts[str(strange)]
    assert "weights_sha256 is '0000" in texts[str(strange)]
    assert "there is no such file" in texts[str(tmp_path / "absent.onnx")]


def test_the_checkpoint_of_another_network_is_refused_with_the_fields(
    shipped: Named, checkpoint: Named, few: Any
) -> None:
    report = check_models([str(shipped("cnn"))], few, options=CheckOptions(checkpoint=checkpoint("fpn"))).report
    assert report.candidates == ()
    assert "model is 'cnn', the checkpoint has 'fpn'; weights_sha256 is " in report.problems[0].text


def test_a_provider_that_is_not_there_is_a_problem_of_its_own(shipped: Named, few: Any) -> None:
    from lbkit.runtime.probe import probe_provider

    if probe_provider("cuda").works:
        pytest.skip("cuda is there")
    report = check_models([str(shipped("cnn"))], few, options=CheckOptions(providers=("cuda", "cpu"))).report
    assert [item.provider for item in report.candidates] == ["cpu"]
    assert "cuda cannot run here" in report.problems[0].text


def test_pictures_of_a_folder(shipped: Named, pictures: Path) -> None:
    report = check_models([str(shipped("cnn"))], folder_samples(pictures), options=CheckOptions()).report
    assert report.passed
    assert (report.samples.images, report.samples.persons) == (2, 4)


def test_broken_pictures_are_counted_and_too_many_refused(shipped: Named, pictures: Path) -> None:
    (pictures / "2.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    samples = folder_samples(pictures)
    with pytest.raises(InputError, match=r"1 of 3 photographs cannot be used \(image cannot be read: 1; .*2\.jpg"):
        check_models([str(shipped("cnn"))], samples, options=CheckOptions())
    report = check_models([str(shipped("cnn"))], samples, options=CheckOptions(allow_missing=0.5)).report
    assert report.samples.left_out == {"image cannot be read": 1}
    assert report.samples.persons == 4


def test_without_anybody_it_cannot_pass(shipped: Named, few: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nobody to compare on"):
        check_models([str(shipped("cnn"))], dataclasses.replace(few, targets=()), options=CheckOptions())
    with pytest.raises(InputError, match="no picture in this folder"):
        folder_samples(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        folder_samples(tmp_path / "absent")
    with pytest.raises(InputError, match="at least one person"):
        synthetic_samples(0, seed=0)


def test_annotated_people_give_changes_of_pck_and_ap(shipped: Named, roots: Any, toys: Any, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    folder = roots.write_root(tmp_path / "root", toys, [roots.RootPerson(1), roots.RootPerson(2)])
    samples = annotated_samples(read_truth(CocoRoot(folder)))
    report = check_one(shipped("cnn"), samples, CheckOptions())
    assert report.measures.pck_change == 0.0
    assert report.measures.ap_change == pytest.approx(0.0)
    assert report.worst[0].image == "000001.png"


def test_rendered_samples_are_odd_and_leave_their_pictures() -> None:
    samples = synthetic_samples(8, seed=0)
    sizes = [samples.sizes[target.image_id] for target in samples.targets]
    assert {size.height > size.width for size in sizes if size is not None} == {True, False}
    again = synthetic_samples(8, seed=0)
    outside = []
    for target, same, size in zip(samples.targets, again.targets, sizes, strict=True):
        np.testing.assert_array_equal(target.box_xyxy, same.box_xyxy)
        assert size is not None
        box = target.box_xyxy
        outside.append(box.min() < 0 or box[2] > size.width or box[3] > size.height)
    assert 2 <= sum(outside) <= 7


def test_an_unknown_preset_ends_the_check_at_once(shipped: Named, few: Any) -> None:
    with pytest.raises(ConfigError, match="no preset 'fp8'"):
        check_models([str(shipped("cnn"))], few, options=CheckOptions(preset="fp8"))
