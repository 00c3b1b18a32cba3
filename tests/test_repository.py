"""Rules of the repository that a tool can hold."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import lbkit
from lbkit.cli.main import cli

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "lbkit").rglob("*.py"), *(ROOT / "training").rglob("*.py")])
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/README.md")])
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "misc"}
MAX_FUNCTION_LINES = 60


def functions() -> list[tuple[str, int]]:
    """Every function's place and length in lines, docstring included."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                found.append((f"{path.relative_to(ROOT)}:{node.name}", lines))
    return found


def test_functions_are_short() -> None:
    lengths = sorted(lines for _, lines in functions())
    assert len(lengths) > 100
    assert [place for place, lines in functions() if lines > MAX_FUNCTION_LINES] == []
    assert lengths[len(lengths) * 9 // 10] < 40
    assert lengths[len(lengths) // 2] <= 16


def test_file_names_say_what_they_own() -> None:
    assert [path for path in SOURCES if path.stem in FORBIDDEN_NAMES] == []


def test_public_names_exist_and_are_sorted() -> None:
    assert sorted(lbkit.__all__) == dir(lbkit)
    for name in lbkit.__all__:
        assert getattr(lbkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lbkit.nothing  # noqa: B018


def test_changelog_leads_with_this_version() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert versions[0] == lbkit.__version__


def test_layers_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def documented_commands() -> list[tuple[str, str]]:
    """Every `lbkit ...` line in a code block of a document, continuation lines joined."""
    found = []
    for path in DOCUMENTS:
        for block in re.findall(r"```(?:bash|console|sh)\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                command = line.strip().removeprefix("$ ").split(" #")[0]
                if command.startswith("lbkit "):
                    found.append((path.name, command))
    return found


def test_there_are_documented_commands() -> None:
    assert len(documented_commands()) >= 5


@pytest.mark.parametrize(("document", "command"), documented_commands())
def test_documented_commands_parse(document: str, command: str) -> None:
    """The parser accepts every documented line; running them is the demo's part."""
    arguments = shlex.split(command)[1:]
    arguments = list(itertools.takewhile(lambda word: word not in ("|", ">"), arguments))
    context = cli.make_context("lbkit", arguments)
    name, subcommand, rest = cli.resolve_command(context, [*context._protected_args, *context.args])
    assert subcommand is not None, name
    subcommand.make_context(name, rest, parent=context)


def test_documented_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for path in DOCUMENTS:
        for target in re.findall(r"(?:^|`)make ([a-z][a-z-]*)", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert target in targets, f"{path.name}: make {target}"


def test_documented_files_exist() -> None:
    for path in DOCUMENTS:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name}: {link}"
