"""How a network computes: modules built from an `Architecture`, in the order of Table 1 of the EfficientNet paper.

Top to bottom: convolution with padding, normalisation and activation; squeeze-excite; the six kinds of block; stem,
head and the network. Every convolution has the name that `costing` gives it.
"""

import math
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triscale.arch.resolve import resolve
from triscale.arch.spec import (
    Activation,
    Architecture,
    Basic,
    Block,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    FusedMBConv,
    Head,
    MBConv,
    Norm,
    Padding,
    Skip,
    Stem,
)
from triscale.costing.convolutions import adds_input, inner, projects_input, squeezed
from triscale.kernels import squeeze_excite, status, warn_if_missing
from triscale.nn.layers import (
    ACTIVATIONS,
    Conv2d,
    Shortcut,
    WithKernel,
    is_activation,
    is_linear,
    is_norm,
    joined,
    joined_depthwise,
    joined_excite,
    kernel_of,
    same_padding,
    with_kernel,
)


class ConvNorm(nn.Module):
    """Convolution, batch normalisation, activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: Activation = "none",
        padding: Padding,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(inputs, outputs, kernel, stride, groups, padding)
        # The spec keeps the share of the old average (TensorFlow's way), PyTorch the share of the new value.
        self.norm = nn.BatchNorm2d(outputs, eps=norm.epsilon, momentum=1 - norm.momentum)
        self.activation = ACTIVATIONS[activation]()
        self.kind: Activation = activation
        self.own_conv = self.own_norm = False

    def with_kernels(self) -> dict[str, WithKernel]:
        """Its layers for which there is a kernel, by name; those that are not as they were built have none."""
        found = {"conv": conv} if (conv := with_kernel(self.conv)) is not None else {}
        if self.joinable:
            kind = ("norm", self.norm.num_features, self.kind)
            found["norm"] = WithKernel(
                kind, self.norm, lambda x: self.activation(self.norm(x)), lambda x: joined(x, self.norm, self.kind)
            )
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) → (n, outputs, ⌈h/stride⌉, ⌈w/stride⌉)."""
        if self.joins:
            return joined(self.convolve(x), self.norm, self.kind)
        # In one expression: a name would keep the convolution's output alive beside the two that follow.
        out: Tensor = self.activation(self.norm(self.convolve(x)))
        return out

    def convolve(self, x: Tensor) -> Tensor:
        """The convolution alone."""
        out: Tensor = self.conv(x) if self.kernel is None else self.conv.own(x)
        return out

    @property
    def kernel(self) -> str | None:
        """The kernel that computes the convolution now; None where PyTorch does."""
        return kernel_of(self.conv) if self.own_conv and self.training else None

    @property
    def joinable(self) -> bool:
        """Whether there is a kernel for normalisation and activation: not where somebody put others in their place."""
        return is_norm(self.norm) and is_activation(self.activation, self.kind)

    @property
    def joins(self) -> bool:
        """Whether normalisation and activation are a kernel's now."""
        # Statistics that are computed anew for averaged weights are no training: this module is then in evaluation.
        return self.own_norm and self.training and self.norm.training and self.joinable

    def finish(self, x: Tensor) -> Tensor:
        """Normalisation and activation of what `convolve` gave."""
        if self.joins:
            return joined(x, self.norm, self.kind)
        out: Tensor = self.activation(self.norm(x))
        return out

    def after(self, before: "ConvNorm", x: Tensor) -> Tensor:
        """`convolve` of what the layer before makes of its convolution's output: by one kernel, where it can be."""
        if before.joins and self.kernel == "depthwise":
            return joined_depthwise(x, before.norm, before.kind, self.conv)
        return self.convolve(before.finish(x))


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the averages of all (arXiv 1709.01507; paper, section 4)."""

    def __init__(self, channels: int, squeeze: int, activation: Activation) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeeze, 1)
        self.activation = ACTIVATIONS[activation]()
        self.expand = nn.Conv2d(squeeze, channels, 1)
        self.kind: Activation = activation
        self.own_all = False

    def with_kernels(self) -> dict[str, WithKernel]:
        """Itself, without a name of its own, unless its layers are not as they were built."""
        if not self.joinable:
            return {}
        kind = ("squeeze_excite", self.reduce.in_channels, self.reduce.out_channels, self.kind)
        return {"": WithKernel(kind, self, self.pytorch, self.own)}

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) → the same shape."""
        return self.own(x) if self.owns else self.pytorch(x)

    @property
    def joinable(self) -> bool:
        """Whether there is a kernel for it: not where somebody put other layers in place of its own."""
        return is_linear(self.reduce) and is_linear(self.expand) and is_activation(self.activation, self.kind)

    @property
    def owns(self) -> bool:
        """Whether all of it is a kernel's now."""
        return self.own_all and self.training and self.joinable

    def pytorch(self, x: Tensor) -> Tensor:
        """The same by PyTorch."""
        gate = self.expand(self.activation(self.reduce(x.mean((2, 3), keepdim=True))))
        scaled: Tensor = x * gate.sigmoid()
        return scaled

    def own(self, x: Tensor) -> Tensor:
        """The same by one kernel."""
        return squeeze_excite(x, *self._layers(), self.kind)

    def after(self, before: ConvNorm, x: Tensor) -> Tensor:
        """(n, channels, h, w), the layer before's convolution → the same shape: by one kernel, where it can be."""
        if before.joins and self.owns and before.kind == self.kind:
            return joined_excite(x, before.norm, before.kind, self._layers())
        out: Tensor = self(before.finish(x))
        return out

    def _layers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        reduce, expand = self.reduce, self.expand
        assert reduce.bias is not None
        assert expand.bias is not None
        return reduce.weight.flatten(1), reduce.bias, expand.weight.flatten(1), expand.bias


