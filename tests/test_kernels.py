"""What the kernels promise: PyTorch's mathematics, at any shape, in the same bits for any number of threads."""

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from torch import Tensor, nn

from triscale.kernels import compiled as calling
from triscale.kernels import (
    depthwise,
    norm,
    norm_depthwise,
    norm_excite,
    pointwise,
    squeeze_excite,
    status,
    twins,
)
from triscale.kernels.library import ACTIVATIONS
from triscale.nn.layers import joined

# Fewer digits than PyTorch keeps would show here; its own bf16 has 4e-3, the step of the type.
SINGLE = 1e-5
compiled = pytest.mark.skipif(status().isa is None, reason=f"no compiled kernels: {status().why}")
# Without kernels, bf16 is PyTorch's own.
types = st.sampled_from((torch.float32,) if status().isa is None else (torch.float32, torch.bfloat16))
channels = st.sampled_from((1, 2, 7, 8, 9, 16, 17, 24, 40, 63))
sides = st.integers(1, 19)
KINKS = {"none": (), "silu": (), "relu": (0.0,), "relu6": (0.0, 6.0), "hardswish": (-3.0, 3.0)}


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


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


def window(height: int, width: int, kernel: int, stride: int, same: bool) -> tuple[int, int, int, int, int]:
    outs = [-(-side // stride) for side in (height, width)]
    sides = zip(outs, (height, width), strict=True)
    top, left = (max((out - 1) * stride + kernel - side, 0) // 2 if same else kernel // 2 for out, side in sides)
    return stride, top, left, outs[0], outs[1]


@given(
    st.integers(1, 5), channels, sides, sides, st.sampled_from((3, 5, 7)), st.sampled_from((1, 2)), st.booleans(), types
)
@settings(max_examples=150)
def test_depthwise_is_the_convolution(
    n: int, c: int, height: int, width: int, kernel: int, stride: int, same: bool, dtype: torch.dtype
) -> None:
    where = window(height, width, kernel, stride, same)
    weight = random(c, 1, kernel, kernel, dtype=dtype, seed=1).float()

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return twins.depthwise(x, weight, where)

    hold(lambda x, w: depthwise(x, w, *where), plain, random(n, c, height, width, dtype=dtype), weight)


@pytest.mark.parametrize("shape", [(2, 40, 64, 61), (33, 8, 5, 6)])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_cutting_images_into_strips_or_taking_several_at_once_changes_nothing(
    shape: tuple[int, int, int, int], kernel: int, stride: int
) -> None:
    """A backward pass over a large image, and over many small ones."""
    for top in (0, kernel // 2, kernel - 1):
        where = stride, top, top, -(-shape[2] // stride), -(-shape[3] // stride)

        def plain(x: Tensor, taps: Tensor, where: twins.Window = where) -> Tensor:
            return twins.depthwise(x, taps, where)

        def normed(x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor, where: twins.Window = where) -> Tensor:
            return norm_depthwise(x, weight, bias, 1e-3, "silu", taps, where)[0]

        def apart(x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor, where: twins.Window = where) -> Tensor:
            z = F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-3)
            return twins.depthwise(F.silu(z), taps, where)

        for dtype in (torch.float32,) if status().isa is None else (torch.float32, torch.bfloat16):
            x, taps = random(*shape, dtype=dtype), random(shape[1], 1, kernel, kernel, dtype=dtype, seed=3).float()
            hold(lambda x, w, where=where: depthwise(x, w, *where), plain, x, taps)
            hold(normed, apart, x, *positive(shape[1], dtype), taps, least=1e-5)


@given(st.integers(1, 5), channels, st.integers(1, 70), sides, sides, types)
@settings(max_examples=100)
def test_pointwise_is_the_convolution(
    n: int, c: int, outputs: int, height: int, width: int, dtype: torch.dtype
) -> None:
    weight = random(outputs, c, 1, 1, dtype=dtype, seed=1).float()
    hold(pointwise, F.conv2d, random(n, c, height, width, dtype=dtype), weight, least=1e-5)


@given(st.integers(1, 2), channels, st.integers(1, 70), st.integers(2, 60), types, st.data())
def test_a_pixel_that_is_no_number_leaves_the_others_alone(
    n: int, c: int, outputs: int, pixels: int, dtype: torch.dtype, data: st.DataObject
) -> None:
    """Values are multiplied several at once: those of the pixel beside are not among them."""
    weight = random(outputs, c, 1, 1, seed=1)
    x, grad = random(n, c, 1, pixels, dtype=dtype), random(n, outputs, 1, pixels, dtype=dtype, seed=2)
    spoiled = data.draw(st.integers(0, pixels - 1))
    x[-1, :, 0, spoiled] = grad[-1, :, 0, spoiled] = torch.nan
    leaf = x.clone().requires_grad_()
    y = pointwise(leaf, weight)
    for found in (y.detach(), *torch.autograd.grad(y, leaf, grad)):
        assert found[-1, :, 0, spoiled].isnan().all()
        assert found.isnan().sum() == found.shape[1]


@given(st.integers(1, 5), channels, sides, sides, st.sampled_from(ACTIVATIONS), types)
@settings(max_examples=150)
def test_norm_is_batch_normalisation_and_the_activation(
    n: int, c: int, height: int, width: int, activation: str, dtype: torch.dtype
) -> None:
    if n * height * width < 8:  # statistics of a few values leave a gradient of nothing but rounding
        n = 8
    x = random(n, c, height, width, dtype=dtype) * 2 + 1
    off_the_kinks(x, *positive(c, dtype), activation)

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return twins.activate(F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-3), activation)

    hold(lambda *leaves: norm(*leaves, 1e-3, activation)[0], plain, x, *positive(c, dtype), least=1e-5)


@given(st.integers(1, 4), channels, sides, sides, st.integers(1, 9), st.sampled_from(ACTIVATIONS), types)
@settings(max_examples=100)
def test_squeeze_excite_is_what_the_layers_compute(
    n: int, c: int, height: int, width: int, squeezed: int, activation: str, dtype: torch.dtype
) -> None:
    shapes = (squeezed, c), (squeezed,), (c, squeezed), (c,)
    parameters = [random(*shape, dtype=dtype, seed=i).float() for i, shape in enumerate(shapes)]

    def plain(x: Tensor, reduce: Tensor, reduce_bias: Tensor, expand: Tensor, expand_bias: Tensor) -> Tensor:
        hidden = twins.activate(F.linear(x.mean((2, 3)), reduce, reduce_bias), activation)
        return x * F.linear(hidden, expand, expand_bias).sigmoid()[:, :, None, None]

    x = random(n, c, height, width, dtype=dtype, seed=7)
    # Sums over a few values of either sign may cancel; beside their terms they are exact.
    hold(lambda x, *rest: squeeze_excite(x, *rest, activation), plain, x, *parameters, least=5e-5)


@given(
    st.integers(1, 5),
    channels,
    sides,
    sides,
    st.sampled_from((3, 5, 7)),
    st.sampled_from((1, 2)),
    st.booleans(),
    st.sampled_from(ACTIVATIONS),
    types,
)
@settings(max_examples=150)
def test_norm_depthwise_is_the_one_after_the_other(
    n: int, c: int, height: int, width: int, kernel: int, stride: int, same: bool, activation: str, dtype: torch.dtype
) -> None:
    if n * height * width < 8:
        n = 8
    where = window(height, width, kernel, stride, same)
    weight, bias = positive(c, dtype)
    taps = random(c, 1, kernel, kernel, dtype=dtype, seed=3).float() / kernel

    def plain(x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor) -> Tensor:
        y = twins.activate(F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-3), activation)
        return twins.depthwise(y, taps, where)

    def own(x: Tensor, weight: Tensor, bias: Tensor, taps: Tensor) -> Tensor:
        return norm_depthwise(x, weight, bias, 1e-3, activation, taps, where)[0]

    x = random(n, c, height, width, dtype=dtype) * 2 + 1
    off_the_kinks(x, weight, bias, activation)
    hold(own, plain, x, weight, bias, taps, least=2e-5)


@given(st.integers(1, 4), channels, sides, sides, st.integers(1, 9), st.sampled_from(ACTIVATIONS), types)
@settings(max_examples=100)
def test_norm_excite_is_the_one_after_the_other(
    n: int, c: int, height: int, width: int, squeezed: int, activation: str, dtype: torch.dtype
) -> None:
    if n * height * width < 8:
        n = 8
    shapes = (squeezed, c), (squeezed,), (c, squeezed), (c,)
    layers = [random(*shape, dtype=dtype, seed=i).float() for i, shape in enumerate(shapes)]

    def plain(x: Tensor, weight: Tensor, bias: Tensor, *layers: Tensor) -> Tensor:
        y = twins.activate(F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-3), activation)
        hidden = twins.activate(F.linear(y.mean((2, 3)), *layers[:2]), activation)
        return y * F.linear(hidden, *layers[2:]).sigmoid()[:, :, None, None]

    def own(x: Tensor, weight: Tensor, bias: Tensor, *layers: Tensor) -> Tensor:
        reduce, reduce_bias, expand, expand_bias = layers
        return norm_excite(x, weight, bias, 1e-3, activation, (reduce, reduce_bias, expand, expand_bias))[0]

    x = random(n, c, height, width, dtype=dtype, seed=7) * 2 + 1
    off_the_kinks(x, *positive(c, dtype), activation)
    hold(own, plain, x, *positive(c, dtype), *layers, least=5e-5)


@compiled
def test_bf16_is_no_worse_than_pytorchs() -> None:
    c, here = 40, torch.bfloat16
    x = random(16, c, 14, 14, dtype=here) * 2 + 1
    (weight, bias), taps = positive(c, here), random(c, 1, 5, 5, dtype=here, seed=3).float() / 5
    dense = random(24, c, 1, 1, dtype=here, seed=4).float() / 6
    layers = [random(*shape, dtype=here, seed=5).float() / 3 for shape in ((10, c), (10,), (c, 10), (c,))]
    where = (1, 2, 2, 14, 14)

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.silu(F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-3))

    def excite(x: Tensor, *layers: Tensor) -> Tensor:
        hidden = F.silu(F.linear(x.mean((2, 3)), *layers[:2]))
        return x * F.linear(hidden, *layers[2:]).sigmoid()[:, :, None, None]

    def own_excite(x: Tensor, weight: Tensor, bias: Tensor, *layers: Tensor) -> Tensor:
        reduce, reduce_bias, expand, expand_bias = layers
        return norm_excite(x, weight, bias, 1e-3, "silu", (reduce, reduce_bias, expand, expand_bias))[0]

    cases: list[tuple[Callable[..., Tensor], Callable[..., Tensor], tuple[Tensor, ...]]] = [
        (lambda x, w: depthwise(x, w, *where), lambda x, w: twins.depthwise(x, w, where), (taps,)),
        (pointwise, F.conv2d, (dense,)),
        (lambda x, w, b: norm(x, w, b, 1e-3, "silu")[0], plain, (weight, bias)),
        (lambda x, *rest: squeeze_excite(x, *rest, "silu"), excite, tuple(layers)),
        (
            lambda x, w, b, t: norm_depthwise(x, w, b, 1e-3, "silu", t, where)[0],
            lambda x, w, b, t: twins.depthwise(plain(x, w, b), t, where),
            (weight, bias, taps),
        ),
        (own_excite, lambda x, w, b, *rest: excite(plain(x, w, b), *rest), (weight, bias, *layers)),
    ]
    for own, pytorchs, rest in cases:
        exact = gradients(pytorchs, x.double(), *(leaf.double() for leaf in rest))
        theirs = gradients(pytorchs, x, *(leaf.to(here) for leaf in rest))
        for one, their, right in zip(gradients(own, x, *rest), theirs, exact, strict=True):
            assert spread(one, right) <= spread(their, right) * 1.001  # the same rounding, where only that is left


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_joined_kernels_find_the_statistics_that_norm_finds(dtype: torch.dtype) -> None:
    x, (weight, bias) = random(3, 24, 9, 7, dtype=dtype), positive(24, torch.float32)
    layers = random(4, 24), random(4), random(24, 4), random(24)
    expected = norm(x, weight, bias, 1e-3, "silu")[1]
    assert torch.equal(norm_excite(x, weight, bias, 1e-3, "silu", layers)[1], expected)
    assert torch.equal(norm_depthwise(x, weight, bias, 1e-3, "silu", random(24, 1, 3, 3), (1, 1, 1, 9, 7))[1], expected)


