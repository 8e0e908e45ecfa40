"""A network's logits, by the fastest engine that is here, or by one that was named."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from triscale.engines.native import available
from triscale.engines.pytorch import DTYPES
from triscale.engines.table import ENGINES, PRECISIONS, find_engine
from triscale.errors import UserError
from triscale.kernels import warn_if_missing
from triscale.nn import Network, evaluating

Logits = Callable[[Tensor], Tensor]


def engine_for(device: torch.device, name: str | None = None, precision: str = "fp32") -> str:
    """The engine that runs a network there: the one that is named, or the default.

    By default our own on CPUs, in a precision that it has there; PyTorch on other devices, and where our engine is
    missing or has only the instructions that every processor has. Raises `UserError` where the one that is named cannot
    run there.
    """
    if precision not in PRECISIONS:
        raise UserError(f"--precision {precision}: is none of {', '.join(PRECISIONS)}")
    if device.type != "cpu":
        if name not in (None, "torch"):
            raise UserError(f"--engine {name}: runs on the CPU, not on {device}; add --device cpu, or leave it out")
        return "torch"
    if name is not None:
        return find_engine(name, precision).name
    if available().isa in (None, "baseline"):
        warn_if_missing("answering")
        name = "torch"
    else:
        name = "native"
    why = ENGINES[name].missing(precision)
    if why is not None:
        there = [one for one in PRECISIONS if ENGINES[name].missing(one) is None]
        raise UserError(f"--precision {precision}: {why}; take {' or '.join(there)}")
    return name


@contextmanager
def running(
    network: Network, *, engine: str | None = None, precision: str = "fp32", batch: int | None = None
) -> Iterator[Logits]:
    """What gives the logits (n, classes) of images that are preprocessed, fp32 (n, channels, h, w).

    engine: as for `engine_for`. The weights are those that the network has now. As many threads as PyTorch uses at the
    time. batch: images of every call, where they are always as many. Images may lie on any device; logits lie where the
    network does. Every part of the network
    keeps its mode.
    """
    place = next(network.parameters()).device
    chosen = engine_for(place, engine, precision)
    own = type(network).forward is Network.forward  # a class of somebody's own computes what it likes
    if chosen != "torch" and own:
        kind, threads = find_engine(chosen, precision), torch.get_num_threads()
        with kind.open(network, precision=precision, threads=threads, batch=batch) as run:
            yield lambda x: torch.from_numpy(run(x.detach().cpu().contiguous().numpy()))
        return
    with evaluating(network):
        yield lambda x: _by_pytorch(network, x.to(place), precision)


@torch.inference_mode()
def _by_pytorch(network: Network, x: Tensor, precision: str) -> Tensor:
    with torch.autocast(x.device.type, DTYPES[precision], enabled=precision != "fp32"):
        logits: Tensor = network(x.contiguous(memory_format=torch.channels_last)).float()
    return logits
