"""lbkit: lower-body keypoint networks, from a training run to a verified, fast deployment.

>>> import lbkit
>>> model = lbkit.load_model("fpn-int8", provider="cpu")
>>> poses = model(lbkit.read_image("photo.jpg"))
>>> poses.xy  # (N, 6, 2) image pixels
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lbkit._version import __version__

if TYPE_CHECKING:
    from lbkit.core.contract import ModelContract
    from lbkit.core.estimator import PoseEstimator
    from lbkit.core.images import read_image
    from lbkit.core.poses import Poses
    from lbkit.errors import LbkitError
    from lbkit.runtime.loading import load_model

__all__ = [
    "LbkitError",
    "ModelContract",
    "PoseEstimator",
    "Poses",
    "__version__",
    "load_model",
    "read_image",
]

_HOMES = {
    "LbkitError": "lbkit.errors",
    "ModelContract": "lbkit.core.contract",
    "PoseEstimator": "lbkit.core.estimator",
    "Poses": "lbkit.core.poses",
    "load_model": "lbkit.runtime.loading",
    "read_image": "lbkit.core.images",
}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that `lbkit --help` needs no NumPy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lbkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
