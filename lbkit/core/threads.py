"""How many threads this process may really use: its CPU affinity and its cgroup quota, never the host's count."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lbkit.errors import ConfigError

CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_MEMBERSHIP = Path("/proc/self/cgroup")

MAX_THREADS = 1024
"""More make ONNX Runtime wait for threads that the system hardly gives: at 100,000 it hangs."""


@dataclass(frozen=True, slots=True)
class ThreadLimits:
    """What limits this process's threads.

    Attributes:
        affinity: CPUs that the process may be scheduled on, at least 1.
        quota_cpus: CPU time that its cgroups grant, in CPUs (1.5 is one and a half); None without a quota.
    """

    affinity: int
    quota_cpus: float | None

    def __post_init__(self) -> None:
        if self.affinity < 1 or (self.quota_cpus is not None and self.quota_cpus <= 0):
            raise ValueError(f"limits must be positive, got {self.affinity} and {self.quota_cpus}")

    @property
    def threads(self) -> int:
        """Threads that run without being throttled: a quota is rounded down, because a spinning thread spends it."""
        quota = self.affinity if self.quota_cpus is None else max(1, int(self.quota_cpus))
        return min(self.affinity, quota)


def thread_limits(*, cgroup_root: Path = CGROUP_ROOT, cgroup_membership: Path = CGROUP_MEMBERSHIP) -> ThreadLimits:
    """Return what limits this process's threads.

    Args:
        cgroup_root: Where the cgroup file systems are mounted.
        cgroup_membership: The file that lists this process's cgroups.
    """
    quotas = list(_quotas(cgroup_root, cgroup_membership))
    return ThreadLimits(_affinity(), min(quotas) if quotas else None)


def checked_threads(threads: int | None) -> int:
    """Return the thread count asked for, or what this process may use when it is None.

    Raises:
        ConfigError: Fewer than one or more than `MAX_THREADS` are asked for.
    """
    if threads is None:
        return thread_limits().threads
    if not 1 <= threads <= MAX_THREADS:
        raise ConfigError(
            f"threads must be at least 1 and at most {MAX_THREADS}, got {threads}",
            remedy="leave it out for what this process may use",
        )
    return threads


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux only
        return max(1, len(os.sched_getaffinity(0)))
    count = getattr(os, "process_cpu_count", os.cpu_count)  # Python 3.13 has the former
    return max(1, count() or 1)


def _quotas(root: Path, membership: Path) -> Iterator[float]:
    """Yield the quota of every cgroup that the process is in, up to the root: the tightest one holds."""
    for line in _read(membership).splitlines():
        hierarchy, controllers, path = [*line.split(":", 2), "", ""][:3]
        if hierarchy == "0":  # version 2: one hierarchy for all controllers
            yield from _known(_quota_v2(folder) for folder in _folders(root, path))
        elif "cpu" in controllers.split(","):
            for mount in {root / controllers, root / "cpu"}:
                yield from _known(_quota_v1(folder) for folder in _folders(mount, path))


def _folders(mount: Path, path: str) -> list[Path]:
    folder = mount / path.strip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(mount))]


def _known(quotas: Iterator[float | None]) -> Iterator[float]:
    return (quota for quota in quotas if quota is not None)


def _quota_v2(folder: Path) -> float | None:
    return _ratio(_read(folder / "cpu.max").split())


def _quota_v1(folder: Path) -> float | None:
    return _ratio([_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")])


def _ratio(words: list[str]) -> float | None:
    """Return quota / period; None for "max", -1 or anything that is not two positive numbers."""
    if len(words) != 2 or not all(word.isdigit() and int(word) for word in words):
        return None
    return int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
