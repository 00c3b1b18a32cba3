"""The network in training on its device: mixed precision, gradients over all processes, the moving average."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lbkit.core.contract import ModelContract
from lbkit.core.preprocess import normalization_coefficients
from training.config import Recipe
from training.distributed import Processes, synchronized
from training.ema import MovingAverage
from training.losses import JointsMSELoss
from training.precision import DTYPES, choose_precision


class Learner:
    """A network, its optimizer and its moving average.

    Args:
        recipe: The recipe.
        module: The network at its start.
        contract: The network's contract, for the normalisation of its input.
        device: A PyTorch device.
        processes: This process among those of the run.
    """

    def __init__(
        self, recipe: Recipe, module: nn.Module, *, contract: ModelContract, device: torch.device, processes: Processes
    ) -> None:
        self.recipe, self.device, self.processes = recipe, device, processes
        moved = module.to(device).to(memory_format=torch.channels_last)
        self.average = MovingAverage(moved, decay=recipe.ema_decay)
        self.module = synchronized(moved, processes, device=device)
        kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = kind(self.module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.loss = JointsMSELoss(reduction=recipe.loss_reduction)
        self.scaler = torch.amp.GradScaler(device.type, enabled=False)
        self.precision = ""
        self._parallel: nn.Module | None = None
        scale, offset = normalization_coefficients(contract.input)
        self._scale = torch.from_numpy(scale).view(3, 1, 1).to(device)
        self._offset = torch.from_numpy(offset).view(3, 1, 1).to(device)

    def use_precision(self, name: str) -> None:
        """Train in "fp32", "bf16" or "fp16" from now on; fp16 scales its loss by what its gradients bear."""
        self.precision = name
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=name == "fp16")

    def step(self, batch: Mapping[str, Tensor], *, rate: float) -> Tensor:
        """Take one optimizer step on this process's part of a batch.

        Args:
            batch: What `CropDataset` gives, collated.
            rate: The learning rate.

        Returns:
            (N, K, h, w) float32 heatmaps from before the step.
        """
        images, target, weight = self._images(batch), self._to(batch["target"]), self._to(batch["weight"])
        if not self.precision:
            self.use_precision(self._fastest_precision(images, target))
        if self._parallel is None:
            self._parallel = self.processes.parallel(self.module)
        heatmaps = self._forward(self._parallel, images)
        loss = self.loss(heatmaps, target, weight) * self.recipe.loss_scale
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.module)
        return heatmaps.detach()

    @torch.inference_mode()
    def answer(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the averaged network's (N, K, h, w) float32 heatmaps."""
        return self._forward(self.average.module, self._images(batch))

    @torch.inference_mode()
    def losses(self, heatmaps: Tensor, batch: Mapping[str, Tensor]) -> tuple[float, float]:
        """Return the loss with the fixed divisor and with that of the labelled joints."""
        target, weight = self._to(batch["target"]), self._to(batch["weight"])
        fixed, visible = JointsMSELoss(), JointsMSELoss(reduction="visible")
        return float(fixed(heatmaps, target, weight)), float(visible(heatmaps, target, weight))

    def _fastest_precision(self, images: Tensor, target: Tensor) -> str:
        # Every process times, because batch normalisation waits for all of them; the first one's choice counts.
        found = choose_precision(self.recipe.precision, self.module, images=images, targets=target)
        names = list(DTYPES)
        return names[self.processes.told_by_first(names.index(found))]

    def _forward(self, module: nn.Module, images: Tensor) -> Tensor:
        dtype = DTYPES[self.precision or "fp32"]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            heatmaps: Tensor = module(images)
        return heatmaps.float()

    def _images(self, batch: Mapping[str, Tensor]) -> Tensor:
        pixels = self._to(batch["image"]).float()
        return (pixels * self._scale + self._offset).contiguous(memory_format=torch.channels_last)

    def _to(self, values: Tensor) -> Tensor:
        return values.to(self.device, non_blocking=True)
