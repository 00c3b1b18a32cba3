from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lbkit.core.contract import CONTRACT_KEY
from lbkit.errors import CheckpointError
from lbkit.models.checkpoint import (
    TRAINING_KEY,
    Checkpoint,
    checkpoint_state,
    load_checkpoint,
    save_checkpoint,
    state_sha256,
)
from lbkit.models.registry import bare_contract, build_model
from lbkit.models.torch_backend import TorchBackend


def make(name: str = "cnn", *, half: bool = True) -> Checkpoint:
    torch.manual_seed(0)
    state = checkpoint_state(build_model(name), half=half)
    contract = bare_contract(name, weights_sha256=state_sha256(state), training_data=("toy",))
    return Checkpoint(contract, state, {"seed": 1, "recipe": {"epochs": 2}})


def test_round_trip_keeps_weights_contract_and_story(tmp_path: Path) -> None:
    made = make()
    save_checkpoint(tmp_path / "cnn.safetensors", made)
    read = load_checkpoint(tmp_path / "cnn.safetensors")
    assert read.contract == made.contract
    assert read.training == {"seed": 1, "recipe": {"epochs": 2}}
    assert state_sha256(read.state) == state_sha256(made.state)


def test_half_precision_touches_convolutions_only() -> None:
    state = make().state
    kinds = {(tensor.dtype, tensor.ndim == 4) for tensor in state.values()}
    assert kinds == {(torch.float16, True), (torch.float32, False)}
    assert not any(name.endswith("num_batches_tracked") for name in state)


def test_the_module_computes_what_was_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = build_model("cnn").eval()
    state = checkpoint_state(module, half=False)
    contract = bare_contract("cnn", weights_sha256=state_sha256(state), training_data=())
    save_checkpoint(tmp_path / "cnn.safetensors", Checkpoint(contract, state))
    images = torch.randn(2, 3, 256, 192)
    restored = load_checkpoint(tmp_path / "cnn.safetensors").to_module()
    with torch.inference_mode():
        torch.testing.assert_close(restored(images), module(images))


def test_another_architecture_is_named(tmp_path: Path) -> None:
    cnn, fpn = make("cnn"), make("fpn")
    mixed = Checkpoint(fpn.contract.replace(weights_sha256=state_sha256(cnn.state)), cnn.state)
    save_checkpoint(tmp_path / "x.safetensors", mixed)
    with pytest.raises(CheckpointError, match=r"x\.safetensors: its tensors are not those of fpn"):
        load_checkpoint(tmp_path / "x.safetensors").to_module()


def test_changed_weights_are_found_out(tmp_path: Path) -> None:
    path = tmp_path / "cnn.safetensors"
    made = make()
    save_checkpoint(path, made)
    tensors = load_file(path)
    tensors["stem.0.weight"][0, 0, 0, 0] += 1
    save_file(tensors, path, metadata={CONTRACT_KEY: made.contract.to_json()})
    with pytest.raises(CheckpointError, match="do not match the hash"):
        load_checkpoint(path)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text\.safetensors: not a safetensors file"):
        load_checkpoint(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match="carries no lbkit contract"):
        load_checkpoint(tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match=r"null: is not a regular file; use a checkpoint"):
        load_checkpoint(Path("/dev/null"))


def test_weights_of_another_type_are_refused(tmp_path: Path) -> None:
    made = make()
    state = {name: tensor.bfloat16() for name, tensor in made.state.items()}
    save_file(state, tmp_path / "b.safetensors", metadata={CONTRACT_KEY: made.contract.to_json()})
    with pytest.raises(CheckpointError, match=r"b\.safetensors: its tensors should be .* is torch\.bfloat16; use"):
        load_checkpoint(tmp_path / "b.safetensors")


@pytest.mark.parametrize("story", ["{", "[1]", "[" * 100_000])
def test_a_broken_story_is_an_error(tmp_path: Path, story: str) -> None:
    made = make()
    metadata = {CONTRACT_KEY: made.contract.to_json(), TRAINING_KEY: story}
    save_file(dict(made.state), tmp_path / "s.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=r"s\.safetensors: its metadata lbkit_training is no"):
        load_checkpoint(tmp_path / "s.safetensors")


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, monkeypatch) -> None:
    import lbkit.models.checkpoint as module

    path = tmp_path / "cnn.safetensors"
    made = make()
    save_checkpoint(path, made)
    before = path.read_bytes()

    def fill(state: object, target: Path, **kwargs: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", fill)
    with pytest.raises(Exception, match="No space left on device"):
        save_checkpoint(path, make("fpn"))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["cnn.safetensors"]


def test_backend_runs_uint8_crops() -> None:
    backend = TorchBackend(make())
    crops = torch.randint(0, 256, (3, 256, 192, 3), dtype=torch.uint8).numpy()
    output = backend.run(crops)
    assert output.keypoints is None
    assert output.heatmaps is not None
    assert output.heatmaps.shape == (3, 6, 64, 48)
    single = backend.run(crops[1:2]).heatmaps
    torch.testing.assert_close(torch.from_numpy(output.heatmaps[1:2]), torch.from_numpy(single), atol=1e-5, rtol=1e-4)
