"""Two pictures in one: mixup and cutmix between neighbours of a batch.

Pictures 2k and 2k+1 of a batch are partners; an odd last one has none and stays as it is. How a picture is mixed is
drawn for itself, so both of a pair may be mixed differently.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from triscale.data.chance import uniform
from triscale.data.decoding import Pixels

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Shares = npt.NDArray[np.float32]

_STREAM = 5
_DRAWS = 4
_TABLE = 4096
_AT_ONCE = 2**20


def partners(n: int) -> Indices:
    """int64 [n]: whom each of n pictures is mixed with; itself for an odd last one."""
    partner: Indices = np.minimum(np.arange(n, dtype=np.int64) ^ 1, max(n - 1, 0))
    return partner


@lru_cache(maxsize=8)
def _table(alpha: float) -> tuple[Floats, Floats]:
    """(F(x), x^p) for x from 0 to 1/2, float64 [4096] each, F the distribution function of Beta(α, α), p = min(α, 1).

    In v = x^p the density x^(α-1) (1-x)^(α-1) dx becomes x^(α-p) (1-x)^(α-1) dv / p, which is bounded for every α, so
    that plain trapezia find its integral. The factor 4^(α-1) keeps large α from vanishing.
    """
    p = min(alpha, 1.0)
    v = np.linspace(0.0, 0.5**p, _TABLE)
    x = v ** (1 / p)
    density = (1 - x) ** (alpha - 1) if alpha <= 1 else (4 * x * (1 - x)) ** (alpha - 1)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return area / area[-1] / 2, v


def beta_quantile(alpha: float, u: Floats) -> Floats:
    """The number that a share ``u`` in [0, 1] of Beta(α, α) lies below, float64 [n]; from a table of 4,096 points."""
    area, v = _table(alpha)
    lower = np.interp(np.minimum(u, 1 - u), area, v) ** (1 / min(alpha, 1.0))
    return np.where(u <= 0.5, lower, 1 - lower)


def mix(pictures: Pixels, index: Indices, seed: int, epoch: int, mixup: float, cutmix: float) -> Shares:
    """Mix neighbours in place: uint8 [n, h, w, c], the first at an even place of its batch → float32 [n], own shares.

    ``mixup`` and ``cutmix`` are the α of Beta(α, α) that shares are drawn from, 0 for never; where both may happen,
    each picture takes one of them with equal chance. Draws belong to (seed, epoch, position in the split ``index``).

    mixup (arXiv 1710.09412): share · own + (1 - share) · partner's, rounded. cutmix (arXiv 1905.04899): a box of the
    partner around any place, of 1 - share of the area before it is cut off at the edges; the share counts what is left.
    """
    n = len(pictures)
    draws = uniform((seed, _STREAM, epoch), index, _DRAWS)
    cut = draws[:, 0] < 0.5 if mixup and cutmix else np.full(n, bool(cutmix))
    share = np.ones(n, np.float64)
    partner = partners(n)
    paired = partner != np.arange(n)
    before = pictures.copy()
    blended = np.flatnonzero(paired & ~cut)
    if len(blended):
        share[blended] = beta_quantile(mixup, draws[blended, 1])
        _blend(pictures, before, blended, partner, share)
    boxed = np.flatnonzero(paired & cut)
    if len(boxed):
        asked = beta_quantile(cutmix, draws[boxed, 1])
        for i, lam in zip(boxed.tolist(), asked.tolist(), strict=True):
            share[i] = _cut(pictures[i], before[partner[i]], lam, draws[i, 2], draws[i, 3])
    return share.astype(np.float32)


def _blend(pictures: Pixels, before: Pixels, which: Indices, partner: Indices, share: Floats) -> None:
    """A few pictures at once: in float32 a large batch would take four times its room, twice."""
    several = max(1, _AT_ONCE // max(1, pictures[0].size))
    for k in range(0, len(which), several):
        some = which[k : k + several]
        own, other = before[some].astype(np.float32), before[partner[some]].astype(np.float32)
        weight = share[some].astype(np.float32)[:, None, None, None]
        pictures[some] = np.rint(other + weight * (own - other)).astype(np.uint8)


def _cut(picture: Pixels, other: Pixels, lam: float, x: float, y: float) -> float:
    h, w, _ = picture.shape
    side = math.sqrt(1 - lam)
    high, wide = int(h * side) // 2, int(w * side) // 2
    row, column = int(y * h), int(x * w)
    top, bottom = max(0, row - high), min(h, row + high)
    left, right = max(0, column - wide), min(w, column + wide)
    picture[top:bottom, left:right] = other[top:bottom, left:right]
    return 1 - float((bottom - top) * (right - left) / (h * w))
