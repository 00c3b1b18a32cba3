"""What the full-disk test runs: save a run's state, then again where files may not grow so large."""

from __future__ import annotations

import resource
import signal
import sys
from pathlib import Path

from lbkit.errors import OutputError
from training.config import read_recipe
from training.train import make_trainer


def main(recipe: Path, data: Path, output: Path) -> None:
    """Train one step, shrink the disk, train another, and print the error."""
    trainer = make_trainer(read_recipe(recipe), data=data, output=output, device="cpu")
    trainer.run(max_minutes=1e-6)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        trainer.run(max_minutes=1e-6)
    except OutputError as error:
        print(error)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
