"""One process or several, on one machine or many: who this one is, and what they tell each other.

Several are started by torchrun, which also starts them again when one dies. Everything that decides goes through here,
so that all decide alike.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from triscale.errors import TriscaleError

PATIENCE = timedelta(hours=4)  # the others wait while the leader reads, plans and tests; a dead one is noticed at once
ANSWER = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Processes:
    """rank: this one's number of `world`, from 0. local, local_world: the same on this machine. restarts: how often
    torchrun has started them again."""

    rank: int = 0
    world: int = 1
    local: int = 0
    local_world: int = 1
    restarts: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place; the same bits in each."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def from_leader(self, content: bytes | None) -> bytes:
        """The leader's bytes, in every process."""
        if self.world == 1:
            return content or b""
        length = torch.tensor([len(content or b"")])
        dist.broadcast(length, 0)
        buffer = torch.zeros(int(length), dtype=torch.uint8)
        if self.leads and content:
            buffer.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        dist.broadcast(buffer, 0)
        return buffer.numpy().tobytes()

    def gather(self, rows: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """Every process's rows [n of its own, columns], in the order of ranks, in every process."""
        if self.world == 1:
            return [rows]
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        dist.all_gather(sizes, torch.tensor([len(rows)]))
        most = max(int(size) for size in sizes)
        padded = torch.zeros((most, rows.shape[1]))
        padded[: len(rows)] = torch.from_numpy(rows)
        gathered = [torch.zeros_like(padded) for _ in range(self.world)]
        dist.all_gather(gathered, padded)
        return [one[: int(size)].numpy() for one, size in zip(gathered, sizes, strict=True)]

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier()


ALONE = Processes()


def from_environment() -> Processes:
    """Who this process is by what torchrun says; alone where it says nothing."""

    def number(name: str, default: int) -> int:
        return int(os.environ.get(name, default))

    return Processes(
        rank=number("RANK", 0),
        world=number("WORLD_SIZE", 1),
        local=number("LOCAL_RANK", 0),
        local_world=number("LOCAL_WORLD_SIZE", 1),
        restarts=number("TORCHELASTIC_RESTART_COUNT", 0),
    )


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun started, able to talk to each other: over gloo, and nccl between CUDA devices."""
    processes = from_environment()
    if processes.world == 1:
        yield processes
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(processes.local)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    store, rank, world = _fresh_store(processes), processes.rank, processes.world
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    try:
        yield processes
    except RuntimeError as error:  # gloo's own is of no class
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise TriscaleError(
            "another process of this training ended, or cannot be reached any more; torchrun starts all of them again "
            "where it may, and they go on from the last checkpoint"
        ) from None
    finally:
        dist.destroy_process_group()


def _fresh_store(processes: Processes) -> Store:
    """A store in which nothing lies that an earlier attempt left there.

    torchrun keeps one store over restarts (pytorch/pytorch#135712): who reads the address of a dead process there
    reaches nobody, and the attempt fails. Restarts are counted on each machine for itself, so they tell no attempt from
    another: all greet a leader by its number, drawn anew each time, until one answers.
    """
    store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
    mine = uuid4().hex
    if processes.leads:
        store.set("triscale/leader", mine)
        for rank in range(1, processes.world):
            greeting = store.get(f"triscale/{mine}/{rank}").decode()
            store.set(f"triscale/{mine}/{greeting}", "welcome")
        return PrefixStore(mine, store)
    while True:
        leader = store.get("triscale/leader").decode()
        store.set(f"triscale/{leader}/{processes.rank}", mine)
        with suppress(dist.DistStoreError):  # nobody answers: a leader of an earlier attempt
            store.wait([f"triscale/{leader}/{mine}"], ANSWER)
            return PrefixStore(leader, store)
