"""Waiting for what another thread or process does, as long as it takes."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

LONGEST = 300.0  # seconds until a process is taken for one that hangs


def until(
    ready: Callable[[], bool],
    process: subprocess.Popen[Any] | None = None,
    *,
    longest: float = LONGEST,
    every: float = 0.002,
) -> bool:
    """Waits for it; False where the process ended before. longest, every: seconds until it hangs, between looks."""
    deadline = time.monotonic() + longest
    while not ready():
        if process is not None and process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "it hangs"
        time.sleep(every)
    return True
