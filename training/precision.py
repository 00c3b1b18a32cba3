"""Which arithmetic trains fastest on this machine: measured, never guessed from a name."""

from __future__ import annotations

import logging
import time
from typing import Literal

import torch
from torch import Tensor, nn

from training.losses import JointsMSELoss

log = logging.getLogger(__name__)

TIMED_STEPS = 2

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(
    wanted: Literal["auto", "fp32", "bf16", "fp16"], module: nn.Module, *, images: Tensor, targets: Tensor
) -> str:
    """Return the precision to run the network in under autocast.

    On processors without AVX-512 BF16 or AMX, bf16 is slower than fp32 by orders of magnitude, so "auto" times a
    training step in each; on a GPU without bf16 it times fp16. The network's weights and gradients are left as they
    were.

    Args:
        wanted: A precision, or "auto".
        module: The network, on its device.
        images: (N, 3, H, W) example input on the same device.
        targets: (N, K, h, w) example targets.
    """
    if wanted != "auto":
        return wanted
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    is_old_gpu = images.device.type == "cuda" and not torch.cuda.is_bf16_supported()
    names = ("fp32", "fp16" if is_old_gpu else "bf16")
    seconds = {name: _step_seconds(module, images, targets, dtype=DTYPES[name]) for name in names}
    module.load_state_dict(kept)
    module.zero_grad(set_to_none=True)
    fastest = min(seconds, key=lambda name: seconds[name])
    log.info("a step takes %s: %s", ", ".join(f"{s:.2f} s in {n}" for n, s in seconds.items()), fastest)
    return fastest


def _step_seconds(module: nn.Module, images: Tensor, targets: Tensor, *, dtype: torch.dtype) -> float:
    loss = JointsMSELoss()
    weights = torch.ones(targets.shape[:2], device=targets.device)
    best = float("inf")
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype != torch.float32):
            heatmaps = module(images)
        loss(heatmaps.float(), targets, weights).backward()
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best
