"""The kernels as PyTorch operators, `torch.ops.triscale.*`: compiled where there is a kernel for it, else the twin.

Defined by `torch.library`, so that tracing, exporting and compiling see one operator each.
"""

import torch
from torch import Tensor

from triscale.kernels import compiled, twins
from triscale.kernels.checking import (
    check_activation,
    check_depthwise,
    check_epsilon,
    check_excite,
    check_gates,
    check_grad,
    check_norm,
    check_pointwise,
    check_statistics,
)
from triscale.kernels.passes import passes_for
from triscale.kernels.registering import Context, Function, as_kernels_do, define, differentiable, empty, only_once
from triscale.kernels.twins import Window

WINDOW = "int stride, SymInt top, SymInt left, SymInt height, SymInt width"


# Depthwise convolution


def _depthwise(x: Tensor, weight: Tensor, *window: int) -> Tensor:
    where = Window(*window)
    check_depthwise(x, weight, where)
    found = compiled.depthwise(x, weight, where) if compiled.fits(x, weight) else None
    return as_kernels_do(twins.depthwise(x, weight, where)) if found is None else found


def _depthwise_fake(x: Tensor, weight: Tensor, *window: int) -> Tensor:
    where = Window(*window)
    return empty(x, x.shape[1], where.height, where.width)


def _depthwise_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, top: int, left: int, height: int, width: int,
    wants_x: bool, wants_weight: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    window = Window(stride, top, left, height, width)
    check_depthwise(x, weight, window)
    check_grad(grad, x, (*x.shape[:2], height, width))
    arguments = grad, x, weight, window, (wants_x, wants_weight)
    found = compiled.depthwise_backward(*arguments) if compiled.fits(x, weight) else None
    if found is not None:
        return found
    grad_x, grad_weight = twins.depthwise_backward(*arguments)
    return as_kernels_do(grad_x) if wants_x else grad_x, grad_weight.contiguous()


def _depthwise_backward_fake(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, top: int, left: int, height: int, width: int,
    wants_x: bool, wants_weight: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _empty_gradients(x, weight, wants_x, wants_weight)


def _empty_gradients(x: Tensor, weight: Tensor, wants_x: bool, wants_weight: bool) -> tuple[Tensor, Tensor]:
    """Of a convolution's input and weight; of what is not wanted, no values."""
    grad_x = empty(x, *x.shape[1:]) if wants_x else x.new_empty(0)
    return grad_x, weight.new_empty(weight.shape) if wants_weight else weight.new_empty(0)


_depthwise_op = define(f"depthwise(Tensor x, Tensor weight, {WINDOW}) -> Tensor", _depthwise, _depthwise_fake)
_depthwise_backward_op = define(
    f"depthwise_backward(Tensor grad, Tensor x, Tensor weight, {WINDOW}, bool wants_x, bool wants_weight)"
    " -> (Tensor, Tensor)",
    _depthwise_backward,
    _depthwise_backward_fake,
)


class _DepthwiseFunction(Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor, *window: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.window = Window(*window)
        with torch._C._AutoDispatchBelowAutograd():
            found: Tensor = _depthwise_op(x, weight, *window)
        return found

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:2]
        found = _depthwise_backward_op(grad, *ctx.saved_tensors, *ctx.window, *wanted)
        return *(g if want else None for g, want in zip(found, wanted, strict=True)), *[None] * 5


differentiable(_depthwise_op, _DepthwiseFunction)
only_once(_depthwise_backward_op)


# Convolution with a 1×1 kernel


def _pointwise(x: Tensor, weight: Tensor) -> Tensor:
    check_pointwise(x, weight)
    return compiled.pointwise(x, weight) if compiled.fits(x, weight) else as_kernels_do(twins.pointwise(x, weight))


def _pointwise_fake(x: Tensor, weight: Tensor) -> Tensor:
    return empty(x, weight.shape[0], *x.shape[2:])


def _pointwise_backward(
    grad: Tensor, x: Tensor, weight: Tensor, wants_x: bool, wants_weight: bool
) -> tuple[Tensor, Tensor]:
    check_pointwise(x, weight)
    check_grad(grad, x, (x.shape[0], weight.shape[0], *x.shape[2:]))
    if compiled.fits(x, weight):
        return compiled.pointwise_backward(grad, x, weight, (wants_x, wants_weight))
    grad_x, grad_weight = twins.pointwise_backward(grad, x, weight, (wants_x, wants_weight))
    return as_kernels_do(grad_x) if wants_x else grad_x, grad_weight.contiguous()


def _pointwise_backward_fake(
    grad: Tensor, x: Tensor, weight: Tensor, wants_x: bool, wants_weight: bool
) -> tuple[Tensor, Tensor]:
    return _empty_gradients(x, weight, wants_x, wants_weight)


_pointwise_op = define("pointwise(Tensor x, Tensor weight) -> Tensor", _pointwise, _pointwise_fake)
_pointwise_backward_op = define(
    "pointwise_backward(Tensor grad, Tensor x, Tensor weight, bool wants_x, bool wants_weight) -> (Tensor, Tensor)",
    _pointwise_backward,
    _pointwise_backward_fake,
)


class _PointwiseFunction(Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        with torch._C._AutoDispatchBelowAutograd():
            found: Tensor = _pointwise_op(x, weight)
        return found

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:2]
        found = _pointwise_backward_op(grad, *ctx.saved_tensors, *wanted)
        return tuple(g if want else None for g, want in zip(found, wanted, strict=True))


differentiable(_pointwise_op, _PointwiseFunction)
only_once(_pointwise_backward_op)


# Batch normalisation and activation


def empty_wide(x: Tensor, *shape: int) -> Tensor:
    """What is summed of x: in double precision where x is, else in single."""
    return x.new_empty(shape, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)


def _norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, activation: str) -> tuple[Tensor, Tensor]:
    check_norm(x, weight, bias, activation)
    check_epsilon(epsilon)
    if compiled.fits(x, weight, bias):
        return compiled.norm(x, weight, bias, epsilon, activation)
    y, statistics = twins.norm(x, weight, bias, epsilon, activation)
    return as_kernels_do(y), statistics


