"""Random numbers by position: the same for one (seed, epoch, index) on any machine, thread and library version.

A stream of random numbers depends on who drew before; a hash of the position does not. The mixer is SplitMix64's
finaliser (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 16).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(words: Words) -> Words:
    words = (words ^ (words >> np.uint64(30))) * _MIX_1
    words = (words ^ (words >> np.uint64(27))) * _MIX_2
    return words ^ (words >> np.uint64(31))


def _words(key: Sequence[int], index: npt.NDArray[np.int64]) -> Words:
    """One 64-bit word per index, keyed by ``key``; arrays wrap around silently, scalars would warn."""
    state = np.zeros(1, np.uint64)
    for part in key:
        state = _mix((state ^ np.array([part % 2**64], np.uint64)) + _GOLDEN)
    return _mix(_mix(state + (index.astype(np.uint64) + np.uint64(1)) * _GOLDEN) + state)


def uniform(key: Sequence[int], index: npt.NDArray[np.int64], draws: int) -> npt.NDArray[np.float64]:
    """[len(index), draws] numbers in [0, 1), each a function of ``key``, its index and its column only."""
    columns = [_words((*key, draw), index) >> np.uint64(11) for draw in range(draws)]
    return np.stack(columns, axis=1).astype(np.float64) * 2.0**-53


def permutation(key: Sequence[int], n: int) -> npt.NDArray[np.int64]:
    """0 … n-1 in an order that depends on ``key`` and n only."""
    words = _words(key, np.arange(n, dtype=np.int64))
    return np.argsort(words, kind="stable").astype(np.int64)


def sample(key: Sequence[int], n: int, limit: int) -> npt.NDArray[np.int64]:
    """At most ``limit`` of 0 … n-1, in rising order."""
    if n <= limit:
        return np.arange(n, dtype=np.int64)
    return np.sort(permutation(key, n)[:limit])
