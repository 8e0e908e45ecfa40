"""Trainings as other processes run them: small ones, started, waited for, stopped and compared."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tiny import TINY
from waiting import LONGEST

from triscale.arch import to_json

SOURCES = Path(__file__).parent.parent / "src"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"}
RESULTS = ("model.safetensors", "metrics.jsonl", "predictions.csv")
NOISY = replace(TINY, head=replace(TINY.head, dropout=0.2), stochastic_depth=0.2, name="noisy")


def network(folder: Path, architecture: object = NOISY) -> Path:
    place = folder / "network.json"
    place.write_text(to_json(architecture))  # type: ignore[arg-type]
    return place


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "triscale", *map(str, words)]


def finished(*words: object) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own, to its end."""
    return subprocess.run(command(*words), capture_output=True, text=True, env=ENVIRONMENT, timeout=LONGEST)


@contextmanager
def started(*words: object, line: list[str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """The same while it runs; whatever happens, nothing of its group is left."""
    process = subprocess.Popen(
        line or command(*words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def checkpoint(run: Path) -> int:
    """The number of the newest checkpoint; 0 where there is none."""
    try:
        names = [path.name for path in (run / "checkpoints").iterdir()]
    except FileNotFoundError:
        return 0
    return max((int(name[:6]) for name in names if re.fullmatch(r"\d{6}-[0-9a-f]{64}\.safetensors", name)), default=0)


def results(run: Path) -> dict[str, bytes]:
    """What two runs are compared by."""
    return {name: (run / name).read_bytes() for name in RESULTS}


def plan(run: Path) -> dict[str, object]:
    found = json.loads((run / "run.json").read_text())["plan"]
    assert isinstance(found, dict)
    return found
