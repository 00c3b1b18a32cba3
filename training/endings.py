"""How every training command ends: its errors in one line, with the exit codes of `lbkit`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from lbkit.cli.main import INTERRUPTED
from lbkit.cli.messages import plain_line
from lbkit.errors import LbkitError


def tell_error(error: LbkitError) -> None:
    """Print an error that is meant for people as one line on stderr."""
    click.echo(plain_line(f"error: {error}"), err=True)


@contextmanager
def errors_as_lines(*, on_interrupt: str) -> Iterator[None]:
    """End with one line for an error that is meant for people, and for Ctrl-C.

    Args:
        on_interrupt: What became of the work, said after "interrupted; ".
    """
    try:
        yield
    except LbkitError as error:
        tell_error(error)
        raise click.exceptions.Exit(error.exit_code) from error
    except KeyboardInterrupt:
        click.echo(f"interrupted; {on_interrupt}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
