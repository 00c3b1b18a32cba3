"""The whole walk on the real networks, judged by ONNX Runtime and PyTorch themselves, on crops of this test's own."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from lbkit.core.codec import decode_heatmaps
from lbkit.core.contract import CONTRACT_KEY, DECODERS, DecoderName, ModelContract
from lbkit.core.geometry import ImageSize
from lbkit.core.preprocess import normalize_crops
from lbkit.errors import (
    CheckpointError,
    ExportError,
    MissingDependencyError,
    ModelNotFoundError,
    OutputError,
)
from lbkit.export import pipeline
from lbkit.export.figures import figure_crops
from lbkit.export.golden import read_golden
from lbkit.export.options import MAX_OPSET, MIN_OPSET, ExportOptions, InputDtype
from lbkit.export.pipeline import ExportReport, export_model
from lbkit.models.checkpoint import Checkpoint, find_checkpoint, save_checkpoint, state_sha256
from lbkit.models.torch_backend import TorchBackend

BATCHES = (1, 2, 5)
PLAIN = ExportOptions(simplify=False)


@pytest.fixture(scope="module")
def exported(checkpoint_file, tmp_path_factory):
    """Export a fitted network once for every set of options."""
    folder = tmp_path_factory.mktemp("exported")

    @cache
    def make(name: str, options: ExportOptions) -> ExportReport:
        stem = f"{name}-{options.input_dtype}-{options.decoder}-{options.keep_heatmaps}-{options.opset}"
        output = folder / f"{stem}-{options.simplify}-{options.subpixel}.onnx"
        return export_model(name, checkpoint=checkpoint_file(name), output=output, options=options)

    return make


@cache
def held_out_crops() -> np.ndarray:
    """Figures mirrored, shifted and grained, so not those that the export verifies itself on."""
    rng = np.random.default_rng(11)
    crops = figure_crops(ImageSize(256, 192), max(BATCHES))[:, :, ::-1].astype(np.int64)
    crops = np.roll(crops, (6, -5), axis=(1, 2)) + rng.integers(-12, 13, crops.shape)
    return np.clip(crops, 0, 255).astype(np.uint8)


def run(path: Path, crops: np.ndarray, contract: ModelContract) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    tensor = crops if contract.input.dtype == "uint8" else normalize_crops(crops, contract.input)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {contract.input.name: tensor}), strict=True))


def assert_agrees(report: ExportReport, checkpoint: Checkpoint) -> None:
    crops, contract = held_out_crops(), report.contract
    heatmaps = TorchBackend(checkpoint).run(crops).heatmaps
    assert np.ptp(heatmaps, axis=(2, 3)).min() > 0.05, "the maps of the test are too flat to compare"
    keypoints = decode_heatmaps(heatmaps, spec=contract.heatmap)
    for batch in BATCHES:
        found = run(report.path, crops[:batch], contract)
        assert tuple(found) == contract.outputs
        if "heatmaps" in found:
            np.testing.assert_allclose(found["heatmaps"], heatmaps[:batch], atol=1e-4, rtol=0)
        decoded = found.get("keypoints")
        if decoded is None:
            decoded = decode_heatmaps(found["heatmaps"], spec=contract.heatmap)
        np.testing.assert_allclose(decoded[..., :2], keypoints[:batch, :, :2], atol=0.01, rtol=0)
        np.testing.assert_allclose(decoded[..., 2], keypoints[:batch, :, 2], atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decoder", "input_dtype"),
    [(None, "uint8"), *((decoder, "uint8") for decoder in DECODERS), (None, "float32"), ("soft-argmax", "float32")],
)
def test_cnn_agrees_with_pytorch(exported, fitted, decoder: DecoderName | None, input_dtype: InputDtype):
    assert_agrees(exported("cnn", ExportOptions(input_dtype=input_dtype, decoder=decoder)), fitted("cnn"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "input_dtype"), [("fpn", "uint8"), ("baseline", "float32")])
def test_large_networks_agree_with_pytorch(exported, fitted, name: str, input_dtype: InputDtype):
    options = ExportOptions(input_dtype=input_dtype, decoder="dark", keep_heatmaps=True)
    assert_agrees(exported(name, options), fitted(name))


@pytest.mark.slow
@pytest.mark.parametrize(("decoder", "simplify"), [(None, True), ("dark", False)])
def test_deconvolutions_written_as_convolutions_agree_with_pytorch(
    exported, fitted, decoder: DecoderName | None, *, simplify: bool
):
    report = exported("fpn", ExportOptions(decoder=decoder, simplify=simplify, subpixel=True))
    assert "ConvTranspose" not in {node.op_type for node in onnx.load(report.path).graph.node}
    assert json.loads(report.sidecar.read_text())["options"]["subpixel"] is True
    assert_agrees(report, fitted("fpn"))


def test_subpixel_says_that_there_is_no_deconvolution(checkpoint_file, tmp_path, caplog):
    options = ExportOptions(subpixel=True)
    export_model("cnn", checkpoint=checkpoint_file("cnn"), output=tmp_path / "cnn.onnx", options=options)
    assert "cnn has no deconvolution" in caplog.text


@pytest.mark.slow
def test_newest_opset_agrees_with_pytorch(exported, fitted):
    report = exported("cnn", ExportOptions(decoder="dark", opset=MAX_OPSET))
    assert [entry.version for entry in onnx.load(report.path).opset_import if not entry.domain] == [MAX_OPSET]
    assert_agrees(report, fitted("cnn"))


def test_one_file_with_named_interface_and_dynamic_batch(exported):
    report = exported("cnn", ExportOptions(decoder="dark"))
    assert sorted(report.path.parent.glob(f"{report.path.stem}*")) == [report.sidecar, report.path]
    session = onnxruntime.InferenceSession(str(report.path), providers=["CPUExecutionProvider"])
    (given,), (gives,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", 256, 192, 3])
    assert (gives.name, gives.type, gives.shape) == ("keypoints", "tensor(float)", ["batch", 6, 3])


def test_file_carries_its_contract(exported, fitted):
    report = exported("cnn", ExportOptions(decoder="dark"))
    model = onnx.load(report.path)
    text = {entry.key: entry.value for entry in model.metadata_props}[CONTRACT_KEY]
    contract = ModelContract.from_json(text, where="the file")
    assert contract == report.contract
    assert contract.weights_sha256 == fitted("cnn").contract.weights_sha256
    assert [(entry.domain, entry.version) for entry in model.opset_import if not entry.domain] == [("", MIN_OPSET)]
    assert model.producer_name == "lbkit"


@pytest.mark.parametrize("options", [ExportOptions(decoder="dark"), PLAIN])
def test_file_names_no_path_of_this_machine(exported, options: ExportOptions):
    content = exported("cnn", options).path.read_bytes()
    for trace in (os.fsencode(Path(pipeline.__file__).parents[1]), b"site-packages", b"stack_trace", b".py"):
        assert trace not in content


def test_sidecar_lets_a_foreign_runtime_check_the_file(exported):
    report = exported("cnn", ExportOptions(decoder="dark", keep_heatmaps=True))
    record = json.loads(report.sidecar.read_text())
    assert record["sha256"] == report.sha256 == hashlib.sha256(report.path.read_bytes()).hexdigest()
    assert record["size_bytes"] == report.path.stat().st_size
    assert record["opset"] == MIN_OPSET
    switches = {"keep_heatmaps": True, "simplify": True, "subpixel": False}
    assert record["options"] == {"input": "uint8", "decode": "dark"} | switches
    assert record["versions"]["torch"] == torch.__version__
    contract = ModelContract.from_json(json.dumps(record["contract"]), where="the sidecar")
    assert contract == report.contract
    golden = read_golden(record["golden"], where=str(report.sidecar))
    assert [len(batch.crops) for batch in golden] == [1, 2]
    for batch in golden:
        found = run(report.path, batch.crops, contract)
        np.testing.assert_allclose(found["keypoints"], batch.keypoints, atol=0.01, rtol=0)
        np.testing.assert_allclose(found["heatmaps"][tuple(batch.cells.T)], batch.values, atol=1e-4, rtol=0)
        assert np.ptp(batch.values) > 0.1


def test_same_checkpoint_gives_the_same_bytes_in_silence(exported, checkpoint_file, tmp_path, capfd, recwarn):
    options = ExportOptions(decoder="dark")
    first = exported("cnn", options)
    capfd.readouterr()
    recwarn.clear()
    again = export_model("cnn", checkpoint=checkpoint_file("cnn"), output=tmp_path / "again.onnx", options=options)
    assert again.sha256 == first.sha256
    assert capfd.readouterr() == ("", "")
    assert list(recwarn) == []


def test_report_tells_what_was_done(exported):
    report = exported("cnn", ExportOptions(decoder="dark"))
    assert list(report.seconds) == ["load", "export", "simplify", "verify"]
    assert [agreement.batch for agreement in report.agreement] == [1, 2, 5]
    assert report.nodes == len(onnx.load(report.path).graph.node)
    assert all(0 < agreement.heatmaps < 1e-4 and agreement.keypoints_px < 0.01 for agreement in report.agreement)


def perturb(model: onnx.ModelProto) -> None:
    """Change the largest weight tensor by a tenth of a percent."""
    tensor = max(model.graph.initializer, key=lambda part: len(part.raw_data))
    values = onnx.numpy_helper.to_array(tensor) * np.float32(1.001)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def swap_joints(model: onnx.ModelProto) -> None:
    """Exchange left and right hip in the last layer."""
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.shape[:1] == (6,):
            tensor.CopyFrom(onnx.numpy_helper.from_array(values[[1, 0, 2, 3, 4, 5]].copy(), tensor.name))


def swap_colors(model: onnx.ModelProto) -> None:
    """Take the pixels for BGR: turn the three input channels of the first layer, scale and offset round."""
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim == 4 and values.shape[1] == 3:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values[:, ::-1].copy(), tensor.name))


@pytest.mark.parametrize("damage", [perturb, swap_joints, swap_colors])
def test_wrong_graph_is_refused_and_leaves_no_file(monkeypatch, exported, checkpoint_file, tmp_path, damage):
    right = exported("cnn", ExportOptions()).path.read_bytes()
    wrong = onnx.load_from_string(right)
    damage(wrong)
    assert wrong.SerializeToString() != right
    monkeypatch.setattr(pipeline, "export_graph", lambda *_, **__: wrong)
    with pytest.raises(ExportError, match="differ from PyTorch"):
        export_model("cnn", checkpoint=checkpoint_file("cnn"), output=tmp_path / "cnn.onnx", options=PLAIN)
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_the_older_file_alone(monkeypatch, exported, checkpoint_file, tmp_path):
    def fail(*args, **kwargs):
        raise ExportError("stopped")

    model = onnx.load(exported("cnn", ExportOptions()).path)
    monkeypatch.setattr(pipeline, "export_graph", lambda *_, **__: model)
    old = tmp_path / "cnn.onnx"
    old.write_bytes(b"older")
    monkeypatch.setattr(pipeline, "check_agreement", fail)
    with pytest.raises(ExportError, match="stopped"):
        export_model("cnn", checkpoint=checkpoint_file("cnn"), output=old, options=PLAIN, force=True)
    assert old.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [old]


def test_exporter_failure_is_an_export_error(monkeypatch, checkpoint_file, tmp_path):
    def fail(*args, **kwargs):
        raise torch.onnx.OnnxExporterError("no such operator\nand a long story")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ExportError, match=r"cannot export cnn to opset 18 .*no such operator\).*-vv"):
        export_model("cnn", checkpoint=checkpoint_file("cnn"), output=tmp_path / "cnn.onnx", options=PLAIN)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def untraced(monkeypatch):
    """Fail if an export gets as far as tracing: bad input is to be found before the slow part."""

    def fail(*args, **kwargs):
        raise AssertionError("traced")

    monkeypatch.setattr(pipeline, "export_graph", fail)


@pytest.mark.usefixtures("untraced")
class TestBadInput:
    def test_unknown_model(self, tmp_path):
        with pytest.raises(ModelNotFoundError, match=r"no model 'fnp'.*did you mean fpn\?"):
            export_model("fnp", output=tmp_path / "x.onnx")

    def test_checkpoint_of_another_network(self, checkpoint_file, tmp_path):
        with pytest.raises(CheckpointError, match=r"cnn\.safetensors: is a checkpoint of cnn, and fpn.*--model cnn"):
            export_model("fpn", checkpoint=checkpoint_file("cnn"), output=tmp_path / "x.onnx")
        assert list(tmp_path.iterdir()) == []

    def test_checkpoint_whose_tensors_are_another_networks(self, fitted, tmp_path):
        path = tmp_path / "fpn.safetensors"
        cnn = fitted("cnn")
        save_checkpoint(path, Checkpoint(cnn.contract.replace(model="fpn"), cnn.state))
        with pytest.raises(CheckpointError, match="not those of fpn"):
            export_model("fpn", checkpoint=path, output=tmp_path / "x.onnx")

    @pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x10" * 64])
    def test_not_a_checkpoint(self, tmp_path, content):
        path = tmp_path / "cnn.safetensors"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"cnn\.safetensors: not a safetensors file"):
            export_model("cnn", checkpoint=path, output=tmp_path / "x.onnx")
        assert list(tmp_path.iterdir()) == [path]

    def test_missing_checkpoint(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"gone\.safetensors: no such file"):
            export_model("cnn", checkpoint=tmp_path / "gone.safetensors", output=tmp_path / "x.onnx")

    @pytest.mark.parametrize("name", ["x.onnx", "x.json"])
    def test_output_exists(self, checkpoint_file, tmp_path, name):
        (tmp_path / name).write_bytes(b"older")
        with pytest.raises(OutputError, match=rf"{name}: exists already; give --force"):
            export_model("cnn", checkpoint=checkpoint_file("cnn"), output=tmp_path / "x.onnx")
        assert (tmp_path / name).read_bytes() == b"older"

    def test_output_is_a_folder(self, checkpoint_file, tmp_path):
        (tmp_path / "x.onnx").mkdir()
        with pytest.raises(OutputError, match="is a folder"):
            export_model("cnn", checkpoint=checkpoint_file("cnn"), output=tmp_path / "x.onnx", force=True)

    def test_output_folder_cannot_be_written(self, checkpoint_file, tmp_path):
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(OutputError, match="cannot be written"):
            export_model("cnn", checkpoint=checkpoint_file("cnn"), output=tmp_path / "file" / "x.onnx")

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind here")
    def test_output_folder_is_read_only(self, checkpoint_file, tmp_path):
        tmp_path.chmod(0o500)
        with pytest.raises(OutputError, match="cannot be written"):
            export_model("cnn", checkpoint=checkpoint_file("cnn"), output=tmp_path / "x.onnx")

    def test_output_with_another_ending(self, checkpoint_file, tmp_path):
        with pytest.raises(OutputError, match=r"x\.pt: .*\.onnx"):
            export_model("cnn", checkpoint=checkpoint_file("cnn"), output=tmp_path / "x.pt")

    def test_no_runtime_to_verify_with(self, monkeypatch, checkpoint_file, tmp_path):
        for module in [name for name in sys.modules if name.split(".")[0] == "onnxruntime"]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setattr(sys, "meta_path", [_Blocked(), *sys.meta_path])
        with pytest.raises(MissingDependencyError, match=r"lbkit\[cpu\]"):
            export_model("cnn", checkpoint=checkpoint_file("cnn"), output=tmp_path / "x.onnx")


class _Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "onnxruntime":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.usefixtures("untraced")
def test_untrained_network_is_refused(fitted, tmp_path):
    cnn = fitted("cnn")
    state = {name: tensor.clone() for name, tensor in cnn.state.items()}
    for name in ("head.2.weight", "head.2.bias"):
        state[name].zero_()
    path = tmp_path / "cnn.safetensors"
    save_checkpoint(path, Checkpoint(cnn.contract.replace(weights_sha256=state_sha256(state)), state))
    with pytest.raises(ExportError, match="not of a trained network"):
        export_model("cnn", checkpoint=path, output=tmp_path / "x.onnx", options=PLAIN)
    assert list(tmp_path.iterdir()) == [path]


class TestFindCheckpoint:
    @pytest.fixture(autouse=True)
    def _elsewhere(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("LBKIT_CHECKPOINTS", raising=False)

    def place(self, *folder: str) -> Path:
        path = Path(*folder, "fpn.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        return path

    def test_in_the_working_folder(self):
        path = self.place("training", "checkpoints")
        assert find_checkpoint("fpn") == path

    def test_environment_comes_first_and_in_order(self, monkeypatch):
        self.place("training", "checkpoints")
        self.place("second")
        monkeypatch.setenv("LBKIT_CHECKPOINTS", os.pathsep.join(["", "first", "second"]))
        assert find_checkpoint("fpn") == Path("second", "fpn.safetensors")
        first = self.place("first")
        assert find_checkpoint("fpn") == first

    def test_not_found_says_where_it_looked(self, monkeypatch):
        monkeypatch.setenv("LBKIT_CHECKPOINTS", "somewhere")
        with pytest.raises(CheckpointError) as caught:
            find_checkpoint("fpn")
        for part in ("somewhere", "training", "--checkpoint FILE", "LBKIT_CHECKPOINTS"):
            assert part in str(caught.value)

    def test_unknown_name(self):
        with pytest.raises(ModelNotFoundError, match="did you mean baseline"):
            find_checkpoint("basline")
