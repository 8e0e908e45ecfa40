"""How far apart the answers of a network lie where each of its layers is a little off: some networks answer some images
with differences of large numbers, and no rounding can be asked to come nearer than that."""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Disturb = Callable[[Tensor, Tensor], Tensor]
"""(what a layer computed, as many numbers drawn evenly from -1 to 1) → what it is to have computed."""


def disturbed(
    network: nn.Module, x: npt.NDArray[np.float32], off: Disturb, *, weights: bool = False
) -> Iterator[npt.NDArray[np.float64]]:
    """The network's logits in double precision, (n, classes), sixteen times with every layer's output off; the weights
    of its layers too, if they are to be."""
    network, chance = copy.deepcopy(network).double().eval(), torch.Generator().manual_seed(0)

    def disturb(_: nn.Module, __: object, out: Tensor) -> Tensor:
        return off(out, 2 * torch.rand(out.shape, generator=chance, dtype=out.dtype) - 1)

    layers = [layer for layer in network.modules() if not list(layer.children())]
    for layer in layers:
        layer.register_forward_hook(disturb)
    kept = {p: p.detach().clone() for layer in layers if weights for p in layer.parameters()}
    with torch.inference_mode():
        for _ in range(16):
            for own, exact in kept.items():
                own.copy_(disturb(network, None, exact))
            yield network(torch.from_numpy(x).double()).numpy()
