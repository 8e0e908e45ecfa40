"""Who carries the trials of a sitting out: processes of this machine, or a cluster."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import torch

from triscale.cores import usable_cores
from triscale.data import Data
from triscale.trials.cluster import Cluster
from triscale.trials.executors import Executor
from triscale.trials.workers import Workers


@contextmanager
def carriers(
    images: Data, workers: int | None, cluster: str | None, device: torch.device
) -> Iterator[tuple[Executor, Callable[[int], None]]]:
    """Who carries trials out, with a place for every core where nobody has said how many; and how it is left fewer."""
    cores = 1 if device.type == "cuda" else usable_cores()
    with closing(make_executor(images, workers or cores, 1, cluster, most=workers)) as pool:

        def keep(wanted: int) -> None:
            if isinstance(pool, Workers) and workers is None:
                pool.keep(wanted)

        yield pool, keep


def make_executor(images: Data, count: int, threads: int, cluster: str | None, most: int | None = None) -> Executor:
    """So many processes of this machine, or a Ray cluster at an address. most: trials at once on a cluster, where
    somebody has said so; what it has room for is not to be counted here."""
    if cluster is None:
        return Workers(images, count)
    return Cluster(images, cluster, threads, most=most)
