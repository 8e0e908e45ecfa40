"""Arms of a study against each other: their means, every paired difference, which of them the best one really beats.

Every arm is trained with the same seeds, complete: accuracies float64 [arms, seeds]. What a seed does to all arms alike
cancels in a difference; what is left of an accuracy after its arm's and its seed's mean is noise, taken to be as large
in every arm and estimated from all of them: a two-way analysis of variance, (arms - 1)(seeds - 1) degrees of freedom.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped]

from triscale.errors import UserError
from triscale.stats import Estimate
from triscale.studies.power import LEVEL, detectable

Values = npt.NDArray[np.float64]

# Seeds that agree to the last bit would make a certainty of rounding errors: noise counts for no less than those do.
ROUNDING = 1e-12
MOST_SEEDS = 1 << 20


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms, by position, and the first's mean less the second's.

    p: of the paired t test, two-sided. corrected: the same after Holm's correction over all pairs of the study.
    """

    first: int
    second: int
    difference: Estimate
    p: float
    corrected: float


@dataclass(frozen=True, slots=True)
class Comparisons:
    """What a study says of its arms. sigma: the noise of one run, with df degrees of freedom. means: one an arm, whose
    intervals are those of further seeds too, and so wider than a difference's."""

    means: tuple[Estimate, ...]
    pairs: tuple[Pair, ...]
    sigma: float
    df: int

    @property
    def best(self) -> int:
        """The position of the highest mean (the first of equals)."""
        return max(range(len(self.means)), key=lambda arm: self.means[arm].value)

    @property
    def tied(self) -> tuple[int, ...]:
        """The arms that are not significantly worse than the best at 5 % after Holm's correction, the best included."""
        worse = {pair.first + pair.second - self.best for pair in self._with_best() if pair.corrected < LEVEL}
        return tuple(arm for arm in range(len(self.means)) if arm not in worse)

    def _with_best(self) -> tuple[Pair, ...]:
        return tuple(pair for pair in self.pairs if self.best in (pair.first, pair.second))


def compare_arms(y: Values) -> Comparisons:
    """Every arm against every other. y: accuracies, float64 [arms, seeds]. Raises `UserError` as `complete` does."""
    y = complete(y)
    sigma, df = noise(y)
    pairs = tuple(combinations(range(len(y)), 2))
    differences = [paired_seeds(y[first], y[second], sigma, df) for first, second in pairs]
    t = np.array([difference.value for difference in differences]) / _error(sigma, y.shape[1])
    p: Values = 2 * stats.t.sf(np.abs(t), df)
    rows = zip(pairs, differences, p, holm(p), strict=True)
    return Comparisons(
        means=_means(y, sigma),
        pairs=tuple(Pair(*pair, difference, float(one), float(held)) for pair, difference, one, held in rows),
        sigma=sigma,
        df=df,
    )


def complete(y: Values) -> Values:
    """y as float64 [arms, seeds]. Raises `UserError` for fewer than two arms or seeds, or a value that is no number."""
    y = np.asarray(y, dtype=np.float64)
    if y.ndim != 2 or min(y.shape) < 2:
        raise UserError(f"accuracies of shape {list(y.shape)} cannot be compared; it takes two arms and two seeds")
    if not np.isfinite(y).all():
        arm, seed = np.argwhere(~np.isfinite(y))[0]
        raise UserError(f"arm {arm} has the accuracy {y[arm, seed]} with seed {seed}; leave the arm or the seed out")
    return y


def noise(y: Values) -> tuple[float, int]:
    """(standard deviation of one run without its arm's and its seed's effect, its degrees of freedom)."""
    arms, seeds = y.shape
    df = (arms - 1) * (seeds - 1)
    rest = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    return max(math.sqrt(float((rest**2).sum()) / df), ROUNDING * max(1.0, float(np.abs(y).max()))), df


def paired_seeds(y_a: Values, y_b: Values, sigma: float, df: int, *, out_of: int = 1) -> Estimate:
    """How much higher a's mean is than b's, with the t interval of 95 %. y_a, y_b: float64 [seeds], the same seeds in
    the same order; sigma, df: as `noise` finds them. out_of: differences among which this one is picked afterwards; the
    interval is as much wider as lets it hold whichever that is (Bonferroni)."""
    value = float((np.asarray(y_a) - np.asarray(y_b)).mean())
    half = float(stats.t.isf(LEVEL / 2 / out_of, df)) * _error(sigma, len(y_a))
    return Estimate(value, value - half, value + half)


def holm(p: Values) -> Values:
    """p values [m] so corrected that one error in all m tests is as rare as p says (Holm 1979, Scand. J. Stat. 6)."""
    m, order = len(p), np.argsort(p)
    held = np.empty(m)
    held[order] = np.minimum(1.0, np.maximum.accumulate((m - np.arange(m)) * p[order]))
    return held


def seeds_to_tell(difference: float, sigma: float, arms: int = 2, corrected: bool = False) -> int | None:
    """The fewest seeds with which `detectable` is at most `difference`: a power of 80 % at 5 %. None where no number
    of seeds is enough (a difference of 0) or more than a million are needed. sigma, arms, corrected: as there."""

    def enough(seeds: int) -> bool:
        return detectable(arms, seeds, sigma, corrected) <= abs(difference)

    if difference == 0:
        return None
    seeds = 2
    while not enough(seeds):
        seeds *= 2
        if seeds > MOST_SEEDS:
            return None
    few = seeds // 2
    while seeds - few > 1:
        middle = (few + seeds) // 2
        few, seeds = (few, middle) if enough(middle) else (middle, seeds)
    return seeds


def _error(sigma: float, seeds: int) -> float:
    """The standard error of a paired difference of two means."""
    return sigma * math.sqrt(2 / seeds)


def _means(y: Values, sigma: float) -> tuple[Estimate, ...]:
    """Every arm's mean over all seeds there are: noise and what the seeds do both count. Their sum is estimated from
    all arms, its degrees of freedom by Satterthwaite (1946): seeds - 1 where seeds do nearly everything, arms times as
    many where they do nothing."""
    arms, seeds = y.shape
    between, within = arms * float(y.mean(0).var(ddof=1)), (arms - 1) * sigma**2
    df = (between + within) ** 2 / (between**2 / (seeds - 1) + within**2 / ((arms - 1) * (seeds - 1)))
    half = float(stats.t.isf(LEVEL / 2, df)) * math.sqrt((between + within) / (arms * seeds))
    return tuple(Estimate(mean, mean - half, mean + half) for mean in map(float, y.mean(1)))
