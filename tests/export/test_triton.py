from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from lbkit.cli.main import run
from lbkit.core.records import record_to_mapping
from lbkit.core.sidecar import write_sidecar
from lbkit.errors import ContractError, ModelError, OutputError
from lbkit.export.golden import golden_record, read_golden
from lbkit.export.triton import VARIANTS, check_triton_folder, triton_config, write_triton_repository
from lbkit.export.verification import Outputs
from lbkit.runtime.loading import find_model
from lbkit.runtime.model_file import feed_of
from lbkit.runtime.ort_backend import OrtBackend

GOLDEN = Path(__file__).with_name("triton")


def remaker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("remake_triton", Path(__file__).with_name("remake_triton.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_text_is_the_golden_one() -> None:
    """After a wanted change: python tests/export/remake_triton.py, and read the difference."""
    texts = remaker().texts()
    assert sorted(texts) == sorted(path.name for path in GOLDEN.iterdir())
    for name, text in texts.items():
        assert text == (GOLDEN / name).read_text(encoding="utf-8"), name


def parsed(text: str) -> Any:
    """Read a config by Triton's own schema, which the public client carries."""
    reason = "needs Triton's schema: pip install tritonclient"
    found = importlib.util.find_spec("tritonclient")
    if found is None or (found.origin is None and not found.submodule_search_locations):
        pytest.skip(reason)
    text_format = pytest.importorskip("google.protobuf.text_format", reason=reason)
    folder = Path(next(iter(found.submodule_search_locations or ()))) / "grpc"
    spec = importlib.util.spec_from_file_location("model_config_pb2", folder / "model_config_pb2.py")
    if spec is None or spec.loader is None or not (folder / "model_config_pb2.py").is_file():
        pytest.skip(reason)
    schema = sys.modules.get("model_config_pb2") or importlib.util.module_from_spec(spec)
    if "model_config_pb2" not in sys.modules:
        sys.modules["model_config_pb2"] = schema
        spec.loader.exec_module(schema)
    return text_format.Parse(text, schema.ModelConfig())


@pytest.mark.parametrize("variant", VARIANTS)
def test_tritons_schema_reads_the_text(toys: ModuleType, variant: Any) -> None:
    contract = toys.toy_contract(dtype="float32", outputs=("keypoints", "heatmaps"), decoder="argmax")
    config = parsed(triton_config(contract, name='odd "näme"\n', variant=variant))
    assert config.name == 'odd "näme"\n'
    runs = {"tensorrt-plan": ("tensorrt", "model.plan")}.get(variant, ("onnxruntime", "model.onnx"))
    assert (config.backend, config.default_model_filename) == runs
    assert config.max_batch_size == 32
    assert [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in config.input] == [
        ("images", 11, [3, 256, 192])
    ]
    assert [(tensor.name, list(tensor.dims)) for tensor in config.output] == [
        ("keypoints", [6, 3]),
        ("heatmaps", [6, 64, 48]),
    ]
    assert max(config.dynamic_batching.preferred_batch_size) <= config.max_batch_size
    assert [warm.batch_size for warm in config.model_warmup] == [1, 8, 32]
    assert {warm.inputs["images"].input_data_file for warm in config.model_warmup} == {"golden-0"}
    (group,) = config.instance_group
    kinds = type(group).DESCRIPTOR.enum_types_by_name["Kind"].values_by_number
    assert kinds[group.kind].name == ("KIND_AUTO" if variant == "onnxruntime" else "KIND_GPU")
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert [accelerator.name for accelerator in accelerators] == (["tensorrt"] if variant == "tensorrt" else [])
    for accelerator in accelerators:
        assert accelerator.parameters["trt_profile_max_shapes"] == "images:32x3x256x192"
        assert accelerator.parameters["precision_mode"] == "FP32"


@pytest.mark.parametrize(("precision", "mode"), [("fp32", "FP32"), ("fp16", "FP16"), ("int8", "INT8")])
def test_tensorrt_calculates_as_the_contract_says(toys: ModuleType, precision: str, mode: str) -> None:
    contract = toys.toy_contract().replace(precision=precision)
    assert f'key: "precision_mode" value: "{mode}"' in triton_config(contract, name="toy", variant="tensorrt")


@pytest.fixture
def exported(toys: ModuleType, tmp_path: Path) -> Path:
    """A toy model that decodes in its graph and keeps its heatmaps, with the JSON that an export writes."""
    path = toys.save_toy_model(tmp_path / "toy.onnx", dtype="float32", outputs=("keypoints", "heatmaps"))
    return with_sidecar(path)


def with_sidecar(path: Path) -> Path:
    backend = OrtBackend(path, threads=1)
    size = backend.contract.input.size
    crops = np.random.default_rng(5).integers(0, 256, (2, size.height, size.width, 3), dtype=np.uint8)
    output = backend.run(crops)
    outputs = Outputs(output.heatmaps, output.keypoints)
    golden = golden_record(crops, outputs, backend.contract.heatmap)
    write_sidecar(path.with_suffix(".json"), {"contract": record_to_mapping(backend.contract), "golden": golden})
    return path


def test_what_is_written(exported: Path, tmp_path: Path) -> None:
    repositories = write_triton_repository(exported, tmp_path / "out" / "triton")
    folder = tmp_path / "out" / "triton"
    assert repositories == (folder / "onnxruntime", folder / "tensorrt", folder / "tensorrt-plan")
    files = ["config.pbtxt", "labels.txt", "warmup/golden-0", "warmup/golden-1"]
    expected = ["build_plan.sh", "client.py", "golden.json"]
    expected += [f"{variant}/toy/{name}" for variant in VARIANTS for name in files]
    expected = sorted([*expected, "onnxruntime/toy/1/model.onnx", "tensorrt/toy/1/model.onnx"])
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == expected
    assert (folder / "tensorrt/toy/1/model.onnx").read_bytes() == exported.read_bytes()
    assert (folder / "onnxruntime/toy/labels.txt").read_text().split() == list(
        OrtBackend(exported).contract.keypoints.names
    )
    assert [path for path in (tmp_path / "out").iterdir() if path != folder] == []


def test_the_script_builds_the_plan_where_its_config_looks_for_it(exported: Path, tmp_path: Path) -> None:
    """With a trtexec that only notes what it was asked, because the real one needs the GPU."""
    folder = tmp_path / "triton"
    write_triton_repository(exported, folder)
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "trtexec"
    list_files = 'for word; do case $word in --*=*/*) ls -d "${word#*=}";; esac; done'
    stand_in.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@"\n{list_files}\n')
    stand_in.chmod(0o755)
    (folder / "tensorrt-plan/toy/1/model.plan").touch()
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        [folder / "build_plan.sh"], env={"PATH": path}, capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.splitlines() == [
        "--onnx=onnxruntime/toy/1/model.onnx",
        "--saveEngine=tensorrt-plan/toy/1/model.plan",
        "--stronglyTyped",
        "--minShapes=images:1x3x256x192",
        "--optShapes=images:8x3x256x192",
        "--maxShapes=images:32x3x256x192",
        "onnxruntime/toy/1/model.onnx",
        "tensorrt-plan/toy/1/model.plan",
    ]


def test_warm_up_is_the_golden_picture_as_the_model_takes_it(exported: Path, tmp_path: Path) -> None:
    write_triton_repository(exported, tmp_path / "triton")
    record = json.loads(exported.with_suffix(".json").read_text())
    _, both = read_golden(record["golden"], where="x")
    backend = OrtBackend(exported, threads=1)
    for index in range(2):
        raw = (tmp_path / f"triton/tensorrt/toy/warmup/golden-{index}").read_bytes()
        tensor = np.frombuffer(raw, "<f4").reshape(1, 3, 256, 192)
        assert np.array_equal(tensor, feed_of(both.crops[index : index + 1], backend.contract))
        assert np.array_equal(backend.run_input(tensor).keypoints, both.keypoints[index : index + 1])


def test_a_folder_that_is_there(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "triton"
    folder.mkdir()
    write_triton_repository(exported, folder)  # empty, so nothing is lost
    (folder / "golden.json").write_text("{}")
    with pytest.raises(OutputError, match="exists already; give --force"):
        write_triton_repository(exported, folder)
    write_triton_repository(exported, folder, force=True)
    assert json.loads((folder / "golden.json").read_text())["model"] == "toy"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for force in (False, True):
        with pytest.raises(OutputError, match="holds something else"):
            check_triton_folder(tmp_path / "mine", force=force)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"contract": {}}'])
def test_a_model_without_its_json(exported: Path, tmp_path: Path, text: str | None) -> None:
    exported.with_suffix(".json").unlink()
    if text is not None:
        exported.with_suffix(".json").write_text(text)
    with pytest.raises(ModelError, match=r"toy\.json: cannot be read as an exported model's JSON"):
        write_triton_repository(exported, tmp_path / "triton")
    assert not (tmp_path / "triton").exists()


def test_a_contract_of_another_version(exported: Path, tmp_path: Path) -> None:
    record = json.loads(exported.with_suffix(".json").read_text())
    record["contract"]["contract_version"] = 99
    exported.with_suffix(".json").write_text(json.dumps(record))
    with pytest.raises(ContractError, match=r"toy\.json: contract version 99"):
        write_triton_repository(exported, tmp_path / "triton")


def ask_client(folder: Path, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", str(folder / "client.py"), "--url", f"http://127.0.0.1:{port}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("model", ["toy", "cnn"])
def test_the_client_checks_a_server(exported: Path, tmp_path: Path, model: str) -> None:
    """`lbkit serve` speaks the same protocol; the client needs no package at all (-S)."""
    pytest.importorskip("fastapi")
    from lbkit.serving.server import ModelServer, open_socket
    from lbkit.serving.service import KeypointService

    path = exported if model == "toy" else find_model("cnn")
    folder = tmp_path / "triton"
    write_triton_repository(path, folder)
    listener = open_socket("127.0.0.1", 0)
    port = listener.getsockname()[1]
    is_up = threading.Event()
    service = KeypointService(OrtBackend(path, threads=1), name=model)
    server = ModelServer(service, listener, on_ready=is_up.set)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert is_up.wait(20)
        done = ask_client(folder, port)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == "the answers agree"
        golden = json.loads((folder / "golden.json").read_text())
        golden["heatmap_samples"][3][4] += 0.5
        (folder / "golden.json").write_text(json.dumps(golden))
        done = ask_client(folder, port)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (3, "the answers DIFFER")
        assert ask_client(folder, port, "--slack", "1e5").returncode == 0
        golden["heatmap_samples"][3][4] = float("nan")
        (folder / "golden.json").write_text(json.dumps(golden))
        assert ask_client(folder, port, "--slack", "1e5").returncode == 3
        golden["model"] = "other"
        (folder / "golden.json").write_text(json.dumps(golden))
        done = ask_client(folder, port)
        assert done.returncode == 1
        assert "answers 404" in done.stderr
    finally:
        server.end()
        thread.join(20)


def test_the_client_without_a_server(exported: Path, tmp_path: Path) -> None:
    write_triton_repository(exported, tmp_path / "triton")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = ask_client(tmp_path / "triton", port)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: http://127.0.0.1:{port} cannot be asked")


def test_export_writes_it(checkpoint_file: Any, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["export", "--model", "cnn", "--checkpoint", str(checkpoint_file("cnn")), "--output", "m/cnn.onnx"]
    arguments += ["--no-simplify", "--triton", "triton"]
    assert run(arguments) == 0
    out = capsys.readouterr().out
    assert "triton: triton/onnxruntime, triton/tensorrt or, after triton/build_plan.sh, triton/tensorrt-plan" in out
    assert parsed(Path("triton/tensorrt/cnn/config.pbtxt").read_text()).input[0].name == "images"
    Path("m/cnn.onnx").unlink()
    Path("m/cnn.json").unlink()
    assert run(arguments) == 1  # found out before the slow part
    assert "triton: exists already" in capsys.readouterr().err
    assert not Path("m/cnn.onnx").exists()
