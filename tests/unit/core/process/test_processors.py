"""Processors that a process may use: affinity and quotas of control groups, of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from priorkit.core.process import processors as module
from priorkit.core.process.processors import limit_loaded_threads, prepare_threads, processors


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 processors without quotas."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(module, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(module, "MEMBERSHIP", tmp_path / "membership")
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    for name in (*threads, "OMP_WAIT_POLICY", *module.SHORT_SPIN):
        # Set and deleted, so that what is set below is undone.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "membership").write_text("0::/\n")
    return tmp_path


def quota(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("max 100000", 64), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("nonsense", 64)],
)
def test_a_quota_of_version_2_is_rounded_up(machine: Path, text: str, count: int) -> None:
    quota(machine / "cgroup", text)
    assert processors() == count


def test_the_smallest_quota_of_the_groups_around_counts(machine: Path) -> None:
    (machine / "membership").write_text("0::/batch/job\n")
    quota(machine / "cgroup" / "batch" / "job", "max 100000")
    quota(machine / "cgroup" / "batch", "400000 100000")
    assert processors() == 4


def test_quotas_of_version_1(machine: Path) -> None:
    (machine / "membership").write_text("5:memory:/x\n4:cpu,cpuacct:/docker/7\n")
    folder = machine / "cgroup" / "cpu" / "docker" / "7"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    for limit, count in (("-1", 64), ("300000", 3)):
        (folder / "cpu.cfs_quota_us").write_text(f"{limit}\n")
        assert processors() == count


def test_without_control_groups_affinity_counts(machine: Path) -> None:
    (machine / "membership").unlink()
    assert processors() == 64


def test_threads_follow_a_quota_and_do_not_spin_for_long(machine: Path) -> None:
    prepare_threads()
    assert "OMP_NUM_THREADS" not in os.environ  # torch knows the processors, and which share a core
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    assert "OMP_WAIT_POLICY" not in os.environ
    quota(machine / "cgroup", "200000 100000")
    prepare_threads()
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_what_the_user_set_stays(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quota(machine / "cgroup", "200000 100000")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    prepare_threads()
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert "GOMP_SPINCOUNT" not in os.environ


def test_torch_that_is_loaded_already_is_limited(machine: Path) -> None:
    before = torch.get_num_threads()
    quota(machine / "cgroup", "300000 100000")
    try:
        torch.set_num_threads(5)
        limit_loaded_threads()
        assert torch.get_num_threads() == 3
        os.environ["OMP_NUM_THREADS"] = "4"
        torch.set_num_threads(4)
        limit_loaded_threads()
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
