"""The command line as a person sees it: what goes in, and the exit code, the output and the words that come back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from lbkit.cli.main import run


@dataclass(frozen=True)
class Outcome:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """Its output as one JSON object."""
        return json.loads(self.out)

    @property
    def records(self) -> list[dict[str, Any]]:
        """Its output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def errors(self) -> list[str]:
        return [line.removeprefix("error: ") for line in self.err.splitlines() if line.startswith("error: ")]


@pytest.fixture
def lbkit(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `lbkit` with arguments of any type; whatever happens, it shows nobody a traceback."""

    def call(*arguments: object) -> Outcome:
        code = run([*map(str, arguments)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(code, captured.out, captured.err)

    return call
