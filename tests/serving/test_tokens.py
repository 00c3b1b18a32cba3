from __future__ import annotations

from pathlib import Path

import pytest

from lbkit.errors import ConfigError
from lbkit.serving.tokens import TOKEN_VARIABLE, read_token

TOKEN = "abcdefghij-0123456789"


def test_file_before_environment_before_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert read_token(None) == TOKEN
    (tmp_path / "token").write_text(f"{TOKEN[::-1]}\n")
    assert read_token(tmp_path / "token") == TOKEN[::-1]


@pytest.mark.parametrize(
    "text", ["", "short", "two words of many characters", "ünïcödé-ünïcödé-ünïcödé", "a" * 20 + "\0"]
)
def test_what_is_no_token_is_refused_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "token").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no token") as caught:
        read_token(tmp_path / "token")
    assert not text or text not in str(caught.value)
    if "\0" not in text:
        monkeypatch.setenv(TOKEN_VARIABLE, text)
        with pytest.raises(ConfigError, match=f"^{TOKEN_VARIABLE}: holds no token"):
            read_token(None)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(tmp_path / "gone")
    (tmp_path / "bytes").write_bytes(b"\xff" * 30)
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        read_token(tmp_path / "bytes")
