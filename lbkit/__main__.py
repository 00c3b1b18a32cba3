"""The program: `lbkit`, and `python -m lbkit`, which hears Ctrl-C from here on."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit; imports as little as it can before Ctrl-C is one line."""
    try:
        from lbkit.cli.main import main as run_command_line

        run_command_line()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
