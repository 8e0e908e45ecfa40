"""Trials of moments: tiny networks on a few digits. As a script, a driver to be killed."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tiny import TINY

from triscale.arch import Architecture
from triscale.data import Data, read
from triscale.training import Recipe
from triscale.trials import Entry, Executor, How, Ledger, Outcome, Progress, Trial, Workers, pack, run_trials

SMALL = replace(TINY, head=replace(TINY.head, classes=3), resolution=(8, 8), name="small")
LARGER = replace(SMALL, resolution=(12, 12), name="larger")
SHORT = Recipe(epochs=1, batch=16)
LONG = replace(SHORT, epochs=40)  # long enough to be caught in the middle
MADE = Outcome(0.5, 0.7, pack(np.array([True, False, True])), (1.5, 0.75), 1000, 2.0, 0.5, "here:1", 10**8)


def a_trial(network: Architecture = SMALL, recipe: Recipe = SHORT) -> Trial:
    return Trial(network, recipe, "0" * 64, 30, 0, How(), version="1")


def trial(data: Data, seed: int = 0, network: Architecture = SMALL, recipe: Recipe = SHORT, images: int = 30) -> Trial:
    return Trial(network, recipe, data.fingerprint, images, seed, How())


def entry(trial: Trial) -> Entry:
    parameters = {"depth": 0.5, "width": 0.25, "resolution": 0.25, "factor": 2.0, "seed": float(trial.seed)}
    return Entry(trial, f"{trial.architecture.name}, seed {trial.seed}", parameters)


def entries(data: Data, count: int, recipe: Recipe = SHORT) -> list[Entry]:
    """So many, of two networks in turns."""
    return [entry(trial(data, seed, (SMALL, LARGER)[seed % 2], recipe)) for seed in range(count)]


def found(outcome: Outcome) -> Outcome:
    """What a trial decides, without what the machine does."""
    return replace(outcome, seconds=0.0, preparing=0.0, worker="", memory=0)


def unheard(progress: Progress) -> None:
    """Nobody is told."""


def carry_out(
    ledger: Ledger, executor: Executor, wanted: Sequence[Entry], told: object = unheard
) -> dict[str, Outcome]:
    """`run_trials` where the first is expected to take longest, and so begins."""
    expected = {one.trial.key: float(len(wanted) - place) for place, one in enumerate(wanted)}
    return run_trials(ledger, executor, wanted, expected, told)  # type: ignore[arg-type]


def drive(digits: Path, place: Path, count: int, workers: int, endless: bool) -> None:
    """A driver that says what it does, a line each: its workers, then how far it is. endless: its third trial is."""
    data = read(digits)
    pool, wanted = Workers(data, workers), entries(data, count, LONG)
    if endless:
        wanted.insert(2, entry(trial(data, count, recipe=replace(SHORT, epochs=10**6))))
    print(json.dumps(pool.processes), flush=True)
    said = ""

    def told(progress: Progress) -> None:
        nonlocal said
        if said != (said := f"done {progress.done}, {progress.running} running"):
            print(said, flush=True)

    ledger = Ledger(place, "study")
    ledger.requeue()
    carry_out(ledger, pool, wanted, told)
    ledger.close()
    pool.close()


if __name__ == "__main__":
    drive(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), "endless" in sys.argv)
