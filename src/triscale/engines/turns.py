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
    """Enough of seconds: `fewest` turns each, and more until they have taken `seconds` each, on average, or have had
    `most`. Of what has itself taken `longest` seconds, three turns are enough: it sits out what the others still need.
    """

    fewest: int
    most: int
    seconds: float
    longest: float = math.inf

    def __call__(self, taken: Sequence[Sequence[float]]) -> list[bool]:
        """Which of them are to have another turn. taken: seconds of each in each turn."""
        average = sum(map(sum, taken)) / len(taken)
        return [self._goes_on(len(one), sum(one), average) for one in taken]

    def _goes_on(self, turns: int, own: float, average: float) -> bool:
        fewest, spent = (self.fewest, average) if own < self.longest else (FEW, own)
        return turns < fewest or (turns < self.most and spent < self.seconds)


@dataclass(frozen=True, slots=True)
class Rounds:
    """Enough is so many rounds, whatever they tell."""

    n: int

    def __call__(self, taken: Sequence[Sequence[object]]) -> list[bool]:
        """Which of them are to have another turn: all, or none."""
        return [len(one) < self.n for one in taken]


def take_turns(
    calls: Sequence[Callable[[], Found]],
    goes_on: Callable[[Sequence[Sequence[Found]]], Sequence[bool]],
    *,
    uncounted: int = 0,
    rotating: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[list[Found]]:
    """What each call tells in each of its turns, as long as `goes_on` has turns for any: by what each has told so far.

    uncounted: rounds before the first that is kept. rotating: another one begins each round; otherwise each comes
    after the same one always. progress: is told how many rounds are done, those not counted among them.
    """
    taken: list[list[Found]] = [[] for _ in calls]
    for number in count():
        on = goes_on(taken) if number >= uncounted else [True] * len(calls)
        if not any(on):
            break
        for place in range(len(calls)):
            at = (number + place) % len(calls) if rotating else place
            if not on[at]:
                continue
            found = calls[at]()
            if number >= uncounted:
                taken[at].append(found)
        if progress is not None:
            progress(number + 1)
    return taken
