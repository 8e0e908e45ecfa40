"""Values for the kernels' tests, and how near to PyTorch's theirs must come."""

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume
from torch import Tensor

from triscale.kernels import status
from triscale.kernels.twins import Window

# Fewer digits than PyTorch keeps would show here; its own bf16 has 4e-3, the step of the type.
SINGLE = 1e-5
compiled = pytest.mark.skipif(status().isa is None, reason=f"no compiled kernels: {status().why}")
# Without kernels, bf16 is PyTorch's own.
types = st.sampled_from((torch.float32,) if status().isa is None else (torch.float32, torch.bfloat16))
channels = st.sampled_from((1, 2, 7, 8, 9, 16, 17, 24, 40, 63))
sides = st.integers(1, 19)
KINKS = {"none": (), "silu": (), "relu": (0.0,), "relu6": (0.0, 6.0), "hardswish": (-3.0, 3.0)}


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def gradients(function: Callable[..., Tensor], *leaves: Tensor) -> tuple[Tensor, ...]:
    """The output, and the gradient of every leaf for the same random gradient of the output."""
    copies = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    y = function(*copies)
    grad = random(*y.shape, dtype=torch.float64, seed=9).to(torch.bfloat16)  # the same in every type
    return y, *torch.autograd.grad(y, copies, grad.to(y.dtype))


def error(found: Tensor, exact: Tensor) -> float:
    """The largest error over the largest magnitude; over 1 where that is less.

    What is summed here is of the order of 1: sums that happen to cancel keep the digits of their terms, not more.
    """
    if exact.numel() == 0:
        return 0.0
    return ((found.double() - exact).abs().max() / exact.abs().max().clamp_min(1)).item()


def spread(found: Tensor, exact: Tensor) -> float:
    """The root mean square of the errors over that of the values, or over 1 where that is less."""
    if exact.numel() == 0:
        return 0.0
    return ((found.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt().clamp_min(1)).item()


def hold(function: Callable[..., Tensor], plain: Callable[..., Tensor], *leaves: Tensor, least: float = 0.0) -> None:
    """In fp32 to `SINGLE` of fp64; in bf16 as near as PyTorch, or to some roundings of the type.

    By half as much again, or eight roundings: of a few values it is luck whose rounding errors are larger. Of many see
    `test_bf16_is_no_worse_than_pytorchs`. Parameters are the same numbers in both, rounded as in autocast.
    """
    x, *rest = leaves
    exact = gradients(plain, x.double(), *(leaf.double() for leaf in rest))
    found = gradients(function, x, *rest)
    errors = [error(one, other) for one, other in zip(found, exact, strict=True)]
    if x.dtype == torch.float32:
        assert max(errors) <= SINGLE + least, errors
        return
    theirs = gradients(plain, x, *(leaf.to(x.dtype) for leaf in rest))
    for one, their, right in zip(found, theirs, exact, strict=True):
        assert error(one, right) <= max(1.5 * error(their, right), 2**-5) + least


def positive(c: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A normalisation's weight and bias."""
    return random(c, dtype=dtype, seed=1).float().abs() + 0.5, random(c, dtype=dtype, seed=2).float()


def off_the_kinks(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> None:
    """Leaves examples out in which a normalised value lies on a kink: there rounding decides what the slope is."""
    z = F.batch_norm(x.double(), None, None, weight.double(), bias.double(), training=True, eps=1e-3)
    assume(all(bool((z - kink).abs().min() > 1e-5) for kink in KINKS[activation]))


def window(height: int, width: int, kernel: int, stride: int, same: bool) -> Window:
    outs = [-(-side // stride) for side in (height, width)]
    sides = zip(outs, (height, width), strict=True)
    top, left = (max((out - 1) * stride + kernel - side, 0) // 2 if same else kernel // 2 for out, side in sides)
    return Window(stride, top, left, outs[0], outs[1])
