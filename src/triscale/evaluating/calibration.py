"""Whether a model is right as often as it is sure: the expected calibration error and its reliability table.

Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv 1706.04599), section 2.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from triscale.evaluating.resampling import AT_ONCE, Indices, Values, count, reversed_percentile
from triscale.evaluating.table import Table
from triscale.stats import Estimate, Proportion

BINS = 15


@dataclass(frozen=True, slots=True)
class Bin:
    """The images whose confidence is above low and at most high: how many there are, how many of them are named right,
    and their mean confidence (None without images)."""

    low: float
    high: float
    images: int
    right: int
    confidence: float | None

    @property
    def accuracy(self) -> Proportion | None:
        """The share that is named right."""
        return Proportion(self.right, self.images) if self.images else None


@dataclass(frozen=True, slots=True)
class Calibration:
    """error: the expected calibration error, with its interval. by_chance: what 95 of 100 perfectly calibrated models
    with the same confidences would stay below with so many images; an error up to it tells nothing against the model.
    bins: the reliability table."""

    error: Estimate
    by_chance: float
    bins: tuple[Bin, ...]


def bin_of(confidence: npt.NDArray[np.float32]) -> Indices:
    """Which of the `BINS` equally wide bins (low, high] each confidence lies in, int64 [n]."""
    edges = np.arange(1, BINS) / BINS
    return np.searchsorted(edges, confidence.astype(np.float64), side="left")


def gaps(table: Table) -> Values:
    """1 or 0 for right or wrong, less the confidence: float64 [n]."""
    return table.right - table.confidence.astype(np.float64)


def errors(bins: Indices, gap: Values) -> Values:
    """Images by rows, their bins and gaps [rows, n] → the expected calibration error of each row, float64 [rows]."""
    found: Values = np.abs(count(bins, BINS, gap)).sum(1) / bins.shape[1]
    return found


def reliability(table: Table) -> tuple[Bin, ...]:
    """The bins, from the least sure to the surest."""
    bins = bin_of(table.confidence)
    images = np.bincount(bins, minlength=BINS)
    right = np.bincount(bins[table.right], minlength=BINS)
    sure = np.bincount(bins, table.confidence, BINS)
    return tuple(
        Bin(i / BINS, (i + 1) / BINS, int(images[i]), int(right[i]), float(sure[i] / images[i]) if images[i] else None)
        for i in range(BINS)
    )


def calibration(table: Table, resampled: Values, seed: int = 0) -> Calibration:
    """The calibration of a table; resampled: its error in each of the bootstrap's resamples, float64 [resamples].

    Every resample is worse calibrated than the images that it was drawn from, so the percentiles themselves would lie
    above the truth, often altogether: the interval is the reversed one. It reaches down to 0 where a perfectly
    calibrated model would show such an error too.
    """
    value = float(errors(bin_of(table.confidence)[None], gaps(table)[None])[0])
    error, chance = reversed_percentile(value, resampled), _by_chance(table, len(resampled), seed)
    low = 0.0 if value <= chance else min(value, max(0.0, error.low))
    return Calibration(replace(error, low=low, high=max(value, error.high)), chance, reliability(table))


def calibration_difference(first: Calibration, second: Calibration, value: float, resampled: Values) -> Estimate:
    """The first error less the second, both of the same images; resampled: that difference in each resample.

    The interval is the reversed one of the pairs. Where an error is one that a perfectly calibrated model would show
    too, it is wide enough for that error to be 0. In simulations of 72 to 10,000 images it held the truth in 90 to 98
    of 100 cases, the percentiles of the resampled differences in 20 to 100.
    """
    apart = reversed_percentile(value, resampled)
    low = min(apart.low, -second.error.high) if not first.error.low else apart.low
    high = max(apart.high, first.error.high) if not second.error.low else apart.high
    return Estimate(apart.value, low, high)


def _by_chance(table: Table, resamples: int, seed: int) -> float:
    """Answers drawn as right as often as the model is sure (Bröcker and Smith 2007, consistency resampling)."""
    rng = np.random.default_rng((seed, 1))
    bins, sure, n = bin_of(table.confidence), table.confidence.astype(np.float64), len(table)
    rows = max(1, AT_ONCE // n)
    found = []
    for start in range(0, resamples, rows):
        right = rng.random((min(rows, resamples - start), n)) < sure
        found.append(errors(np.broadcast_to(bins, right.shape), right - sure))
    return float(np.quantile(np.concatenate(found), 0.95))
