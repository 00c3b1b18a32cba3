"""The bearer token that clients must show: from the environment or a file, never from the command line."""

from __future__ import annotations

import os
from pathlib import Path

from lbkit.errors import ConfigError

TOKEN_VARIABLE = "LBKIT_TOKEN"
MIN_CHARACTERS = 16


def read_token(token_file: Path | None) -> str | None:
    """Return the token, or None where neither a file nor LBKIT_TOKEN gives one.

    Args:
        token_file: A file that holds it alone; without one LBKIT_TOKEN is looked at.

    Raises:
        ConfigError: The file cannot be read, or what it or LBKIT_TOKEN holds is no token.
    """
    if token_file is None:
        text = os.environ.get(TOKEN_VARIABLE)
        return None if text is None else _checked(text, where=TOKEN_VARIABLE)
    try:
        text = token_file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=token_file, remedy="check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not text in UTF-8", where=token_file, remedy="put the token alone there") from error
    return _checked(text, where=str(token_file))


def _checked(text: str, *, where: str) -> str:
    token = text.strip()
    is_plain = token.isascii() and token.isprintable() and " " not in token
    if len(token) < MIN_CHARACTERS or not is_plain:
        raise ConfigError(
            f"holds no token: at least {MIN_CHARACTERS} characters of ASCII without spaces are wanted",
            where=where,
            remedy="make one with `python -c 'import secrets; print(secrets.token_urlsafe())'`",
        )
    return token
