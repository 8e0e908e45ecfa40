"""Which point is tried next, by what is known so far: a search that was killed goes on from its ledger alone, and
points may come back in any order. (TPE goes on too, but with other random numbers: Optuna's are its own.)"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from numbers import Integral
from random import Random
from typing import Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution

from triscale.errors import UserError
from triscale.searching.space import Codes, Space

DRAWS = 10_000  # proposals that are looked at for one that is admissible and new; then as many near known points
SCARCE = 50  # times as many at the end: of some spaces one point in thousands is within the limits
STEPS = 3  # choices, at most, by which a point that is drawn near a known one differs from it
NEAR = 50  # proposals near a parent that are turned down, before it is looked farther from it


@dataclass(frozen=True, slots=True)
class Scored:
    """A point that was tried. value: what it is worth, larger is better; comparable between all points of a search."""

    codes: Codes
    value: float


@dataclass(frozen=True, slots=True)
class Known:
    """history: all points that were tried, in the order in which they ended. running: those that are being tried."""

    history: Sequence[Scored]
    running: Sequence[Codes] = ()

    @property
    def begun(self) -> int:
        """How many points."""
        return len(self.history) + len(self.running)


class Strategy(Protocol):
    """Proposes points; whether they may be tried is decided elsewhere, by `fresh`."""

    def propose(self, space: Space, known: Known, rng: Random, turned_down: int) -> Codes:
        """A point to try. turned_down: how many proposals just before this one may not be tried, or were already."""


@dataclass(frozen=True, slots=True)
class RandomChoice:
    """Any point: the control that every other strategy has to beat. In a space so fine that `DRAWS` of its points hold
    none within the limits, it is one near a known point, see `fresh`: there chance is not uniform."""

    def propose(self, space: Space, known: Known, rng: Random, turned_down: int) -> Codes:
        """See `Strategy`."""
        return space.sample(rng)


@dataclass(frozen=True, slots=True)
class Evolution:
    """Regularised evolution (Real et al. 2019, arXiv 1802.01548, algorithm 1), asynchronous: of the youngest
    `population` points some are drawn, the best of them is the parent, and its child differs in one choice.

    Points die of age, not of a bad value, so one lucky measurement does not rule for ever. children: the share of
    children that come from two parents; the paper has none.
    """

    population: int = 20
    drawn: int = 10
    children: float = 0.0

    def propose(self, space: Space, known: Known, rng: Random, turned_down: int) -> Codes:
        """See `Strategy`. The first `population` points are any. Where all near a parent are known it looks farther."""
        if known.begun < self.population or not known.history:
            return space.sample(rng)
        alive = known.history[-self.population :]
        parent = self._parent(alive, rng)
        if rng.random() < self.children:
            parent = space.cross(parent, self._parent(alive, rng), rng)
        return space.mutate(parent, rng, 1 + min(turned_down // NEAR, 3))

    def _parent(self, alive: Sequence[Scored], rng: Random) -> Codes:
        drawn = rng.sample(alive, min(self.drawn, len(alive)))
        return max(drawn, key=lambda scored: scored.value).codes


class TreeParzen:
    """Optuna's TPE (Bergstra et al. 2011) on the integers of the choices, each a category; the first points are any.

    An object belongs to one search. What it holds is what it was told: another one that is told the same goes on.
    """

    begin = 20  # points at random before the model says anything

    def __init__(self) -> None:
        self._study: optuna.Study | None = None
        self._ranges: dict[str, BaseDistribution] = {}
        self._numbers: dict[Codes, int] = {}  # Optuna's, of all points that it knows
        self._told = 0
        self._last: Codes | None = None

    def propose(self, space: Space, known: Known, rng: Random, turned_down: int) -> Codes:
        """See `Strategy`."""
        if known.begun < self.begin or turned_down > NEAR:
            return space.sample(rng)
        study = self._told_of(space, known, rng)
        trial = study.ask(self._ranges)
        codes = tuple(trial.params.values())
        if codes in self._numbers:  # proposed a second time: what becomes of the first is told of it
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._numbers[codes], self._last = trial.number, codes
        return codes

    def _told_of(self, space: Space, known: Known, rng: Random) -> optuna.Study:
        """Optuna's study, told what is new: it would be slow to tell it everything each time."""
        if self._study is None:
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            sampler = optuna.samplers.TPESampler(seed=rng.randrange(2**31), constant_liar=True)
            self._study = optuna.create_study(direction="maximize", sampler=sampler)
            self._ranges = {
                f"{place:03d}": CategoricalDistribution(tuple(range(count))) for place, count in enumerate(space.counts)
            }
        new = [scored.codes for scored in known.history[self._told :]]
        if self._last is not None and self._last not in (*new, *known.running):  # it was turned down
            self._study.tell(self._numbers.pop(self._last), state=optuna.trial.TrialState.FAIL)
        self._last = None
        for codes in (*new, *known.running):
            if codes not in self._numbers:
                self._study.enqueue_trial(dict(zip(self._ranges, codes, strict=True)))
                self._numbers[codes] = self._study.ask(self._ranges).number
        for scored in known.history[self._told :]:
            if math.isfinite(scored.value):
                self._study.tell(self._numbers[scored.codes], scored.value)
            else:
                self._study.tell(self._numbers[scored.codes], state=optuna.trial.TrialState.FAIL)
        self._told = len(known.history)
        return self._study


