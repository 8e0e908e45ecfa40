"""How many cores may be used: those this process may run on, and no more than its container is given the time of."""

import os
from pathlib import Path

import pytest

from triscale import cores


def two(root: Path, text: str) -> None:
    """The second version of cgroups."""
    (root / "cpu.max").write_text(text)


def one(root: Path, quota: str, period: str) -> None:
    """The first."""
    (root / "cpu").mkdir()
    (root / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (root / "cpu" / "cpu.cfs_period_us").write_text(period)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cores, "_GROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("max 100000\n", 8),
        ("150000 100000\n", 2),
        ("200000 100000\n", 2),
        ("1000 100000\n", 1),
        ("6400000 100000\n", 8),
        ("", 8),
        ("torn", 8),
        ("100000 0", 8),
        ("0 100000", 8),
    ],
)
def test_a_quota_is_counted_in_whole_cores(root: Path, text: str, found: int) -> None:
    two(root, text)
    assert cores.usable_cores() == found


@pytest.mark.parametrize(
    ("quota", "period", "found"),
    [("-1\n", "100000\n", 8), ("250000\n", "100000\n", 3), ("25000\n", "50000\n", 1), ("", "", 8)],
)
def test_so_is_one_of_the_first_version(root: Path, quota: str, period: str, found: int) -> None:
    one(root, quota, period)
    assert cores.usable_cores() == found


def test_without_such_files_all_that_it_may_run_on_are_usable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores.usable_cores() == 8
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.usable_cores() == 1


def test_a_quota_is_read_once(root: Path) -> None:
    two(root, "300000 100000")
    assert cores.usable_cores() == 3
    two(root, "100000 100000")
    assert cores.usable_cores() == 3
