"""How many threads are worth having."""

import os
from functools import cache
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores this process may run on: a container's share, not the machine's.

    A part of a core counts as one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _quota(_GROUPS) or cores)


@cache
def _quota(groups: Path) -> int | None:
    """Cores whose time the container may take, rounded up; None where nobody limits it. Both versions of cgroups."""
    try:
        if (file := groups / "cpu.max").exists():
            quota, period = file.read_text().split()
        else:
            quota, period = ((groups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return -(-int(quota) // int(period)) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # without a limit the quota is -1, or the word max
        return None
