"""A network's logits, by the fastest engine that is here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from triscale.engines.native import Engine, available, compile_plan
from triscale.kernels import warn_if_missing
from triscale.nn.network import Network

Logits = Callable[[Tensor], Tensor]


@contextmanager
def running(network: Network) -> Iterator[Logits]:
    """What gives the logits (n, classes) of images that are preprocessed, fp32 (n, channels, h, w).

    On a CPU by our own engine in fp32, with the weights that the network has now; by PyTorch on other devices, and
    where the engine is missing or has only the instructions that every processor has. Either takes as many threads as
    PyTorch uses at the time. Images may lie on any device; logits lie where the network does. The network keeps its
    mode.
    """
    place = next(network.parameters()).device
    if place.type == "cpu" and type(network).forward is Network.forward:  # a class of somebody's own computes its own
        if available().isa is None:
            warn_if_missing("answering")
        elif available().isa != "baseline":
            weights = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
            with Engine(compile_plan(network.architecture, weights), threads=torch.get_num_threads()) as engine:
                yield lambda x: torch.from_numpy(engine(x.cpu().contiguous().numpy()))
            return
    mode = network.training
    network.eval()
    try:
        yield lambda x: _by_pytorch(network, x.to(place))
    finally:
        network.train(mode)


@torch.inference_mode()
def _by_pytorch(network: Network, x: Tensor) -> Tensor:
    logits: Tensor = network(x.contiguous(memory_format=torch.channels_last)).float()
    return logits
