"""A model repository for NVIDIA Triton, written from an exported file: pre- and post-processing are in its graph.

    DIR/onnxruntime/NAME/   ONNX Runtime, on a GPU where there is one, else on the CPU
    DIR/tensorrt/NAME/      ONNX Runtime that hands the graph to TensorRT, which builds its engine when it starts
    DIR/tensorrt-plan/NAME/ TensorRT alone, with a plan that is built beforehand, on the GPU that is to run it
    DIR/build_plan.sh       builds that plan by trtexec
    DIR/client.py           sends the golden vectors to a running server and compares the answers
    DIR/golden.json         what it sends and expects

Source: the fields are those of Triton's `model_config.proto`.
"""

from __future__ import annotations

import importlib.resources
import json
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lbkit.core.contract import ModelContract
from lbkit.core.geometry import ImageArray
from lbkit.core.preprocess import normalize_crops
from lbkit.core.sidecar import sidecar_path
from lbkit.errors import ModelError, OutputError
from lbkit.export.golden import GoldenBatch, read_golden
from lbkit.runtime.signature import input_shape, output_shape

Variant = Literal["onnxruntime", "tensorrt", "tensorrt-plan"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

MAX_BATCH = 32
PREFERRED_BATCHES = (8, 16, 32)
QUEUE_DELAY_US = 2000
MAX_QUEUE = 256
QUEUE_TIMEOUT_US = 30_000_000
WARM_BATCHES = (1, 8, 32)
"""TensorRT and cuDNN choose kernels at the first run of a size; these sizes are run before the first request."""

LABELS_FILE, CLIENT_FILE, GOLDEN_FILE, BUILD_FILE = "labels.txt", "client.py", "golden.json", "build_plan.sh"
_BACKENDS = {"onnxruntime": "onnxruntime", "tensorrt": "onnxruntime", "tensorrt-plan": "tensorrt"}
_MODEL_FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.onnx", "tensorrt-plan": "model.plan"}
_KINDS = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
_PRECISION_MODES = {"fp16": "FP16", "int8": "INT8"}
"""The graph's own casts, scales and zero points stay; the mode lets TensorRT calculate as they say."""
_DATATYPES = {"uint8": "UINT8", "float32": "FP32"}


def write_triton_repository(model: Path, folder: Path, *, force: bool = False) -> tuple[Path, ...]:
    """Write a model repository for each variant, and a client; the folder appears whole or not at all.

    Args:
        model: An exported file with its JSON beside it.
        folder: Where to.
        force: Replace a folder that is there.

    Returns:
        The repositories, to be given to `tritonserver --model-repository`, in the order of `VARIANTS`.

    Raises:
        OutputError: The folder is there already, or cannot be written.
        ModelError: The model's JSON cannot be read, or its contract is broken.
    """
    check_triton_folder(folder, force=force)
    record = _read_sidecar(model)
    contract = ModelContract.from_json(json.dumps(record["contract"]), where=str(sidecar_path(model)))
    golden = read_golden(record["golden"], where=str(sidecar_path(model)))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name[:32]}-", dir=folder.parent) as made:
            whole = Path(made) / "whole"
            for variant in VARIANTS:
                _write_model(whole / variant / model.stem, model, contract, variant=variant, golden=golden)
            _write_build_script(whole, model.stem, contract)
            _write_client(whole, model.stem, contract, golden=golden, record=record)
            _replace(folder, whole, old=Path(made) / "old")
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror})", where=folder) from error
    return tuple(folder / variant for variant in VARIANTS)


def check_triton_folder(folder: Path, *, force: bool) -> None:
    """Raise unless a repository may be written there: what is replaced must be one.

    Raises:
        OutputError: Something else is there, or `force` is not given.
    """
    if not folder.exists():
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if not names <= {CLIENT_FILE, GOLDEN_FILE, BUILD_FILE, *VARIANTS}:
        raise OutputError("is there and holds something else", where=folder, remedy="give another folder")
    if names and not force:
        raise OutputError("exists already", where=folder, remedy="give --force to replace it, or another name")


