"""What the blocks of a network are made of: convolutions with either padding, normalisation joined with activation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from triscale.arch.spec import Activation, Padding
from triscale.kernels import depthwise, norm, norm_depthwise, norm_excite, pointwise


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

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) → (n, outputs, ⌈h/stride⌉, ⌈w/stride⌉)."""
        if self.kernel_size[0] == 1 and self.stride[0] > 1:
            # The same, and oneDNN's gradient of it writes beyond its memory where channels are few (below 16, AVX-512).
            x = x[:, :, :: self.stride[0], :: self.stride[1]]
            return F.conv2d(x, self.weight, groups=self.groups)
        if self.dynamic:
            x = same_padding(x, self.kernel_size[0], self.stride[0])
        return super().forward(x)

    def with_kernel(self) -> WithKernel | None:
        """Itself, where there is a kernel for such a convolution."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if self.groups == self.in_channels == self.out_channels > 1 and kernel in (3, 5, 7) and stride <= 2:
            return WithKernel(("depthwise", self.in_channels, kernel, stride, self.dynamic), self, self, self.own)
        if self.groups == kernel == stride == 1:
            return WithKernel(("pointwise", self.in_channels, self.out_channels), self, self, self.own)
        return None

    def own(self, x: Tensor) -> Tensor:
        """The same by that kernel."""
        if self.groups == 1:
            return pointwise(x, self.weight)
        return depthwise(x, self.weight, *self.window(x))

    def window(self, x: Tensor) -> tuple[int, int, int, int, int]:
        """How a depthwise kernel lies on x: stride, rows above and columns to the left of it, the output's sides."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (-(-side // stride) for side in x.shape[-2:])
        top = left = kernel // 2
        if self.dynamic:
            top, left = (
                max((out - 1) * stride + kernel - side, 0) // 2
                for out, side in zip((height, width), x.shape[-2:], strict=True)
            )
        return stride, top, left, height, width


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
    if not layer.track_running_stats or mean is None or variance is None or count is None:
        return
    count.add_(1)
    if x.numel() == 0:
        return
    share = 1 / float(count) if layer.momentum is None else layer.momentum
    found = statistics.detach()  # not under no_grad, which an exported program cannot be saved with
    mean.lerp_(found[0].to(mean.dtype), share)
    variance.lerp_(found[2].to(variance.dtype), share)
