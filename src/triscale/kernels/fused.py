"""What follows a convolution in one operator each: normalisation, activation, and the depthwise convolution or
squeeze-excite that comes next. The tensor between them is never stored; the backward pass makes it anew.

As in `operators`, compiled where there is a kernel for it, else the twin.
"""

import torch
from torch import Tensor

from triscale.kernels import compiled, twins
from triscale.kernels.checking import (
    check_depthwise,
    check_epsilon,
    check_excite,
    check_gates,
    check_grad,
    check_norm,
    check_statistics,
)
from triscale.kernels.operators import WINDOW, cast, empty_wide
from triscale.kernels.passes import passes_for
from triscale.kernels.registering import Context, Function, as_kernels_do, define, differentiable, empty, only_once
from triscale.kernels.twins import Window

# Normalisation, activation, depthwise convolution


def _norm_depthwise(
    x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor, epsilon: float, activation: str, *window: int
) -> tuple[Tensor, Tensor]:
    where = Window(*window)
    check_norm(x, weight, bias, activation)
    check_epsilon(epsilon)
    check_depthwise(x, taps, where)
    arguments = x, weight, bias, taps, epsilon, activation, where
    found = compiled.norm_depthwise(*arguments) if compiled.fits(x, weight, bias, taps) else None
    if found is not None:
        return found
    y, statistics = twins.norm_depthwise(*arguments)
    return as_kernels_do(y), statistics


def _norm_depthwise_fake(
    x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor, epsilon: float, activation: str, *window: int
) -> tuple[Tensor, Tensor]:
    where = Window(*window)
    return empty(x, x.shape[1], where.height, where.width), empty_wide(x, 3, x.shape[1])


def _norm_depthwise_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, taps: Tensor, activation: str,
    *window: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    where = Window(*window)
    check_norm(x, weight, bias, activation)
    check_depthwise(x, taps, where)
    check_grad(grad, x, (*x.shape[:2], where.height, where.width))
    check_statistics(statistics, x)
    arguments = grad, x, weight, bias, statistics, taps, activation, where
    fits = compiled.fits(x, weight, bias, statistics, taps)
    found = compiled.norm_depthwise_backward(*arguments) if fits else None
    if found is not None:
        return found
    grad_x, grad_weight, grad_bias, grad_taps = twins.norm_depthwise_backward(*arguments)
    return as_kernels_do(grad_x), grad_weight, grad_bias, grad_taps.contiguous()


