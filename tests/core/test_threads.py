from __future__ import annotations

import os
from pathlib import Path

import pytest

from lbkit.core.threads import MAX_THREADS, ThreadLimits, checked_threads, thread_limits
from lbkit.errors import ConfigError


def limits_with(tmp_path: Path, membership: str, files: dict[str, str]) -> ThreadLimits:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "membership").write_text(membership)
    return thread_limits(cgroup_root=tmp_path / "cgroup", cgroup_membership=tmp_path / "membership")


def test_v2_quota_of_the_own_group(tmp_path: Path) -> None:
    assert limits_with(tmp_path, "0::/app\n", {"app/cpu.max": "150000 100000\n"}).quota_cpus == 1.5


def test_the_tightest_group_above_holds(tmp_path: Path) -> None:
    files = {"a/b/cpu.max": "800000 100000", "a/cpu.max": "300000 100000", "cpu.max": "max 100000"}
    assert limits_with(tmp_path, "0::/a/b\n", files).quota_cpus == 3.0


def test_group_path_of_the_host_inside_a_container(tmp_path: Path) -> None:
    assert limits_with(tmp_path, "0::/docker/0123\n", {"cpu.max": "200000 100000"}).quota_cpus == 2.0


@pytest.mark.parametrize("folder", ["cpu/job", "cpu,cpuacct/job"])
def test_v1_quota(tmp_path: Path, folder: str) -> None:
    files = {f"{folder}/cpu.cfs_quota_us": "250000\n", f"{folder}/cpu.cfs_period_us": "100000\n"}
    assert limits_with(tmp_path, "4:cpu,cpuacct:/job\n0::/\n", files).quota_cpus == 2.5


@pytest.mark.parametrize("text", ["max 100000", "", "-1 100000", "100000", "100000 0", "nonsense here"])
def test_no_quota(tmp_path: Path, text: str) -> None:
    assert limits_with(tmp_path, "0::/\n", {"cpu.max": text}).quota_cpus is None


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    limits = thread_limits(cgroup_root=tmp_path / "none", cgroup_membership=tmp_path / "nothing")
    assert limits.quota_cpus is None
    assert limits.threads == limits.affinity


@pytest.mark.parametrize(("quota", "threads"), [(None, 8), (2.5, 2), (0.3, 1), (16.0, 8)])
def test_threads_from_limits(quota: float | None, threads: int) -> None:
    assert ThreadLimits(affinity=8, quota_cpus=quota).threads == threads


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity is Linux's")
def test_affinity_counts_and_not_the_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 7, 9})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert limits_with(tmp_path, "0::/\n", {}).threads == 3


def test_threads_asked_for_win() -> None:
    assert checked_threads(7) == 7
    assert checked_threads(None) == thread_limits().threads


@pytest.mark.parametrize("threads", [0, -1, MAX_THREADS + 1, 10**14])
def test_absurd_thread_counts_are_an_error(threads: int) -> None:
    with pytest.raises(ConfigError, match=f"at least 1 and at most {MAX_THREADS}, got {threads}; leave it out"):
        checked_threads(threads)
