"""Whether a provider really runs: a session is made on it, run, asked where it ran, and its numbers are checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lbkit.errors import LbkitError
from lbkit.runtime.probe_graph import PROBE_INPUT, PROBE_MODEL, probe_answer
from lbkit.runtime.providers import CUDA_REFUSAL, ProviderName, open_session, ort_words
from lbkit.runtime.wheels import Obstacle

_REINSTALL = "reinstall onnxruntime, and the GPU's driver if it is cuda"


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """Whether a provider runs on this machine.

    Attributes:
        name: The provider.
        works: Whether a session ran on it and gave the right numbers.
        problem: Why not; empty if it works.
        remedy: What mends it; empty if it works or nothing is known to.
    """

    name: ProviderName
    works: bool
    problem: str = ""
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.works == bool(self.problem):
            raise ValueError("a provider either works or has a problem")


def probe_provider(name: ProviderName) -> ProviderStatus:
    """Run a tiny model on a provider and look at what comes out; never raises for a provider that cannot run."""
    try:
        opened = open_session(PROBE_MODEL, provider=name, threads=1)
        (answer,) = opened.session.run(None, {"x": PROBE_INPUT})
    except LbkitError as error:
        return _failed(name, Obstacle(error.problem.removeprefix(CUDA_REFUSAL), error.remedy or ""))
    except Exception as error:
        return _failed(name, Obstacle(f"a tiny model does not run on {name} ({ort_words(error)})", _REINSTALL))
    if not np.allclose(answer, probe_answer(), rtol=1e-3):
        found, expected = answer.ravel().tolist(), probe_answer().ravel().tolist()
        return _failed(name, Obstacle(f"{name} computes {found}, expected {expected}", _REINSTALL))
    return ProviderStatus(name, works=True)


def _failed(name: ProviderName, obstacle: Obstacle) -> ProviderStatus:
    return ProviderStatus(name, works=False, problem=obstacle.problem, remedy=obstacle.remedy)
