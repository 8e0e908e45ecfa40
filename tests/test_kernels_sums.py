"""What the kernels promise of sums: equal values, of which real inputs are full, cost no digits, and nothing is counted
that no window sees."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from kernel_values import compiled, random
from torch import Tensor

from triscale.kernels import depthwise, norm, norm_depthwise, norm_excite, squeeze_excite, status, twins
from triscale.kernels.library import ISAS
from triscale.kernels.twins import Window

Function = Callable[..., Tensor]
SINGLE = 1e-5  # the largest error over the largest magnitude
SHAPES = (64, 16, 28, 28), (16, 32, 28, 28), (17, 40, 33, 14), (5, 24, 61, 31)


def uniform(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def rectified(*shape: int) -> Tensor:
    return random(*shape).sub(1).relu()


def sparse(*shape: int) -> Tensor:
    return random(*shape) * (uniform(*shape, seed=1) < 0.05)


def bordered(*shape: int) -> Tensor:
    """As images of digits are."""
    return uniform(*shape, seed=2) * F.pad(torch.ones(shape[2] - 12, shape[3] - 12), (6, 6, 6, 6))


def constant(*shape: int) -> Tensor:
    return torch.full(shape, 1 / 3)


def positive(*shape: int) -> Tensor:
    return uniform(*shape, seed=3)


def normed(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    return twins.activate(F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-3), activation)


def excited(y: Tensor, layers: tuple[Tensor, ...], activation: str) -> Tensor:
    hidden = twins.activate(F.linear(y.mean((2, 3)), *layers[:2]), activation)
    return y * F.linear(hidden, *layers[2:]).sigmoid()[:, :, None, None]


def pairs(shape: tuple[int, ...], activation: str) -> dict[str, tuple[Function, Function, tuple[Tensor, ...]]]:
    """Of every operator that sums over pixels: ours, PyTorch's, and parameters."""
    c, where = shape[1], Window(1, 1, 1, shape[2], shape[3])
    scales = torch.ones(c), torch.full((c,), 0.3)
    taps = random(c, 1, 3, 3, seed=4) / 3
    layers = tuple(random(*size, seed=5) / 3 for size in ((4, c), (4,), (c, 4), (c,)))
    return {
        "norm": (
            lambda x, w, b: norm(x, w, b, 1e-3, activation)[0],
            lambda x, w, b: normed(x, w, b, activation),
            scales,
        ),
        "norm_depthwise": (
            lambda x, w, b, t: norm_depthwise(x, w, b, 1e-3, activation, t, where)[0],
            lambda x, w, b, t: twins.depthwise(normed(x, w, b, activation), t, where),
            (*scales, taps),
        ),
        "norm_excite": (
            lambda x, w, b, *rest: norm_excite(x, w, b, 1e-3, activation, rest)[0],
            lambda x, w, b, *rest: excited(normed(x, w, b, activation), rest, activation),
            (*scales, *layers),
        ),
        "squeeze_excite": (
            lambda x, a, b, c, d: squeeze_excite(x, a, b, c, d, activation),
            lambda x, *rest: excited(x, rest, activation),
            layers,
        ),
    }


def results(function: Function, grad: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    copies = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    y = function(*copies)
    return y.detach(), *torch.autograd.grad(y, copies, grad.to(y.dtype))


@compiled
@pytest.mark.parametrize("kind", ["norm", "norm_depthwise", "norm_excite", "squeeze_excite"])
@pytest.mark.parametrize("make", [rectified, sparse, bordered])
@pytest.mark.parametrize("backward", [positive, constant])
def test_many_equal_values_cost_no_digits(kind: str, make: Function, backward: Function) -> None:
    for shape in SHAPES:
        x, grad = make(*shape), backward(*shape)
        # Without an activation a constant gradient leaves no more than rounding of the gradients in front of it.
        for activation in ("silu", "none") if backward is positive else ("silu",):
            own, plain, rest = pairs(shape, activation)[kind]
            exact = results(plain, grad, x.double(), *(leaf.double() for leaf in rest))
            for found, right in zip(results(own, grad, x, *rest), exact, strict=True):
                assert (found - right).abs().max() <= SINGLE * right.abs().max(), (shape, activation)


@compiled
@pytest.mark.parametrize("activation", ["silu", "hardswish"])
@pytest.mark.parametrize("kind", ["norm", "norm_depthwise", "norm_excite"])
def test_a_channel_of_one_value_gets_no_gradient_from_roundings_in_bf16(kind: str, activation: str) -> None:
    shape = 8, 16, 14, 14
    x = random(*shape)
    x[:, 3] = 0.1
    own, plain, rest = pairs(shape, activation)[kind]
    if kind == "norm_depthwise":  # windows of one value: those of more see less at the border
        rest = (*rest[:2], rest[2] * F.pad(torch.ones(1, 1), (1, 1, 1, 1)))
    grad = torch.full(shape, 0.3).bfloat16()
    _, found, *_ = results(own, grad, x.bfloat16(), *rest)
    _, exact, *_ = results(plain, grad, x.bfloat16().double(), *(leaf.double() for leaf in rest))
    # What is left in every channel is the rounding of the type, of numbers as large as those that cancel.
    centred = found[:, 3].double().mean() - exact[:, 3].mean()
    assert centred.abs() <= 1e-4
    if kind != "norm_excite":  # there images differ in their gates
        assert found[:, 3].abs().max() <= 1e-4


@compiled
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_columns_that_no_window_sees_are_not_in_the_weights_gradient(kernel: int, stride: int) -> None:
    for outputs in range(1, 12):
        seen = (outputs - 1) * stride + kernel
        x = random(2, 16, 9, seen + 3)
        x[..., seen:] = torch.nan
        rows = (9 - kernel) // stride + 1
        grads = []
        for values in (x, x[..., :seen]):
            weight = random(16, 1, kernel, kernel, seed=1).requires_grad_()
            y = depthwise(values, weight, stride, 0, 0, rows, outputs)
            grads.append(torch.autograd.grad(y.square().sum(), weight)[0])
        assert torch.equal(*grads)


@compiled
def test_the_taps_gradient_of_a_constant_map_keeps_its_digits() -> None:
    for shape in ((1, 16, 181, 181), (64, 16, 14, 14)):
        where, grad = Window(1, 1, 1, *shape[2:]), constant(*shape)
        x, taps = torch.full(shape, 0.7), random(shape[1], 1, 3, 3, seed=1)
        leaf, exact = taps.clone().requires_grad_(), taps.double().requires_grad_()
        found = torch.autograd.grad(depthwise(x, leaf, *where), leaf, grad)[0]
        right = torch.autograd.grad(twins.depthwise(x.double(), exact, where), exact, grad.double())[0]
        assert (found - right).abs().max() <= SINGLE * right.abs().max()


@compiled
def test_averages_of_constant_maps_keep_all_digits() -> None:
    for shape in SHAPES[1:]:
        own, plain, rest = pairs(shape, "silu")["squeeze_excite"]
        x, grad = constant(*shape), constant(*shape)
        exact = results(plain, grad, x.double(), *(leaf.double() for leaf in rest))
        for found, right in zip(results(own, grad, x, *rest), exact, strict=True):
            assert (found - right).abs().max() <= 1e-6 * right.abs().max(), shape


@pytest.mark.slow
@compiled
def test_sums_keep_their_digits_in_every_instruction_set() -> None:
    for isa in ISAS[: ISAS.index(status().isa or "baseline")]:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", Path(__file__)],
            env={**os.environ, "TRISCALE_ISA": isa},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
