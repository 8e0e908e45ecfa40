"""Executors that train nothing: what becomes of a trial follows from the trial."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from pathlib import Path

from small_trials import MADE

from triscale.costing import cost
from triscale.trials import Done, Failure, Outcome, Probe, Trial


def succeeding(trial: Trial) -> Outcome | Failure:
    return MADE


class Fake:
    """Whatever is submitted ends as `ends` says, all of it at the next wait. began: all that was ever submitted.
    running: what was not given back, in the order in which it was submitted."""

    widest = 1

    def __init__(self, slots: int = 2, ends: Callable[[Trial], Outcome | Failure] = succeeding) -> None:
        self.slots, self.ends = slots, ends
        self.began: list[Trial] = []
        self.running: list[tuple[int, Trial]] = []

    def submit(self, ticket: int, trial: Trial, place: Path) -> None:
        assert len(self.running) < self.slots, "no more at once than there are slots"
        self.began.append(trial)
        self.running.append((ticket, trial))

    def wait(self, seconds: float) -> list[Done]:
        ended, self.running = self.running, []
        return [Done(ticket, self.ends(trial)) for ticket, trial in ended]

    def progress(self) -> dict[int, float]:
        return {ticket: 0.5 for ticket, _ in self.running}

    def measure(self, probes: Sequence[Probe]) -> list[float]:
        return [1.0] * len(probes)

    def close(self) -> None:
        """Nothing runs."""


class Scripted(Fake):
    """One that is so far at each wait as `shares` says of every ticket; with the last of them everything ends. places:
    the folders that trials were given."""

    def __init__(
        self, shares: Sequence[dict[int, float]], ends: Callable[[Trial], Outcome | Failure] = succeeding
    ) -> None:
        super().__init__(ends=ends)
        self.shares = list(shares)
        self.places: list[Path] = []

    def submit(self, ticket: int, trial: Trial, place: Path) -> None:
        super().submit(ticket, trial, place)
        self.places.append(place)
        place.mkdir(parents=True)

    def wait(self, seconds: float) -> list[Done]:
        if len(self.shares) > 1:
            self.shares.pop(0)
            return []
        return super().wait(seconds)

    def progress(self) -> dict[int, float]:
        return {ticket: self.shares[0][ticket] for ticket, _ in self.running if ticket in self.shares[0]}


def accuracy(trial: Trial) -> float:
    """The formula: large kernels, few expansions, and a little by the seed; more epochs are better."""
    blocks = [stage.block for stage in trial.architecture.stages]
    good = sum(getattr(block, "kernel", 3) - getattr(block, "expansion", 1) / 4 for block in blocks) / len(blocks)
    return 0.5 + 0.02 * good + 0.01 * math.log(trial.recipe.epochs) + 1e-4 * (trial.seed % 7)


def unfailing(trial: Trial) -> Failure | None:
    return None


class Formula(Fake):
    """What a trial reaches is a formula of it, unless it fails; an epoch takes so many seconds. It gives back the
    youngest first, as slots do that overtake each other."""

    def __init__(
        self,
        slots: int = 1,
        seconds: float = 1.0,
        accuracy: Callable[[Trial], float] = accuracy,
        failing: Callable[[Trial], Failure | None] = unfailing,
    ) -> None:
        super().__init__(slots, self._came)
        self.seconds, self.accuracy, self.failing = seconds, accuracy, failing

    def wait(self, seconds: float) -> list[Done]:
        ticket, trial = self.running.pop()
        return [Done(ticket, self.ends(trial))]

    def _came(self, trial: Trial) -> Outcome | Failure:
        took = self.seconds * trial.recipe.epochs
        made = replace(MADE, selection=self.accuracy(trial), macs=cost(trial.architecture).macs, seconds=took)
        return self.failing(trial) or made


class Clocked(Fake):
    """A trial takes as many seconds as `takes` says, and reaches what the formula does. now: the seconds that have
    passed."""

    def __init__(self, slots: int, takes: Callable[[Trial], float]) -> None:
        super().__init__(slots)
        self.takes, self.now = takes, 0.0
        self._ends: list[tuple[float, int, Trial]] = []

    def submit(self, ticket: int, trial: Trial, place: Path) -> None:
        super().submit(ticket, trial, place)
        heappush(self._ends, (self.now + self.takes(trial), ticket, trial))

    def wait(self, seconds: float) -> list[Done]:
        self.now, ticket, trial = heappop(self._ends)
        self.running.remove((ticket, trial))
        return [Done(ticket, replace(MADE, selection=accuracy(trial), seconds=self.takes(trial)))]
