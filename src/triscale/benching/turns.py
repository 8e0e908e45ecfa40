"""Passes of several engines in turns, so that a busy moment of the machine falls on all of them."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from triscale.stats import Spread

SHORT, MOST = 0.03, 31  # seconds of a turn with short passes, and how many they are at most
WARM_UP = 2  # rounds that are not counted
Pass = Callable[[], object]


def seconds(run: Pass) -> float:
    """Of one pass."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def turn(run: Pass) -> float:
    """Seconds of a pass; where passes are short the median of as many as fit, after one that is not counted."""
    first = seconds(run)
    if first > SHORT:
        return first
    taken = [seconds(run)]
    while sum(taken) < SHORT and len(taken) < MOST:
        taken.append(seconds(run))
    return statistics.median(taken)


def take_turns(
    passes: Mapping[str, Pass], rounds: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, list[float]]:
    """Seconds of each in each round; another one begins each round."""
    taken: dict[str, list[float]] = {name: [] for name in passes}
    names = list(passes)
    for number in range(rounds + WARM_UP):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            taken[name].append(turn(passes[name]))
        if progress is not None:
            progress(number + 1, rounds + WARM_UP)
    return {name: found[WARM_UP:] for name, found in taken.items()}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Of two passes of the same round."""
    return Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])
