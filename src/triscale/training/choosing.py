"""Which layers of a network train by Triscale's own kernels: those that are faster by them here, or a fixed table."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from triscale.arch import Architecture
from triscale.kernels import status, warn_if_missing
from triscale.nn.layers import WithKernel
from triscale.nn.network import Network
from triscale.precision import TrainingPrecision

MOST_WEIGHTS = 256 * 1024  # of a 1×1 convolution in the fixed table: PyTorch's libraries are good at large products
VALUES = 1_000_000  # of a measured input, at most: beyond them times grow in proportion
NEARLY = 1.15  # times PyTorch's time: joined with its neighbours a layer saves what it does not show alone
TURNS = 2
LONG_ENOUGH = 0.1  # seconds of measuring a layer


def all_kernels(network: Network) -> tuple[str, ...]:
    """Every layer for which there is a kernel; none where kernels were not compiled, which is said once."""
    warn_if_missing()
    return () if status().isa is None else tuple(network.with_kernels())


def fixed_kernels(network: Network) -> tuple[str, ...]:
    """What nothing is measured for: every layer but 1×1 convolutions of more than `MOST_WEIGHTS` weights."""
    layers = network.with_kernels()
    return tuple(name for name in all_kernels(network) if not _large(layers[name]))


def _large(layer: WithKernel) -> bool:
    kernel, *_ = layer.kind
    return kernel == "pointwise" and sum(p.numel() for p in layer.module.parameters()) > MOST_WEIGHTS


def fastest_kernels(network: Network, batch: int, precision: TrainingPrecision) -> tuple[str, ...]:
    """The layers whose forward and backward pass takes less time by our kernel than by PyTorch, or nearly as little,
    each on its own, on a CPU with as many threads as PyTorch now uses.

    The network is in training mode, and its statistics are not what they were afterwards; no generator is drawn from.
    Layers of one kind are measured once.
    """
    names = all_kernels(network)
    if not names:
        return ()
    layers, shapes = network.with_kernels(), _inputs(network.architecture)
    faster: dict[object, bool] = {}
    for name in names:
        key = layers[name].kind, shapes[name]
        if key not in faster:
            images = max(2, min(batch, VALUES // math.prod(shapes[name])))
            own, pytorch = seconds(layers[name], (images, *shapes[name]), precision)
            faster[key] = own < NEARLY * pytorch
    return tuple(name for name in names if faster[layers[name].kind, shapes[name]])


def _inputs(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """What each of those layers gets of one image, (c, h, w): from a pass in which nothing is computed."""
    found: dict[str, tuple[int, ...]] = {}
    with torch.device("meta"):
        network = Network(architecture).eval()
        x = torch.empty(1, architecture.channels, *architecture.resolution)

    def look(name: str) -> Callable[[object, tuple[Tensor, ...]], None]:
        return lambda _, arguments: found.update({name: tuple(arguments[0].shape[1:])})

    for name, layer in network.with_kernels().items():
        layer.module.register_forward_pre_hook(look(name))
    network(x)
    return found


def seconds(layer: WithKernel, shape: tuple[int, ...], precision: TrainingPrecision) -> tuple[float, float]:
    """Of one forward and backward pass of the layer by our kernel and by PyTorch: the shortest of a few, in turns."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = x.to(torch.bfloat16 if precision == "bf16" else torch.float32, memory_format=torch.channels_last)
    x.requires_grad_()
    own: list[float] = []
    pytorch: list[float] = []
    while len(own) < 1 + TURNS and (len(own) < 2 or sum(own) + sum(pytorch) < LONG_ENOUGH):
        own.append(_pass(layer, layer.own, x, precision))
        pytorch.append(_pass(layer, layer.pytorch, x, precision))
    return min(own[1:]), min(pytorch[1:])  # the first turn warms up


def _pass(layer: WithKernel, compute: Callable[[Tensor], Tensor], x: Tensor, precision: TrainingPrecision) -> float:
    wanted = x, *layer.module.parameters()
    start = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        y = compute(x)
    torch.autograd.grad(y, wanted, y.detach())
    return time.perf_counter() - start
