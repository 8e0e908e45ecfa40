"""Layers of a network that somebody changed or replaced: PyTorch's in training, as in evaluation."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from kernel_values import compiled
from test_kernels_network import distance, images, short, small, trained, used
from torch import Tensor, nn

from triscale.nn import Network, build

pytestmark = pytest.mark.usefixtures("one_thread")

PLACE = "stages.1.0"
Change = Callable[[Any], None]


class Louder(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


class Scaled(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


def drawn(layer: nn.Module) -> nn.Module:
    """With weights that are the same each time."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return layer.train()


def normalised(kind: Callable[[int], nn.Module]) -> Change:
    def change(block: Any) -> None:
        block.expand.norm = drawn(kind(block.expand.norm.num_features))

    return change


def convolved(**how: object) -> Change:
    def change(block: Any) -> None:
        for name, value in how.items():
            setattr(block.depthwise.conv, name, value)

    return change


def activated(block: Any) -> None:
    for layer in (block.expand, block.depthwise, block.squeeze_excite):
        layer.activation = nn.ReLU()


def activated_in_squeeze_excite(block: Any) -> None:
    block.squeeze_excite.activation = nn.Tanh()


def squeezed(block: Any) -> None:
    conv = block.squeeze_excite.reduce
    block.squeeze_excite.reduce = drawn(Scaled(conv.in_channels, conv.out_channels, 1))


def without_bias(block: Any) -> None:
    block.squeeze_excite.expand.bias = None


def biased(block: Any) -> None:
    for layer in (block.depthwise, block.project):
        layer.conv.bias = nn.Parameter(torch.linspace(-1, 1, layer.conv.out_channels))


def reflected(block: Any) -> None:
    conv = block.depthwise.conv
    conv.padding_mode, conv.padding, conv.dynamic = "reflect", (1, 1), False
    conv._reversed_padding_repeated_twice = [1, 1, 1, 1]


def replaced(block: Any) -> None:
    conv = block.depthwise.conv
    block.depthwise.conv = drawn(nn.Conv2d(conv.in_channels, conv.out_channels, 3, conv.stride, 1, groups=conv.groups))


def taken_out(block: Any) -> None:
    block.squeeze_excite = nn.Identity()


def wrapped(block: Any) -> None:
    block.depthwise = nn.Sequential(block.depthwise, nn.Dropout(0.0))


def spectral(block: Any) -> None:
    torch.manual_seed(3)
    torch.nn.utils.spectral_norm(block.expand.conv)


def pruned(block: Any) -> None:
    torch.nn.utils.prune.l1_unstructured(block.expand.norm, "weight", 0.5)


def overridden(place: str) -> Change:
    def change(block: Any) -> None:
        layer = block.get_submodule(place)
        before = layer.forward
        layer.forward = lambda x: before(x) * 2

    return change


def uncounted(block: Any) -> None:
    block.expand.norm.num_batches_tracked = None


def uncounted_without_momentum(block: Any) -> None:
    block.expand.norm.num_batches_tracked = block.expand.norm.momentum = None


CHANGES: dict[str, tuple[Change, tuple[str, ...]]] = {
    "activations": (activated, ("expand.norm", "depthwise.norm", "squeeze_excite")),
    "instance normalisation": (normalised(lambda n: nn.InstanceNorm2d(n, affine=True)), ("expand.norm",)),
    "group normalisation": (normalised(lambda n: nn.GroupNorm(4, n)), ("expand.norm",)),
    "a subclass of normalisation": (normalised(Louder), ("expand.norm",)),
    "synchronised normalisation": (normalised(nn.SyncBatchNorm), ("expand.norm",)),
    "dilation": (convolved(dilation=(2, 2)), ("depthwise.conv",)),
    "padding": (convolved(padding=(2, 2)), ("depthwise.conv",)),
    "the stride": (convolved(stride=(2, 2)), ("depthwise.conv",)),
    "padding that reflects": (reflected, ("depthwise.conv",)),
    "biases": (biased, ("depthwise.conv", "project.conv")),
    "another convolution": (replaced, ("depthwise.conv",)),
    "squeeze-excite's activation": (activated_in_squeeze_excite, ("squeeze_excite",)),
    "squeeze-excite's convolution": (squeezed, ("squeeze_excite",)),
    "squeeze-excite's bias": (without_bias, ("squeeze_excite",)),
    "no squeeze-excite": (taken_out, ("squeeze_excite",)),
    "a weight that a hook computes": (spectral, ("expand.conv",)),
    "normalisation with a weight that a hook computes": (pruned, ("expand.norm",)),
    "a forward of one normalisation": (overridden("expand.norm"), ("expand.norm",)),
    "a forward of one convolution": (overridden("depthwise.conv"), ("depthwise.conv",)),
    "a forward of one activation": (overridden("depthwise.activation"), ("depthwise.norm",)),
    "a forward of one squeeze-excite": (overridden("squeeze_excite"), ("squeeze_excite",)),
    "a forward of one layer with its norm": (overridden("depthwise"), ("depthwise.conv", "depthwise.norm")),
    "averages without a count": (uncounted, ()),
    "averages without a count and a momentum": (uncounted_without_momentum, ()),
    "a layer within another": (wrapped, ("depthwise.conv", "depthwise.norm")),
}


def changed(change: Change, when: str) -> Network:
    network = build(short())
    if when == "before":
        change(network.get_submodule(PLACE))
    if when != "never":
        network.use(network.with_kernels())
    if when != "before":
        change(network.get_submodule(PLACE))
    return network


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("change", [change for change, _ in CHANGES.values()], ids=CHANGES)
def test_a_layer_that_is_not_as_it_was_built_trains_as_by_pytorch(change: Change, when: str) -> None:
    pytorch, own = (
        trained(changed(change, which), images(short()), lambda network: network) for which in ("never", when)
    )
    assert distance(own, pytorch) <= 1e-4


@pytest.mark.parametrize(("change", "layers"), CHANGES.values(), ids=CHANGES)
def test_kernels_are_listed_for_layers_that_are_as_they_were_built_and_can_be_switched_off(
    change: Change, layers: tuple[str, ...]
) -> None:
    network = build(short())
    before = network.with_kernels().keys()
    change(network.get_submodule(PLACE))
    moved = {name for name in network.with_kernels() if name.startswith(f"{PLACE}.depthwise.0.")}
    assert before - network.with_kernels().keys() == {f"{PLACE}.{layer}" for layer in layers}
    assert network.with_kernels().keys() - before == moved
    network.use(())
    assert not any(getattr(module, "own_norm", False) for module in network.modules())
    if layers[:1] == ("squeeze_excite",):
        with pytest.raises(ValueError, match="is no layer of"):
            network.use([f"{PLACE}.squeeze_excite"])


@compiled
@pytest.mark.filterwarnings("ignore:The tensor attribute .* was assigned during export")
@pytest.mark.parametrize("change", [change for change, _ in CHANGES.values()], ids=CHANGES)
def test_all_other_layers_keep_their_kernels(change: Change) -> None:
    network = changed(change, "after")
    assert "norm_excite" in used(network), "the first block's"
    assert "pointwise" in used(network)


@compiled
def test_relu6_with_other_limits_is_pytorchs() -> None:
    network = build(small("mobilenet_v2")).train()
    network.use(network.with_kernels())
    before = used(network).count("norm_depthwise")
    network.get_submodule(f"{PLACE}.expand.activation").max_val = 4.0
    assert used(network).count("norm_depthwise") == before - 1