def triton_config(contract: ModelContract, *, name: str, variant: Variant) -> str:
    """Return the text of a model's `config.pbtxt`.

    Args:
        contract: The model's.
        name: Its folder's name.
        variant: What runs it.
    """
    spec = contract.input
    blocks = [
        f"# {contract.model}, weights {contract.weights_sha256[:12]}; written by lbkit, see labels.txt for the joints.",
        f"name: {_quoted(name)}",
        f"backend: {_quoted(_BACKENDS[variant])}",
        f"default_model_filename: {_quoted(_MODEL_FILES[variant])}",
        f"max_batch_size: {MAX_BATCH}",
        "input [\n" + _tensor(name=spec.name, kind=_KINDS[spec.dtype], dims=input_shape(contract)) + "\n]",
        "output [\n"
        + ",\n".join(
            _tensor(name=output, kind="TYPE_FP32", dims=output_shape(contract, output), labels=LABELS_FILE)
            for output in contract.outputs
        )
        + "\n]",
        _instance_group(variant),
        _dynamic_batching(),
        *([_tensorrt(contract)] if variant == "tensorrt" else []),
        *(_warmup(contract, batch=batch) for batch in WARM_BATCHES),
    ]
    return "\n".join(blocks) + "\n"


def _instance_group(variant: Variant) -> str:
    kind = "KIND_AUTO" if variant == "onnxruntime" else "KIND_GPU"
    return f"instance_group [\n  {{\n    count: 1\n    kind: {kind}\n  }}\n]"


def _dynamic_batching() -> str:
    return f"""dynamic_batching {{
  preferred_batch_size: {list(PREFERRED_BATCHES)}
  max_queue_delay_microseconds: {QUEUE_DELAY_US}
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {QUEUE_TIMEOUT_US}
    max_queue_size: {MAX_QUEUE}
  }}
}}"""


def _tensorrt(contract: ModelContract) -> str:
    """The profile spans every batch, so that one engine serves them all."""
    shapes = {f"trt_profile_{end}_shapes": shape for end, shape in _profile(contract).items()}
    options = {"precision_mode": _PRECISION_MODES.get(contract.precision, "FP32"), **shapes}
    lines = "\n".join(
        f"        parameters {{ key: {_quoted(key)} value: {_quoted(value)} }}" for key, value in options.items()
    )
    return f"""optimization {{
  execution_accelerators {{
    gpu_execution_accelerator [
      {{
        name: "tensorrt"
{lines}
      }}
    ]
  }}
}}"""


def _profile(contract: ModelContract) -> dict[str, str]:
    """Return the smallest, the usual and the largest input that an engine is built for."""
    sides = "x".join(map(str, input_shape(contract)))
    batches = {"min": 1, "opt": PREFERRED_BATCHES[0], "max": MAX_BATCH}
    return {end: f"{contract.input.name}:{batch}x{sides}" for end, batch in batches.items()}


def plan_command(contract: ModelContract, *, name: str) -> list[str]:
    """Return the words of the command that builds a model's plan, to be run in the folder of the repositories.

    A plan runs on the kind of GPU and the release of TensorRT that it was built with, so `trtexec` must be that of the
    server. The graph's own types hold (`--stronglyTyped`), in which the file was measured.

    Args:
        contract: The model's.
        name: Its folder's name.
    """
    shapes = [f"--{end}Shapes={shape}" for end, shape in _profile(contract).items()]
    model, plan = f"onnxruntime/{name}/1/model.onnx", f"tensorrt-plan/{name}/1/model.plan"
    return ["trtexec", f"--onnx={model}", f"--saveEngine={plan}", "--stronglyTyped", *shapes]


