from __future__ import annotations

import errno
import logging
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from lbkit import __version__
from lbkit.cli import main as cli_main
from lbkit.cli import options
from lbkit.core.contract import DECODERS
from lbkit.core.estimator import DEFAULT_BATCH_SIZE, STREAM_BATCH_SIZE
from lbkit.core.threads import MAX_THREADS
from lbkit.errors import ImageReadError, LbkitError, ProviderError, VerdictError
from lbkit.runtime.providers import PROVIDER_CHOICES

MAIN = "import sys; from lbkit.cli.main import main; main()"
HEAVY = ("numpy", "cv2", "onnxruntime", "torch", "rich", "onnx", "pycocotools", "matplotlib")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], list[str]]:
    """Register a command `act` that does what it is given, and return its arguments."""

    def register(action: Callable[[], Any]) -> list[str]:
        monkeypatch.setitem(cli_main.cli.commands, "act", click.Command("act", callback=action))
        return ["act"]

    return register


def raising(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("name", sorted(cli_main.COMMANDS))
def test_help_of_every_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.run([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: lbkit {name}")
    assert "--verbose" in text


@pytest.mark.parametrize("name", sorted(cli_main.COMMANDS))
def test_every_option_has_help(name: str) -> None:
    found = cli_main.cli.get_command(click.Context(cli_main.cli), name)
    assert found is not None
    assert found.help
    assert [param.name for param in found.params if isinstance(param, click.Option) and not param.help] == []


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_the_commands_each_with_a_line(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.run([flag]) == 0
    text = capsys.readouterr().out
    for name in cli_main.COMMANDS:
        assert re.search(rf"^  {name} +\w+", text, re.MULTILINE)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.run(["--version"]) == 0
    assert capsys.readouterr().out == f"lbkit, version {__version__}\n"


def test_help_and_command_modules_import_nothing_heavy() -> None:
    script = (
        "import sys, lbkit.cli.main as m\n"
        "assert m.run(['--help']) == 0\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules])\n"
        "print('loaded:', sorted(m.cli.commands) == sorted(m.COMMANDS))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["heavy: []", "loaded: True"]


def test_unknown_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.run(["exprot"]) == 2
    assert "No such command 'exprot'. Did you mean 'export'?" in capsys.readouterr().err


def test_command_far_from_any_gets_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.run(["zzz"]) == 2
    assert f"There are {', '.join(sorted(cli_main.COMMANDS))}." in capsys.readouterr().err


def test_unknown_option_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.run(["doctor", "--jsno"]) == 2
    assert "--json" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "meant"), [("CUDA", "cuda"), ("gpu", None), ("cdua", "cuda"), ("atuo", "auto")])
def test_wrong_choice_is_answered_with_the_nearest(given: str, meant: str | None) -> None:
    with pytest.raises(click.BadParameter) as caught:
        options.NearestChoice(options.PROVIDER_CHOICES).convert(given, None, None)
    assert all(repr(choice) in caught.value.message for choice in options.PROVIDER_CHOICES)
    assert ("Did you mean" in caught.value.message) == (meant is not None)
    assert meant is None or f"Did you mean {meant!r}?" in caught.value.message


def test_choices_spelled_out_are_the_librarys() -> None:
    assert options.PROVIDER_CHOICES == PROVIDER_CHOICES
    assert options.DECODER_CHOICES == DECODERS
    assert options.MAX_THREADS == MAX_THREADS
    help_text = options.batch_size_option(click.Command("x")).params[0].help  # type: ignore[attr-defined]
    assert f"[default: {DEFAULT_BATCH_SIZE}, or {STREAM_BATCH_SIZE} in each" in help_text


def test_done_is_0(command: Callable[..., list[str]]) -> None:
    assert cli_main.run(command(lambda: "a result is no exit code")) == 0


def test_exit_code_chosen_by_the_command(command: Callable[..., list[str]]) -> None:
    assert cli_main.run(command(lambda: click.get_current_context().exit(1))) == 1


@pytest.mark.parametrize(("kind", "code"), [(ImageReadError, 1), (VerdictError, 3)])
def test_lbkit_error_is_one_line(
    command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], kind: Any, code: int
) -> None:
    error = kind("is truncated", where="a b.jpg", remedy="copy it again")
    assert cli_main.run(command(raising(error))) == code
    assert one_line(capsys) == "error: a b.jpg: is truncated; copy it again"


def test_control_characters_of_a_name_are_spelled_out(
    command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    error = ImageReadError("is truncated", where="new\nline \x1b[31m\0\udcff ü.jpg")
    assert cli_main.run(command(raising(error))) == 1
    assert one_line(capsys) == "error: new line \\x1b[31m\\x00\\udcff ü.jpg: is truncated"


def test_usage_error_is_2(command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.run(command(raising(click.UsageError("both are given")))) == 2
    assert "both are given" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interrupt_is_130_and_one_line(
    command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    assert cli_main.run(command(raising(error))) == 130
    assert one_line(capsys) == "error: interrupted"


def test_interrupt_while_starting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli_main.cli, "main", raising_with_arguments(KeyboardInterrupt()))
    assert cli_main.run([]) == 130
    assert one_line(capsys) == "error: interrupted"


def raising_with_arguments(error: BaseException) -> Callable[..., None]:
    def action(**options: object) -> None:
        raise error

    return action


def test_interrupt_while_a_library_is_imported_is_no_broken_library(
    command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    def act() -> None:
        try:
            raise ImportError("initialization failed") from KeyboardInterrupt()  # as pybind11 does
        except ImportError as error:
            raise ProviderError("onnxruntime is installed but broken") from error

    assert cli_main.run(command(act)) == 130
    assert one_line(capsys) == "error: interrupted"


@pytest.mark.parametrize("module", ["click", "lbkit.cli.options"])
def test_interrupt_before_the_command_line_is_there_is_one_line(module: str) -> None:
    code = f"""
import sys
class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from lbkit.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (cli_main.INTERRUPTED, "", "error: interrupted\n")


def test_the_program_begins_where_ctrl_c_is_heard() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"]["lbkit"] == "lbkit.__main__:main"


def test_out_of_memory_is_one_line(command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.run(command(raising(MemoryError()))) == 1
    assert one_line(capsys).startswith("error: out of memory; ")


@pytest.mark.parametrize(
    ("package", "extra"), [("torch", "export"), ("pycocotools.coco", "eval"), ("onnxruntime", "cpu")]
)
def test_missing_package_names_its_extra(
    command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], package: str, extra: str
) -> None:
    assert cli_main.run(command(raising(ModuleNotFoundError("gone", name=package)))) == 1
    assert f'run `pip install "lbkit[{extra}]"`' in one_line(capsys)


@pytest.mark.parametrize("package", sorted(cli_main.EXTRAS))
def test_the_extra_named_for_a_package_brings_it(package: str) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    listed = project["optional-dependencies"][cli_main.EXTRAS[package]]
    assert package in {re.split(r"[<>=\[]", requirement)[0] for requirement in listed}


def test_a_file_error_of_the_system_is_one_line(
    command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "out.csv")
    assert cli_main.run(command(raising(error))) == 1
    assert one_line(capsys) == "error: out.csv: Permission denied"


@pytest.mark.parametrize("error", [ZeroDivisionError("fault"), ModuleNotFoundError("gone", name="lbkit.nothing")])
def test_faults_of_our_own_keep_their_traceback(command: Callable[..., list[str]], error: Exception) -> None:
    with pytest.raises(type(error)):
        cli_main.run(command(raising(error)))


def test_reader_that_goes_away_is_no_error() -> None:
    writing = subprocess.Popen(
        [sys.executable, "-c", MAIN, "doctor", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert writing.stdout is not None
    assert writing.stderr is not None
    writing.stdout.close()
    assert writing.stderr.read() == ""
    assert writing.wait(30) == 1
    writing.stderr.close()


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, "doctor"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written (No space left on device)\n"


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ([], ["warning"]),
        (["-v"], ["info", "warning"]),
        (["-vv"], ["debug", "info", "warning"]),
        (["-q"], []),
        (["--quiet"], []),
    ],
)
@pytest.mark.parametrize("after_the_command", [False, True])
def test_how_much_is_logged(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    shown: list[str],
    after_the_command: bool,
) -> None:
    def action() -> None:
        for level in ("debug", "info", "warning"):
            getattr(logging.getLogger("lbkit.core"), level)("about %s", "x")

    talk = options.verbosity_options(click.Command("talk", callback=action))
    monkeypatch.setitem(cli_main.cli.commands, "talk", talk)
    assert cli_main.run(["talk", *flags] if after_the_command else [*flags, "talk"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [f"{level}: about x" for level in shown]
    assert captured.out == ""
    assert options.is_quiet() == (not shown)


def test_causes_that_go_in_a_circle_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    error = LbkitError("it cannot", remedy="do another thing")
    other = LbkitError("because of that")
    error.__cause__, other.__cause__ = other, error

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli_main.cli, "main", fail)
    assert cli_main.run(["doctor"]) == 1
    assert "it cannot; do another thing" in capsys.readouterr().err
