"""What the kernels are to PyTorch: operators, with the same bits for any layout and number of threads."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from kernel_values import SINGLE, compiled, error, random, window
from torch import Tensor, nn
from torch.autograd import forward_ad

from triscale.kernels import compiled as calling
from triscale.kernels import depthwise, norm, norm_depthwise, norm_excite, pointwise, squeeze_excite, status, twins
from triscale.kernels.library import ACTIVATIONS
from triscale.nn.layers import joined


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def operators(
    x: Tensor, activation: str = "silu", parameters: torch.dtype | None = None
) -> list[tuple[Any, tuple[Any, ...]]]:
    """Every operator with arguments for it."""
    c, wide = x.shape[1], torch.float64 if x.dtype == torch.float64 else torch.float32
    here: dict[str, Any] = {"dtype": parameters or wide, "seed": 3}
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
    for place in range(len(operators(random(2, 8, 5, 4)))):
        x = random(2, 8, 5, 4).requires_grad_()
        operator, arguments = operators(x)[place]
        y = operator(*arguments)
        # Of the sum: nothing that comes in from behind needs a gradient, but what was kept does.
        (grad,) = torch.autograd.grad((y if isinstance(y, Tensor) else y[0]).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="no second derivatives"):
            grad.sum().backward()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by forward_ad itself
def test_derivatives_that_kernels_do_not_have_name_the_way_out() -> None:
    x = random(2, 8, 5, 4)
    for operator, arguments in operators(x):

        def first(x: Tensor, operator: Any = operator, rest: tuple[Any, ...] = arguments[1:]) -> Tensor:
            y = operator(x, *rest)
            return y.sum() if isinstance(y, Tensor) else y[0].sum()

        with pytest.raises(RuntimeError, match=r"no derivatives under torch.func; network.use\(\(\)\) lets PyTorch"):
            torch.func.grad(first)(x)
        with pytest.raises(RuntimeError, match="no forward-mode derivatives"), forward_ad.dual_level():
            first(forward_ad.make_dual(x, torch.ones_like(x)))


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


def spread_out(parameter: Tensor) -> Tensor:
    """The same values, with others between them."""
    wide = torch.stack([parameter.detach(), torch.full_like(parameter, 1e9)], -1)
    return wide[..., 0].requires_grad_()


@compiled
def test_parameters_of_any_layout_give_the_same_bits_forward_and_backward() -> None:
    x = random(2, 24, 9, 7)
    for operator, arguments in operators(x):
        found = []
        for lay in (spread_out, lambda parameter: parameter.detach().clone().requires_grad_()):
            given = [lay(one) if isinstance(one, Tensor) and one is not x else one for one in arguments]
            y = operator(*given)
            y = y if isinstance(y, Tensor) else y[0]
            y.square().sum().backward()
            found.append([y, *(one.grad for one in given if isinstance(one, Tensor) and one.requires_grad)])
        assert all(map(torch.equal, *found)), operator


@compiled
@pytest.mark.parametrize("kind", ["norm_excite", "squeeze_excite"])
def test_what_a_forward_pass_left_may_lie_in_any_order(kind: str) -> None:
    x = random(3, 24, 5, 4)
    ((operator, arguments),) = (one for one in operators(x) if one[0].name() == f"triscale::{kind}")
    given = [one.detach() if isinstance(one, Tensor) else one for one in arguments]
    layers, activation = given[-6:-2] if kind == "norm_excite" else given[1:5], given[-1]
    _, *left = operator(*given)
    first = [random(*x.shape, seed=1), x, *(given[1:3] if kind == "norm_excite" else ())]
    backward = getattr(torch.ops.triscale, f"{kind}_backward")
    found = [
        backward(*first, *some, layers[0], layers[2], activation)
        for some in (left, [one.t().contiguous().t() for one in left])
    ]
    assert all(map(torch.equal, *found))


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
    excite = layers[0], ones[:2], layers[1], ones
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
        lambda: squeeze_excite(x, *(one.reshape(*one.shape, 1, 1) for one in excite), "silu"),
        lambda: squeeze_excite(x, *excite, "gelu"),
        lambda: norm_depthwise(x, ones, ones, 1e-3, "silu", weight[:3], (1, 1, 1, 3, 3)),
        lambda: norm_excite(x, ones, ones, 1e-3, "silu", (torch.ones(2, 7), ones[:2], layers[1], ones)),
        # What a forward pass left is not taken on trust either: a kernel would read beyond it.
        lambda: names.norm_backward(x, x, ones, ones, ones[None], "silu"),
        lambda: names.norm_depthwise_backward(x, x, ones, ones, ones[None], weight, "silu", 1, 1, 1, 5, 4),
        lambda: names.norm_excite_backward(x, x, ones, ones, found, gates, few, gates, *layers, "silu"),
        lambda: names.norm_excite_backward(x, x, ones, ones, found, gates[:1], gates[:, :2], gates, *layers, "silu"),
        lambda: names.squeeze_excite_backward(x, x, gates, few, gates, *layers, "silu"),
        lambda: names.squeeze_excite_backward(x, x, gates[:1], gates[:, :2], gates, *layers, "silu"),
        lambda: names.squeeze_excite_backward(x, x, torch.ones(64, 8), gates[:, :2], gates, *layers, "silu"),
        lambda: names.squeeze_excite_backward(x, x, gates, gates[:, :2], gates, *layers, "gelu"),
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
@pytest.mark.parametrize(
    ("n", "channels", "squeezed", "side"),
    [(128, 144, 6, 7), (128, 24, 3, 4), (256, 240, 10, 4), (256, 1152, 48, 1), (128, 333, 300, 2)],
)
def test_nor_does_it_in_the_small_layers_of_squeeze_excite(
    n: int, channels: int, squeezed: int, side: int, threads: Callable[[int], None]
) -> None:
    """Where PyTorch computes them, it cuts such products, and functions of so many values, by the number of threads."""
    x = random(n, channels, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
    layers = random(squeezed, channels), random(squeezed), random(channels, squeezed), random(channels)
    scale, bias = random(channels).abs() + 0.5, random(channels)
    leaves = [one.requires_grad_() for one in (x, *layers)]
    results = []
    for count in (1, 2, 3, 4):
        threads(count)
        found: list[Tensor] = []
        for y in (squeeze_excite(x, *layers, "silu"), norm_excite(x, scale, bias, 1e-3, "silu", layers)[0]):
            found += [y, *torch.autograd.grad(y, leaves, torch.cos(y.detach()))]
        results.append(found)
    for others in results[1:]:
        assert all(map(torch.equal, results[0], others))


@compiled
@pytest.mark.parametrize(("n", "channels", "squeezed"), [(1, 1, 1), (5, 33, 2), (128, 144, 6), (33, 672, 28)])
def test_the_small_layers_of_squeeze_excite_are_their_twins(n: int, channels: int, squeezed: int) -> None:
    pooled, dots = random(n, channels, seed=1), random(n, channels, seed=2)
    reduce, expand = random(squeezed, channels) / channels**0.5, random(channels, squeezed) / squeezed**0.5
    layers = reduce, random(squeezed), expand, random(channels)
    found: list[Tensor] = []
    wanted: list[Tensor] = []
    passes: Any
    for passes, values, to in ((calling, found, torch.float32), (twins, wanted, torch.float64)):
        reduce, _, expand, _ = own = tuple(layer.to(to) for layer in layers)
        hidden, gate = passes.gates(pooled.to(to), own, "silu")
        grads = passes.gates_backward(dots.to(to), hidden, gate, reduce, expand, "silu", 9)
        last = passes.layers_backward(pooled.to(to), hidden, *grads[:2], reduce, expand, "silu")
        values += [hidden, gate, *grads, *last]
    for one, other in zip(found, wanted, strict=True):
        assert one.is_contiguous()
        assert error(one, other) <= SINGLE


@compiled
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_statistics_keep_their_digits_far_from_zero(offset: float) -> None:
    x = (random(8, 24, 20, 20, dtype=torch.float64) + offset).float()
    statistics = norm(x, torch.ones(24), torch.zeros(24), 1e-3, "none")[1]
    variance, mean = torch.var_mean(x.double(), (0, 2, 3), correction=1)
    assert (statistics[0] - mean).abs().max() <= 1e-6 * (1 + offset)
    assert (statistics[2] / variance - 1).abs().max() <= 1e-5


@compiled
@pytest.mark.parametrize("n", [3, 8, 32])
@pytest.mark.parametrize(("base", "corner", "deviation"), [(1e3, 0.0, 1.0), (30.0, 13.0, 0.1), (1.0, 0.0, 0.01)])
def test_statistics_keep_their_digits_where_corners_are_like_nothing_else(
    n: int, base: float, corner: float, deviation: float
) -> None:
    x = random(n, 16, 28, 28, dtype=torch.float64) * deviation + base
    x[:, :, 0, 0] = corner
    x = x.float().contiguous(memory_format=torch.channels_last)
    y, statistics = norm(x, torch.ones(16), torch.zeros(16), 1e-3, "none")
    variance, mean = torch.var_mean(x.double(), (0, 2, 3), correction=1)
    assert (statistics[0] - mean).abs().max() <= 1e-6 * base
    assert (statistics[2] / variance - 1).abs().max() <= 1e-5
    exact = F.batch_norm(x.double(), None, None, training=True, eps=1e-3)
    assert (y - exact).abs().max() <= 1e-5 * exact.abs().max()


@given(
    st.tuples(*[st.integers(1, 9)] * 2),
    st.sampled_from((3, 5, 7)),
    st.tuples(st.integers(1, 2), *[st.integers(0, 20)] * 2, *[st.integers(1, 12)] * 2),
)
def test_a_window_may_lie_anywhere_on_and_beside_the_image(
    size: tuple[int, int], kernel: int, where: tuple[int, int, int, int, int]
) -> None:
    found = []
    for dtype in (torch.float32, torch.float64):  # of double precision there is only the twin
        x, taps = random(2, 16, *size, dtype=dtype), random(16, 1, kernel, kernel, dtype=dtype, seed=1)
        leaves = x.requires_grad_(), taps.requires_grad_()
        y = depthwise(*leaves, *where)
        found.append((y, *torch.autograd.grad(y.square().sum(), leaves)))
    for one, exact in zip(*found, strict=True):
        assert one.shape == exact.shape
        assert (one - exact).abs().max() <= 1e-5 * exact.abs().max().clamp_min(1)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 21), (1, 22), (2, 12), (4, 11), (5, 21), (1, 61)])
def test_a_stride_without_a_kernel_of_its_own_is_not_taken_for_another(kernel: int, stride: int) -> None:
    x, taps = (one.requires_grad_() for one in (random(1, 16, 64, 64), random(16, 1, kernel, kernel, seed=1)))
    side = (64 - kernel) // stride + 1
    found = [depthwise(x, taps, stride, 0, 0, side, side), F.conv2d(x, taps, None, stride, 0, 1, 16)]
    gradients = [torch.autograd.grad(y.square().sum(), (x, taps)) for y in found]
    for one, exact in zip(*((y, *some) for y, some in zip(found, gradients, strict=True)), strict=True):
        torch.testing.assert_close(one, exact, rtol=1e-4, atol=1e-4)


TYPES = torch.float32, torch.float64, torch.bfloat16, torch.float16


@pytest.mark.parametrize("values", TYPES)
@pytest.mark.parametrize("parameters", TYPES)
def test_values_and_parameters_may_be_of_any_two_types(values: torch.dtype, parameters: torch.dtype) -> None:
    x = random(2, 24, 5, 4, dtype=values).contiguous(memory_format=torch.channels_last).requires_grad_()
    exact = [a[0] if isinstance(a, tuple) else a for a in (op(*given) for op, given in operators(x.double().detach()))]
    for (operator, arguments), wanted in zip(operators(x, parameters=parameters), exact, strict=True):
        found = operator(*arguments)
        y = found if isinstance(found, Tensor) else found[0]
        assert y.dtype == values
        assert (y - wanted).abs().max() <= 0.05 * wanted.abs().max()
        leaves = [a for a in arguments if isinstance(a, Tensor)]
        assert [g.dtype for g in torch.autograd.grad(y.float().sum(), leaves)] == [a.dtype for a in leaves]
        torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))


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


@compiled
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit that the system holds")
def test_where_the_system_refuses_threads_those_there_are_do_the_work() -> None:
    code = (
        "import ctypes, resource\n"
        "from triscale.kernels.library import load\n"
        "library, _ = load()\n"  # and no team: it starts threads itself
        "x, means = (ctypes.c_float * (64 * 4 * 16))(*[3.0] * (64 * 4 * 16)), (ctypes.c_float * (64 * 16))()\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 20),) * 2)\n"  # less than a thread's stack
        "assert library.triscale_pool(64, 4, 16, 0, 8, x, means) == 0\n"
        "print({*means})\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "{3.0}\n"), ran.stderr


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_extreme_and_missing_numbers_stay_what_they_are(activation: str) -> None:
    x = random(4, 16, 8, 8)
    x[0, 3, 0, 0], x[1, 5, 0, 0] = math.nan, 1e30
    y = norm(x, torch.ones(16), torch.zeros(16), 1e-3, activation)[0]
    assert y[:, 3].isnan().all()
    assert y[:, [c for c in range(16) if c not in (3, 5)]].isfinite().all()
    big = norm(random(4, 16, 8, 8), torch.full((16,), 1e4), torch.zeros(16), 1e-3, activation)[0]
    assert big.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_other_than_floating_point_numbers_are_refused_by_the_name_of_their_type(dtype: torch.dtype) -> None:
    for operator, arguments in operators(random(2, 24, 5, 4)):
        for place, argument in enumerate(arguments):
            if isinstance(argument, Tensor):
                given = [*arguments[:place], argument.detach().to(dtype), *arguments[place + 1 :]]
                with pytest.raises(TypeError, match=f"^{dtype}: "):
                    operator(*given)


@pytest.mark.parametrize("epsilon", [0.0, -1e-3, math.nan])
def test_an_epsilon_that_is_not_above_0_is_refused(epsilon: float) -> None:
    taken = 0
    for operator, arguments in operators(random(2, 24, 5, 4)):
        given = [epsilon if isinstance(argument, float) else argument for argument in arguments]
        if any(isinstance(argument, float) for argument in arguments):
            with pytest.raises(ValueError, match=f"eps must be positive, not {epsilon}"):
                operator(*given)
            taken += 1
    assert taken == 3, "normalisation alone, and before a convolution or squeeze-excite"


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
