"""Limits by precision: the three that lbkit ships, and files of one's own in the same form."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import get_args

from lbkit.core.contract import Precision
from lbkit.core.records import RecordError, record_from_mapping
from lbkit.errors import ConfigError
from lbkit.parity.definitions import Preset

PRESETS: tuple[Precision, ...] = get_args(Precision)
LIMITS_FOLDER = Path(__file__).parent / "limits"


def load_preset(name_or_file: str) -> Preset:
    """Return the limits of a name, "fp32", "fp16" or "int8", or of a TOML file.

    Raises:
        ConfigError: There is no such preset, or its file is not TOML or has a field missing, unknown or wrong.
    """
    path = LIMITS_FOLDER / f"{name_or_file}.toml" if name_or_file in PRESETS else Path(name_or_file)
    if not path.is_file():
        names = ", ".join(PRESETS)
        raise ConfigError(f"no preset {name_or_file!r}", remedy=f"give {names}, or a TOML file like {LIMITS_FOLDER}/*")
    try:
        mapping = tomllib.loads(path.read_text(encoding="utf-8"))
        return record_from_mapping(Preset, mapping)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not TOML ({error})", where=path) from error
    except RecordError as error:
        raise ConfigError(str(error), where=path, remedy=f"compare it with {LIMITS_FOLDER / 'fp32.toml'}") from error
