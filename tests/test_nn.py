"""What built networks promise: seeds, initialisation, precision and compiling, stochastic depth, padding, gradients."""

import math
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from specs import architectures
from torch import Tensor, nn

from triscale.arch import ZOO, Activation, Architecture, Basic, Conv, Head, MBConv, Skip, Stage, Stem, adapt, published
from triscale.costing import layers
from triscale.nn import Network, build
from triscale.nn.layers import Conv2d, Shortcut, same_padding

pytestmark = pytest.mark.usefixtures("one_thread")

B0 = published("efficientnet_b0")
SMALL = adapt(B0, resolution=(32, 32), classes=10)
SMALL_NETWORKS = ("efficientnet_b0", "efficientnet_lite0", "mobilenet_v1", "mnasnet_a1", "resnet50")


def images(architecture: Architecture, n: int = 2, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, architecture.channels, *architecture.resolution, generator=generator)


def settled(architecture: Architecture) -> Network:
    """In evaluation mode, with normalisation statistics of random images, so that logits depend on the image."""
    network = build(architecture).eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        network(images(architecture, 8, seed=2))
    return network.eval()


def small(name: str) -> Architecture:
    return adapt(published(name), resolution=(32, 32), classes=10)


def test_the_same_seed_builds_the_same_weights_and_another_seed_others() -> None:
    one, same, other = (build(SMALL, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    weights = [name for name, tensor in one.items() if tensor.is_floating_point() and tensor.std() > 0]
    assert len(weights) > 60
    assert not any(torch.equal(one[name], other[name]) for name in weights)


def test_building_touches_no_global_generator() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build(SMALL, seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    second = build(SMALL, seed=1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet50"])
def test_weights_start_with_the_official_codes_spread(name: str) -> None:
    network = build(published(name))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            depthwise = module.groups > 1
            fan_out = module.kernel_size[0] ** 2 * (1 if depthwise else module.out_channels)
            expected, n = math.sqrt(2 / fan_out), module.weight.numel()
            assert module.weight.std().item() == pytest.approx(expected, rel=6 / math.sqrt(2 * n))
            assert abs(module.weight.mean().item()) < 6 * expected / math.sqrt(n)
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.running_var, torch.ones_like(module.weight))
            assert not module.bias.any()
            assert not module.running_mean.any()
    bound, weight = 1 / math.sqrt(1000), network.head.classifier.weight
    assert weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert not network.head.classifier.bias.any()


def test_normalisation_has_the_architectures_epsilon_and_pytorchs_view_of_its_momentum() -> None:
    for name, epsilon, momentum in (("efficientnet_b0", 1e-3, 0.01), ("resnet50", 1e-5, 0.1)):
        norms = [module for module in build(published(name)).modules() if isinstance(module, nn.BatchNorm2d)]
        assert {norm.eps for norm in norms} == {epsilon}
        assert all(norm.momentum == pytest.approx(momentum) for norm in norms)


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_channels_last_gives_the_same_logits(name: str) -> None:
    network, x = settled(small(name)), images(small(name))
    with torch.no_grad():
        expected = network(x)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        logits = network(x.contiguous(memory_format=torch.channels_last))
    assert (logits - expected).abs().max() <= 1e-3 * expected.abs().max()


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_bf16_autocast_is_close_to_fp32_and_trains(name: str) -> None:
    architecture = small(name)
    # Statistics as built: those of random images would blow every rounding up, layer by layer.
    network, x = build(architecture).eval(), images(architecture)
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(x)
    assert logits.dtype == torch.bfloat16
    assert expected.abs().max() > 0
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(network.train()(x), torch.tensor([0, 1]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.fixture
def no_compiled() -> None:
    """What was compiled before for other sizes makes the compiler look for code that fits all, for many minutes."""
    torch._dynamo.reset()


@pytest.mark.usefixtures("no_compiled")
@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet50"])
def test_compiling_without_a_backend_changes_no_logit(name: str) -> None:
    network, x = settled(adapt(published(name), resolution=(33, 32), classes=10)), images(small(name))
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(network, backend="aot_eager", fullgraph=True)(x), network(x))


@pytest.mark.slow
@pytest.mark.usefixtures("no_compiled")
@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet50"])
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
@pytest.mark.skipif(" " in torch.__path__[0], reason="PyTorch's compiler cannot link where its path has a space")
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler needs a C++ compiler")
def test_inductor_changes_no_logit(name: str) -> None:
    network, x = settled(small(name)), images(small(name))
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(network)(x), network(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v2", "resnet50"])
def test_an_export_computes_the_same_for_any_batch(name: str) -> None:
    architecture = adapt(published(name), resolution=(48, 33), classes=10)
    network = settled(architecture)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network, (images(architecture, 2),), dynamic_shapes=({0: batch},)).module()
    for n in (1, 2, 5):
        x = images(architecture, n, seed=n)
        with torch.no_grad():
            torch.testing.assert_close(program(x), network(x))


def drops(network: Network) -> list[float]:
    """Each block's drop probability, in order; 0 where it has no shortcut."""
    blocks: list[Any] = [block for stage in network.stages for block in stage.children()]
    return [block.add.drop if block.add is not None else 0.0 for block in blocks]


def test_drop_probability_grows_linearly_and_the_first_block_is_never_dropped() -> None:
    for name in ("efficientnet_b0", "efficientnet_b4"):
        architecture = published(name)
        with torch.device("meta"):
            rates = drops(Network(architecture))
        n = architecture.blocks
        assert len(rates) == n
        assert rates[0] == 0
        assert all(rate in (0.0, 0.2 * i / n) for i, rate in enumerate(rates))
        positive = [rate for rate in rates if rate > 0]
        assert len(positive) >= 9
        assert all(one < next_one for one, next_one in pairwise(positive))


def test_the_first_block_is_never_dropped_even_with_a_shortcut() -> None:
    architecture = Architecture((Stage(MBConv(), 8, 4),), stem=Stem(8), resolution=(16, 16), stochastic_depth=0.8)
    assert drops(build(architecture)) == pytest.approx([0, 0.2, 0.4, 0.6])


def test_stochastic_depth_drops_whole_samples_and_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    n, rate = 20_000, 0.3
    shortcut = Shortcut(rate, stride=1, pooled=False).train()
    x, out = torch.zeros(n, 2, 3, 3), torch.ones(n, 2, 3, 3)
    result = shortcut(x, out).flatten(1)
    assert torch.equal(result.amin(1), result.amax(1))
    assert result.unique().tolist() == pytest.approx([0, 1 / 0.7])
    # Five standard errors of a Bernoulli mean.
    assert result[:, 0].mean().item() == pytest.approx(1, abs=5 * math.sqrt(rate / (1 - rate) / n))
    assert torch.equal(shortcut.eval()(x, out), out)


def test_evaluation_repeats_and_training_with_stochastic_depth_does_not() -> None:
    torch.manual_seed(0)
    # Dropout off: what differs is stochastic depth alone. One step of statistics does not touch the batch's own.
    architecture = replace(SMALL, head=replace(SMALL.head, dropout=0.0), stochastic_depth=0.8)
    network, x = settled(architecture), images(architecture)
    with torch.no_grad():
        assert torch.equal(network(x), network(x))
        network.train()
        assert not torch.equal(network(x), network(x))


@given(architectures())
@settings(max_examples=40, deadline=None)
def test_maps_features_and_logits_have_the_shapes_that_costing_says(architecture: Architecture) -> None:
    network, x = build(architecture).eval(), images(architecture)
    found = {layer.name: layer for layer in layers(architecture)}
    with torch.no_grad():
        maps, features, logits = network.maps(x), network.features(x), network(x)
    assert len(maps) == 1 + len(architecture.stages)
    height, width = architecture.resolution
    sizes = []
    for place, stride in architecture.strides():
        height, width = -(-height // stride), -(-width // stride)
        if place != "stem":
            sizes.append((height, width))
    channels = [architecture.stem.channels, *(stage.channels for stage in architecture.stages)]
    assert [tuple(m.shape) for m in maps] == [(2, c, *size) for c, size in zip(channels, sizes, strict=True)]
    assert features.shape == (2, architecture.features)
    assert logits.shape == (2, architecture.classes)
    assert found["head.classifier"].inputs == architecture.features
    torch.testing.assert_close(network.head.classifier(features), logits)
    torch.testing.assert_close(network.features(x), network.head.pool(maps[-1]))


NAME = re.compile(
    r"(stem\.conv"
    r"|stages\.\d+\.\d+\.(conv|conv1|conv2|depthwise|pointwise|expand|project|reduce|shortcut)"
    r"|head\.conv)\.(conv\.weight|norm\.(weight|bias|running_mean|running_var|num_batches_tracked))"
    r"|stages\.\d+\.\d+\.squeeze_excite\.(reduce|expand)\.(weight|bias)"
    r"|head\.classifier\.(weight|bias)"
)


@given(architectures())
@settings(max_examples=40, deadline=None)
def test_every_tensor_is_named_by_its_place(architecture: Architecture) -> None:
    with torch.device("meta"):
        names = list(Network(architecture).state_dict())
    assert all(NAME.fullmatch(name) for name in names)
    prefixes = {layer.name for layer in layers(architecture)}
    assert {name[: max(name.find(p) + len(p) for p in prefixes if name.startswith(f"{p}."))] for name in names} == (
        prefixes
    )


@pytest.mark.parametrize("name", ZOO)
def test_every_zoo_network_names_its_tensors_by_their_place(name: str) -> None:
    with torch.device("meta"):
        assert all(NAME.fullmatch(tensor) for tensor in Network(published(name)).state_dict())


@given(architectures())
@settings(max_examples=60, deadline=None)
def test_any_network_runs_forward_and_backward_with_finite_gradients_everywhere(architecture: Architecture) -> None:
    network, x = build(architecture).train(), images(architecture, 3)
    logits = network(x)
    assert logits.isfinite().all()
    logits.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def one_stage(skip: Skip, inputs: int, outputs: int, stride: int, kernel: int = 3) -> Architecture:
    return Architecture(
        (Stage(Conv(kernel, "none"), outputs, 1, stride, skip),),
        Stem(inputs, 1, 1, "none"),
        Head(2, None, dropout=0.0),
        (9, 7),
        inputs,
    )


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(2, 5, 2), (2, 5, 1), (4, 4, 2), (4, 4, 3), (3, 3, 1)])
def test_a_pool_skip_adds_the_averaged_input_padded_with_zero_channels(inputs: int, outputs: int, stride: int) -> None:
    architecture = one_stage("pool", inputs, outputs, stride)
    network, x = build(architecture).eval(), images(architecture)
    plain = build(replace(architecture, stages=(replace(architecture.stages[0], skip="none"),))).eval()
    plain.load_state_dict(network.state_dict())
    with torch.no_grad():
        added = network.maps(x)[1] - plain.maps(x)[1]
        stem = network.maps(x)[0]
    height, width = added.shape[-2:]
    assert (height, width) == (-(-9 // stride), -(-7 // stride))
    expected = torch.zeros_like(added)
    for i in range(height):
        for j in range(width):
            window = stem[:, :, i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
            expected[:, :inputs, i, j] = window.mean((2, 3))
    torch.testing.assert_close(added, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("skip", "inputs", "outputs", "stride", "adds"),
    [
        ("pool", 5, 2, 1, False), ("pool", 5, 2, 2, False), ("identity", 4, 4, 1, True), ("identity", 4, 4, 2, False),
        ("identity", 4, 5, 1, False), ("none", 4, 4, 1, False), ("none", 4, 5, 2, False),
    ],
)  # fmt: skip
def test_a_shortcut_stands_only_where_the_skip_allows(
    skip: Skip, inputs: int, outputs: int, stride: int, adds: bool
) -> None:
    block: Any = build(one_stage(skip, inputs, outputs, stride)).stages[0]
    assert (block[0].add is not None) == adds


def test_a_resnet_block_projects_its_shortcut_where_shapes_differ_and_ends_in_an_activation() -> None:
    architecture = Architecture((Stage(Basic(), 6, 2, 2),), Stem(4), Head(2, None), (16, 16))
    network = build(architecture).eval()
    names = [layer.name for layer in layers(architecture)]
    assert "stages.0.0.shortcut" in names
    assert "stages.0.1.shortcut" not in names
    with torch.no_grad():
        assert (network.maps(images(architecture))[1] >= 0).all()


def naive_same(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """TensorFlow's SAME convolution of (n, c, h, w), window by window."""
    kernel = weight.shape[-1]
    height, width = (math.ceil(side / stride) for side in x.shape[-2:])
    starts = []
    for side, out in zip(x.shape[-2:], (height, width), strict=True):
        total = max((out - 1) * stride + kernel - side, 0)
        starts.append(total // 2)  # the odd pixel goes below and to the right
    result = x.new_zeros(x.shape[0], weight.shape[0], height, width)
    for i in range(height):
        for j in range(width):
            for a in range(kernel):
                for b in range(kernel):
                    row, column = i * stride + a - starts[0], j * stride + b - starts[1]
                    if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                        result[:, :, i, j] += x[:, :, row, column] @ weight[:, :, a, b].T
    return result


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("resolution", [(8, 8), (9, 7), (5, 10)])
def test_same_padding_is_tensorflows(kernel: int, stride: int, resolution: tuple[int, int]) -> None:
    architecture = Architecture(
        (Stage(Conv(), 2),), Stem(3, kernel, stride, "none"), Head(2), resolution, channels=2, padding="same"
    )
    conv: Any = build(architecture).stem.conv
    x = images(architecture)
    with torch.no_grad():
        torch.testing.assert_close(conv.conv(x), naive_same(x, conv.conv.weight, stride), rtol=1e-4, atol=1e-5)


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from((1, 3, 5, 7)), st.integers(1, 4), st.floats(-5, 5))
def test_same_padding_never_crops_and_surrounds_by_the_value(
    height: int, width: int, kernel: int, stride: int, value: float
) -> None:
    x = torch.ones(1, 1, height, width, dtype=torch.float64)
    padded = same_padding(x, kernel, stride, value)
    extra = padded.numel() - x.numel()
    assert extra >= 0
    assert padded.sum().item() == pytest.approx(x.numel() + extra * value, abs=1e-6)


def test_pooling_in_the_stem_never_sees_the_padding() -> None:
    for padding in ("same", "symmetric"):
        architecture = Architecture(
            (Stage(Conv(), 2),), Stem(2, 1, 1, "none", pool=2), Head(2), (7, 8), channels=2, padding=padding
        )
        network: Any = build(architecture).eval()
        x = -images(architecture).abs() - 1
        with torch.no_grad():
            network.stem.conv.conv.weight.copy_(torch.eye(2)[:, :, None, None])
            pooled = network.stem(x)
        assert pooled.shape[-2:] == (4, 4)
        assert (pooled < 0).all()


@pytest.mark.parametrize("activation", ["silu", "relu", "relu6", "hardswish", "none"])
def test_each_activation_is_the_one_named(activation: Activation) -> None:
    expected: Any = {
        "silu": lambda x: x * torch.sigmoid(x),
        "relu": lambda x: x.clamp(min=0),
        "relu6": lambda x: x.clamp(0, 6),
        "hardswish": lambda x: x * (x + 3).clamp(0, 6) / 6,
        "none": lambda x: x,
    }[activation]
    network = build(Architecture((Stage(Conv(activation=activation), 2),), Stem(2), Head(2), (16, 16)))
    x = torch.linspace(-8, 8, 33)
    block: Any = network.stages[0]
    torch.testing.assert_close(block[0].conv.activation(x), expected(x))


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize(("inputs", "outputs", "side"), [(8, 16, 64), (4, 16, 56), (12, 16, 64), (8, 32, 112)])
def test_narrow_shortcuts_of_large_maps_learn(inputs: int, outputs: int, side: int, padding: str) -> None:
    # oneDNN's own gradient of a strided 1x1 convolution with so few channels, channels last, ends the process.
    conv = Conv2d(inputs, outputs, 1, 2, 1, padding).to(memory_format=torch.channels_last)  # type: ignore[arg-type]
    x = torch.randn(4, inputs, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
    conv(x).square().sum().backward()
    dense, weight = (one.detach().double().requires_grad_() for one in (x, conv.weight))  # another library computes it
    F.conv2d(dense, weight, stride=2).square().sum().backward()
    torch.testing.assert_close(conv.weight.grad, weight.grad.float(), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(x.grad, dense.grad.float(), rtol=1e-4, atol=1e-4)
