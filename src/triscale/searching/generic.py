"""The verb `search`: the best point of any discrete space by any objective that Python can compute."""

import math
import operator
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import fmean
from typing import Any, NamedTuple

from triscale.errors import UserError
from triscale.searching.space import Codes, Space
from triscale.searching.strategies import Known, Scored, Strategy, find_strategy, fresh

FINALISTS, SEEDS = 5, 3  # of the best so many are evaluated so often before one is named
SHARE = 0.25  # of the evaluations, at most, that go into that
WORST = -math.inf  # of an evaluation that came to nothing: not a number

Choice = Mapping[str, Hashable]


@dataclass(frozen=True)
class Evaluated:
    """A point and what it was worth.

    values: of each evaluation, in the order of their seeds; -inf where one came to nothing. cost: None without one.
    order: which point it was, from 0.
    """

    choice: Mapping[str, Any]
    values: tuple[float, ...]
    cost: float | None
    order: int

    @property
    def value(self) -> float:
        """The mean of its evaluations."""
        return fmean(self.values)


class Found(NamedTuple):
    """What a search found. history: ranked: points that stayed longest among those that were evaluated again stand
    first, then by their mean value, then by their cost. best: the first of it. (Its value flatters where evaluations
    are noisy: it was chosen for the same values.)"""

    history: tuple[Evaluated, ...]
    best: Evaluated

    @property
    def evaluations(self) -> int:
        """How many were made, repeated ones included."""
        return sum(len(one.values) for one in self.history)

    @property
    def front(self) -> tuple[Evaluated, ...]:
        """The points that none is better than at no more cost, from the cheapest on; without costs, the best.

        It ends with the best: what stands above that was evaluated less often, and was lucky.
        """
        if self.best.cost is None:
            return (self.best,)
        front: list[Evaluated] = []
        for one in sorted(self.history, key=lambda one: (one.cost or 0.0, -one.value)):
            above = one.value > (front[-1].value if front else WORST)
            if above and one.value < self.best.value and (one.cost or 0.0) < self.best.cost:
                front.append(one)
        return (*front, self.best)


