"""Calls the compiled kernels on tensors. Every function wants what `fits`, and returns None where a kernel declined."""

import ctypes
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from triscale.kernels import twins
from triscale.kernels.library import ACTIVATIONS, Result, load
from triscale.kernels.twins import Window

_FOR_ONE_THREAD = 16384  # values that PyTorch leaves to one thread, whatever it does with them; kernels do so too


class DepthwiseShape(ctypes.Structure):
    """`DepthwiseShape` of interface.h."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            "images", "height", "width", "channels", "out_height", "out_width", "kernel", "stride", "top", "left",
        )
    )  # fmt: skip


class ExciteShape(ctypes.Structure):
    """`ExciteShape` of interface.h."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("images", "pixels", "channels", "squeezed"))


@cache
def _library() -> ctypes.CDLL | None:
    """The library, which from now on works on PyTorch's own threads; None where there is none."""
    library, _ = load()
    if library is not None:
        library.triscale_use_team(_team())
    return library


def _team() -> int | None:
    """The address at which the OpenMP runtime that PyTorch uses starts a team of threads; None where it has none."""
    try:
        return ctypes.cast(ctypes.CDLL(torch._C.__file__).GOMP_parallel, ctypes.c_void_p).value
    except (OSError, AttributeError, TypeError):
        return None


def fits(x: Tensor, *parameters: Tensor) -> bool:
    """Whether there are kernels for such tensors: fp32 or bf16 values on a CPU, parameters in fp32, not empty."""
    return (
        _library() is not None
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.device.type == "cpu"
        and x.numel() > 0
        and all(p.dtype == torch.float32 and p.device.type == "cpu" and p.numel() > 0 for p in parameters)
    )


def _call(name: str, *arguments: object) -> bool:
    failure = getattr(_library(), f"triscale_{name}")(*arguments)
    if failure == Result.NO_MEMORY:
        raise MemoryError(f"not enough memory for the sums of {name}")
    return bool(failure != Result.DECLINED)


def _at(tensor: Tensor | None) -> int | None:
    """Where it lies. It must have a name until the call is done: a kernel holds no tensor."""
    return None if tensor is None else tensor.data_ptr()


def _how(*values: Tensor) -> tuple[bool, int]:
    """Whether values are bf16, and by how many threads: one, where more would only wait for each other."""
    threads = torch.get_num_threads() if max(map(Tensor.numel, values)) > _FOR_ONE_THREAD else 1
    return values[0].dtype == torch.bfloat16, threads


def dense(x: Tensor) -> Tensor:
    """The tensor in channels-last order without gaps: itself, where it is."""
    return x.contiguous(memory_format=torch.channels_last)


def like(x: Tensor) -> Tensor:
    """Memory for a tensor of that shape, in that order."""
    return torch.empty_like(x, memory_format=torch.channels_last)


def _shape(x: Tensor, kernel: int, window: Window) -> DepthwiseShape:
    images, channels, height, width = x.shape
    return DepthwiseShape(
        images=images, height=height, width=width, channels=channels, kernel=kernel,
        out_height=window.height, out_width=window.width, stride=window.stride, top=window.top, left=window.left,
    )  # fmt: skip


def _output(x: Tensor, window: Window) -> Tensor:
    """Memory for what a depthwise convolution makes of x."""
    shape = *x.shape[:2], window.height, window.width
    return torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)


def depthwise(x: Tensor, weight: Tensor, window: Window) -> Tensor | None:
    """`twins.depthwise`."""
    x, weight = dense(x), weight.contiguous()
    y = _output(x, window)
    shape = _shape(x, weight.shape[-1], window)
    done = _call("depthwise", ctypes.byref(shape), *_how(x), _at(x), _at(weight), _at(y))
    return y if done else None


def depthwise_backward(
    grad: Tensor, x: Tensor, weight: Tensor, window: Window, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor] | None:
    """`twins.depthwise_backward`."""
    grad, x, weight = dense(grad), dense(x), weight.contiguous()
    grad_x, grad_weight = like(x) if wanted[0] else None, torch.empty_like(weight) if wanted[1] else None
    shape = _shape(x, weight.shape[-1], window)
    pointers = map(_at, (grad, x, weight, grad_x, grad_weight))
    if not _call("depthwise_backward", ctypes.byref(shape), *_how(x), *pointers):
        return None
    return x.new_empty(0) if grad_x is None else grad_x, weight.new_empty(0) if grad_weight is None else grad_weight


