"""How a network computes: modules built from an `Architecture`, in the order of Table 1 of the EfficientNet paper.

Stem, stages of blocks (see `blocks`), head. Every convolution has the name that `costing` gives it.
"""

import math
from collections.abc import Collection
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triscale.arch.resolve import resolve
from triscale.arch.spec import Architecture, Head, Padding, Stem
from triscale.kernels import status, warn_if_missing
from triscale.nn.blocks import ConvNorm, Convolve, Sequence, SqueezeExcite, make_block
from triscale.nn.layers import WithKernel, same_padding


class StemLayers(nn.Module):
    """The first convolution, and ResNet's 3×3 max-pooling where there is one."""

    def __init__(self, stem: Stem, channels: int, padding: Padding, conv: Convolve) -> None:
        super().__init__()
        self.conv = conv(channels, stem.channels, kernel=stem.kernel, stride=stem.stride, activation=stem.activation)
        self.pool, self.padding = stem.pool, padding

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) → (n, stem channels, ⌈h/stride⌉, ⌈w/stride⌉)."""
        x = self.conv(x)
        if self.pool == 1:
            return x
        if self.padding == "same":
            return F.max_pool2d(same_padding(x, 3, self.pool, float("-inf")), 3, self.pool)
        return F.max_pool2d(x, 3, self.pool, padding=1)


class HeadLayers(nn.Module):
    """A 1×1 convolution where there is one, global average pooling, dropout, the linear layer."""

    def __init__(self, head: Head, inputs: int, conv: Convolve) -> None:
        super().__init__()
        self.conv: nn.Module = (
            nn.Identity() if head.channels is None else conv(inputs, head.channels, activation=head.activation)
        )
        self.dropout = nn.Dropout(head.dropout)
        self.classifier = nn.Linear(inputs if head.channels is None else head.channels, head.classes)

    def pool(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) → (n, features)."""
        pooled: Tensor = self.conv(x).mean((2, 3))
        return pooled

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) → logits (n, classes)."""
        logits: Tensor = self.classifier(self.dropout(self.pool(x)))
        return logits


class Network(nn.Module):
    """The module of an `Architecture`: `stem`, `stages` (each a sequence of blocks), `head`."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        conv = partial(ConvNorm, padding=architecture.padding, norm=architecture.norm)
        self.stem = StemLayers(architecture.stem, architecture.channels, architecture.padding, conv)
        inputs, index, stages = architecture.stem.channels, 0, []
        for stage in architecture.stages:
            blocks = []
            for i in range(stage.repeats):
                # Block i of N is dropped with probability rate·i/N: the first never, later ones more often.
                drop = architecture.stochastic_depth * index / architecture.blocks
                stride = stage.stride if i == 0 else 1
                blocks.append(make_block(stage.block, stage.skip, inputs, stage.channels, stride, drop, conv))
                inputs, index = stage.channels, index + 1
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.head = HeadLayers(architecture.head, inputs, conv)

    def with_kernels(self) -> dict[str, WithKernel]:
        """The layers that Triscale's own kernels can train, by name; those that were changed since are none."""
        return {
            ".".join(filter(None, (name, part))): layer
            for name, module in self.named_modules()
            if isinstance(module, ConvNorm | SqueezeExcite)
            for part, layer in module.with_kernels().items()
        }

    def use(self, layers: Collection[str]) -> None:
        """In training mode, from now on, Triscale's own kernels for the layers of these names, PyTorch for all others.

        PyTorch for all where the kernels are switched off, and where they were not compiled, which is said once.
        Evaluation and exports never use them, nor does a layer that is changed or replaced afterwards. Raises
        ValueError for a name that none of `with_kernels` has.
        """
        names = set(layers)
        if unknown := sorted(names - self.with_kernels().keys()):
            raise ValueError(f"{unknown[0]!r} is no layer of {self.architecture.name} for which there is a kernel")
        if names:
            warn_if_missing()
        if status().isa is None:
            names = set()
        for place, module in self.named_modules():
            if isinstance(module, ConvNorm):
                module.own_conv, module.own_norm = f"{place}.conv" in names, f"{place}.norm" in names
            elif isinstance(module, SqueezeExcite):
                module.own_all = place in names
            elif isinstance(module, Sequence):
                module.own_any = any(name.startswith(f"{place}.") for name in names)

    def maps(self, x: Tensor) -> list[Tensor]:
        """(n, channels, h, w) → the stem's output and every stage's, each (n, its channels, its h, its w)."""
        found = [self.stem(x)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found

    def features(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) → what the linear layer sees, (n, features)."""
        return self.head.pool(self._body(x))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) → logits (n, classes)."""
        logits: Tensor = self.head(self._body(x))
        return logits

    def _body(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x


def build(architecture: Architecture | str | Path, *, seed: int = 0) -> Network:
    """The network with random weights on the CPU: the same for the same seed, and no other generator is touched."""
    if not isinstance(architecture, Architecture):
        architecture = resolve(architecture)
    with torch.device("meta"):  # PyTorch's own initialisation would be drawn for nothing
        network = Network(architecture)
    network = network.to_empty(device="cpu")
    initialise(network, seed)
    return network


@torch.no_grad()
def initialise(network: Network, seed: int) -> None:
    """As the official code: convolutions normal with variance 2/(k²·fan out), the linear layer uniform ±1/√classes.

    The fan out of a depthwise convolution is 1. Biases are 0, normalisation starts as the identity.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            module.weight.normal_(0, math.sqrt(2 / fan_out), generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.out_features)
            module.weight.uniform_(-bound, bound, generator=generator)
            module.bias.zero_()
