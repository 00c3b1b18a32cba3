"""The processor's name and the instruction sets that decide which precision is fast."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

INSTRUCTION_SETS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
)
"""As Linux spells them: VNNI and AMX speed int8, BF16 and AMX speed bfloat16."""


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """A processor.

    Attributes:
        model: Its name, or "unknown".
        instruction_sets: Whether it has each of `INSTRUCTION_SETS`; None where the system does not say.
    """

    model: str
    instruction_sets: dict[str, bool] | None

    def __post_init__(self) -> None:
        if self.instruction_sets is not None and set(self.instruction_sets) != set(INSTRUCTION_SETS):
            raise ValueError(f"instruction_sets should have {INSTRUCTION_SETS}, got {self.instruction_sets}")


def read_cpu_facts(*, cpuinfo: Path = CPUINFO) -> CpuFacts:
    """Read the processor's facts from Linux's list; elsewhere only the name is known.

    Args:
        cpuinfo: The list.
    """
    try:
        fields = _first_processor(cpuinfo.read_text())
    except OSError:
        fields = {}
    model = fields.get("model name") or platform.processor() or platform.machine() or "unknown"
    if "flags" not in fields:
        return CpuFacts(model, None)
    flags = set(fields["flags"].split())
    return CpuFacts(model, {name: name in flags for name in INSTRUCTION_SETS})


def _first_processor(text: str) -> dict[str, str]:
    lines = text.split("\n\n", 1)[0].splitlines()
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
