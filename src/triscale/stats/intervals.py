"""Intervals around what was counted or estimated."""

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True, slots=True)
class Proportion:
    """`count` of `n`, as an estimate of a probability (n at least 1)."""

    count: int
    n: int

    @property
    def value(self) -> float:
        """The share."""
        return self.count / self.n

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson's score interval (1927): sound also for few images and shares near 0 or 1."""
        z = NormalDist().inv_cdf(0.5 + confidence / 2)
        middle = (self.count + z * z / 2) / (self.n + z * z)
        share = self.value
        half = z / (self.n + z * z) * math.sqrt(share * (1 - share) * self.n + z * z / 4)
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.value:.2%} (95 % interval {low:.2%} to {high:.2%}, n = {self.n:,})"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with the bounds of its 95 % interval, whatever method found them."""

    value: float
    low: float
    high: float

    def interval(self) -> tuple[float, float]:
        """(low, high), as the other kinds of figure tell theirs."""
        return self.low, self.high

    def __str__(self) -> str:
        return f"{self.value:.4f} (95 % interval {self.low:.4f} to {self.high:.4f})"

    def percent(self) -> str:
        """The same of a share, written in percent."""
        return f"{self.value:.2%} (95 % interval {self.low:.2%} to {self.high:.2%})"

    def points(self) -> str:
        """The same of a difference of two shares, written in points of a hundred."""
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.value:+.2f} points (95 % interval {low:+.2f} to {high:+.2f})"