def _norm_depthwise_backward_fake(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, taps: Tensor, *rest: object
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found = (parameter.new_empty(parameter.shape) for parameter in (weight, bias, taps))
    grad_weight, grad_bias, grad_taps = found
    return empty(x, *x.shape[1:]), grad_weight, grad_bias, grad_taps


_norm_depthwise_op = define(
    f"norm_depthwise(Tensor x, Tensor weight, Tensor bias, Tensor taps, float epsilon, str activation, {WINDOW})"
    " -> (Tensor, Tensor)",
    _norm_depthwise,
    _norm_depthwise_fake,
)
_norm_depthwise_backward_op = define(
    "norm_depthwise_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor statistics, Tensor taps,"
    f" str activation, {WINDOW}) -> (Tensor, Tensor, Tensor, Tensor)",
    _norm_depthwise_backward,
    _norm_depthwise_backward_fake,
)


class _NormDepthwiseFunction(Function):
    @staticmethod
    def forward(
        ctx: Context, x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor, epsilon: float, activation: str,
        *window: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        with torch._C._AutoDispatchBelowAutograd():
            y, statistics = _norm_depthwise_op(x, weight, bias, taps, epsilon, activation, *window)
        ctx.save_for_backward(x, weight, bias, statistics, taps)
        ctx.activation, ctx.window = activation, Window(*window)
        ctx.mark_non_differentiable(statistics)
        ctx.set_materialize_grads(False)
        return y, statistics

    @staticmethod
    def backward(ctx: Context, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 11
        found = _norm_depthwise_backward_op(grad, *ctx.saved_tensors, ctx.activation, *ctx.window)
        return *found, *(None,) * 7


differentiable(_norm_depthwise_op, _NormDepthwiseFunction)
only_once(_norm_depthwise_backward_op)


# Normalisation, activation, squeeze-excite


def _norm_excite(
    x: Tensor, weight: Tensor, bias: Tensor, reduce: Tensor, reduce_bias: Tensor, expand: Tensor, expand_bias: Tensor,
    epsilon: float, activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    check_norm(x, weight, bias, activation)
    check_epsilon(epsilon)
    layers = reduce, reduce_bias, expand, expand_bias
    check_excite(x, *layers)
    if compiled.fits(x, weight, bias, *layers):
        return compiled.norm_excite(x, weight, bias, layers, epsilon, activation)
    y, *rest = twins.norm_excite(x, weight, bias, layers, epsilon, activation)
    statistics, pooled, hidden, gate = rest
    return as_kernels_do(y), statistics, pooled, hidden, gate


def _norm_excite_fake(
    x: Tensor, weight: Tensor, bias: Tensor, reduce: Tensor, *rest: object
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    statistics = empty_wide(x, 3, x.shape[1])
    pooled, hidden = empty_wide(x, *x.shape[:2]), empty_wide(x, x.shape[0], reduce.shape[0])
    return empty(x, *x.shape[1:]), statistics, pooled, hidden, torch.empty_like(pooled)


def _norm_excite_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, pooled: Tensor, hidden: Tensor,
    gate: Tensor, reduce: Tensor, expand: Tensor, activation: str,
) -> tuple[Tensor, ...]:  # fmt: skip
    check_norm(x, weight, bias, activation)
    check_grad(grad, x, x.shape)
    check_statistics(statistics, x)
    check_grad(gate, pooled, x.shape[:2])
    check_gates(x, pooled, hidden, gate, reduce, expand)
    parameters = weight, bias, statistics, pooled, hidden, gate, reduce, expand
    passes = passes_for(x, *parameters)
    grad_x, grad_weight, grad_bias, grad_gate, grad_hidden = passes.norm_excite_backward(
        grad, x, weight, bias, statistics, hidden, gate, reduce, expand, activation
    )
    layers = passes.layers_backward(pooled, hidden, grad_gate, grad_hidden, reduce, expand, activation)
    return as_kernels_do(grad_x), grad_weight, grad_bias, *layers


def _norm_excite_backward_fake(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, pooled: Tensor, hidden: Tensor,
    gate: Tensor, reduce: Tensor, expand: Tensor, activation: str,
) -> tuple[Tensor, ...]:  # fmt: skip
    first = (torch.empty_like(one) for one in (weight, bias))
    layers = (one.new_empty(shape) for one in (reduce, expand) for shape in (one.shape, one.shape[:1]))
    return empty(x, *x.shape[1:]), *first, *layers


_norm_excite_op = define(
    "norm_excite(Tensor x, Tensor weight, Tensor bias, Tensor reduce, Tensor reduce_bias, Tensor expand,"
    " Tensor expand_bias, float epsilon, str activation) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _norm_excite,
    _norm_excite_fake,
)
_norm_excite_backward_op = define(
    "norm_excite_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor statistics, Tensor pooled,"
    " Tensor hidden, Tensor gate, Tensor reduce, Tensor expand, str activation)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _norm_excite_backward,
    _norm_excite_backward_fake,
)


class _NormExciteFunction(Function):
    @staticmethod
    def forward(
        ctx: Context, x: Tensor, weight: Tensor, bias: Tensor, reduce: Tensor, reduce_bias: Tensor, expand: Tensor,
        expand_bias: Tensor, epsilon: float, activation: str,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        with torch._C._AutoDispatchBelowAutograd():
            y, statistics, pooled, hidden, gate = _norm_excite_op(
                x, weight, bias, reduce, reduce_bias, expand, expand_bias, epsilon, activation
            )
        ctx.save_for_backward(x, weight, bias, statistics, pooled, hidden, gate, reduce, expand)
        ctx.activation = activation
        ctx.mark_non_differentiable(statistics, pooled, hidden, gate)
        ctx.set_materialize_grads(False)
        return y, statistics, pooled, hidden, gate

    @staticmethod
    def backward(ctx: Context, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 9
        return *_norm_excite_backward_op(grad, *ctx.saved_tensors, ctx.activation), None, None


differentiable(_norm_excite_op, _NormExciteFunction)
only_once(_norm_excite_backward_op)


# What networks call


def norm_depthwise(
    x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, activation: str, taps: Tensor, window: Window
) -> tuple[Tensor, Tensor]:
    """`depthwise` of what `norm` makes of x, (n, c, h, w) → (n, c, height, width); and its statistics, (3, c).

    Raises ValueError as those two do.
    """
    y, statistics = _norm_depthwise_op(cast(x), weight, bias, taps, epsilon, activation, *window)
    return y, statistics


def norm_excite(
    x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, activation: str,
    layers: tuple[Tensor, Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`squeeze_excite` of what `norm` makes of x, with the same activation, (n, c, h, w) → the same shape; and the
    statistics, (3, c). layers: what reduces and expands, each with its bias. Raises ValueError as those two do.
    """
    y, statistics, *_ = _norm_excite_op(cast(x), weight, bias, *layers, epsilon, activation)
    return y, statistics
