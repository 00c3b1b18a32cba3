from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lbkit.core.contract import MODEL_NAMES
from lbkit.errors import CheckpointError, ModelNotFoundError
from lbkit.models.registry import ARCHITECTURES, build_model, find_architecture
from lbkit.models.resnet import ResNetTrunk, load_backbone

# Millions of parameters: ResNet-18's trunk has 11.18; baseline adds deconvolutions of 512, 256 and 256 channels,
# fpn three projections and one deconvolution; cnn is asked to have 0.3 to 0.5.
PARAMETERS_M = {"baseline": (15.3, 15.5), "fpn": (12.4, 12.6), "cnn": (0.3, 0.5)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_crops_become_six_maps_at_stride_4(name: str) -> None:
    module = build_model(name).eval()
    with torch.inference_mode():
        assert module(torch.zeros(2, 3, 256, 192)).shape == (2, 6, 64, 48)
    low, high = PARAMETERS_M[name]
    assert low < sum(parameter.numel() for parameter in module.parameters()) / 1e6 < high


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_features_move_with_the_picture(name: str) -> None:
    """A shift of 32 input pixels, every network's coarsest step, shifts the maps by 8 cells away from the border."""
    torch.manual_seed(0)
    module = build_model(name).eval()
    image = torch.zeros(1, 3, 512, 512)
    image[..., 200:260, 180:230] = torch.randn(3, 60, 50)
    moved = torch.roll(image, (32, 32), dims=(2, 3))
    with torch.inference_mode():
        maps, moved_maps = module(image), module(moved)
    inner = slice(40, 88)
    expected = torch.roll(maps, (8, 8), dims=(2, 3))[..., inner, inner]
    spread = float(maps.std())
    assert spread > 0
    assert float((moved_maps[..., inner, inner] - expected).abs().max()) < 0.05 * spread


def test_the_names_known_without_pytorch_are_the_registrys() -> None:
    assert set(MODEL_NAMES) == set(ARCHITECTURES)


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelNotFoundError, match="no model 'fpm'; there are baseline, fpn, cnn; did you mean fpn"):
        find_architecture("fpm")
    with pytest.raises(ModelNotFoundError, match="did you mean baseline"):
        build_model("Base-line")


def test_backbone_file_fills_what_it_has_and_starts_the_rest_as_identity(tmp_path) -> None:
    torch.manual_seed(1)
    source = ResNetTrunk().state_dict()
    partial = {name: value.half() for name, value in source.items() if not name.startswith("layer4.1")}
    save_file(partial | {"fc.weight": torch.zeros(2, 2)}, tmp_path / "partial.safetensors")
    trunk = ResNetTrunk()
    load_backbone(trunk, str(tmp_path / "partial.safetensors"))
    np.testing.assert_allclose(trunk.conv1.weight.detach(), source["conv1.weight"], atol=1e-3)
    features = torch.randn(1, 512, 8, 6).relu()
    torch.testing.assert_close(trunk.layer4[1].eval()(features), features)


def test_a_trained_networks_trunk_serves_another(tmp_path) -> None:
    torch.manual_seed(2)
    trained = build_model("fpn").state_dict()
    save_file(dict(trained), tmp_path / "fpn.safetensors")
    trunk = ResNetTrunk()
    load_backbone(trunk, str(tmp_path / "fpn.safetensors"))
    for name, value in trunk.state_dict().items():
        torch.testing.assert_close(value, trained[f"backbone.{name}"])


def test_backbone_sources_that_do_not_serve(tmp_path) -> None:
    trunk = ResNetTrunk()
    before = trunk.conv1.weight.clone()
    load_backbone(trunk, "none")
    torch.testing.assert_close(trunk.conv1.weight, before)
    with pytest.raises(CheckpointError, match="no such file"):
        load_backbone(trunk, str(tmp_path / "absent.safetensors"))
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_backbone(trunk, str(tmp_path / "text.safetensors"))
    save_file({"conv9.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no parameter of a ResNet-18"):
        load_backbone(trunk, str(tmp_path / "other.safetensors"))


def test_torchvisions_download_that_fails_says_what_to_do(monkeypatch) -> None:
    from torchvision.models import ResNet18_Weights

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", refuse)
    with pytest.raises(CheckpointError, match=r"no route to host.*--backbone-weights FILE"):
        load_backbone(ResNetTrunk(), "torchvision")
