"""What was measured several times."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of n, the 10th and the 90th percentile."""

    median: float
    p10: float
    p90: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        ordered = sorted(map(float, values))
        low, middle, high = (_quantile(ordered, share) for share in (0.1, 0.5, 0.9))
        return cls(middle, low, high, len(ordered))

    @classmethod
    def of_ratios(cls, ours: Sequence[float], theirs: Sequence[float]) -> "Spread":
        """Of each of ours over that of theirs which was measured in the same round."""
        return cls.of([a / b for a, b in zip(ours, theirs, strict=True)])

    def times(self, factor: float) -> "Spread":
        """In another unit."""
        return Spread(self.median * factor, self.p10 * factor, self.p90 * factor, self.n)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between the two values beside it (Hyndman and Fan's type 7, numpy's own)."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
