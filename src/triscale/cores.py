"""How many threads are worth having."""

import os


def usable_cores() -> int:
    """Cores this process may run on: a container's share, not the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
