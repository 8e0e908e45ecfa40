"""Splits → batches, the same for any number of workers."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from triscale.cores import usable_cores
from triscale.data.augmenting import Augment
from triscale.data.chance import permutation
from triscale.data.decoding import Pixels
from triscale.data.making import Maker
from triscale.data.mixing import Shares, partners
from triscale.data.pictures import Images
from triscale.data.preparing import Prepared, prepare
from triscale.data.preprocessing import Preprocess
from triscale.errors import UserError

if TYPE_CHECKING:
    import torch

Indices = npt.NDArray[np.int64]

_ORDER = 1
_PREFETCH = 2
_CHUNKS_PER_WORKER = 4


class Batch(NamedTuple):
    """What a training step gets.

    ``x``: uint8 [n, c, H, W] in channels_last memory format. ``y``: int64 [n], labels. ``index``: int64 [n], positions
    in the split. ``other``: int64 [n], the label of the picture mixed in, and ``share``: float32 [n], the weight of
    ``y`` in the target, that of ``other`` being 1 - share. Where nothing is mixed, ``other`` is ``y`` and the share 1.
    """

    x: "torch.Tensor"
    y: "torch.Tensor"
    index: "torch.Tensor"  # type: ignore[assignment]  # hides tuple's search, which nobody wants of tensors
    other: "torch.Tensor"
    share: "torch.Tensor"


class Batches:
    """The batches of one epoch; may be iterated again and gives the same again.

    Order depends on (seed, epoch), augmentation on (seed, epoch, position in the split); neither on ``workers``, nor
    on ``batch`` or what else is in it, but for mixing, whose partners are neighbours in the batch. ``images`` is a
    `Prepared` split, or `Images`, decoded as the batches are made.

    ``workers``: threads that make pictures, up to two batches ahead of the one in use; 0 makes everything in the
    calling thread; by default as many as there are usable cores. ``rank`` of ``world``: yield this rank's share of
    each batch only; the shares of all ranks, one after the other, are the whole batch. They are as even as can be
    without parting those that are mixed with each other, and may be empty. ``start``: the first batch to yield; those
    before it are not made. ``len`` is the number of batches that are yielded.

    Raises `UserError` where ``batch`` is no positive number, ``rank`` not below ``world`` or ``start`` beyond the last
    batch, where ``images`` was prepared for another ``preprocess``, or for random crops that ``augment`` does not ask
    for, and where it asks for a policy for arrays of neither one nor three channels.
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
        workers: int | None = None,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
    ) -> None:
        if batch < 1:
            raise UserError(f"batch: {batch} is not at least 1; write for example 64")
        if workers is not None and workers < 0:
            raise UserError(f"workers: {workers} is negative; write 0 for none, or a number of threads")
        if not 0 <= rank < world:
            raise UserError(f"batches: rank {rank} is not in 0 to {world - 1}, of a world of {world}")
        if not isinstance(images, Prepared):
            images = prepare(images, preprocess, augment, limit=0)
        _check_use(images, preprocess, augment)
        self.prepared = images
        self.batch = batch
        self.shuffle = shuffle
        self.augment = augment
        self.seed = seed
        self.epoch = epoch
        self.drop_last = drop_last
        self.workers = usable_cores() if workers is None else workers
        self.rank = rank
        self.world = world
        self.start = start
        if not 0 <= start <= self._total():
            raise UserError(f"batches: start {start} is not in 0 to {self._total()}, the number of batches")

    def _total(self) -> int:
        n = len(self.prepared.images)
        return n // self.batch if self.drop_last else -(-n // self.batch)

    def __len__(self) -> int:
        return self._total() - self.start

    def order(self) -> Indices:
        """The positions in the order of this epoch, int64 [n], whatever the rank and the start."""
        n = len(self.prepared.images)
        return permutation((self.seed, _ORDER, self.epoch), n) if self.shuffle else np.arange(n, dtype=np.int64)

    def __iter__(self) -> Iterator[Batch]:
        order = self.order()
        whole = (order[k * self.batch : (k + 1) * self.batch] for k in range(self.start, self._total()))
        indices = [self._mine(index) for index in whole]
        maker = Maker(self.prepared, self.augment, self.seed, self.epoch)
        make = self._ahead if self.workers and maker.one_by_one else self._at_once
        for index, x, share in make(maker, indices):
            yield self._batch(index, x, share)

    def _mine(self, index: Indices) -> Indices:
        """This rank's share of a batch: whole pairs, of which an odd last picture is half a one."""
        pairs = -(-len(index) // 2)
        first, end = (pairs * r // self.world for r in (self.rank, self.rank + 1))
        return index[2 * first : 2 * end]

    def _batch(self, index: Indices, x: Pixels, share: Shares) -> Batch:
        import torch

        y = self.prepared.images.labels[index]
        other = y[partners(len(y))] if self.augment is not None and self.augment.mixes else y.copy()
        pixels = torch.from_numpy(x).permute(0, 3, 1, 2)
        return Batch(pixels, *map(torch.from_numpy, (y, index.copy(), other, share)))

    def _room(self, n: int) -> tuple[Pixels, Shares]:
        to = self.prepared.preprocess
        return np.empty((n, *to.resolution, to.channels), np.uint8), np.empty(n, np.float32)

    def _at_once(self, maker: Maker, indices: list[Indices]) -> Iterator[tuple[Indices, Pixels, Shares]]:
        """Whole batches in the calling thread."""
        for index in indices:
            x, share = self._room(len(index))
            maker.fill(x, index, share)
            yield index, x, share

    def _ahead(self, maker: Maker, indices: list[Indices]) -> Iterator[tuple[Indices, Pixels, Shares]]:
        """In chunks on a pool of threads, two batches ahead of the one being used."""
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="triscale-batches")
        waiting: deque[tuple[Indices, Pixels, Shares, list[Future[None]]]] = deque()
        try:
            for index in [*indices, *[None] * _PREFETCH]:
                if index is not None:
                    x, share = self._room(len(index))
                    # An even number, so that no pair is parted.
                    chunk = 2 * max(1, -(-len(index) // (2 * _CHUNKS_PER_WORKER * self.workers)))
                    parts = [slice(k, k + chunk) for k in range(0, len(index), chunk)]
                    jobs = [pool.submit(maker.fill, x[part], index[part], share[part]) for part in parts]
                    waiting.append((index, x, share, jobs))
                if waiting and (index is None or len(waiting) > _PREFETCH):
                    index, x, share, jobs = waiting.popleft()
                    for job in jobs:
                        job.result()
                    yield index, x, share
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _check_use(images: Prepared, preprocess: Preprocess, augment: Augment | None) -> None:
    if images.preprocess != preprocess:
        raise UserError(f"batches: prepared for {images.preprocess}, wanted for {preprocess}; prepare it again")
    if images.cache is not None and images.margin and (augment is None or augment.crop_scale is None):
        raise UserError("batches: the split was prepared for random crops (crop_scale); prepare it for this use")
    if augment is not None and augment.policy is not None and preprocess.channels not in (1, 3):
        raise UserError(
            f"batches: the policy {augment.policy} is for pictures of 1 or 3 channels, not {preprocess.channels}; "
            "leave it out"
        )
