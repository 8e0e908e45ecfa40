"""What the blocks of a network are made of: convolutions with either padding, shortcuts, normalisation joined with
activation; and which of those layers a kernel computes as they are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triscale.arch.spec import Activation, Padding
from triscale.kernels import depthwise, norm, norm_depthwise, norm_excite, pointwise
from triscale.kernels.twins import Window

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "none": nn.Identity,
}


@dataclass(frozen=True, slots=True, eq=False)
class WithKernel:
    """A layer that PyTorch computes, and one of Triscale's kernels as well.

    kind: the kernel, and what else the time depends on besides the input. module: gets the input, has the parameters.
    """

    kind: tuple[str | int, ...]
    module: nn.Module
    pytorch: Callable[[Tensor], Tensor]
    own: Callable[[Tensor], Tensor]


def same_padding(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pads (n, c, h, w) as TensorFlow's SAME does: the odd pixel goes below and to the right."""
    pads = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:]]
    (top, bottom), (left, right) = ((pad // 2, pad - pad // 2) for pad in pads)
    return F.pad(x, (left, right, top, bottom), value=value)


class Conv2d(nn.Conv2d):
    """Convolution without bias, padded as the architecture says: the two ways differ at strides above 1."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int, padding: Padding) -> None:
        # At stride 1 both paddings are k//2 on every side; the convolution does it without a copy.
        self.dynamic = padding == "same" and stride > 1
        super().__init__(inputs, outputs, kernel, stride, 0 if self.dynamic else kernel // 2, groups=groups, bias=False)
        self.built = self.form()

    def form(self) -> tuple[object, ...]:
        """What it computes with, the weight's values left out."""
        how = self.kernel_size, self.stride, self.padding, self.dilation, self.groups, self.padding_mode
        return self.dynamic, *how, tuple(self.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) → (n, outputs, ⌈h/stride⌉, ⌈w/stride⌉)."""
        if self.kernel_size[0] == 1 and self.stride[0] > 1 and self.padding == (0, 0):
            # The same, and oneDNN's gradient of it writes beyond its memory where channels are few (below 16, AVX-512).
            x = x[:, :, :: self.stride[0], :: self.stride[1]]
            return F.conv2d(x, self.weight, self.bias, groups=self.groups)
        if self.dynamic:
            x = same_padding(x, self.kernel_size[0], self.stride[0])
        return super().forward(x)

    def own(self, x: Tensor) -> Tensor:
        """The same by that kernel."""
        if self.groups == 1:
            return pointwise(x, self.weight)
        return depthwise(x, self.weight, *self.window(x))

    def window(self, x: Tensor) -> Window:
        """How a depthwise kernel lies on x."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (-(-side // stride) for side in x.shape[-2:])
        top = left = kernel // 2
        if self.dynamic:
            top, left = (
                max((out - 1) * stride + kernel - side, 0) // 2
                for out, side in zip((height, width), x.shape[-2:], strict=True)
            )
        return Window(stride, top, left, height, width)


class Shortcut(nn.Module):
    """Adds a block's input to its output, after stochastic depth dropped the output of whole samples (1603.09382)."""

    def __init__(self, drop: float, stride: int, pooled: bool) -> None:
        super().__init__()
        self.drop, self.stride, self.pooled = drop, stride, pooled

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        """(n, c, h, w) and (n, c', h', w') → (n, c', h', w')."""
        if self.pooled:
            # Averages over what a window covers, so that a border pixel weighs as much as any other.
            x = F.avg_pool2d(x, self.stride, ceil_mode=True, count_include_pad=False) if self.stride > 1 else x
            x = F.pad(x, (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))
        if self.training and self.drop > 0:
            keep = 1 - self.drop
            mask = torch.empty((out.shape[0], 1, 1, 1), dtype=out.dtype, device=out.device).bernoulli_(keep)
            return torch.addcmul(x, out, mask, value=1 / keep)
        return x + out


def as_built(layer: nn.Module, *parameters: str) -> bool:
    """Whether it computes as its class says, with parameters of its own: hooks that make a weight out of others
    (`torch.nn.utils.spectral_norm`, `prune`) put a tensor in a parameter's place."""
    return "forward" not in vars(layer) and all(layer._parameters.get(name) is not None for name in parameters)


def kernel_of(conv: nn.Module) -> Literal["depthwise", "pointwise"] | None:
    """The kernel for such a convolution; None where there is none, and where it is not as it was built."""
    if type(conv) is not Conv2d or not as_built(conv, "weight") or conv.bias is not None or conv.form() != conv.built:
        return None
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    if conv.groups == conv.in_channels == conv.out_channels > 1 and kernel in (3, 5, 7) and stride <= 2:
        return "depthwise"
    return "pointwise" if conv.groups == kernel == stride == 1 else None


def with_kernel(conv: Conv2d) -> WithKernel | None:
    """The convolution, where there is a kernel for it."""
    match kernel_of(conv):
        case "depthwise":
            what: tuple[str | int, ...] = conv.in_channels, conv.kernel_size[0], conv.stride[0], conv.dynamic
            return WithKernel(("depthwise", *what), conv, conv, conv.own)
        case "pointwise":
            return WithKernel(("pointwise", conv.in_channels, conv.out_channels), conv, conv, conv.own)
        case None:
            return None


def is_norm(layer: nn.Module) -> bool:
    """Whether it is a batch normalisation as kernels compute it: PyTorch's own, with a weight and a bias."""
    return type(layer) is nn.BatchNorm2d and as_built(layer, "weight", "bias")


def is_activation(layer: nn.Module, activation: Activation) -> bool:
    """Whether it is the activation of that name, as PyTorch makes it."""
    if type(layer) is nn.ReLU6 and (layer.min_val, layer.max_val) != (0.0, 6.0):
        return False
    return type(layer) is ACTIVATIONS[activation] and as_built(layer)


def is_linear(conv: nn.Module) -> bool:
    """Whether it is a linear layer with a bias, written as a convolution."""
    if type(conv) is not nn.Conv2d or not as_built(conv, "weight", "bias") or conv.padding != (0, 0):
        return False
    return conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1


def joined(x: Tensor, layer: nn.BatchNorm2d, activation: Activation) -> Tensor:
    """Batch normalisation in training mode and the activation by one kernel; keeps the layer's averages up to date."""
    y, statistics = norm(x, layer.weight, layer.bias, layer.eps, activation)
    _remember(layer, x, statistics)
    return y


def joined_depthwise(x: Tensor, layer: nn.BatchNorm2d, activation: Activation, conv: Conv2d) -> Tensor:
    """`joined` and the depthwise convolution of that by one kernel."""
    y, statistics = norm_depthwise(x, layer.weight, layer.bias, layer.eps, activation, conv.weight, conv.window(x))
    _remember(layer, x, statistics)
    return y


def joined_excite(
    x: Tensor, layer: nn.BatchNorm2d, activation: Activation, layers: tuple[Tensor, Tensor, Tensor, Tensor]
) -> Tensor:
    """`joined` and the squeeze-excite of that, with these layers and the same activation, by one kernel."""
    y, statistics = norm_excite(x, layer.weight, layer.bias, layer.eps, activation, layers)
    _remember(layer, x, statistics)
    return y


def _remember(layer: nn.BatchNorm2d, x: Tensor, statistics: Tensor) -> None:
    """Moves the layer's averages as PyTorch's own does; by no images, and where it keeps none, not at all."""
    mean, variance, count = layer.running_mean, layer.running_var, layer.num_batches_tracked
    if not layer.track_running_stats or mean is None or variance is None:
        return
    if count is not None:
        count.add_(1)
    if x.numel() == 0:
        return
    share = layer.momentum
    if share is None:
        share = 0.0 if count is None else 1 / float(count)
    found = statistics.detach()  # not under no_grad, which an exported program cannot be saved with
    mean.lerp_(found[0].to(mean.dtype), share)
    variance.lerp_(found[2].to(variance.dtype), share)
