from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lbkit.core.contract import ModelContract
from lbkit.core.geometry import ImageSize
from lbkit.core.keypoints import KeypointSchema
from lbkit.errors import ConfigError, ContractError, InputError, ModelError, ModelNotFoundError, ProviderError
from lbkit.runtime.model_file import feed_of
from lbkit.runtime.ort_backend import OrtBackend

VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"dtype": "float32"},
    {"outputs": ("keypoints",)},
    {"outputs": ("keypoints", "heatmaps")},
)


def random_crops(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 256, 192, 3), dtype=np.uint8)


def spotted_crop(toys: ModuleType, spots_xy: np.ndarray) -> np.ndarray:
    return toys.spotted_image(toys.SIZE, spots_xy, spread_px=0)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_contract_and_outputs(toys: ModuleType, tmp_path: Path, variant: dict[str, Any]) -> None:
    backend = OrtBackend(toys.save_toy_model(tmp_path / "toy.onnx", **variant))
    output = backend.run(random_crops(3))
    assert backend.provider == "cpu"
    assert backend.contract.outputs == variant.get("outputs", ("heatmaps",))
    shapes = {"heatmaps": (3, 6, 64, 48), "keypoints": (3, 6, 3)}
    for name, shape in shapes.items():
        array = getattr(output, name)
        assert (array is not None) == (name in backend.contract.outputs)
        assert array is None or (array.shape == shape and array.dtype == np.float32)


def test_a_bright_pixel_peaks_in_its_cell_and_its_map(toys: ModuleType, toy_model: Path) -> None:
    """Cell (column, row) covers the pixels from 4 * column, 4 * row on; rows, columns and joints all differ."""
    cells = np.array([[3, 50], [40, 7], [20, 30], [8, 12], [33, 55], [25, 41]])
    crop = spotted_crop(toys, cells * 4.0 + [1, 2])
    heatmaps = OrtBackend(toy_model).run(crop[None]).heatmaps
    assert heatmaps is not None
    peaks = [np.unravel_index(plane.argmax(), plane.shape) for plane in heatmaps[0]]
    assert [(x, y) for y, x in peaks] == [tuple(cell) for cell in cells.tolist()]


def test_keypoints_from_the_graph_are_cell_centres(toys: ModuleType, tmp_path: Path) -> None:
    cells = np.array([[3, 50], [40, 7], [20, 30], [8, 12], [33, 55], [25, 41]])
    backend = OrtBackend(toys.save_toy_model(tmp_path / "toy.onnx", outputs=("keypoints", "heatmaps")))
    output = backend.run(spotted_crop(toys, cells * 4.0 + [2, 1])[None])
    assert output.keypoints is not None
    assert output.heatmaps is not None
    np.testing.assert_allclose(output.keypoints[0, :, :2], cells * 4 + 1.5)
    np.testing.assert_allclose(output.keypoints[0, :, 2], output.heatmaps[0].max(axis=(1, 2)))


def test_raw_and_normalised_inputs_agree(toys: ModuleType, tmp_path: Path) -> None:
    crops = random_crops(2)
    raw, normalised = (
        OrtBackend(toys.save_toy_model(tmp_path / f"{dtype}.onnx", dtype=dtype)).run(crops).heatmaps
        for dtype in ("uint8", "float32")
    )
    np.testing.assert_allclose(raw, normalised, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_batch_of_n_equals_n_batches_of_one(toys: ModuleType, tmp_path: Path, variant: dict[str, Any]) -> None:
    backend = OrtBackend(toys.save_toy_model(tmp_path / "toy.onnx", **variant))
    crops = random_crops(5)
    together, apart = backend.run(crops), [backend.run(crop[None]) for crop in crops]
    for name in backend.contract.outputs:
        singles = np.concatenate([getattr(output, name) for output in apart])
        np.testing.assert_allclose(getattr(together, name), singles, atol=1e-6)


def test_crops_need_not_be_contiguous(toy_model: Path) -> None:
    backend = OrtBackend(toy_model)
    wide = np.repeat(random_crops(2), 2, axis=2)
    np.testing.assert_array_equal(backend.run(wide[:, :, ::2]).heatmaps, backend.run(random_crops(2)).heatmaps)


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((1, 192, 256, 3), np.uint8),
        np.zeros((256, 192, 3), np.uint8),
        np.zeros((0, 256, 192, 3), np.uint8),
        np.zeros((1, 256, 192, 3), np.float32),
    ],
    ids=["turned", "no batch", "empty", "float"],
)
def test_wrong_crops(toy_model: Path, crops: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"uint8 of shape \(N, 256, 192, 3\) with N >= 1, got"):
        OrtBackend(toy_model).run(crops)


