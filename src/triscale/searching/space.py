"""A discrete space: choices by name, each with its values; sampling, mutation, crossover, integers."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

from triscale.errors import UserError

Codes = tuple[int, ...]
"""A point of a space: for every choice, in order, the position of its value."""


@dataclass(frozen=True)
class Space:
    """Names and, in the same order, the values that each may take.

    Raises `UserError` for a choice without values, or with the same value twice.
    """

    names: tuple[str, ...]
    values: tuple[tuple[Hashable, ...], ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise UserError("the space has no choices; give at least one name with its values")
        if len(set(self.names)) != len(self.names) or len(self.names) != len(self.values):
            raise UserError(f"a space of {len(self.names)} names and {len(self.values)} lists of values; one for each")
        for name, values in zip(self.names, self.values, strict=True):
            if not values:
                raise UserError(f"choice {name!r} has no values; give at least one, or leave it out")
            if len(set(values)) != len(values):
                place = next(place for place, value in enumerate(values) if value in values[:place])
                twice, first = values[place], values[values.index(values[place])]
                alike = "" if repr(first) == repr(twice) else f": {first!r} is equal to it"  # False is 0
                raise UserError(f"choice {name!r} has the value {twice!r} twice{alike}; give each once")

    @classmethod
    def of(cls, choices: Mapping[str, Sequence[Hashable]]) -> "Space":
        """From a mapping of choice name to values. Raises `UserError` for what is none."""
        if not isinstance(choices, Mapping):
            raise UserError(f"a space is a mapping of choice name to values, not {type(choices).__name__}")
        for name, values in choices.items():
            if isinstance(values, str | bytes) or not isinstance(values, Sequence):
                raise UserError(f"choice {name!r}: its values must be a list, not {values!r:.60}")
            try:
                set(values)
            except TypeError as error:  # a value that cannot be told from another by its hash
                raise UserError(
                    f"choice {name!r}: its values must be texts, numbers or tuples ({error}); "
                    "of lists make tuples, and name anything else by a text"
                ) from None
        return cls(tuple(choices), tuple(tuple(values) for values in choices.values()))

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """How many values each choice has."""
        return tuple(len(values) for values in self.values)

    @cached_property
    def size(self) -> int:
        """How many points there are."""
        return math.prod(self.counts)

    @cached_property
    def _free(self) -> tuple[int, ...]:
        """The choices that are one."""
        return tuple(place for place, count in enumerate(self.counts) if count > 1)

    def sample(self, rng: Random) -> Codes:
        """Any point, all equally likely."""
        return tuple([int(rng.random() * count) for count in self.counts])

    def mutate(self, codes: Codes, rng: Random, changes: int = 1) -> Codes:
        """The point with so many of its choices, at most all, made differently."""
        made = list(codes)
        for place in rng.sample(self._free, min(changes, len(self._free))):
            step = 1 + int(rng.random() * (self.counts[place] - 1))
            made[place] = (made[place] + step) % self.counts[place]
        return tuple(made)

    def cross(self, one: Codes, other: Codes, rng: Random) -> Codes:
        """A child: every choice from one of two parents, by chance."""
        return tuple([a if rng.random() < 0.5 else b for a, b in zip(one, other, strict=True)])

    def all(self) -> Iterator[Codes]:
        """Every point, in order."""
        codes = [0] * len(self.counts)
        while True:
            yield tuple(codes)
            place = len(codes) - 1
            while place >= 0 and codes[place] + 1 == self.counts[place]:
                codes[place] = 0
                place -= 1
            if place < 0:
                return
            codes[place] += 1

    def decode(self, codes: Codes) -> dict[str, Hashable]:
        """The value of every choice, by name. Raises `UserError` for integers that are no point."""
        if len(codes) != len(self.names) or not all(0 <= c < n for c, n in zip(codes, self.counts, strict=True)):
            raise UserError(f"{codes!r:.80} is no point of a space of {len(self.names)} choices")
        return {name: values[code] for name, values, code in zip(self.names, self.values, codes, strict=True)}

    def encode(self, choice: Mapping[str, Hashable]) -> Codes:
        """The inverse of `decode`. Raises `UserError` naming the choice that the space does not have."""
        unknown = set(choice) - set(self.names)
        if unknown:
            raise UserError(f"choice {min(unknown)!r} is not in the space; it has {', '.join(self.names)}")
        made = []
        for name, values in zip(self.names, self.values, strict=True):
            if name not in choice:
                raise UserError(f"choice {name!r} is missing")
            if choice[name] not in values:
                raise UserError(f"choice {name!r} is {choice[name]!r:.60}; it may be {', '.join(map(repr, values))}")
            made.append(values.index(choice[name]))
        return tuple(made)
