"""Trained networks without a training: batch norms measured on figures, the last layer solved for their joints."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from torch import nn  # noqa: E402

from lbkit.core.codec import encode_heatmaps  # noqa: E402
from lbkit.core.contract import ModelContract  # noqa: E402
from lbkit.core.preprocess import normalize_crops  # noqa: E402
from lbkit.export.figures import GRID, POSES, figure_crops  # noqa: E402
from lbkit.models.checkpoint import Checkpoint, checkpoint_state, save_checkpoint, state_sha256  # noqa: E402
from lbkit.models.registry import bare_contract, build_model  # noqa: E402

RIDGE = 1e-6


@pytest.fixture(scope="session")
def fitted() -> Callable[[str], Checkpoint]:
    """Give the checkpoint of a named network whose heatmaps have clear peaks on the figures."""
    return _fitted


@pytest.fixture(scope="session")
def checkpoint_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the path of a fitted network's checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @cache
    def make(name: str) -> Path:
        path = folder / f"{name}.safetensors"
        save_checkpoint(path, _fitted(name))
        return path

    return make


@cache
def _fitted(name: str) -> Checkpoint:
    torch.manual_seed(7)
    contract = bare_contract(name, weights_sha256="", training_data=("figures",))
    module = build_model(name)
    crops = figure_crops(contract.input.size, len(POSES))
    images = torch.from_numpy(normalize_crops(crops, contract.input))
    with torch.no_grad():
        _measure_batch_norms(module, images)
        _solve_output_layer(module, images, torch.from_numpy(_targets(contract)))
    state = checkpoint_state(module, half=True)
    return Checkpoint(contract.replace(weights_sha256=state_sha256(state)), state)


def _targets(contract: ModelContract) -> np.ndarray:
    size = contract.input.size
    points = np.array(POSES, dtype=np.float64)[:, 2:] * [size.width, size.height] / GRID
    return encode_heatmaps(points, np.ones(points.shape[:2], dtype=bool), spec=contract.heatmap)[0]


def _measure_batch_norms(module: nn.Module, images: torch.Tensor) -> None:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # the running figures become those of this one batch
    module.train()
    module(images)
    module.eval()


def _solve_output_layer(module: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> None:
    """Set the last 1x1 convolution to the ridge regression from its features to the targets."""
    last = [part for part in module.modules() if isinstance(part, nn.Conv2d)][-1]
    seen: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(images)
    hook.remove()
    features = seen[0].permute(0, 2, 3, 1).reshape(-1, last.in_channels).double()
    features = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
    wanted = targets.permute(0, 2, 3, 1).reshape(-1, last.out_channels).double()
    gram = features.T @ features + RIDGE * len(features) * torch.eye(features.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(gram, features.T @ wanted)
    last.weight.copy_(solution[:-1].T.reshape(last.weight.shape))
    last.bias.copy_(solution[-1])