def search(
    space: Mapping[str, Sequence[Hashable]],
    evaluate: Callable[[dict[str, Any], int], float],
    *,
    evaluations: int,
    feasible: Callable[[dict[str, Any]], bool] | None = None,
    cost: Callable[[dict[str, Any]], float] | None = None,
    strategy: str | Strategy = "evolution",
    seed: int = 0,
) -> Found:
    """The ranked history, and the best, of so many evaluations of points of a discrete space.

    space: choice name → its values. evaluate: what a choice (name → value) is worth by a seed, larger is better; it may
    be noisy, and None, NaN and infinity count as worst. What it raises ends the search, with a note of which choice it
    was: let it return None for what came to nothing. evaluations: all of them, repeated ones too: in the end the best
    five are evaluated twice more, as far as a quarter of the evaluations allows; the seeds are `seed`, `seed` + 1, and
    so on. Where the space is used up before that, all that are left are shared out by halving: all points are evaluated
    again equally often, then the better half of them, until the best five are (Karnin et al. 2013). feasible: whether a
    choice may be tried; asked before it is evaluated, once of each choice, and where hardly any is feasible of half a
    million before the search gives up. cost: of a choice, for the front and between equals. strategy: one of
    `STRATEGIES`, or your own. No choice is tried twice until all have been. What is to outlast an interruption
    `evaluate` has to keep: with the same seed and the same answers, the same choices are asked for in the same order.
    Raises `UserError` where no choice is feasible, and for a value or a cost that is no number.
    """
    evaluations, seed = _whole(evaluations, "evaluations", 1), _whole(seed, "seed", None)
    one = _Search(Space.of(space), evaluate, feasible, cost, find_strategy(strategy), seed)
    kept = min(FINALISTS * (SEEDS - 1), int(SHARE * evaluations) // FINALISTS * FINALISTS)
    while one.made < evaluations - kept and one.explore():
        pass
    if not one.points:
        raise UserError("no choice of the space is feasible: none of those that were drawn; loosen the condition")
    one.settle(evaluations)
    ranked = one.ranked()
    return Found(ranked, ranked[0])


def _whole(value: Any, name: str, least: int | None) -> int:  # noqa: ANN401
    """The number, of Python or numpy. Raises `UserError` for anything else."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or (least is not None and number < least):
        raise UserError(f"{name} must be a whole number{'' if least is None else f', at least {least}'}, not {value!r}")
    return number


class _Search:
    """One search in progress."""

    def __init__(
        self,
        space: Space,
        evaluate: Callable[[dict[str, Any], int], float],
        feasible: Callable[[dict[str, Any]], bool] | None,
        cost: Callable[[dict[str, Any]], float] | None,
        strategy: Strategy,
        seed: int,
    ) -> None:
        self.space, self.strategy, self.seed = space, strategy, seed
        self._evaluate, self._feasible, self._cost = evaluate, feasible, cost
        self._rng = Random(seed)
        self._looked: dict[Codes, bool] = {}
        self.points: dict[Codes, Evaluated] = {}
        self.history: list[Scored] = []
        self.rounds: dict[Codes, int] = {}  # the last in which a point was evaluated again, counted down to 1
        self.made = 0

    def explore(self) -> bool:
        """One more point; False where there is none."""
        codes = fresh(self.strategy, self.space, Known(self.history), self._rng, self._admissible)
        if codes is None:
            return False
        choice = self.space.decode(codes)
        cost = self._costs(choice)
        value = self._valued(choice, 0)
        self.points[codes] = Evaluated(choice, (value,), cost, len(self.points))
        self.history.append(Scored(codes, value))
        return True

    def settle(self, evaluations: int) -> None:
        """All evaluations that are left, on points that are known: as many as they can be enough for are evaluated
        again equally often, then the better half of them, and so on to the best five."""
        alive = self._order(self.points)[: max(FINALISTS, (evaluations - self.made) // (SEEDS - 1))]
        while self.made < evaluations:
            left, rounds = evaluations - self.made, 1 + max(0, math.ceil(math.log2(len(alive) / FINALISTS)))
            each, rest = divmod(left // rounds if rounds > 1 else left, len(alive))
            for _ in range(max(1, each)):
                self._again(alive[: evaluations - self.made], rounds)
            if rounds == 1:
                self._again(alive[: min(rest, evaluations - self.made)], rounds)
            alive = self._order(alive)[: max(FINALISTS, (len(alive) + 1) // 2)]

    def _again(self, alive: Sequence[Codes], round_: int) -> None:
        for codes in alive:
            self.rounds[codes] = round_
            point = self.points[codes]
            value = self._valued(point.choice, len(point.values))
            self.points[codes] = replace(point, values=(*point.values, value))

    def _order(self, some: Iterable[Codes]) -> list[Codes]:
        """From the best on."""

        def rank(codes: Codes) -> tuple[float, float, float, int]:
            point = self.points[codes]
            return self.rounds.get(codes, math.inf), -point.value, point.cost or 0.0, point.order

        return sorted(some, key=rank)

    def ranked(self) -> tuple[Evaluated, ...]:
        """All points, from the best on."""
        return tuple(self.points[codes] for codes in self._order(self.points))

    def _costs(self, choice: Choice) -> float | None:
        if self._cost is None:
            return None
        found = self._cost(dict(choice))
        try:
            value = math.nan if isinstance(found, str | bytes) else float(found)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if math.isnan(value):
            raise UserError(f"cost gave {found!r:.60} for {dict(choice)}; it has to give a number")
        return value

    def _valued(self, choice: Choice, repeat: int) -> float:
        self.made += 1
        seed = self.seed + repeat
        try:
            found = self._evaluate(dict(choice), seed)
        except BaseException as error:  # Ctrl-C too: with the note people know how far it came
            error.add_note(f"evaluation {self.made} of the search: {dict(choice)} with seed {seed}")
            raise
        if found is None:
            return WORST
        try:
            if isinstance(found, str | bytes):
                raise ValueError(found)
            value = float(found)
        except OverflowError:
            return WORST
        except (TypeError, ValueError):
            raise UserError(f"evaluate gave {found!r:.60} for {dict(choice)}; it has to give a number") from None
        return value if math.isfinite(value) else WORST

    def _admissible(self, codes: Codes) -> bool:
        if codes in self.points:
            return False
        if self._feasible is None:
            return True
        if codes not in self._looked:  # it may be dear to ask
            self._looked[codes] = bool(self._feasible(self.space.decode(codes)))
        return self._looked[codes]
