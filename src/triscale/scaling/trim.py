"""Trim: channel steps that bring a network to just under its budget after the official rounding."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

from triscale.arch.spec import Architecture, SpecError
from triscale.scaling.budget import Budget

CLOSE = 0.99  # of the budget: a trim that reaches it is close enough
MOST_STEPS = 4
SMALL_IMAGE = 64  # pixels: up to here channels are so few that steps of 8 are coarse
SMALL_STEP = 4
CHECKED = 64  # predicted combinations that are costed exactly, per number of steps


@dataclass(frozen=True, slots=True)
class Step:
    """One place whose channels were changed after the official rounding."""

    place: str
    official: int
    channels: int


def steps_between(official: Architecture, trimmed: Architecture) -> tuple[Step, ...]:
    """Every place where the trimmed network's channels differ from the officially rounded one's."""
    before, after = dict(_places(official)), dict(_places(trimmed))
    return tuple(Step(place, before[place], after[place]) for place in before if before[place] != after[place])


def trim(start: Architecture, budget: Budget) -> Architecture:
    """The network with the fewest channel steps that uses at least 99 % of the budget and holds it.

    `start` holds the budget. Steps are of the rounding's divisor, or of 4 for inputs of at most 64 pixels; only upward,
    so that no stage is starved to widen another, unless no four of those get there. Very narrow networks may need
    ever halves of such steps. Where nothing gets there, the closest network below the budget.
    """
    best, most = start, budget.used(budget.values(start, budget.analytic))
    for size, downward in _kinds_of_step(start):
        origin = best
        for count in range(1, MOST_STEPS + 1):
            if most >= CLOSE:
                return best
            found, used = _closest(origin, budget, (size, -size) if downward else (size,), count)
            if used > most:
                best, most = found, used
    return best


def _kinds_of_step(architecture: Architecture) -> Iterator[tuple[int, bool]]:
    """(size, whether steps may go down too), in the order in which they are tried."""
    official = architecture.rounding.divisor
    small = max(architecture.resolution) <= SMALL_IMAGE and official > SMALL_STEP
    sizes = (official, SMALL_STEP) if small else (official,)
    for downward in (False, True):
        yield from ((size, downward) for size in sizes)
    size = sizes[-1]
    while size > 1:
        size //= 2
        yield size, True


def _closest(start: Architecture, budget: Budget, sizes: tuple[int, ...], count: int) -> tuple[Architecture, float]:
    """The best network that `count` steps make: combinations are ranked by adding up single steps, then costed."""
    base = budget.values(start, budget.analytic)
    moves: list[tuple[str, int, dict[str, float]]] = []
    for place in _channels(start):
        for step in sizes:
            moved = _step(start, [(place, step)])
            if moved is not None:
                values = budget.values(moved, budget.analytic)
                moves.append((place, step, {term: values[term] - base[term] for term in base}))
    ranked = []
    for chosen in combinations_with_replacement(moves, count):
        predicted = budget.used({term: base[term] + sum(move[2][term] for move in chosen) for term in base})
        if predicted <= 1.02:  # single steps do not add up exactly
            ranked.append((abs(predicted - (1 + CLOSE) / 2), [(place, step) for place, step, _ in chosen]))
    ranked.sort(key=lambda entry: entry[0])
    best, most = start, 0.0
    for _, steps in ranked[:CHECKED]:
        moved = _step(start, steps)
        used = 2.0 if moved is None else budget.used(budget.values(moved, budget.analytic))
        if moved is not None and most < used <= 1:
            best, most = moved, used
            if most >= CLOSE:
                break
    return best, most


def _channels(architecture: Architecture) -> dict[str, int]:
    """The channels that a step may move, by place."""
    fixed = {"stem"} if not architecture.rounding.stem else set()
    if architecture.rounding.head != "scaled":
        fixed.add("head")
    return {place: channels for place, channels in _places(architecture) if place not in fixed}


def _places(architecture: Architecture) -> Iterator[tuple[str, int]]:
    yield "stem", architecture.stem.channels
    for index, stage in enumerate(architecture.stages):
        yield f"stages.{index}", stage.channels
    if architecture.head.channels is not None:
        yield "head", architecture.head.channels


def _step(architecture: Architecture, steps: list[tuple[str, int]]) -> Architecture | None:
    """The network with channels stepped at those places; None where one would fall below the step's size."""
    channels = _channels(architecture)
    for place, step in steps:
        channels[place] += step
        if channels[place] < abs(step):
            return None
    try:
        return replace(
            architecture,
            stem=replace(architecture.stem, channels=channels.get("stem", architecture.stem.channels)),
            stages=tuple(
                replace(stage, channels=channels[f"stages.{i}"]) for i, stage in enumerate(architecture.stages)
            ),
            head=replace(architecture.head, channels=channels.get("head", architecture.head.channels)),
        )
    except SpecError:
        return None
