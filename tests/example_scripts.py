"""Runs a script of examples/ as its documentation says: in a process of its own, with this checkout's package."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_example(script: str, *words: object, timeout: float) -> subprocess.CompletedProcess[str]:
    """script: its file name. timeout: seconds."""
    return subprocess.run(
        [sys.executable, f"examples/{script}", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONIOENCODING": "utf-8"},
    )


def printed(script: str, *words: object) -> tuple[str, str]:
    """What it prints, on both streams, where it comes to its end."""
    done = run_example(script, *words, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr
