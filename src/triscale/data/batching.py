"""Splits → batches, the same for any number of threads."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from triscale.data.augmenting import CACHE_MARGIN, Augment, Draws, shift_and_flip
from triscale.data.chance import permutation
from triscale.data.decoding import Pixels
from triscale.data.pictures import Images
from triscale.data.preprocessing import Preprocess, resample
from triscale.data.threads import ordered_map, usable_cores
from triscale.errors import UserError

if TYPE_CHECKING:
    import torch

Indices = npt.NDArray[np.int64]

CACHE_BYTES = 2 * 2**30
_ORDER = 1
_PREFETCH = 2


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


class Batches:
    """Batches of one epoch; may be iterated again and gives the same again.

    Yields (x, y, index): uint8 [n, c, H, W] in channels_last memory format, int64 [n] labels, int64 [n] positions in
    the split. Order depends on (seed, epoch), augmentation on (seed, epoch, position); neither on ``threads``, nor on
    ``batch`` or what else is in it. ``images`` is a `Prepared` split, or `Images`, decoded as the batches are made.

    Raises `UserError` where ``batch`` is no positive number, and where ``images`` was prepared for another
    ``preprocess``, or for random crops that ``augment`` does not ask for.
    """

    def __init__(
        self,
        images: Images | Prepared,
        preprocess: Preprocess,
        batch: int,
        *,
        shuffle: bool = False,
        augment: Augment | None = None,
        seed: int = 0,
        epoch: int = 0,
        drop_last: bool = False,
        threads: int | None = None,
    ) -> None:
        if batch < 1:
            raise UserError(f"batch: {batch} is not at least 1; write for example 64")
        if not isinstance(images, Prepared):
            images = prepare(images, preprocess, augment, limit=0)
        if images.preprocess != preprocess:
            raise UserError(f"batches: prepared for {images.preprocess}, wanted for {preprocess}; prepare it again")
        if images.cache is not None and images.margin and (augment is None or augment.crop_scale is None):
            raise UserError("batches: the split was prepared for random crops (crop_scale); prepare it for this use")
        self.prepared = images
        self.batch = batch
        self.shuffle = shuffle
        self.augment = augment
        self.seed = seed
        self.epoch = epoch
        self.drop_last = drop_last
        self.threads = threads or usable_cores()

    def __len__(self) -> int:
        n = len(self.prepared.images)
        return n // self.batch if self.drop_last else -(-n // self.batch)

    def order(self) -> Indices:
        """The positions in the order of this epoch, int64 [n]."""
        n = len(self.prepared.images)
        return permutation((self.seed, _ORDER, self.epoch), n) if self.shuffle else np.arange(n, dtype=np.int64)

    def __iter__(self) -> "Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]":
        import torch

        order = self.order()
        indices = [order[k * self.batch : (k + 1) * self.batch] for k in range(len(self))]
        crops = self.augment is not None and self.augment.crop_scale is not None
        make = self._from_files if self.prepared.cache is None or crops else self._from_cache
        for index, pixels in zip(indices, make(indices), strict=True):
            x = torch.from_numpy(pixels).permute(0, 3, 1, 2)
            yield x, torch.from_numpy(self.prepared.images.labels[index]), torch.from_numpy(index.copy())

    def _from_cache(self, indices: list[Indices]) -> Iterator[Pixels]:
        """Whole batches at once; a batch takes microseconds, so nothing runs ahead."""
        assert self.prepared.cache is not None
        for index in indices:
            yield self._moved(self.prepared.cache, index, index)

    def _from_files(self, indices: list[Indices]) -> Iterator[Pixels]:
        """Picture by picture on a pool of threads, two batches ahead of the one being used."""
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="triscale-batches")
        waiting: deque[tuple[Indices, Pixels, list[Future[None]]]] = deque()
        h, w = self.prepared.preprocess.resolution
        try:
            for index in [*indices, *[None] * _PREFETCH]:
                if index is not None:
                    x = np.empty((len(index), h, w, self.prepared.preprocess.channels), np.uint8)
                    draws = Draws.at(self.seed, self.epoch, index)
                    jobs = [pool.submit(self._place, x, k, int(i), draws) for k, i in enumerate(index)]
                    waiting.append((index, x, jobs))
                if waiting and (index is None or len(waiting) > _PREFETCH):
                    ready, x, jobs = waiting.popleft()
                    for job in jobs:
                        job.result()
                    yield self._moved(x, np.arange(len(x)), ready)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _place(self, x: Pixels, k: int, i: int, draws: Draws) -> None:
        prepared, augment = self.prepared, self.augment
        pixels = prepared.images.pixels(i) if prepared.cache is None else prepared.cache[i]
        to = prepared.preprocess
        if augment is None or augment.crop_scale is None:
            x[k] = to.fit(pixels)
            return
        box = draws.box(k, (pixels.shape[0], pixels.shape[1]), to.resolution, augment)
        x[k] = resample(pixels, box, to.resolution, to.channels, to.interpolation)

    def _moved(self, pictures: Pixels, at: Indices, index: Indices) -> Pixels:
        """``pictures`` at the places ``at``, which are the split's positions ``index``, shifted and mirrored."""
        augment = self.augment
        if augment is not None and augment.crop_scale is not None:
            augment = replace(augment, shift=0.0)
        if augment is None or not (augment.shift or augment.flip):
            moved: Pixels = pictures[at]
            return moved
        return shift_and_flip(pictures, at, augment, Draws.at(self.seed, self.epoch, index))