def _matrices(x: Tensor, weight: Tensor) -> tuple[int, int, int]:
    """Rows, inputs, outputs."""
    return x.numel() // x.shape[1], x.shape[1], weight.shape[0]


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """`twins.pointwise`."""
    x, weight = dense(x), weight.contiguous()
    shape = x.shape[0], weight.shape[0], *x.shape[2:]
    y = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    _call("pointwise", *_matrices(x, weight), *_how(x, y), _at(x), _at(weight), _at(y))
    return y


def pointwise_backward(grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
    """`twins.pointwise_backward`."""
    grad, x, weight = dense(grad), dense(x), weight.contiguous()
    grad_x, grad_weight = like(x) if wanted[0] else None, torch.empty_like(weight) if wanted[1] else None
    pointers = map(_at, (grad, x, weight, grad_x, grad_weight))
    _call("pointwise_backward", *_matrices(x, weight), *_how(x, grad), *pointers)
    return x.new_empty(0) if grad_x is None else grad_x, weight.new_empty(0) if grad_weight is None else grad_weight


def norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, activation: str) -> tuple[Tensor, Tensor]:
    """`twins.norm`."""
    x, weight, bias, channels = dense(x), weight.contiguous(), bias.contiguous(), x.shape[1]
    y, statistics = like(x), weight.new_empty((3, channels))
    pointers = map(_at, (x, weight, bias, y, statistics))
    _call("norm", x.numel() // channels, channels, ACTIVATIONS.index(activation), epsilon, *_how(x), *pointers)
    return y, statistics


def norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """`twins.norm_backward`."""
    grad, x, channels = dense(grad), dense(x), x.shape[1]
    weight, bias, statistics = weight.contiguous(), bias.contiguous(), statistics.contiguous()
    found = like(x), torch.empty_like(weight), torch.empty_like(bias)
    pointers = map(_at, (grad, x, weight, bias, statistics, *found))
    _call("norm_backward", x.numel() // channels, channels, ACTIVATIONS.index(activation), *_how(x), *pointers)
    return found


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """Images, pixels, channels."""
    n, channels, height, width = x.shape
    return n, height * width, channels


def _excite_shape(x: Tensor, squeezed: int) -> ExciteShape:
    images, pixels, channels = _sizes(x)
    return ExciteShape(images=images, pixels=pixels, channels=channels, squeezed=squeezed)


def pool(x: Tensor) -> Tensor:
    """`twins.pool`."""
    x = dense(x)
    means = x.new_empty(x.shape[:2], dtype=torch.float32)
    _call("pool", *_sizes(x), *_how(x), _at(x), _at(means))
    return means


def scale(x: Tensor, factors: Tensor, terms: Tensor | None) -> Tensor:
    """`twins.scale`."""
    x, factors = dense(x), factors.contiguous()
    terms = None if terms is None else terms.contiguous()
    y = like(x)
    _call("scale", *_sizes(x), *_how(x), _at(x), _at(factors), _at(terms), _at(y))
    return y


def dot(x: Tensor, grad: Tensor) -> Tensor:
    """`twins.dot`."""
    x, grad = dense(x), dense(grad)
    sums = x.new_empty(x.shape[:2], dtype=torch.float32)
    _call("dot", *_sizes(x), *_how(x), _at(x), _at(grad), _at(sums))
    return sums


def _each(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """The function of every value. PyTorch's threads compute the last few of their share by other instructions, which
    round otherwise: what it gets at once is little enough for one thread."""
    if tensors[0].numel() <= _FOR_ONE_THREAD:
        return function(*tensors)
    parts = zip(*(torch.split(tensor.flatten(), _FOR_ONE_THREAD) for tensor in tensors), strict=True)
    return torch.cat([function(*part) for part in parts]).view_as(tensors[0])


def gates(pooled: Tensor, layers: tuple[Tensor, Tensor, Tensor, Tensor], activation: str) -> tuple[Tensor, Tensor]:
    """`twins.gates`."""
    reduce, reduce_bias, expand, expand_bias = layers
    hidden = _linear(pooled, reduce) + reduce_bias
    active = _each(lambda z: twins.activate(z, activation), hidden)
    return hidden, _each(torch.sigmoid, _linear(active, expand) + expand_bias)


def gates_backward(
    dots: Tensor, hidden: Tensor, gate: Tensor, reduce: Tensor, expand: Tensor, activation: str, pixels: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`twins.gates_backward`."""
    grad_gate = dots * (gate * (1 - gate))
    grad_hidden = _grad_input(grad_gate, expand) * _each(lambda z: twins.slope(z, activation), hidden)
    return grad_gate, grad_hidden, _grad_input(grad_hidden, reduce) / max(1, pixels)


def layers_backward(
    pooled: Tensor, hidden: Tensor, grad_gate: Tensor, grad_hidden: Tensor, reduce: Tensor, expand: Tensor,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """`twins.layers_backward`."""
    active = _each(lambda z: twins.activate(z, activation), hidden)
    return *_grad_layer(grad_hidden, pooled, reduce), *_grad_layer(grad_gate, active, expand)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """(n, inputs) and (outputs, inputs) → (n, outputs): a 1×1 convolution of images of one pixel, because the bits of
    PyTorch's products depend on the number of threads."""
    x, weight = x.contiguous(), weight.contiguous()
    y = x.new_empty((len(x), len(weight)))
    _call("pointwise", *_matrices(x, weight), *_how(x, y), *map(_at, (x, weight, y)))
    return y


def _grad_input(grad: Tensor, weight: Tensor) -> Tensor:
    """Of a linear layer: the gradient of what it got, (n, inputs)."""
    grad, weight = grad.contiguous(), weight.contiguous()
    found = grad.new_empty((len(grad), weight.shape[1]))
    pointers = map(_at, (grad, None, weight, found, None))
    _call("pointwise_backward", *_matrices(found, weight), *_how(grad, found), *pointers)
    return found


def _grad_layer(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Of a linear layer: the gradients of weight and bias."""
    grad, x, found = grad.contiguous(), x.contiguous(), weight.new_empty(weight.shape)
    _call("pointwise_backward", *_matrices(x, found), *_how(grad, x), *map(_at, (grad, x, None, None, found)))
    columns = torch.split(grad, max(1, _FOR_ONE_THREAD // len(grad)), 1)
    return found, torch.cat([some.sum(0) for some in columns])


def norm_depthwise(
    x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor, epsilon: float, activation: str,
    window: Window,
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    """`twins.norm_depthwise`."""
    x, weight, bias, taps = dense(x), weight.contiguous(), bias.contiguous(), taps.contiguous()
    y = _output(x, window)
    statistics, shape = weight.new_empty((3, x.shape[1])), _shape(x, taps.shape[-1], window)
    pointers = map(_at, (x, weight, bias, taps, y, statistics))
    done = _call("norm_depthwise", ctypes.byref(shape), ACTIVATIONS.index(activation), epsilon, *_how(x), *pointers)
    return (y, statistics) if done else None


def norm_depthwise_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, taps: Tensor, activation: str,
    window: Window,
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:  # fmt: skip
    """`twins.norm_depthwise_backward`."""
    grad, x = dense(grad), dense(x)
    weight, bias, statistics, taps = (one.contiguous() for one in (weight, bias, statistics, taps))
    found = like(x), torch.empty_like(weight), torch.empty_like(bias), torch.empty_like(taps)
    shape = _shape(x, taps.shape[-1], window)
    pointers = map(_at, (grad, x, weight, bias, statistics, taps, *found))
    done = _call("norm_depthwise_backward", ctypes.byref(shape), ACTIVATIONS.index(activation), *_how(x), *pointers)
    return found if done else None


def norm_excite(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    layers: tuple[Tensor, Tensor, Tensor, Tensor],
    epsilon: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`twins.norm_excite`."""
    x, channels, squeezed = dense(x), x.shape[1], layers[0].shape[0]
    y, statistics = like(x), weight.new_empty((3, channels))
    pooled, hidden, gate = (weight.new_empty((x.shape[0], n)) for n in (channels, squeezed, channels))
    given = [x, *(one.contiguous() for one in (weight, bias, *layers))]
    shape = _excite_shape(x, squeezed)
    pointers = map(_at, (*given, y, statistics, pooled, hidden, gate))
    _call("norm_excite", ctypes.byref(shape), ACTIVATIONS.index(activation), epsilon, *_how(x), *pointers)
    return y, statistics, pooled, hidden, gate


def norm_excite_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, hidden: Tensor, gate: Tensor,
    reduce: Tensor, expand: Tensor, activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """`twins.norm_excite_backward`."""
    grad, x = dense(grad), dense(x)
    given = [one.contiguous() for one in (weight, bias, statistics, hidden, gate, reduce, expand)]
    # Row-major, whatever the given ones are: `empty_like` keeps the order of dimensions of one without gaps.
    grad_weight, grad_bias, grad_gate, grad_hidden = (one.new_empty(one.shape) for one in (weight, bias, gate, hidden))
    found = like(x), grad_weight, grad_bias, grad_gate, grad_hidden
    shape = _excite_shape(x, hidden.shape[1])
    pointers = map(_at, (grad, x, *given, *found))
    _call("norm_excite_backward", ctypes.byref(shape), ACTIVATIONS.index(activation), *_how(x), *pointers)
    return found
