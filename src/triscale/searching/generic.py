"""The verb `search`: the best point of any discrete space by any objective that Python can compute."""

import math
import operator
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import fmean, mean
from typing import Any, NamedTuple

from triscale.errors import OneLineWarning, UserError
from triscale.searching.space import Codes, Space
from triscale.searching.strategies import STRATEGIES, Known, Scored, Strategy, find_strategy, fresh

FINALISTS, SEEDS = 5, 3  # of the best so many are evaluated so often before one is named
SHARE = 0.25  # of the evaluations, at most, that go into that
WORST = -math.inf  # of an evaluation that came to nothing: not a number
WALKED = 1_000_000  # points: a space of no more is gone through where draws find nothing, in seconds
LOOKED = 300_000  # answers of `feasible` that are kept: 130 MB where a point has forty choices

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
        return _mean(self.values)

    @property
    def lost(self) -> float:
        """The share of its evaluations that came to nothing."""
        return self.values.count(WORST) / len(self.values)


class Found(NamedTuple):
    """What a search found. history: ranked: points that stayed longest among those that were evaluated again stand
    first, then by their mean value, then by their cost; below all of these stand the points of which an evaluation came
    to nothing, those first that lost the smallest share. best: the first of it. (Its value flatters where evaluations
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
    be noisy, and None, NaN and infinity count as worst. What it, `feasible` or `cost` raises ends the search, with a
    note of which choice it was: let `evaluate` return None for what came to nothing. evaluations: all of them, repeated
    ones too: in the end the best five are evaluated twice more, as far as a quarter of the evaluations allows (the next
    best takes the place of one that then comes to nothing); the seeds are `seed`, `seed` + 1, and so on. Where the
    space is used up before that, all that are left are shared out by halving: all points are evaluated again equally
    often, then the better half of them, until the best five are (Karnin et al. 2013). feasible: whether a choice may be
    tried; asked before it is evaluated, and once of each choice, as far as 300,000 answers are kept. Where hardly any
    is feasible, half a million are drawn before the search gives up; a space of a million points or fewer is gone
    through first, so that what is feasible in it is found. cost: of a choice, for the front and between equals; asked
    before it is evaluated. strategy: one of `STRATEGIES`, or your own. No choice is tried twice until all have been.
    What is to outlast an interruption `evaluate` has to keep: with the same seed and the same answers, the same choices
    are asked for in the same order.
    Raises `UserError` where no choice is feasible, for a strategy that is none, and for a value or a cost that is no
    number. Warns where every evaluation came to nothing: the best is then no better than any other.
    """
    evaluations, seed = _whole(evaluations, "evaluations", 1), _whole(seed, "seed", None)
    one = _Search(Space.of(space), evaluate, feasible, cost, _strategy(strategy), seed)
    kept = min(FINALISTS * (SEEDS - 1), int(SHARE * evaluations) // FINALISTS * FINALISTS)
    while one.made < evaluations - kept and one.explore():
        pass
    if not one.points:
        tried = f"its {one.space.size:,}" if one.space.size <= WALKED else "those that were drawn"
        raise UserError(f"no choice of the space is feasible: none of {tried}; loosen the condition")
    one.settle(evaluations)
    ranked = one.ranked()
    if ranked[0].lost == 1:
        said = "every evaluation came to nothing (None, NaN or infinity): does evaluate return its value?"
        warnings.warn(said, OneLineWarning, stacklevel=2)
    return Found(ranked, ranked[0])


def _mean(values: Sequence[float]) -> float:
    """Their mean, also where their sum is no float any more."""
    try:
        return fmean(values)
    except OverflowError:
        return mean(values)  # in fractions: slower


def _strategy(given: Any) -> Strategy:  # noqa: ANN401
    """The strategy. Raises `UserError` for what is neither a name of one nor an object that proposes."""
    if isinstance(given, type):
        raise UserError(f"strategy must be an object, not the class {given.__name__}; give {given.__name__}(…)")
    if not isinstance(given, str) and not callable(getattr(given, "propose", None)):
        raise UserError(f"strategy {given!r:.60}: is none; take {', '.join(STRATEGIES)}, or a Strategy of your own")
    return find_strategy(given)


def _walk(space: Space, rng: Random) -> Iterator[Codes]:
    """Every point once, in an order that chance decides."""
    for number in rng.sample(range(space.size), space.size):
        codes = []
        for count in space.counts:
            number, code = divmod(number, count)
            codes.append(code)
        yield tuple(codes)


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
        self._rng = Random(seed if seed >= 0 else str(seed))  # of a number it takes the absolute value
        self._walk: Iterator[Codes] | None = None  # through the whole space, once draws have found nothing
        self._looked: dict[Codes, bool] = {}
        self.points: dict[Codes, Evaluated] = {}
        self.history: list[Scored] = []
        self.rounds: dict[Codes, int] = {}  # the last that a point stayed for, counted down to 1
        self.made = 0

    def explore(self) -> bool:
        """One more point; False where there is none."""
        codes = self._next()
        if codes is None:
            return False
        choice = self.space.decode(codes)
        cost = self._asked("cost before evaluation", self.made + 1, self._costs, choice)
        value = self._valued(choice, 0)
        self.points[codes] = Evaluated(choice, (value,), cost, len(self.points))
        self.history.append(Scored(codes, value))
        return True

    def _next(self) -> Codes | None:
        """What is tried next. Draws, of which one may come again, are not enough where hardly any point is left."""
        if self._walk is None:
            codes = fresh(self.strategy, self.space, Known(self.history), self._rng, self._admissible)
            if codes is not None or self.space.size > WALKED:
                return codes
            self._walk = _walk(self.space, self._rng)
        for codes in self._walk:  # `next` would take a StopIteration of `feasible` for the end
            if self._admissible(codes):
                return codes
        return None

    def settle(self, evaluations: int) -> None:
        """All evaluations that are left, on points that are known: as many as they can be enough for are evaluated
        again equally often, then the better half of them, and so on to the best five."""
        alive = self._order(self.points)[: max(FINALISTS, (evaluations - self.made) // (SEEDS - 1))]
        while self.made < evaluations:
            left, rounds = evaluations - self.made, 1 + max(0, math.ceil(math.log2(len(alive) / FINALISTS)))
            passes = max(1, left // rounds // len(alive)) if rounds > 1 else math.ceil(left / len(alive))
            for _ in range(passes):
                self._again(alive, evaluations - self.made, rounds)
                alive = self._replaced(alive)
            alive = self._order(self.points)[: max(FINALISTS, (len(alive) + 1) // 2)]

    def _again(self, alive: Sequence[Codes], most: int, round_: int) -> None:
        """Each once more, the first `most` of them where they are more. The round counts once all had a turn in it:
        whoever had none would stand below the others for no value of his."""
        for codes in alive[:most]:
            point = self.points[codes]
            value = self._valued(point.choice, len(point.values))
            self.points[codes] = replace(point, values=(*point.values, value))
        if all(self.rounds.get(codes) == round_ for codes in alive[most:]):
            self.rounds.update(dict.fromkeys(alive[:most], round_))

    def _replaced(self, alive: list[Codes]) -> list[Codes]:
        """With the next best in the place of each that came to nothing, as long as there are others."""
        if not any(self.points[codes].lost for codes in alive):
            return alive
        others = iter(self._order(codes for codes in self.points.keys() - alive if not self.points[codes].lost))
        return [next(others, codes) if self.points[codes].lost else codes for codes in alive]

    def _order(self, some: Iterable[Codes]) -> list[Codes]:
        """From the best on."""

        def rank(codes: Codes) -> tuple[float, float, float, float, int]:
            point = self.points[codes]
            return point.lost, self.rounds.get(codes, math.inf), -point.value, point.cost or 0.0, point.order

        return sorted(some, key=rank)

    def ranked(self) -> tuple[Evaluated, ...]:
        """All points, from the best on."""
        return tuple(self.points[codes] for codes in self._order(self.points))

    def _asked(self, what: str, number: int, function: Callable[..., Any], choice: Choice, *seed: int) -> Any:  # noqa: ANN401
        """What one of the caller's functions says of a choice."""
        try:
            return function(dict(choice), *seed)
        except BaseException as error:  # Ctrl-C too: with the note people know how far it came
            by = "".join(f" with seed {one}" for one in seed)
            error.add_note(f"{what} {number} of the search: {dict(choice)}{by}")
            raise

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
        found = self._asked("evaluation", self.made, self._evaluate, choice, self.seed + repeat)
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

    def _allows(self, choice: dict[str, Any]) -> bool:
        return self._feasible is None or bool(self._feasible(choice))  # of an array of several values it raises

    def _admissible(self, codes: Codes) -> bool:
        if codes in self.points:
            return False
        if self._feasible is None:
            return True
        known = self._looked.get(codes)  # it may be dear to ask
        if known is None:
            choice = self.space.decode(codes)
            known = bool(self._asked("feasible before evaluation", self.made + 1, self._allows, choice))
            if len(self._looked) < LOOKED:
                self._looked[codes] = known
        return known