def _norm_fake(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, activation: str) -> tuple[Tensor, Tensor]:
    return empty(x, *x.shape[1:]), empty_wide(x, 3, x.shape[1])


def _norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    check_norm(x, weight, bias, activation)
    check_grad(grad, x, x.shape)
    check_statistics(statistics, x)
    if compiled.fits(x, weight, bias, statistics):
        return compiled.norm_backward(grad, x, weight, bias, statistics, activation)
    grad_x, grad_weight, grad_bias = twins.norm_backward(grad, x, weight, bias, statistics, activation)
    return as_kernels_do(grad_x), grad_weight, grad_bias


def _norm_backward_fake(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    return empty(x, *x.shape[1:]), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


_norm_op = define(
    "norm(Tensor x, Tensor weight, Tensor bias, float epsilon, str activation) -> (Tensor, Tensor)", _norm, _norm_fake
)
_norm_backward_op = define(
    "norm_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor statistics, str activation)"
    " -> (Tensor, Tensor, Tensor)",
    _norm_backward,
    _norm_backward_fake,
)


class _NormFunction(Function):
    @staticmethod
    def forward(
        ctx: Context, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, activation: str
    ) -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            y, statistics = _norm_op(x, weight, bias, epsilon, activation)
        ctx.save_for_backward(x, weight, bias, statistics)
        ctx.activation = activation
        ctx.mark_non_differentiable(statistics)
        ctx.set_materialize_grads(False)
        return y, statistics

    @staticmethod
    def backward(ctx: Context, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 5
        return *_norm_backward_op(grad, *ctx.saved_tensors, ctx.activation), None, None


differentiable(_norm_op, _NormFunction)
only_once(_norm_backward_op)


# Squeeze-excite


def _excite(
    x: Tensor, reduce: Tensor, reduce_bias: Tensor, expand: Tensor, expand_bias: Tensor, activation: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    check_excite(x, reduce, reduce_bias, expand, expand_bias)
    check_activation(activation)
    passes = passes_for(x, reduce, reduce_bias, expand, expand_bias)
    pooled = passes.pool(x)
    hidden, gate = passes.gates(pooled, (reduce, reduce_bias, expand, expand_bias), activation)
    return as_kernels_do(passes.scale(x, gate, None)), pooled, hidden, gate


def _excite_fake(x: Tensor, reduce: Tensor, *rest: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    pooled, hidden = empty_wide(x, *x.shape[:2]), empty_wide(x, x.shape[0], reduce.shape[0])
    return empty(x, *x.shape[1:]), pooled, hidden, torch.empty_like(pooled)


def _excite_backward(
    grad: Tensor, x: Tensor, pooled: Tensor, hidden: Tensor, gate: Tensor, reduce: Tensor, expand: Tensor,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    check_grad(grad, x, x.shape)
    check_grad(gate, pooled, x.shape[:2])
    check_activation(activation)
    check_gates(x, pooled, hidden, gate, reduce, expand)
    passes = passes_for(x, pooled, hidden, gate, reduce, expand)
    pixels = x.shape[2] * x.shape[3]
    grad_gate, grad_hidden, terms = passes.gates_backward(
        passes.dot(x, grad), hidden, gate, reduce, expand, activation, pixels
    )
    # What flows back through the averages joins what flows through the scaling in one pass.
    grad_x = as_kernels_do(passes.scale(grad, gate, terms))
    return grad_x, *passes.layers_backward(pooled, hidden, grad_gate, grad_hidden, reduce, expand, activation)


def _excite_backward_fake(
    grad: Tensor, x: Tensor, pooled: Tensor, hidden: Tensor, gate: Tensor, reduce: Tensor, expand: Tensor,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    biases = reduce.new_empty(reduce.shape[:1]), expand.new_empty(expand.shape[:1])
    return empty(x, *x.shape[1:]), reduce.new_empty(reduce.shape), biases[0], expand.new_empty(expand.shape), biases[1]


_excite_op = define(
    "squeeze_excite(Tensor x, Tensor reduce, Tensor reduce_bias, Tensor expand, Tensor expand_bias, str activation)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _excite,
    _excite_fake,
)
_excite_backward_op = define(
    "squeeze_excite_backward(Tensor grad, Tensor x, Tensor pooled, Tensor hidden, Tensor gate, Tensor reduce,"
    " Tensor expand, str activation) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _excite_backward,
    _excite_backward_fake,
)


class _ExciteFunction(Function):
    @staticmethod
    def forward(
        ctx: Context,
        x: Tensor,
        reduce: Tensor,
        reduce_bias: Tensor,
        expand: Tensor,
        expand_bias: Tensor,
        activation: str,
    ) -> tuple[Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():
            y, pooled, hidden, gate = _excite_op(x, reduce, reduce_bias, expand, expand_bias, activation)
        ctx.save_for_backward(x, pooled, hidden, gate, reduce, expand)
        ctx.activation = activation
        ctx.mark_non_differentiable(pooled, hidden, gate)
        ctx.set_materialize_grads(False)
        return y, pooled, hidden, gate

    @staticmethod
    def backward(ctx: Context, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 6
        return *_excite_backward_op(grad, *ctx.saved_tensors, ctx.activation), None


differentiable(_excite_op, _ExciteFunction)
only_once(_excite_backward_op)


# What networks call


def cast(x: Tensor) -> Tensor:
    """As autocast does to what a convolution gets; parameters stay in fp32, kernels take them so."""
    device = x.device.type
    known = torch.amp.is_autocast_available(device)  # of others, as of meta, it is an error to ask what is enabled
    if x.dtype == torch.float32 and known and torch.is_autocast_enabled(device):
        return x.to(torch.get_autocast_dtype(device))
    return x


def depthwise(x: Tensor, weight: Tensor, stride: int, top: int, left: int, height: int, width: int) -> Tensor:
    """Depthwise convolution, (n, c, h, w) and (c, 1, k, k) → (n, c, height, width).

    Output row i sees input rows i·stride − top to i·stride − top + k − 1, those outside count as 0; columns likewise.
    Kernels are there for k of 3, 5, 7 and strides 1 and 2. Raises ValueError where the shapes do not fit.
    """
    found: Tensor = _depthwise_op(cast(x), weight, stride, top, left, height, width)
    return found


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """Convolution with a 1×1 kernel, (n, inputs, h, w) and (outputs, inputs, 1, 1) → (n, outputs, h, w).

    Raises ValueError where the shapes do not fit.
    """
    found: Tensor = _pointwise_op(cast(x), weight)
    return found


def norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, activation: str) -> tuple[Tensor, Tensor]:
    """Batch normalisation with the batch's own statistics, then the activation: (n, c, h, w) → the same shape.

    The second result, (3, c), holds means, 1/√(variance + epsilon) and unbiased variances, without gradients.
    Raises ValueError where shapes do not fit, for an epsilon that is not above 0 and for a single value per channel.
    """
    y, statistics = _norm_op(x, weight, bias, epsilon, activation)
    return y, statistics


def squeeze_excite(
    x: Tensor, reduce: Tensor, reduce_bias: Tensor, expand: Tensor, expand_bias: Tensor, activation: str
) -> Tensor:
    """x·sigmoid(expand·activation(reduce·averages of x)); reduce is (s, c), expand (c, s). Raises ValueError."""
    found: Tensor = _excite_op(cast(x), reduce, reduce_bias, expand, expand_bias, activation)[0]
    return found
