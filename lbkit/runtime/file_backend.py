"""What the backends of a model file share, whatever runtime is behind them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbkit.core.backend import ModelOutput
from lbkit.core.contract import ModelContract
from lbkit.errors import ModelError, ModelMemoryError
from lbkit.runtime.model_file import feed_of, output_of
from lbkit.runtime.providers import ProviderName

_OUT_OF_MEMORY = (
    *("out of memory", "bad_alloc", "bad allocation", "Failed to allocate"),
    *("BFCArena", "could not create a memory"),  # ONNX Runtime's, OpenVINO's
)


class FileBackend(ABC):
    """A model file in a runtime; calls may come from several threads.

    Args:
        path: The file.
        contract: That it carries.
        provider: Where it runs.
        streams: Runs that go side by side.
    """

    def __init__(self, path: Path, contract: ModelContract, *, provider: ProviderName, streams: int) -> None:
        self._path = path
        self._contract = contract
        self._provider = provider
        self._streams = streams

    @property
    def contract(self) -> ModelContract:
        """The contract that the file carries."""
        return self._contract

    @property
    def provider(self) -> ProviderName:
        """What the model really runs on."""
        return self._provider

    @property
    def streams(self) -> int:
        """Runs that go side by side."""
        return self._streams

    def run(self, crops: NDArray[np.uint8]) -> ModelOutput:
        """Run the model on crops.

        Args:
            crops: (N, H, W, 3) uint8 RGB, N >= 1.

        Raises:
            InputError: The crops have another shape or dtype.
            ModelMemoryError: The memory does not hold so many at once.
            ModelError: The runtime fails, or puts out other shapes than promised.
        """
        return self.run_input(feed_of(crops, self._contract))

    def run_input(self, tensor: NDArray[Any]) -> ModelOutput:
        """Run the model on a tensor as the file takes it.

        Args:
            tensor: Of the contract's dtype, shape and layout, with N >= 1 crops (see `feed_of`).

        Raises:
            ModelMemoryError: The memory does not hold so many at once.
            ModelError: The runtime fails, or puts out other shapes than promised.
        """
        try:
            arrays = self._compute(tensor)
        except Exception as error:
            words = self._words_of(error)
            if words is None:
                raise
            raise _run_error(error, self._path, words=words, count=len(tensor)) from error
        return output_of(arrays, self._contract, count=len(tensor), where=self._path)

    @abstractmethod
    def _compute(self, tensor: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the outputs in the contract's order."""

    @abstractmethod
    def _words_of(self, error: Exception) -> str | None:
        """Return what the runtime says is wrong, or None for an error that is not the runtime's."""


def _run_error(error: Exception, path: Path, *, words: str, count: int) -> ModelError:
    """Return the error to raise for what a runtime said while a model ran: of memory, or any other.

    Args:
        error: What the runtime raised.
        path: The model's file.
        words: What the runtime says is wrong.
        count: How many crops went in.
    """
    if isinstance(error, MemoryError) or any(mark in str(error) for mark in _OUT_OF_MEMORY):
        return ModelMemoryError(
            f"out of memory while running {count} crops at once ({words})",
            where=path,
            remedy="give a smaller --batch-size",
        )
    return ModelError(f"running {count} crops failed ({words})", where=path)
