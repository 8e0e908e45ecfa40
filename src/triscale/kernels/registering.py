"""How an operator is made known to PyTorch, and what all of Triscale's operators share."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.autograd.function import FunctionCtx

from triscale.kernels import compiled
from triscale.kernels.twins import Window

_LIBRARY = torch.library.Library("triscale", "DEF")  # type: ignore[no-untyped-call]


def define(schema: str, real: Callable[..., Any], fake: Callable[..., Any]) -> OpOverload:
    """The operator of that schema: what it computes on any device, and what it does to shapes alone."""
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
    _LIBRARY.impl(name, real, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"triscale::{name}", fake, lib=_LIBRARY)
    operator: OpOverload = getattr(torch.ops.triscale, name).default
    return operator


class Function(torch.autograd.Function):
    """What the operators' derivatives have in common: they are those of a backward pass alone."""

    @staticmethod
    def jvp(_: "Context", *tangents: object) -> object:
        """Raises RuntimeError: there are none forwards."""
        raise _without("forward-mode derivatives")


def _without(what: str) -> RuntimeError:
    return RuntimeError(f"Triscale's kernels have no {what}; network.use(()) lets PyTorch compute all layers")


def differentiable(operator: OpOverload, function: type[Function]) -> None:
    """Lets calls that need gradients go through the function.

    On the dispatcher's autograd key itself: a small network pays half of what `register_autograd` costs.
    """

    def apply(*arguments: object) -> object:
        if torch._C._are_functorch_transforms_active():
            raise _without("derivatives under torch.func")
        return function.apply(*arguments)  # type: ignore[no-untyped-call]

    _LIBRARY.impl(operator.name().partition("::")[2], apply, "Autograd")  # type: ignore[no-untyped-call]


def only_once(operator: OpOverload) -> None:
    """Gives a backward pass's results a backward pass that raises: there are no second derivatives, and without this
    they would be taken for zeros."""

    class Twice(Function):
        @staticmethod
        def forward(_: Context, *arguments: object) -> object:
            with torch._C._AutoDispatchBelowAutograd():
                return operator(*arguments)

        @staticmethod
        def backward(_: Context, *grads: object) -> object:
            raise _without("second derivatives")

    def apply(*arguments: object) -> object:
        if torch.is_grad_enabled():
            return Twice.apply(*arguments)  # type: ignore[no-untyped-call]
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)

    _LIBRARY.impl(operator.name().partition("::")[2], apply, "Autograd")  # type: ignore[no-untyped-call]


class Context(FunctionCtx):
    """What a forward pass leaves for its backward pass."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    window: Window
    activation: str


def empty(x: Tensor, channels: int, height: int, width: int) -> Tensor:
    """A result of x's type, in channels-last order."""
    return torch.empty(
        (x.shape[0], channels, height, width), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )


def as_kernels_do(found: Tensor) -> Tensor:
    """The tensor with the strides that kernels leave, which tracing counts on."""
    out = compiled.like(found)
    return found if found.stride() == out.stride() else out.copy_(found)
