"""Two answers to the same questions: by how much one is better."""

import math
from dataclasses import dataclass
from statistics import NormalDist

FEWEST_APART = 6  # images between two models: of fewer McNemar's test has no p below 5 %, were all of them one model's


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Of n images, how many only the first of two models named right, and how many only the second."""

    first: int
    second: int
    n: int

    @property
    def value(self) -> float:
        """The difference of the two accuracies."""
        return (self.first - self.second) / self.n

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wald's interval with half an image more of each of the four kinds (Agresti and Min 2005, section 3): sound
        for few images too."""
        z = NormalDist().inv_cdf(0.5 + confidence / 2)
        first, second, n = self.first + 0.5, self.second + 0.5, self.n + 2
        middle = (first - second) / n
        half = z / n * math.sqrt(max(0.0, first + second - (first - second) ** 2 / n))
        return max(-1.0, middle - half), min(1.0, middle + half)

    def p_value(self) -> float:
        """McNemar's exact test, two-sided: how likely so uneven a split of the differing images is by chance."""
        differing, fewer = self.first + self.second, min(self.first, self.second)
        term, tail = 1, 0  # term: differing over k, each made of the one before; exact
        for k in range(fewer + 1):
            tail += term
            term = term * (differing - k) // (k + 1)
        return min(1.0, 2 * tail / int(2**differing))

    def __str__(self) -> str:
        low, high = (100 * bound for bound in self.interval())
        return f"{100 * self.value:+.2f} points (95 % interval {low:+.2f} to {high:+.2f}, n = {self.n:,})"
