"""A split decoded and fitted once, so that epochs need not."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from triscale.data.augmenting import CACHE_MARGIN, Augment
from triscale.data.decoding import Pixels
from triscale.data.pictures import Images, Indices
from triscale.data.preprocessing import Preprocess
from triscale.data.threads import ordered_map

CACHE_BYTES = 2 * 2**30


@dataclass(frozen=True, eq=False)
class Prepared:
    """A split made ready for `Batches` once, so that epochs decode nothing twice.

    ``cache``: uint8 [n, H', W', c], or None where it would not fit: then every batch decodes its files. H' and W' are
    the resolution, or with ``margin`` 1.15 times it, for random crops to be taken from.
    """

    images: Images
    preprocess: Preprocess
    cache: Pixels | None
    margin: bool

    def select(self, indices: Indices | slice) -> "Prepared":
        """The pictures at ``indices``, in that order; of a slice the cache is a view."""
        cache = None if self.cache is None else self.cache[indices]
        return replace(self, images=self.images.select(np.arange(len(self.images))[indices]), cache=cache)


def prepare(
    images: Images,
    preprocess: Preprocess,
    augment: Augment | None = None,
    *,
    threads: int | None = None,
    limit: int = CACHE_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Decode and fit the split into one array where that takes at most ``limit`` bytes.

    With ``augment.crop_scale`` the cached pictures are resized to cover 1.15 times the resolution and cut to its
    aspect, the crop of ``preprocess`` left out; random boxes come from there. That costs the margins along the long
    side and some sharpness in small boxes, and saves the decoding. A split that lies in memory at the resolution is
    taken as it is, without a copy.
    """
    margin = augment is not None and augment.crop_scale is not None
    fitting = preprocess
    if margin:
        h, w = preprocess.resolution
        fitting = replace(preprocess, resolution=(math.ceil(CACHE_MARGIN * h), math.ceil(CACHE_MARGIN * w)), crop=1.0)
    shape = (len(images), *fitting.resolution, fitting.channels)
    held = images.array()
    if held is not None and held.shape == shape and (fitting.crop == 1.0 or fitting.squash):
        return Prepared(images, preprocess, held, margin)
    if math.prod(shape) > limit:
        return Prepared(images, preprocess, None, margin)
    cache = np.empty(shape, np.uint8)
    for i, pixels in enumerate(ordered_map(lambda i: fitting.fit(images.pixels(i)), range(len(images)), threads)):
        cache[i] = pixels
        if progress is not None:
            progress(i + 1, len(images))
    return Prepared(images, preprocess, cache, margin)
