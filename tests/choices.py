"""Discrete spaces for `search`, and an objective over them that keeps what it was asked."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from random import Random
from typing import Any

import hypothesis.strategies as st

from triscale.searching import STRATEGIES, Codes, Found, search

SPACE = {"kernel": [3, 5, 7], "kind": ["plain", "inverted"], "width": (0.5, 1.0, 1.5, 2.0), "bias": [True]}
LARGE = {f"choice {place}": range(6) for place in range(6)}
NAMES = sorted(STRATEGIES)

spaces = st.dictionaries(
    st.text(max_size=3), st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True), min_size=1, max_size=3
)
counts = st.integers(1, 60)
seeds = st.integers(0, 1000)


def key(choice: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(choice.items())


def noise(choice: Any, seed: int) -> float:
    return Random(f"{key(choice)} {seed}").random()


def worth(choice: Any, seed: int) -> float:
    """Numbers that add up, with noise that a second seed does not repeat."""
    return sum(value for value in choice.values() if isinstance(value, int | float)) + noise(choice, seed)


def price(choice: Any) -> float:
    return float(Random(f"{key(choice)}").randrange(5))


@dataclass
class Asked:
    """Keeps what it was asked, in order: ("feasible" or "evaluate" or "cost", choice, seed)."""

    value: Callable[[Any, int], float] = worth
    allows: Callable[[Any], bool] = lambda choice: True
    log: list[tuple[str, Any, int | None]] = field(default_factory=list)

    def feasible(self, choice: dict[str, Any]) -> bool:
        self.log.append(("feasible", dict(choice), None))
        choice.clear()  # whoever is asked may do with it what he likes
        return self.allows(self.log[-1][1])

    def evaluate(self, choice: dict[str, Any], seed: int) -> float:
        self.log.append(("evaluate", dict(choice), seed))
        choice.clear()
        return self.value(self.log[-1][1], seed)

    def cost(self, choice: dict[str, Any]) -> float:
        self.log.append(("cost", dict(choice), None))
        choice.clear()
        return price(self.log[-1][1])

    @property
    def evaluated(self) -> list[tuple[Any, int | None]]:
        return [(key(choice), seed) for what, choice, seed in self.log if what == "evaluate"]

    def search(self, space: Any = SPACE, **asked: Any) -> Found:
        return search(space, self.evaluate, feasible=self.feasible, cost=self.cost, **asked)


def differing(one: Codes, other: Codes) -> int:
    """In so many places."""
    return sum(a != b for a, b in zip(one, other, strict=True))


def points(space: Any) -> list[Any]:
    return [dict(zip(space, values, strict=True)) for values in product(*space.values())]
