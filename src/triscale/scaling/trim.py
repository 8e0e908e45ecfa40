"""Trim: channel steps that bring a network to just under its budget after the official rounding."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from math import comb

from triscale.arch.rounding import round_channels
from triscale.arch.spec import Architecture, SpecError
from triscale.scaling.budget import Budget

CLOSE = 0.99  # of the budget: a trim that reaches it is close enough
MOST_STEPS = 4
SMALL_IMAGE = 64  # pixels: up to here channels are so few that steps of 8 are coarse
SMALL_STEP = 4
CHECKED = 64  # predicted combinations that are costed exactly, per number of steps
MOST_COMBINED = 10_000  # predicted combinations: four steps up and down of ten places; of 66 they would be 13 million

Chosen = tuple[int, ...]  # moves by number


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


def step_size(architecture: Architecture) -> int:
    """Channels of one step: the rounding's divisor, at most 4 for inputs of at most 64 pixels."""
    divisor = architecture.rounding.divisor
    return min(divisor, SMALL_STEP) if max(architecture.resolution) <= SMALL_IMAGE else divisor


def widened(official: Architecture, baseline: Architecture, width: float) -> Architecture | None:
    """The network with every place as wide as `width` makes the baseline, rounded to steps, and never narrower than it
    was; None beyond the spec's limits."""
    size, wide = step_size(official), _movable(baseline)
    channels = {
        place: max(count, round_channels(wide[place] * width, size)) for place, count in _movable(official).items()
    }
    return _with_channels(official, channels)


def trim(start: Architecture, budget: Budget, *, finer: bool = False) -> Architecture:
    """The network with the fewest channel steps that uses at least 99 % of the budget and holds it.

    `start` holds the budget. Steps only widen, unless no four of those get there: no stage is starved for another. Of
    equally many steps, those that are spread over the stages. Where nothing gets there, the closest network below the
    budget. finer: steps may be ever halves of their size, for very narrow networks.
    """
    best, most = start, budget.used(budget.values(start, budget.analytic))
    for size, downward in _kinds_of_step(start, finer):
        origin = best
        for count in range(1, MOST_STEPS + 1):
            if most >= CLOSE:
                return best
            found, used = _closest(origin, budget, (size, -size) if downward else (size,), count)
            if used > most:
                best, most = found, used
    return best


def _kinds_of_step(architecture: Architecture, finer: bool) -> Iterator[tuple[int, bool]]:
    """(size, whether steps may go down too), in the order in which they are tried."""
    size = step_size(architecture)
    for downward in (False, True):
        yield size, downward
    while finer and size > 1:
        size //= 2
        yield size, True


@dataclass(frozen=True, slots=True)
class _Move:
    """One step at one place, and what it adds to each limited term."""

    place: str
    step: int
    adds: dict[str, float]


def _closest(start: Architecture, budget: Budget, sizes: tuple[int, ...], count: int) -> tuple[Architecture, float]:
    """The best network that `count` steps make: combinations are ranked by adding up single steps, then costed."""
    channels = _movable(start)
    best, most = start, 0.0
    for steps in _ranked(start, budget, sizes, count)[:CHECKED]:
        moved = _with_channels(start, {place: channels[place] + steps[place] for place in channels})
        if moved is None:
            continue
        used = budget.used(budget.values(moved, budget.analytic))
        if most < used <= 1:
            best, most = moved, used
            if most >= CLOSE:
                break
    return best, most


def _ranked(start: Architecture, budget: Budget, sizes: tuple[int, ...], count: int) -> list[Counter[str]]:
    """Combinations of `count` steps: first those predicted to end within 1 %, the most even first; then the nearest."""
    base, channels = budget.values(start, budget.analytic), _movable(start)
    moves = []
    for place in channels:
        for size in sizes:
            moved = _with_channels(start, {**channels, place: channels[place] + size})
            if moved is not None:
                values = budget.values(moved, budget.analytic)
                moves.append(_Move(place, size, {term: values[term] - base[term] for term in base}))

    def prediction(chosen: Chosen) -> float:
        return budget.used({term: base[term] + sum(moves[i].adds[term] for i in chosen) for term in base})

    ranked = []
    for chosen in _combined(len(moves), count, prediction):
        predicted = prediction(chosen)
        if predicted > 1.02:  # single steps do not add up exactly
            continue
        steps: Counter[str] = Counter()
        for i in chosen:
            steps[moves[i].place] += moves[i].step
        within = CLOSE <= predicted <= 1
        uneven = sum((step / channels[place]) ** 2 for place, step in steps.items())
        ranked.append((not within, uneven if within else abs(predicted - (1 + CLOSE) / 2), steps))
    ranked.sort(key=lambda entry: entry[:2])
    return [steps for *_, steps in ranked]


def _combined(moves: int, count: int, prediction: Callable[[Chosen], float]) -> Iterable[Chosen]:
    """Combinations of `count` of so many moves: all or, where those are too many to look at, the ones that begin with
    the most promising of one move less."""
    if comb(moves + count - 1, count) <= MOST_COMBINED:
        return combinations_with_replacement(range(moves), count)
    fewer = sorted(_combined(moves, count - 1, prediction), key=lambda chosen: abs(prediction(chosen) - 1))[:CHECKED]
    return sorted({tuple(sorted((*chosen, move))) for chosen in fewer for move in range(moves)})


def _movable(architecture: Architecture) -> dict[str, int]:
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


def _with_channels(architecture: Architecture, channels: dict[str, int]) -> Architecture | None:
    """The network with those channels; None where no network has so many, or so few."""
    stem, head = architecture.stem, architecture.head
    try:
        return replace(
            architecture,
            stem=replace(stem, channels=channels.get("stem", stem.channels)),
            stages=tuple(
                replace(stage, channels=channels[f"stages.{i}"]) for i, stage in enumerate(architecture.stages)
            ),
            head=replace(head, channels=channels.get("head", head.channels)),
        )
    except SpecError:
        return None
