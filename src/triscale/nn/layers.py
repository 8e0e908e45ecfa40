"""What the blocks of a network are made of: convolutions with either padding, normalisation joined with activation."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triscale.arch.spec import Activation, Padding
from triscale.kernels import depthwise, norm, pointwise


@dataclass(frozen=True, slots=True)
class Kernels:
    """For what training uses Triscale's own kernels instead of PyTorch's. Evaluation and exports never do."""

    depthwise: bool = False
    pointwise: bool = False
    norm: bool = False
    squeeze_excite: bool = False


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

    def has_kernel(self, kernels: Kernels) -> bool:
        """Whether there is one for such a convolution among those."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if self.groups == self.in_channels == self.out_channels > 1:
            return kernels.depthwise and kernel > 1 and stride <= 2
        return kernels.pointwise and self.groups == kernel == stride == 1

    def own(self, x: Tensor) -> Tensor:
        """The same by that kernel."""
        if self.groups == 1:
            return pointwise(x, self.weight)
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (-(-side // stride) for side in x.shape[-2:])
        top = left = kernel // 2
        if self.dynamic:
            top, left = (
                max((out - 1) * stride + kernel - side, 0) // 2
                for out, side in zip((height, width), x.shape[-2:], strict=True)
            )
        return depthwise(x, self.weight, stride, top, left, height, width)


def joined(x: Tensor, layer: nn.BatchNorm2d, activation: Activation) -> Tensor:
    """Batch normalisation in training mode and the activation by one kernel; keeps the layer's averages up to date."""
    y, statistics = norm(x, layer.weight, layer.bias, layer.eps, activation)
    mean, variance, count = layer.running_mean, layer.running_var, layer.num_batches_tracked
    if mean is None or variance is None or count is None:
        return y
    with torch.no_grad():
        count.add_(1)
        share = 1 / float(count) if layer.momentum is None else layer.momentum
        mean.lerp_(statistics[0].to(mean.dtype), share)
        variance.lerp_(statistics[2].to(variance.dtype), share)
    return y
