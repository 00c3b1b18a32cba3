"""Whether a provider really runs: a session is made on it, run, asked where it ran, and its numbers are checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lbkit.errors import LbkitError
from lbkit.runtime.probe_graph import PROBE_INPUT, PROBE_MODEL, probe_answer
from lbkit.runtime.providers import ProviderName, open_session, ort_words, refusal_reason
from lbkit.runtime.wheels import Obstacle

_REINSTALL = "reinstall its library, and the GPU's driver if it needs one"


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
        answer = _openvino_answer(name) if name in ("openvino", "openvino-bf16") else _ort_answer(name)
    except LbkitError as error:
        return _failed(name, Obstacle(refusal_reason(error, name), error.remedy or ""))
    except Exception as error:
        return _failed(name, Obstacle(f"a tiny model does not run on {name} ({ort_words(error)})", _REINSTALL))
    if not np.allclose(answer, probe_answer(), rtol=1e-2 if name == "openvino-bf16" else 1e-3):
        found, expected = answer.ravel().tolist(), probe_answer().ravel().tolist()
        return _failed(name, Obstacle(f"{name} computes {found}, expected {expected}", _REINSTALL))
    return ProviderStatus(name, works=True)


def _ort_answer(name: ProviderName) -> NDArray[Any]:
    (answer,) = open_session(PROBE_MODEL, provider=name, threads=1).session.run(None, {"x": PROBE_INPUT})
    return np.asarray(answer)


def _openvino_answer(name: Literal["openvino", "openvino-bf16"]) -> NDArray[Any]:
    from lbkit.runtime.openvino_backend import compile_on_cpu
    from lbkit.runtime.openvino_library import import_openvino

    core = import_openvino().Core()
    compiled = compile_on_cpu(core, core.read_model(PROBE_MODEL), provider=name, threads=1)
    return np.array(compiled([PROBE_INPUT])[0])


def _failed(name: ProviderName, obstacle: Obstacle) -> ProviderStatus:
    return ProviderStatus(name, works=False, problem=obstacle.problem, remedy=obstacle.remedy)
