"""What the operators compute, in plain PyTorch: for any type and device, and what the kernels are held against."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Window(NamedTuple):
    """How a depthwise kernel lies on an image: output row i sees input rows i·stride − top to i·stride − top + k − 1.

    top, left: rows above the image and columns to the left of it that the first windows see. height, width: of the
    output, in pixels.
    """

    stride: int
    top: int
    left: int
    height: int
    width: int


def _seen(x: Tensor, kernel: int, window: Window) -> Tensor:
    """What all windows together see of x, with zeros where they see beyond it."""
    rows, columns = ((side - 1) * window.stride + kernel for side in (window.height, window.width))
    below, right = rows - window.top - x.shape[2], columns - window.left - x.shape[3]
    return F.pad(x, (window.left, max(0, right), window.top, max(0, below)))[:, :, :rows, :columns]


def depthwise(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """(n, c, h, w) and (c, 1, k, k) → (n, c, height, width)."""
    seen = _seen(x, weight.shape[-1], window)
    return F.conv2d(seen, weight.to(x.dtype), stride=window.stride, groups=x.shape[1])


def depthwise_backward(
    grad: Tensor, x: Tensor, weight: Tensor, window: Window, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """The gradients of input and weight; what is not wanted is empty."""
    seen = _seen(x, weight.shape[-1], window)
    grad_seen, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad,
        seen,
        weight.to(x.dtype),
        None,
        [window.stride, window.stride],
        [0, 0],
        [1, 1],
        False,
        [0, 0],
        x.shape[1],
        [*wanted, False],
    )
    found_x = x.new_empty(0)
    if wanted[0]:  # pixels that no window saw have a gradient of 0
        (height, width), top, left = x.shape[2:], window.top, window.left
        below, right = top + height - seen.shape[2], left + width - seen.shape[3]
        whole = F.pad(grad_seen, (0, max(0, right), 0, max(0, below)))
        found_x = whole[:, :, top : top + height, left : left + width]
    return found_x, grad_weight.to(weight.dtype) if wanted[1] else weight.new_empty(0)


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """(n, inputs, h, w) and (outputs, inputs, 1, 1) → (n, outputs, h, w)."""
    return F.conv2d(x, weight.to(x.dtype))


def pointwise_backward(grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
    """The gradients of input and weight; what is not wanted is empty."""
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight.to(x.dtype), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [*wanted, False]
    )
    return (
        grad_x if wanted[0] else x.new_empty(0),
        grad_weight.to(weight.dtype) if wanted[1] else weight.new_empty(0),
    )


def activate(z: Tensor, activation: str) -> Tensor:
    """The activation of that name."""
    match activation:
        case "silu":
            return F.silu(z)
        case "relu":
            return F.relu(z)
        case "relu6":
            return F.relu6(z)
        case "hardswish":
            return F.hardswish(z)
        case "none":
            return z.clone()
        case _:
            raise ValueError(f"{activation!r} is no activation")


def slope(z: Tensor, activation: str) -> Tensor:
    """The activation's derivative, where it has none PyTorch's choice of one."""
    match activation:
        case "silu":
            s = z.sigmoid()
            return s * (1 + z * (1 - s))
        case "relu":
            return (z > 0).to(z.dtype)
        case "relu6":
            return ((z > 0) & (z < 6)).to(z.dtype)
        case "hardswish":
            return torch.where(z < 3, torch.where(z <= -3, 0.0, z / 3 + 0.5), 1.0)
        case "none":
            return torch.ones_like(z)
        case _:
            raise ValueError(f"{activation!r} is no activation")


def _wide(x: Tensor) -> Tensor:
    """At least in single precision."""
    return x.double() if x.dtype == torch.float64 else x.float()


def _column(v: Tensor) -> Tensor:
    return v.view(1, -1, 1, 1)


def norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, activation: str) -> tuple[Tensor, Tensor]:
    """(n, c, h, w) → the same, and (3, c): means, 1/√(variance + epsilon), unbiased variances."""
    wide = _wide(x)
    count = x.numel() // x.shape[1]
    if count == 0:
        return torch.empty_like(x), wide.new_zeros((3, x.shape[1]))
    variance, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
    rstd = (variance + epsilon).rsqrt()
    z = (wide - _column(mean)) * _column(rstd * weight) + _column(bias)
    unbiased = variance * (count / max(count - 1, 1))
    return activate(z, activation).to(x.dtype), torch.stack((mean, rstd, unbiased))


def norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of input, weight and bias."""
    if x.numel() == 0:
        return torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias)
    mean, rstd = statistics[0], statistics[1]
    normal = (_wide(x) - _column(mean)) * _column(rstd)
    g = _wide(grad) * slope(normal * _column(weight) + _column(bias), activation)
    grad_bias, grad_weight = g.sum((0, 2, 3)), (g * normal).sum((0, 2, 3))
    count = x.numel() // x.shape[1]
    centred = g - _column(grad_bias / count) - normal * _column(grad_weight / count)
    grad_x = centred * _column(rstd * weight)
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype), grad_bias.to(bias.dtype)


