"""Does a killed training end in the same bytes on this machine? A small one is killed, goes on, and is compared."""

import hashlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from triscale.arch import Architecture, Head, MBConv, Stage, Stem, to_json
from triscale.errors import TriscaleError
from triscale.runs.directory import CHECKPOINTS, METRICS, MODEL

KILLS = 4
EPOCHS = 12
PATIENCE = 120.0  # seconds for a process that trains for two
NETWORK = Architecture(
    (Stage(MBConv(3, 2), 8, 1, 2), Stage(MBConv(3, 2), 16, 2, 2)),
    stem=Stem(8, stride=1),
    head=Head(3, 32, dropout=0.2),
    resolution=(16, 16),
    channels=3,
    stochastic_depth=0.2,
    name="selftest",
)


@dataclass(frozen=True)
class Selftest:
    """What came out. kills: with SIGKILL. model, metrics: SHA-256 of the files of the run that was never killed, and of
    the one that was."""

    kills: int
    model: tuple[str, str]
    metrics: tuple[str, str]
    seconds: float

    @property
    def same(self) -> bool:
        """Whether both runs left the same bytes."""
        return len(set(self.model)) == len(set(self.metrics)) == 1


def selftest(told: Callable[[str], None] = lambda text: None, seed: int = 0) -> Selftest:
    """Trains a small network on made-up pictures twice: once in peace, once killed at random moments, within epochs and
    within checkpoints, and gone on with each time. Everything lies in a temporary folder that is removed.

    Raises `TriscaleError` where a training fails.
    """
    started, chance = time.monotonic(), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="triscale-selftest-") as folder:
        place = Path(folder)
        _write_pictures(place / "images")
        (place / "network.json").write_text(to_json(NETWORK))
        told("a training in peace")
        _finish(_start(place, "peace"))
        for number in range(1, KILLS + 1):
            told(f"a training that is killed, {number} of {KILLS}")
            _kill_within(_start(place, "killed"), place / "killed", chance)
        told("what is left of it")
        _finish(_start(place, "killed"))
        pairs = [tuple(_digest(place / run / name) for run in ("peace", "killed")) for name in (MODEL, METRICS)]
    (m1, m2), (r1, r2) = pairs
    return Selftest(KILLS, (m1, m2), (r1, r2), time.monotonic() - started)


def _write_pictures(folder: Path) -> None:
    """Sixty of each of three classes: stripes of one direction in noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:16, :16]
    for label, wave in {"across": rows, "down": columns, "slanted": rows + columns}.items():
        (folder / label).mkdir(parents=True)
        for number in range(60):
            light = 128 + 60 * np.sin(wave * rng.uniform(0.8, 1.4) + rng.uniform(0, 6))[..., None]
            noisy = (light + rng.normal(0, 40, (16, 16, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / label / f"{number:02}.png")


def _start(place: Path, run: str) -> "subprocess.Popen[str]":
    words = ["train", place / "images", "--architecture", place / "network.json", "--epochs", EPOCHS, "--seed", 1]
    how = ["--batch", 16, "--deterministic", "--out", place / run, "--resume", "--checkpoint-every", "0s"]
    command = [sys.executable, "-m", "triscale", *map(str, [*words, *how])]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finish(process: "subprocess.Popen[str]") -> None:
    try:
        _, said = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise TriscaleError(f"the small training did not end in {PATIENCE:g} seconds") from None
    if process.returncode:
        raise TriscaleError(f"the small training failed: {(said.splitlines() or ['nothing was said'])[-1]}")


def _kill_within(process: "subprocess.Popen[str]", run: Path, chance: random.Random) -> None:
    """Once it has written some checkpoints, and a few milliseconds more."""
    wanted, until = _newest(run) + chance.randint(1, 30), time.monotonic() + PATIENCE
    while process.poll() is None and _newest(run) < wanted and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.02))
    process.kill()
    process.communicate()


def _newest(run: Path) -> int:
    folder = run / CHECKPOINTS
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name[:6]) for name in names if name[:6].isdecimal()), default=0)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