def test_missing_file_is_answered_with_the_nearest(toy_model: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=rf"toi\.onnx: there is no such file; did you mean {toy_model}\?"):
        OrtBackend(toy_model.with_name("toi.onnx"))


def test_missing_file_in_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="lbkit export"):
        OrtBackend(tmp_path / "nowhere" / "toy.onnx")


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is a folder.*; give a file"):
        OrtBackend(tmp_path)


def test_device_instead_of_a_file() -> None:
    with pytest.raises(ModelError, match=r"^/dev/null: is a device or a pipe, and an ONNX file is expected; give a"):
        OrtBackend(Path("/dev/null"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
def test_a_file_name_that_is_not_utf_8(toy_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "toy\udcff.onnx"
    path.write_bytes(toy_model.read_bytes())
    assert OrtBackend(path).contract == OrtBackend(toy_model).contract


def test_metadata_that_is_not_utf_8(toys: ModuleType, tmp_path: Path) -> None:
    path = toys.save_toy_model(tmp_path / "toy.onnx")
    path.write_bytes(path.read_bytes().replace(b'"model": "toy"', b'"model": "\xff\xfe\xff"'))
    with pytest.raises(ContractError, match=rf"^{path}: its metadata is not text in UTF-8 .*; export it again"):
        OrtBackend(path)


@pytest.mark.parametrize("data", [b"hello, this is text", b"", b"\x89PNG\r\n\x1a\n" + bytes(64)])
def test_file_that_is_not_onnx(tmp_path: Path, data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=rf"^{path}: is not an ONNX file, or a damaged one; .*`lbkit export`"):
        OrtBackend(path)
    assert capfd.readouterr() == ("", "")


def test_truncated_onnx(toy_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    data = toy_model.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match=r"half\.onnx: is not an ONNX file, or a damaged one"):
        OrtBackend(path)


def test_checkpoint_instead_of_an_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "fpn.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    with pytest.raises(ModelError, match=rf"`lbkit export --model fpn --checkpoint {path}`"):
        OrtBackend(path)


def test_onnx_that_onnxruntime_cannot_load(toy_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = onnx.load(toy_model)
    model.graph.node[0].op_type = "Frobnicate"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(ModelError, match=r"odd\.onnx: ONNX Runtime cannot load it \(.*Frobnicate.*\)"):
        OrtBackend(tmp_path / "odd.onnx")
    assert capfd.readouterr() == ("", "")


def test_onnx_without_our_contract(toys: ModuleType, tmp_path: Path) -> None:
    path = toys.save_toy_model(tmp_path / "other.onnx", contract="")
    with pytest.raises(ContractError, match=rf"^{path}: carries no lbkit contract .*`lbkit export`"):
        OrtBackend(path)


def test_contract_of_another_version(toys: ModuleType, tmp_path: Path) -> None:
    mapping = json.loads(toys.toy_contract().to_json()) | {"contract_version": 99}
    path = toys.save_toy_model(tmp_path / "future.onnx", contract=json.dumps(mapping))
    with pytest.raises(ContractError, match=rf"^{path}: contract version 99, and this lbkit reads version 1"):
        OrtBackend(path)


def test_contract_that_lacks_a_field(toys: ModuleType, tmp_path: Path) -> None:
    mapping = json.loads(toys.toy_contract().to_json())
    del mapping["crop"]["padding"]
    path = toys.save_toy_model(tmp_path / "toy.onnx", contract=json.dumps(mapping))
    with pytest.raises(ContractError, match=r"missing field crop\.padding"):
        OrtBackend(path)


def renamed_input(contract: ModelContract) -> ModelContract:
    return contract.replace(input=_replaced(contract.input, name="pixels"))


def half_size(contract: ModelContract) -> ModelContract:
    return contract.replace(
        input=_replaced(contract.input, size=ImageSize(128, 96)), heatmap=_replaced(contract.heatmap, stride=2)
    )


def coarse_heatmaps(contract: ModelContract) -> ModelContract:
    return contract.replace(heatmap=_replaced(contract.heatmap, size=ImageSize(32, 24), stride=8))


def float_input(contract: ModelContract) -> ModelContract:
    return contract.replace(input=_replaced(contract.input, dtype="float32", layout="NCHW"))


def two_joints(contract: ModelContract) -> ModelContract:
    pair = KeypointSchema(("a", "b"), ((0, 1),), ((0, 1),), (0.1, 0.1), (11, 12))
    return contract.replace(keypoints=pair)


def keypoints_out(contract: ModelContract) -> ModelContract:
    return contract.replace(outputs=("keypoints",), heatmap=_replaced(contract.heatmap, decoded_in_graph=True))


def _replaced(record: Any, **changes: Any) -> Any:
    return type(record)(**{name: getattr(record, name) for name in record.__slots__} | changes)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (renamed_input, "inputs are images, expected pixels"),
        (half_size, r"images has shape \(N, 256, 192, 3\), expected \(N, 128, 96, 3\)"),
        (coarse_heatmaps, r"heatmaps has shape \(N, 6, 64, 48\), expected \(N, 6, 32, 24\)"),
        (float_input, r"images is tensor\(uint8\), expected tensor\(float\)"),
        (two_joints, r"heatmaps has shape \(N, 6, 64, 48\), expected \(N, 2, 64, 48\)"),
        (keypoints_out, "outputs are heatmaps, expected keypoints"),
    ],
)
def test_contract_that_the_graph_contradicts(toys: ModuleType, tmp_path: Path, change: Any, difference: str) -> None:
    path = toys.save_toy_model(tmp_path / "toy.onnx", contract=change(toys.toy_contract()))
    with pytest.raises(ContractError, match=rf"^{path}: the graph contradicts its contract: {difference}"):
        OrtBackend(path)


def test_fixed_batch(toys: ModuleType, tmp_path: Path) -> None:
    path = toys.save_toy_model(tmp_path / "toy.onnx", batch=1)
    with pytest.raises(ContractError, match="images has a fixed batch of 1, expected a dynamic one; heatmaps has"):
        OrtBackend(path)


def test_failure_while_running_is_one_error_and_no_noise(
    toy_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A graph that promises a dynamic batch and reshapes to one person fails only at two."""
    model = onnx.load(toy_model)
    model.graph.node[-1].output[0] = "maps"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 6, 64, 48]), "one_person"))
    model.graph.node.extend(
        [
            helper.make_node("ReduceMin", ["pixels"], ["lowest"], keepdims=0),
            helper.make_node("Sub", ["lowest", "lowest"], ["zero"]),  # hides from shape inference that it is one
            helper.make_node("Cast", ["zero"], ["zero_int"], to=TensorProto.INT64),
            helper.make_node("Add", ["one_person", "zero_int"], ["shape"]),
            helper.make_node("Reshape", ["maps", "shape"], ["heatmaps"]),
        ]
    )
    onnx.save(model, tmp_path / "one.onnx")
    backend = OrtBackend(tmp_path / "one.onnx")
    assert backend.run(random_crops(1)).heatmaps is not None
    with pytest.raises(ModelError, match=r"one\.onnx: running 2 crops failed \(.*[Rr]eshape.*\)"):
        backend.run(random_crops(2))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "error",
    [RuntimeError("Failed to allocate memory for requested buffer of size 99"), MemoryError("std::bad_alloc")],
)
def test_out_of_memory(toy_model: Path, error: Exception) -> None:
    backend = OrtBackend(toy_model)

    def fail(names: list[str], feed: dict[str, Any]) -> None:
        raise error

    backend._session = SimpleNamespace(run=fail)
    with pytest.raises(ModelError, match=r"out of memory while running 4 crops at once .* smaller --batch-size"):
        backend.run(random_crops(4))


def test_faults_of_our_own_are_not_hidden(toy_model: Path) -> None:
    backend = OrtBackend(toy_model)

    def fail(names: list[str], feed: dict[str, Any]) -> None:
        raise KeyError("fault")

    backend._session = SimpleNamespace(run=fail)
    with pytest.raises(KeyError, match="fault"):
        backend.run(random_crops(1))


def test_shape_that_only_shows_when_it_runs(toys: ModuleType, toy_model: Path, tmp_path: Path) -> None:
    """Unnamed dimensions pass the check at loading and are found out at the first run."""
    model = onnx.load(toy_model)
    model.graph.node[-1].output[0] = "maps"
    model.graph.node.append(helper.make_node("Transpose", ["maps"], ["heatmaps"], perm=[0, 1, 3, 2]))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("heatmaps", TensorProto.FLOAT, ["N", "K", "h", "w"]))
    onnx.save(model, tmp_path / "turned.onnx")
    with pytest.raises(ModelError, match=r"48, 64\), expected \(.*6, 64, 48\)"):
        OrtBackend(tmp_path / "turned.onnx").run(random_crops(2))


def test_unknown_provider_is_told_as_such(toy_model: Path) -> None:
    with pytest.raises(ProviderError, match="no provider 'gpu'"):
        OrtBackend(toy_model, provider="gpu")


@pytest.mark.parametrize(
    ("threads", "streams", "inside", "side_by_side"), [(4, 1, 4, 1), (4, None, 1, 4), (5, 2, 4, 2), (64, None, 49, 16)]
)
def test_streams_share_the_threads(
    toy_model: Path, threads: int, streams: int | None, inside: int, side_by_side: int
) -> None:
    backend = OrtBackend(toy_model, threads=threads, streams=streams)
    assert backend.streams == side_by_side
    assert backend._session.get_session_options().intra_op_num_threads == inside
    assert side_by_side + inside - 1 == threads


@pytest.mark.parametrize(
    ("provider", "streams", "limit"),
    [("cpu", 3, "at most 2, the threads"), ("cpu", 0, "at most 2"), ("cuda", 2, "1 on")],
)
def test_streams_out_of_range(toy_model: Path, provider: str, streams: int, limit: str) -> None:
    with pytest.raises(ConfigError, match=f"streams must be at least 1 and {limit}.*, got {streams}"):
        OrtBackend(toy_model, provider=provider, threads=2, streams=streams)


def test_a_tensor_as_the_file_takes_it_runs_as_crops_do(toys, tmp_path):
    crops = np.random.default_rng(0).integers(0, 256, (2, 256, 192, 3), dtype=np.uint8)
    for dtype, shape in (("uint8", (2, 256, 192, 3)), ("float32", (2, 3, 256, 192))):
        backend = OrtBackend(toys.save_toy_model(tmp_path / f"{dtype}.onnx", dtype=dtype), threads=1)
        tensor = feed_of(crops, backend.contract)
        assert (tensor.dtype, tensor.shape) == (np.dtype(dtype), shape)
        assert np.array_equal(backend.run_input(tensor).heatmaps, backend.run(crops).heatmaps)
