"""Make the golden texts of `tests/export/triton` again: python tests/export/remake_triton.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from lbkit.export.triton import VARIANTS, triton_config

FOLDER = Path(__file__).with_name("triton")


def texts() -> dict[str, str]:
    """Return the golden texts by file name: each variant of a model with heatmaps, and of one with keypoints."""
    spec = importlib.util.spec_from_file_location("toy_models", Path(__file__).parents[1] / "toy_models.py")
    assert spec is not None
    assert spec.loader is not None
    toys = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(toys)
    plain = toys.toy_contract()
    decoding = toys.toy_contract(dtype="float32", outputs=("keypoints", "heatmaps"), decoder="argmax")
    contracts = {"uint8-heatmaps": plain, "float32-keypoints": decoding}
    return {
        f"{kind}-{variant}.pbtxt": triton_config(contract, name="toy", variant=variant)
        for kind, contract in contracts.items()
        for variant in VARIANTS
    }


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8", newline="\n")
