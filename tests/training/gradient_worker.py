"""What a process of the distributed tests runs: one step on its share of a batch; gradients to a file."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from lbkit.models.registry import bare_contract, build_model
from training.config import Recipe, Source
from training.distributed import joined
from training.learner import Learner


def main(target: Path, model: str) -> None:
    """Take one step and write what it left behind."""
    torch.manual_seed(3)
    module = build_model(model).double()  # in single precision rectifiers near zero flip, and gradients part by 1e-3
    recipe = Recipe(model, (Source("a", annotations="a", images="a"),), precision="fp32", loss_reduction="visible")
    weight = (torch.rand(8, 6) > 0.3).float()
    batch = {
        "image": torch.randint(0, 255, (8, 3, 64, 64), dtype=torch.uint8),
        "target": torch.rand(8, 6, 16, 16),
        "weight": weight,
    }
    contract = bare_contract(model, weights_sha256="", training_data=())
    with joined("cpu") as (processes, device):
        learner = Learner(recipe, module, contract=contract, device=torch.device(device), processes=processes)
        learner.module.train()
        learner._images = lambda part: part["image"].double() / 255  # type: ignore[method-assign]
        share = {name: value[processes.rank :: processes.count] for name, value in batch.items()}
        learner.step(share, rate=1e-3)
        if processes.is_first:
            left = {name: value.grad for name, value in learner.module.named_parameters()}
            left |= {name: value for name, value in learner.module.named_buffers() if value.is_floating_point()}
            save_file({name: value.contiguous() for name, value in left.items()}, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
