"""What the kernels promise: PyTorch's mathematics, at any shape."""

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from kernel_values import (
    channels,
    compiled,
    gradients,
    hold,
    off_the_kinks,
    positive,
    random,
    sides,
    spread,
    types,
    window,
)
from torch import Tensor

from triscale.kernels import depthwise, norm, norm_depthwise, norm_excite, pointwise, squeeze_excite, status, twins
from triscale.kernels.library import ACTIVATIONS


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
        where = twins.Window(stride, top, top, -(-shape[2] // stride), -(-shape[3] // stride))

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
    where = twins.Window(1, 2, 2, 14, 14)

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
    assert torch.equal(
        norm_depthwise(x, weight, bias, 1e-3, "silu", random(24, 1, 3, 3), twins.Window(1, 1, 1, 9, 7))[1], expected
    )
