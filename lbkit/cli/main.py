"""The `lbkit` command: its subcommands by name, loaded when they are used, and errors turned into one line."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from lbkit._version import __version__
from lbkit.cli.messages import plain_line
from lbkit.cli.options import nearest, start_logging, verbosity_options
from lbkit.errors import LbkitError, MissingDependencyError

COMMANDS = {
    "bench": "lbkit.cli.bench:bench",
    "doctor": "lbkit.cli.doctor:doctor",
    "eval": "lbkit.cli.eval:evaluate",
    "export": "lbkit.cli.export:export",
    "figures": "lbkit.cli.figures:figures",
    "infer": "lbkit.cli.infer:infer",
    "info": "lbkit.cli.info:info",
    "parity-check": "lbkit.cli.parity_check:parity_check",
    "quantize": "lbkit.cli.quantize:quantize",
    "serve": "lbkit.cli.serve:serve",
    "squat": "lbkit.cli.squat:squat",
}
"""Where each command lives. Such a module imports at its top only click, the standard library and lbkit.errors."""

EXTRAS = {
    "onnxruntime": "cpu",
    "openvino": "openvino",
    "torch": "export",
    "torchvision": "export",
    "onnx": "export",
    "onnxscript": "export",
    "onnxsim": "export",
    "safetensors": "export",
    "pycocotools": "eval",
    "matplotlib": "eval",
    "scipy": "motion",
    "pyarrow": "parquet",
    "av": "video",
    "fastapi": "serve",
    "uvicorn": "serve",
    "python_multipart": "serve",
    "prometheus_client": "serve",
}
"""The extra that brings each optional package."""

INTERRUPTED = 130
"""What shells report for a program ended by Ctrl-C: 128 + SIGINT."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are looked up."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*COMMANDS, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name, importing it the first time."""
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module, attribute = COMMANDS[cmd_name].split(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            self.add_command(_with_verbosity(command), cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments begin with, or fail with the nearest name."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            near = nearest(args[0], self.list_commands(ctx))
            hint = f"Did you mean {near!r}?" if near else f"There are {', '.join(self.list_commands(ctx))}."
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)


def _with_verbosity(command: click.Command) -> click.Command:
    """Let -v and -q stand after a command's name too, where people type them."""
    taken = {parameter.name for parameter in command.params}
    return command if taken & {"verbose", "quiet"} else verbosity_options(command)


@verbosity_options
@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lbkit")
def cli() -> None:
    """Lower-body keypoints (hips, knees, ankles): from a training run to a verified, fast deployment."""


def main() -> NoReturn:
    """Run the command line and exit."""
    _open_closed_streams()
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _end_by_signal)
    sys.exit(run(sys.argv[1:]))


class _Ended(BaseException):
    """A signal asked the program to end; it unwinds, so that no half-written file stays."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def _end_by_signal(number: int, frame: object) -> NoReturn:  # noqa: ARG001
    raise _Ended(number)


def _open_closed_streams() -> None:
    """Give standard streams that were closed (`<&-`, `>&-`) a null device, lest a file of ours takes their place.

    What would be written to a closed stdout is an error, as of other programs: the device is opened for reading.
    """
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is not None:
            continue
        opened = os.open(os.devnull, os.O_RDONLY if descriptor < 2 else os.O_WRONLY)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
        setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code: 0 done, 1 could not, 2 usage, 3 ran and the answer is no.

    Args:
        arguments: What follows `lbkit`.
    """
    start_logging()
    try:
        code = cli.main(args=list(arguments), prog_name="lbkit", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone, as `head` does: end quietly
        _discard_stdout()
        return 1
    except Exception as error:
        interruption = _interruption(error)
        return _tell(error) if interruption is None else _tell_end(interruption)
    except (KeyboardInterrupt, _Ended) as end:
        return _tell_end(end)
    return code if isinstance(code, int) else 0


def _interruption(error: BaseException | None) -> KeyboardInterrupt | _Ended | None:
    """Return the Ctrl-C or signal an error comes of: a library that is being imported turns it into an ImportError."""
    seen: set[int] = set()  # causes may go in a circle
    while error is not None and not isinstance(error, (KeyboardInterrupt, _Ended)):
        if id(error) in seen:
            return None
        seen.add(id(error))
        error = error.__cause__
    return error


def _tell_end(end: KeyboardInterrupt | _Ended) -> int:
    if isinstance(end, _Ended):
        return _fail(f"ended by {signal.Signals(end.number).name}", 128 + end.number)
    return _fail("interrupted", INTERRUPTED)


def _tell(error: Exception) -> int:
    """Print an error that is meant for people; raise any other again, because it is a fault of lbkit's own."""
    if isinstance(error, ModuleNotFoundError):
        error = _missing_dependency(error)
    if isinstance(error, LbkitError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, click.Abort):
        return _fail("interrupted", INTERRUPTED)
    if isinstance(error, MemoryError):
        return _fail("out of memory; give a smaller --batch-size or fewer files at once", 1)
    if isinstance(error, OSError) and error.strerror:
        return _fail(_os_error_text(error), 1)
    raise error


def _os_error_text(error: OSError) -> str:
    """Name the file; an error without one came from writing to stdout, which is then not written to again."""
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    _discard_stdout()
    return f"the output cannot be written ({error.strerror})"


def _missing_dependency(error: ModuleNotFoundError) -> Exception:
    package = (error.name or "").split(".")[0]
    if package not in EXTRAS:
        return error
    return MissingDependencyError(
        f"this command needs {package}, which is not installed",
        remedy=f'run `pip install "lbkit[{EXTRAS[package]}]"`',
    )


def _fail(message: str, code: int) -> int:
    click.echo(plain_line(f"error: {message}"), err=True)
    return code


def _discard_stdout() -> None:
    """Send what is left in stdout's buffer nowhere, because Python would write it at exit and complain once more."""
    with contextlib.suppress(OSError, ValueError):  # a stdout without a file descriptor has no such buffer
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