def pool(x: Tensor) -> Tensor:
    """(n, c, h, w) → (n, c), the averages."""
    return _wide(x).mean((2, 3))


def scale(x: Tensor, factors: Tensor, terms: Tensor | None) -> Tensor:
    """Every channel of an image times its factor, plus its term."""
    scaled = _wide(x) * factors[:, :, None, None]
    return (scaled if terms is None else scaled + terms[:, :, None, None]).to(x.dtype)


def dot(x: Tensor, grad: Tensor) -> Tensor:
    """(n, c, h, w) twice → (n, c), the sums of their products."""
    return (_wide(x) * _wide(grad)).sum((2, 3))


def gates(pooled: Tensor, layers: tuple[Tensor, Tensor, Tensor, Tensor], activation: str) -> tuple[Tensor, Tensor]:
    """Averages (n, c) → what they are squeezed to, before the activation (n, s), and gates (n, c), of their type."""
    reduce, reduce_bias, expand, expand_bias = (layer.to(pooled.dtype) for layer in layers)
    with torch.autocast(pooled.device.type, enabled=False):  # two small products: in bf16 they would only lose digits
        hidden = torch.addmm(reduce_bias, pooled, reduce.t())
        return hidden, torch.addmm(expand_bias, activate(hidden, activation), expand.t()).sigmoid_()


def gates_backward(
    dots: Tensor, hidden: Tensor, gate: Tensor, reduce: Tensor, expand: Tensor, activation: str, pixels: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What gates get before the logistic function, (n, c); what averages are squeezed to, before activation, (n, s);
    every pixel through the averages, (n, c). dots: sums over pixels of the gradient times what is scaled.
    """
    grad_gate = dots * (gate * (1 - gate))
    with torch.autocast(dots.device.type, enabled=False):
        grad_hidden = (grad_gate @ expand.to(gate.dtype)) * slope(hidden, activation)
        return grad_gate, grad_hidden, (grad_hidden @ reduce.to(gate.dtype)) / max(1, pixels)


def layers_backward(
    pooled: Tensor, hidden: Tensor, grad_gate: Tensor, grad_hidden: Tensor, reduce: Tensor, expand: Tensor,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of the two layers between averages and gates, each with its bias, of the layers' types."""
    with torch.autocast(pooled.device.type, enabled=False):
        grad_reduce, grad_expand = grad_hidden.t() @ pooled, grad_gate.t() @ activate(hidden, activation)
        first = grad_reduce.to(reduce.dtype), grad_hidden.sum(0).to(reduce.dtype)
        return *first, grad_expand.to(expand.dtype), grad_gate.sum(0).to(expand.dtype)


def norm_depthwise(
    x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor, epsilon: float, activation: str, window: Window
) -> tuple[Tensor, Tensor]:
    """`depthwise` of `norm`, and the statistics."""
    active, statistics = norm(x, weight, bias, epsilon, activation)
    return depthwise(active, taps, window), statistics


def _again(x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, activation: str) -> Tensor:
    """The output of `norm`, from its statistics."""
    normal = (_wide(x) - _column(statistics[0])) * _column(statistics[1])
    return activate(normal * _column(weight) + _column(bias), activation).to(x.dtype)


def norm_depthwise_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, taps: Tensor, activation: str,
    window: Window,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of input, normalisation's weight and bias, and the convolution's weight."""
    active = _again(x, weight, bias, statistics, activation)
    grad_active, grad_taps = depthwise_backward(grad, active, taps, window, (True, True))
    return *norm_backward(grad_active, x, weight, bias, statistics, activation), grad_taps


def norm_excite(
    x: Tensor, weight: Tensor, bias: Tensor, layers: tuple[Tensor, Tensor, Tensor, Tensor], epsilon: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """What `norm` makes of x times the gates of its averages; statistics, averages, and what `gates` found."""
    active, statistics = norm(x, weight, bias, epsilon, activation)
    pooled = pool(active)
    hidden, gate = gates(pooled, layers, activation)
    return scale(active, gate, None), statistics, pooled, hidden, gate


def norm_excite_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, hidden: Tensor, gate: Tensor,
    reduce: Tensor, expand: Tensor, activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of input and of normalisation's weight and bias; of gates before the logistic function, (n, c); of
    what averages are squeezed to, before the activation, (n, s)."""
    dots = dot(_again(x, weight, bias, statistics, activation), grad)
    pixels = x.shape[2] * x.shape[3]
    grad_gate, grad_hidden, terms = gates_backward(dots, hidden, gate, reduce, expand, activation, pixels)
    found = norm_backward(scale(grad, gate, terms), x, weight, bias, statistics, activation)
    return *found, grad_gate, grad_hidden
