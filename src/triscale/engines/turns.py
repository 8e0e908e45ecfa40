"""What is measured in turns, so that a busy moment of the machine falls on all of it. No torch, no numpy."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import median
from typing import TypeVar

MOST_PASSES = 31  # of a turn with short passes
FEW = 3  # rounds of what is slow

Found = TypeVar("Found")


def seconds(run: Callable[[], object]) -> float:
    """Of one pass."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def turn(run: Callable[[], object], short: float) -> float:
    """Seconds of a pass; where it takes less than `short` seconds the median of as many as fit into these, after one
    that is not counted."""
    first = seconds(run)
    if first > short:
        return first
    taken = [seconds(run)]
    while sum(taken) < short and len(taken) < MOST_PASSES:
        taken.append(seconds(run))
    return median(taken)


def warm_up(run: Callable[[], object], passes: int, longest: float = math.inf) -> None:
    """So many passes that nobody counts; none after those that took `longest` seconds."""
    started = time.perf_counter()
    for _ in range(passes):
        run()
        if time.perf_counter() - started > longest:
            return


@dataclass(frozen=True, slots=True)
class Until:
    """Enough of seconds: `fewest` rounds, and more until each of what is measured has taken `seconds` or there are
    `most`. Of what has taken `longest` seconds each, three rounds are enough."""

    fewest: int
    most: int
    seconds: float
    longest: float = math.inf

    def __call__(self, taken: Sequence[Sequence[float]]) -> bool:
        """Whether there is to be another round. taken: seconds of each in each round."""
        rounds, spent = len(taken[0]), sum(map(sum, taken)) / len(taken)
        fewest = self.fewest if spent < self.longest else FEW
        return rounds < fewest or (rounds < self.most and spent < self.seconds)


@dataclass(frozen=True, slots=True)
class Rounds:
    """Enough is so many rounds, whatever they tell."""

    n: int

    def __call__(self, taken: Sequence[Sequence[object]]) -> bool:
        """Whether there is to be another round."""
        return len(taken[0]) < self.n


def take_turns(
    calls: Sequence[Callable[[], Found]],
    goes_on: Callable[[Sequence[Sequence[Found]]], bool],
    *,
    uncounted: int = 0,
    rotating: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[list[Found]]:
    """What each call (at least one) tells in each round, as long as `goes_on` says: by what each has told so far.

    uncounted: rounds before the first that is kept. rotating: another one begins each round; otherwise each comes
    after the same one always. progress: is told how many rounds are done, those not counted among them.
    """
    taken: list[list[Found]] = [[] for _ in calls]
    for number in count():
        if number >= uncounted and not goes_on(taken):
            break
        for place in range(len(calls)):
            at = (number + place) % len(calls) if rotating else place
            found = calls[at]()
            if number >= uncounted:
                taken[at].append(found)
        if progress is not None:
            progress(number + 1)
    return taken