def _write_build_script(folder: Path, name: str, contract: ModelContract) -> None:
    path = folder / BUILD_FILE
    lines = [
        "#!/bin/sh",
        "# A plan belongs to one kind of GPU and one release of TensorRT: run this where tritonserver is to run.",
        'set -eu\ncd "$(dirname "$0")"',
        shlex.join(plan_command(contract, name=name)),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    path.chmod(path.stat().st_mode | 0o111)


def _warmup(contract: ModelContract, *, batch: int) -> str:
    spec = contract.input
    return f"""model_warmup [
  {{
    name: "golden picture, batch of {batch}"
    batch_size: {batch}
    inputs {{
      key: {_quoted(spec.name)}
      value {{
        data_type: {_KINDS[spec.dtype]}
        dims: {list(input_shape(contract))}
        input_data_file: {_quoted(_warmup_file(0))}
      }}
    }}
  }}
]"""


def _tensor(*, name: str, kind: str, dims: Sequence[int], labels: str | None = None) -> str:
    label = "" if labels is None else f"\n    label_filename: {_quoted(labels)}"
    return f"  {{\n    name: {_quoted(name)}\n    data_type: {kind}\n    dims: {list(dims)}{label}\n  }}"


def _quoted(text: str) -> str:
    """Return a string literal of protobuf's text format: what is no plain ASCII as octal bytes of UTF-8."""
    plain = (chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'


def _warmup_file(index: int) -> str:
    return f"golden-{index}"


def _read_sidecar(model: Path) -> Mapping[str, Any]:
    path = sidecar_path(model)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"contract": record["contract"], "golden": record["golden"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"cannot be read as an exported model's JSON ({error})", where=path, remedy="export the model again"
        ) from error


def _replace(folder: Path, whole: Path, *, old: Path) -> None:
    """Put a finished folder in the place of another, which comes back if that fails."""
    was_there = folder.exists()
    if was_there:
        folder.rename(old)
    try:
        whole.rename(folder)
    except OSError:
        if was_there:
            old.rename(folder)
        raise


def _write_model(
    folder: Path, model: Path, contract: ModelContract, *, variant: Variant, golden: Sequence[GoldenBatch]
) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "warmup").mkdir()
    if _MODEL_FILES[variant] == "model.onnx":
        shutil.copyfile(model, folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(
        triton_config(contract, name=folder.name, variant=variant), encoding="utf-8", newline="\n"
    )
    (folder / LABELS_FILE).write_text("\n".join(contract.keypoints.names) + "\n", encoding="utf-8")
    for index, crop in enumerate(golden[-1].crops):
        (folder / "warmup" / _warmup_file(index)).write_bytes(_as_tensor(crop[None], contract).tobytes())


def _as_tensor(crops: ImageArray, contract: ModelContract) -> NDArray[Any]:
    return crops if contract.input.dtype == "uint8" else normalize_crops(crops, contract.input).astype("<f4")


def _write_client(
    folder: Path, name: str, contract: ModelContract, *, golden: Sequence[GoldenBatch], record: Mapping[str, Any]
) -> None:
    """Write the client script and, for it, where each golden picture lies and what should come back."""
    source = importlib.resources.files("lbkit.export").joinpath("triton_client.py").read_text(encoding="utf-8")
    (folder / CLIENT_FILE).write_text(source, encoding="utf-8")
    last = golden[-1]
    samples = [[*cell, value] for cell, value in zip(last.cells.tolist(), last.values.tolist(), strict=True)]
    expected = {
        "model": name,
        "input": {
            "name": contract.input.name,
            "datatype": _DATATYPES[contract.input.dtype],
            "shape": list(input_shape(contract)),
        },
        "files": [f"{VARIANTS[0]}/{name}/warmup/{_warmup_file(index)}" for index in range(len(last.crops))],
        "outputs": {output: list(output_shape(contract, output)) for output in contract.outputs},
        "tolerance": record["golden"]["tolerance"],
        "keypoints": np.asarray(last.keypoints, dtype=np.float64).tolist(),
        "heatmap_samples": samples,
    }
    (folder / GOLDEN_FILE).write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