STRATEGIES: Mapping[str, Callable[[], Strategy]] = {
    "evolution": Evolution,
    "random": RandomChoice,
    "tpe": TreeParzen,
}


def find_strategy(name: str | Strategy) -> Strategy:
    """A new strategy of that name. Raises `UserError` with the names there are."""
    if not isinstance(name, str):
        return name
    if name not in STRATEGIES:
        raise UserError(f"strategy {name!r}: is none; take {', '.join(STRATEGIES)}, or a Strategy of your own")
    return STRATEGIES[name]()


def fresh(
    strategy: Strategy,
    space: Space,
    known: Known,
    rng: Random,
    admissible: Callable[[Codes], bool],
    stopped: Callable[[], bool] = lambda: False,
    start: Callable[[], Codes | None] = lambda: None,
) -> Codes | None:
    """A proposal that may be tried and is new, both of which `admissible` tells; None where none turns up, or `stopped`
    tells before that it has taken too long.

    After `DRAWS` proposals any point is taken; of a space that is small all are looked at. Of others points near those
    that are known are drawn first: the more choices a network has, the farther chance takes its cost from the limits,
    while what differs little from one that is within them often is as well. start: such a point, before any was tried.
    Raises `UserError` where what is proposed is no point.
    """

    def going(_: object) -> bool:
        return not stopped()

    for turned_down in takewhile(going, range(DRAWS)):
        codes = strategy.propose(space, known, rng, turned_down)
        _check_point(codes, strategy)
        if admissible(codes):
            return codes
    if space.size <= DRAWS:
        left = [codes for codes in takewhile(going, space.all()) if admissible(codes)]
        return rng.choice(left) if left else None
    first = start()
    near = [*(() if first is None else (first,)), *(scored.codes for scored in known.history), *known.running]
    walked = (space.mutate(rng.choice(near), rng, rng.randint(1, STEPS)) for _ in range(DRAWS if near else 0))
    drawn = (space.sample(rng) for _ in range(SCARCE * DRAWS))
    # No `next` with a default, nor `filter`: they would take a StopIteration of `admissible` for the end.
    for codes in takewhile(going, chain(walked, drawn)):
        if admissible(codes):
            return codes
    return None


def _check_point(codes: object, strategy: Strategy) -> None:
    """Raises `UserError` for what is no tuple of integers: else it would be turned down like a point that may not be
    tried, and chance would search in the strategy's place."""
    # By their types, which are few: this is asked of thousands of proposals for one point.
    if not isinstance(codes, tuple) or not all(issubclass(kind, Integral) for kind in set(map(type, codes))):
        raise UserError(
            f"strategy {type(strategy).__name__} proposed {codes!r:.80}; a point is a tuple of integers, one for each "
            "choice"
        )