def operators(x: Tensor, activation: str = "silu") -> list[tuple[Any, tuple[Any, ...]]]:
    """Every operator with arguments for it."""
    c, dtype = x.shape[1], torch.float64 if x.dtype == torch.float64 else torch.float32
    here: dict[str, Any] = {"dtype": dtype, "seed": 3}
    weight, scale, bias = random(c, 1, 3, 3, **here), random(c, **here).abs() + 0.5, random(c, **here)
    layers = random(2, c, **here), random(2, **here), random(c, 2, **here), random(c, **here)
    dense = random(5, c, 1, 1, **here)
    trained = (weight, dense, scale, bias, *layers)
    for parameter in trained:
        parameter.requires_grad_()
    where = window(x.shape[2], x.shape[3], 3, 2, same=True)
    names = torch.ops.triscale
    return [
        (names.depthwise.default, (x, weight, *where)),
        (names.pointwise.default, (x, dense)),
        (names.norm.default, (x, scale, bias, 1e-3, activation)),
        (names.squeeze_excite.default, (x, *layers, activation)),
        (names.norm_depthwise.default, (x, scale, bias, weight, 1e-3, activation, *where)),
        (names.norm_excite.default, (x, scale, bias, *layers, 1e-3, activation)),
    ]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_the_derivatives(activation: str) -> None:
    x = random(2, 3, 5, 4, dtype=torch.float64).requires_grad_()
    for operator, arguments in operators(x, activation):
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        rest = [a for a in arguments if not isinstance(a, Tensor)]

        def first(*leaves: Tensor, operator: Any = operator, rest: list[Any] = rest) -> Tensor:
            found = operator(*leaves, *rest)
            return found if isinstance(found, Tensor) else found[0]

        assert torch.autograd.gradcheck(first, tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_operators_are_what_pytorch_takes_for_operators(dtype: torch.dtype) -> None:
    x = random(2, 24, 5, 4, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    for operator, arguments in operators(x):
        torch.library.opcheck(operator, arguments)


def test_a_gradient_of_a_gradient_is_an_error() -> None:
    x = random(2, 8, 5, 4).requires_grad_()
    y = norm(x, torch.ones(8, requires_grad=True), torch.zeros(8), 1e-3, "silu")[0]
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@compiled
def test_any_layout_gives_the_same_bits_and_no_gradient_where_none_is_wanted() -> None:
    wide = random(3, 24, 9, 14)
    whole = wide[:, :, :, ::2].contiguous(memory_format=torch.channels_last)
    for x in (wide[:, :, :, ::2], whole.contiguous(), whole.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)):
        for (operator, arguments), (_, expected) in zip(operators(x), operators(whole), strict=True):
            one, other = operator(*arguments), operator(*expected)
            assert all(map(torch.equal, one, other)) if isinstance(one, tuple) else torch.equal(one, other)
    weight = random(24, 1, 3, 3).requires_grad_()
    depthwise(whole, weight, 1, 1, 1, 9, 7).sum().backward()
    assert weight.grad is not None
    frozen = whole.clone().requires_grad_()
    depthwise(frozen, weight.detach(), 1, 1, 1, 9, 7).sum().backward()
    assert frozen.grad is not None


def test_an_empty_batch_gives_an_empty_output() -> None:
    x = random(0, 8, 5, 4).requires_grad_()
    for operator, arguments in operators(x):
        y = operator(*arguments)
        y = y if isinstance(y, Tensor) else y[0]
        assert y.shape[0] == 0
        y.sum().backward()


def test_bad_shapes_and_names_are_errors() -> None:
    x, weight = random(2, 8, 5, 4), random(8, 1, 3, 3)
    ones, names = torch.ones(8), torch.ops.triscale
    found, few = torch.ones(3, 8), torch.ones(1, 2)  # few: what one image is squeezed to, and here are two
    gates, layers = torch.ones(2, 8), (torch.ones(2, 8), torch.ones(8, 2))
    for call in (
        lambda: depthwise(x, weight[:7], 1, 1, 1, 5, 4),
        lambda: depthwise(x, weight[:, :, :2], 1, 1, 1, 5, 4),
        lambda: depthwise(x[0], weight, 1, 1, 1, 5, 4),
        lambda: depthwise(x, weight, 0, 1, 1, 5, 4),
        lambda: depthwise(x, weight, 1, 1, 1, 0, 4),
        lambda: pointwise(x, weight),
        lambda: pointwise(x, torch.ones(3, 7, 1, 1)),
        lambda: norm(x, ones[:7], ones, 1e-3, "silu"),
        lambda: norm(x, ones, ones, 1e-3, "gelu"),
        lambda: norm(x[:1, :, :1, :1], ones, ones, 1e-3, "silu"),
        lambda: squeeze_excite(x, weight.flatten(1)[:3], ones[:3], weight.flatten(1)[:, :3], ones, "silu"),
        lambda: norm_depthwise(x, ones, ones, 1e-3, "silu", weight[:3], (1, 1, 1, 3, 3)),
        lambda: norm_excite(x, ones, ones, 1e-3, "silu", (torch.ones(2, 7), ones[:2], layers[1], ones)),
        # What a forward pass left is not taken on trust either: a kernel would read beyond it.
        lambda: names.norm_backward(x, x, ones, ones, ones[None], "silu"),
        lambda: names.norm_depthwise_backward(x, x, ones, ones, ones[None], weight, "silu", 1, 1, 1, 5, 4),
        lambda: names.norm_excite_backward(x, x, ones, ones, found, gates, few, gates, *layers, "silu"),
        lambda: names.squeeze_excite_backward(x, x, gates, few, gates, *layers, "silu"),
    ):
        with pytest.raises(ValueError, match=r"tensor|weight|window|activation|value|layers|statistics|found"):
            call()


@compiled
def test_the_number_of_threads_changes_no_bit(threads: Callable[[int], None]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = random(12, 40, 33, 31, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
        results = []
        for count in (1, 2, 3):
            threads(count)
            found: list[Tensor] = []
            for operator, arguments in operators(x):
                y = operator(*arguments)
                y = y if isinstance(y, Tensor) else y[0]
                leaves = [a for a in arguments if isinstance(a, Tensor)]
                found += [y, *torch.autograd.grad(y, leaves, torch.cos(y.detach()))]
            results.append(found)
        for others in results[1:]:
            assert all(map(torch.equal, results[0], others))


@compiled
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_statistics_keep_their_digits_far_from_zero(offset: float) -> None:
    x = (random(8, 24, 20, 20, dtype=torch.float64) + offset).float()
    statistics = norm(x, torch.ones(24), torch.zeros(24), 1e-3, "none")[1]
    variance, mean = torch.var_mean(x.double(), (0, 2, 3), correction=1)
    assert (statistics[0] - mean).abs().max() <= 1e-6 * (1 + offset)
    assert (statistics[2] / variance - 1).abs().max() <= 1e-5


@pytest.mark.parametrize("momentum", [0.01, 0.9, 1.0, None])
def test_running_averages_are_those_of_pytorch(momentum: float | None) -> None:
    layers = [nn.BatchNorm2d(24, eps=1e-3, momentum=momentum) for _ in range(2)]
    for i in range(3):
        x = random(4, 24, 5, 3, seed=i)
        torch.testing.assert_close(joined(x, layers[0], "none"), layers[1](x), rtol=1e-4, atol=1e-5)
    for name, value in layers[1].state_dict().items():
        torch.testing.assert_close(layers[0].state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_kernels_work_on_the_threads_of_pytorch_whoever_opened_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int | None] = []
    opened = SimpleNamespace(triscale_use_team=told.append)
    monkeypatch.setattr("triscale.kernels.compiled.load", lambda: (opened, status()))
    assert calling._library.__wrapped__() is opened
    assert told == [calling._team()]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_extreme_and_missing_numbers_stay_what_they_are(activation: str) -> None:
    x = random(4, 16, 8, 8)
    x[0, 3, 0, 0], x[1, 5, 0, 0] = math.nan, 1e30
    y = norm(x, torch.ones(16), torch.zeros(16), 1e-3, activation)[0]
    assert y[:, 3].isnan().all()
    assert y[:, [c for c in range(16) if c not in (3, 5)]].isfinite().all()
    big = norm(random(4, 16, 8, 8), torch.full((16,), 1e4), torch.zeros(16), 1e-3, activation)[0]
    assert big.isfinite().all()


def test_autocast_gives_bf16_and_keeps_parameters_in_fp32() -> None:
    x = random(2, 24, 5, 4).requires_grad_()
    weight = random(24, 1, 3, 3).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise(x, weight, 1, 1, 1, 5, 4)
        y = norm(y, torch.ones(24), torch.zeros(24), 1e-3, "silu")[0]
        y = squeeze_excite(y, random(2, 24), random(2), random(24, 2), random(24), "silu")
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert x.grad is not None
    assert weight.grad is not None
    assert x.grad.dtype == weight.grad.dtype == torch.float32
