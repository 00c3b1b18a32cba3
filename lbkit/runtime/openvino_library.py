"""The openvino package: imported with an explanation when that fails, and asked what this CPU can do."""

from __future__ import annotations

import importlib
from typing import Any

from lbkit.errors import MissingDependencyError, ProviderError
from lbkit.runtime.wheels import installed_version

PACKAGE = "openvino"
_INSTALL = '`pip install "lbkit[openvino]"`'


def openvino_version() -> str | None:
    """Return the installed version, without importing it; None if it is not installed."""
    return installed_version(PACKAGE)


def import_openvino() -> Any:
    """Import OpenVINO.

    Raises:
        MissingDependencyError: It is not installed.
        ProviderError: It is installed and broken.
    """
    try:
        openvino = importlib.import_module(PACKAGE)
    except ModuleNotFoundError as error:
        if error.name != PACKAGE:
            raise _broken(str(error)) from error
        raise MissingDependencyError("openvino is not installed", remedy=f"run {_INSTALL}") from error
    except ImportError as error:
        raise _broken(str(error)) from error
    if not hasattr(openvino, "Core"):
        raise _broken("its files are gone")  # an uninstall that was cut short leaves folders that still import
    return openvino


def _broken(reason: str) -> ProviderError:
    return ProviderError(
        f"openvino is installed but broken ({reason})", remedy=f"run `pip uninstall -y {PACKAGE}` and then {_INSTALL}"
    )