class Sequence(nn.Module):
    """A block: its layers one after another, then the shortcut, then (ResNet) an activation."""

    def __init__(
        self,
        layers: dict[str, nn.Module],
        add: Shortcut | None,
        shortcut: nn.Module | None = None,
        last: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.steps = tuple(layers)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.shortcut, self.add, self.last = shortcut, add, last
        self.own_any = False

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) → (n, outputs, ⌈h/stride⌉, ⌈w/stride⌉)."""
        out = self._joined(x) if self.own_any and self.training else self._apart(x)
        if self.add is not None:
            out = self.add(x if self.shortcut is None else self.shortcut(x), out)
        return out if self.last is None else self.last(out)

    def _apart(self, out: Tensor) -> Tensor:
        for name in self.steps:
            out = getattr(self, name)(out)
        return out

    def _joined(self, out: Tensor) -> Tensor:
        """The same, but what one layer ends and the next begins with may be one kernel."""
        before: ConvNorm | None = None
        for name in self.steps:
            layer = getattr(self, name)
            # What somebody put in a layer's place, of whatever kind, is called as any module.
            known = type(layer) in (ConvNorm, SqueezeExcite)
            if before is not None:
                out = layer.after(before, out) if known else layer(before.finish(out))
            else:
                out = layer.convolve(out) if type(layer) is ConvNorm else layer(out)
            before = layer if type(layer) is ConvNorm else None
        return out if before is None else before.finish(out)


class Convolve(Protocol):
    """`ConvNorm` with the architecture's padding and normalisation already given."""

    def __call__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: Activation = "none",
    ) -> nn.Module:
        """The layer."""


def _mbconv(block: MBConv, inputs: int, outputs: int, stride: int, conv: Convolve) -> dict[str, nn.Module]:
    hidden, act = inputs * block.expansion, block.activation
    layers: dict[str, nn.Module] = {}
    if block.expansion != 1:
        layers["expand"] = conv(inputs, hidden, activation=act)
    layers["depthwise"] = conv(hidden, hidden, kernel=block.kernel, stride=stride, groups=hidden, activation=act)
    if block.squeeze_excite:
        layers["squeeze_excite"] = SqueezeExcite(hidden, squeezed(inputs, block.squeeze_excite), act)
    layers["project"] = conv(hidden, outputs)
    return layers


def _fused_mbconv(block: FusedMBConv, inputs: int, outputs: int, stride: int, conv: Convolve) -> dict[str, nn.Module]:
    hidden = outputs if block.expansion == 1 else inputs * block.expansion
    layers = {"expand": conv(inputs, hidden, kernel=block.kernel, stride=stride, activation=block.activation)}
    if block.squeeze_excite:
        layers["squeeze_excite"] = SqueezeExcite(hidden, squeezed(inputs, block.squeeze_excite), block.activation)
    if block.expansion != 1:
        layers["project"] = conv(hidden, outputs)
    return layers


def _depthwise_separable(
    block: DepthwiseSeparable, inputs: int, outputs: int, stride: int, conv: Convolve
) -> dict[str, nn.Module]:
    act = block.activation
    return {
        "depthwise": conv(inputs, inputs, kernel=block.kernel, stride=stride, groups=inputs, activation=act),
        "pointwise": conv(inputs, outputs, activation=act),
    }


def _basic(block: Basic, inputs: int, outputs: int, stride: int, conv: Convolve) -> dict[str, nn.Module]:
    return {
        "conv1": conv(inputs, outputs, kernel=block.kernel, stride=stride, activation=block.activation),
        "conv2": conv(outputs, outputs, kernel=block.kernel),
    }


def _bottleneck(block: Bottleneck, inputs: int, outputs: int, stride: int, conv: Convolve) -> dict[str, nn.Module]:
    middle, act = inner(block, outputs), block.activation
    return {
        "reduce": conv(inputs, middle, activation=act),
        "conv": conv(middle, middle, kernel=block.kernel, stride=stride, activation=act),
        "expand": conv(middle, outputs),
    }


def _block(block: Block, skip: Skip, inputs: int, outputs: int, stride: int, drop: float, conv: Convolve) -> Sequence:
    add, shortcut = None, None
    if adds_input(block, skip, inputs, outputs, stride):
        projects = projects_input(block, skip, inputs, outputs, stride)
        shortcut = conv(inputs, outputs, stride=stride) if projects else None
        add = Shortcut(drop, stride, pooled=not projects and (stride != 1 or inputs != outputs))
    match block:
        case MBConv():
            return Sequence(_mbconv(block, inputs, outputs, stride, conv), add)
        case FusedMBConv():
            return Sequence(_fused_mbconv(block, inputs, outputs, stride, conv), add)
        case DepthwiseSeparable():
            return Sequence(_depthwise_separable(block, inputs, outputs, stride, conv), add)
        case Conv():
            layer = conv(inputs, outputs, kernel=block.kernel, stride=stride, activation=block.activation)
            return Sequence({"conv": layer}, add)
        case Basic():
            layers = _basic(block, inputs, outputs, stride, conv)
        case Bottleneck():
            layers = _bottleneck(block, inputs, outputs, stride, conv)
    return Sequence(layers, add, shortcut, ACTIVATIONS[block.activation]())


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
                blocks.append(_block(stage.block, stage.skip, inputs, stage.channels, stride, drop, conv))
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
