"""The bootstrap (Efron 1979), in chunks: what a figure would have been with other images of the same kind."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from triscale.stats import Estimate

RESAMPLES = 1000
AT_ONCE = 2_000_000  # drawn images held in memory at a time; the draws are the same whatever it is

Indices = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
_BOUNDS = (0.025, 0.975)


def draws(n: int, resamples: int = RESAMPLES, seed: int = 0, at_once: int = AT_ONCE) -> Iterator[Indices]:
    """Positions of n images drawn with replacement: int64 [rows, n], `resamples` rows in all."""
    rng = np.random.default_rng(seed)
    rows = max(1, at_once // n)
    for start in range(0, resamples, rows):
        yield rng.integers(0, n, (min(rows, resamples - start), n))


def bootstrap(
    statistics: Callable[[Indices], Values], n: int, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Values, Values]:
    """(float64 [k], float64 [resamples, k]): k statistics of the n images as they are, and of every resample.

    statistics: positions [rows, n] → [rows, k].
    """
    own = statistics(np.arange(n, dtype=np.int64)[None])[0]
    return own, np.concatenate([statistics(indices) for indices in draws(n, resamples, seed)])


def percentile(value: float, resampled: Values) -> Estimate:
    """The interval between the percentiles of the resampled values, float64 [resamples]: for figures that resampling
    moves as often up as down (Efron and Tibshirani 1993, chapter 13)."""
    low, high = np.quantile(resampled, _BOUNDS)
    return Estimate(float(value), float(low), float(high))


def reversed_percentile(value: float, resampled: Values) -> Estimate:
    """The percentiles of the errors turned round: for figures that resampling moves one way (Davison and Hinkley 1997,
    section 5.2, the basic bootstrap)."""
    low, high = np.quantile(resampled, _BOUNDS)
    return Estimate(float(value), float(2 * value - high), float(2 * value - low))


def count(values: Indices, size: int, weights: Values | None = None) -> Values:
    """[rows, n] of numbers from 0 to size → float64 [rows, size], how often each occurs in a row, or the sums of their
    weights [rows, n]. The number `size` itself is not counted."""
    rows = len(values)
    cells = values + (size + 1) * np.arange(rows, dtype=np.int64)[:, None]
    flat = None if weights is None else weights.ravel()
    sums = np.bincount(cells.ravel(), flat, rows * (size + 1)).reshape(rows, size + 1)
    return sums[:, :size].astype(np.float64)
