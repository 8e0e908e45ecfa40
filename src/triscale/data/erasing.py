"""Random erasing (arXiv 1708.04896): noise over a box of the picture."""

import math

import numpy as np
import numpy.typing as npt

from triscale.data.chance import uniform
from triscale.data.decoding import Pixels

_STREAM = 6
_NOISE_STREAM = 7
_DRAWS = 5
_AREAS = (0.02, 0.33)
_ASPECTS = (0.3, 1 / 0.3)


def erase(pictures: Pixels, index: npt.NDArray[np.int64], seed: int, epoch: int, probability: float) -> None:
    """Erase in place, each with ``probability``: uint8 [n, h, w, c] at positions ``index`` of the split, int64 [n].

    A box of 2 to 33 % of the area and an aspect of 0.3 to 3.3 is filled with random values, every pixel and channel
    its own, which the paper found best. Narrow and flat boxes are equally likely, the aspect being drawn
    on a logarithmic scale, and a box that would stick out is as long as the side, where the paper draws again. The
    noise too is decided by (seed, epoch, position).
    """
    draws = uniform((seed, _STREAM, epoch), index, _DRAWS)
    _, h, w, c = pictures.shape
    for k in np.flatnonzero(draws[:, 0] < probability).tolist():
        top, bottom, left, right = _box(h, w, draws[k, 1:])
        count = (bottom - top) * (right - left) * c
        noise = _noise((seed, _NOISE_STREAM, epoch, int(index[k])), count)
        pictures[k, top:bottom, left:right] = noise.reshape(bottom - top, right - left, c)


def _box(h: int, w: int, row: npt.NDArray[np.float64]) -> tuple[int, int, int, int]:
    area = (_AREAS[0] + (_AREAS[1] - _AREAS[0]) * row[0]) * h * w
    narrow, wide = math.log(_ASPECTS[0]), math.log(_ASPECTS[1])
    aspect = math.exp(narrow + (wide - narrow) * row[1])
    high = min(h, max(1, round(math.sqrt(area / aspect))))
    broad = min(w, max(1, round(math.sqrt(area * aspect))))
    top, left = int(row[2] * (h - high + 1)), int(row[3] * (w - broad + 1))
    return top, top + high, left, left + broad


def _noise(key: tuple[int, ...], count: int) -> Pixels:
    """uint8 [count], four from each draw, the same in either byte order."""
    draws = uniform(key, np.arange(-(-count // 4), dtype=np.int64), 1)
    return (draws[:, 0] * 2.0**32).astype("<u4").view(np.uint8)[:count]
