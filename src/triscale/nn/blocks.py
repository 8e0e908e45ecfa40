"""What stages are made of: convolution with normalisation and activation, squeeze-excite, the six kinds of block.

Every convolution has the name that `costing` gives it.
"""

from typing import Protocol

from torch import Tensor, nn

from triscale.arch.spec import (
    Activation,
    Basic,
    Block,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    FusedMBConv,
    MBConv,
    Norm,
    Padding,
    Skip,
)
from triscale.costing.convolutions import adds_input, inner, projects_input, squeezed
from triscale.kernels import squeeze_excite
from triscale.nn.layers import (
    ACTIVATIONS,
    Conv2d,
    Shortcut,
    WithKernel,
    as_built,
    is_activation,
    is_linear,
    is_norm,
    joined,
    joined_depthwise,
    joined_excite,
    kernel_of,
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
        if not as_built(self):
            return {}
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
        linear = is_linear(self.reduce) and is_linear(self.expand)
        return linear and is_activation(self.activation, self.kind) and as_built(self)

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
            known = type(layer) in (ConvNorm, SqueezeExcite) and as_built(layer)
            if before is not None:
                out = layer.after(before, out) if known else layer(before.finish(out))
            else:
                out = layer.convolve(out) if known and type(layer) is ConvNorm else layer(out)
            before = layer if known and type(layer) is ConvNorm else None
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


def make_block(
    block: Block, skip: Skip, inputs: int, outputs: int, stride: int, drop: float, conv: Convolve
) -> Sequence:
    """The block's layers and its shortcut. drop: of the stochastic depth. conv: makes its convolutions."""
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
