"""Networks that compute the same are one network to a search."""

from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from specs import SKIPS, architectures

from triscale.arch import (
    Architecture,
    Basic,
    Block,
    Conv,
    FusedMBConv,
    MBConv,
    Stage,
    Stem,
    published,
)
from triscale.arch.spec import MAX_REPEATS
from triscale.costing import cost
from triscale.costing.convolutions import squeezed
from triscale.nn import build
from triscale.searching.networks import plainest, plainest_ratio

MOBILE = published("mobilenet_v2")


@settings(max_examples=100)
@given(architectures(), st.data())
def test_networks_that_compute_the_same_have_one_description(network: Architecture, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(network.stages) - 1))
    stages = list(network.stages)
    block = data.draw(st.sampled_from(alike(stages[place].block)))
    stages[place] = replace(stages[place], block=block, skip=data.draw(st.sampled_from(SKIPS)))
    other = replace(network, stages=tuple(stages))
    assert plainest(plainest(network)) == plainest(network)
    first, second, plain = (build(one, seed=0).eval() for one in (network, other, plainest(network)))
    assert sizes(first) == sizes(plain)
    assert cost(plainest(network)).memory == cost(network).memory
    if plainest(network) != plainest(other):
        return
    assert sizes(first) == sizes(second)
    x = torch.randn((2, network.channels, *network.resolution), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(first(x), second(x))
        assert torch.equal(first(x), plain(x))


def alike(block: Block) -> list[Block]:
    """The block, and some that may compute the same."""
    found: list[Block] = [block]
    if isinstance(block, Conv | FusedMBConv):
        found += [Conv(block.kernel, block.activation), FusedMBConv(block.kernel, 1, 0.0, block.activation)]
    if isinstance(block, MBConv | FusedMBConv):
        found += [replace(block, squeeze_excite=ratio) for ratio in (0.04, 0.05, 0.24, 0.25, 0.26, 0.3, 1.0)]
    return found


def sizes(module: torch.nn.Module) -> list[torch.Size]:
    return [tensor.shape for tensor in module.state_dict().values()]


def test_a_shortcut_that_adds_nothing_makes_no_other_network() -> None:
    first, *others = MOBILE.stages
    alone = replace(MOBILE, stages=(replace(first, skip="none"), *others))
    assert alone != MOBILE
    assert plainest(alone) == plainest(MOBILE)
    shortened = replace(MOBILE, stages=(first, replace(others[0], skip="none"), *others[1:]))
    assert plainest(shortened) != plainest(MOBILE)


def of_stages(*stages: Stage) -> Architecture:
    return Architecture(stages, stem=Stem(8), resolution=(32, 32), name="mine")


def test_a_fused_mbconv_that_is_a_convolution_alone_makes_no_other_network() -> None:
    conv = of_stages(Stage(Conv(3, "relu"), 16, repeats=2))
    fused = of_stages(Stage(FusedMBConv(3, 1, 0.0, "relu"), 16, repeats=2))
    assert plainest(fused) == plainest(conv)
    for other in (FusedMBConv(3, 1, 0.25, "relu"), FusedMBConv(3, 2, 0.0, "relu"), FusedMBConv(3, 1, 0.0, "silu")):
        assert plainest(of_stages(Stage(other, 16, repeats=2))) != plainest(conv)


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_basic_block_without_shortcut_is_two_convolutions_and_no_other_network(kernel: int) -> None:
    basic = of_stages(Stage(Basic(kernel, "silu"), 16, 2, stride=2, skip="none"), Stage(Conv(3, "relu"), 24))
    conv = of_stages(Stage(FusedMBConv(kernel, 1, 0.0, "silu"), 16, 4, stride=2, skip="none"), basic.stages[1])
    assert plainest(basic) == plainest(conv)
    first, second = (build(one, seed=0).eval() for one in (basic, conv))
    second.load_state_dict(dict(zip(second.state_dict(), first.state_dict().values(), strict=True)))
    x = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(first(x), second(x))
    for skip in ("identity", "pool"):  # here something is added
        assert plainest(of_stages(replace(basic.stages[0], skip=skip), basic.stages[1])) != plainest(conv)
    most = of_stages(Stage(Basic(kernel), 16, MAX_REPEATS, skip="none"))
    assert plainest(most) == most


def test_ratios_that_squeeze_to_as_many_channels_make_no_other_network() -> None:
    def squeezing(ratio: float, repeats: int) -> Architecture:
        return plainest(of_stages(Stage(MBConv(3, 3, ratio), 16, repeats)))

    assert squeezing(0.25, 1) == squeezing(0.3, 1)  # of eight channels two
    assert squeezing(0.25, 2) == squeezing(0.3, 2)  # and of sixteen four
    assert squeezing(0.25, 1) == squeezing(0.33, 1)
    assert squeezing(0.25, 2) != squeezing(0.33, 2)  # of sixteen five
    assert squeezing(0.01, 2) == squeezing(0.12, 2)  # one is the least
    assert len({squeezing(0.0, 1), squeezing(0.1, 1), squeezing(0.25, 1), squeezing(0.5, 1)}) == 4


@given(st.sets(st.integers(1, 4096), min_size=1, max_size=2), st.floats(0.001, 1), st.floats(0.001, 1))
def test_the_plainest_ratio_is_one_and_the_same_for_all_that_squeeze_alike(
    inputs: set[int], one: float, other: float
) -> None:
    def channels(ratio: float) -> list[int]:
        return [squeezed(count, ratio) for count in inputs]

    plain = plainest_ratio(one, inputs)
    assert channels(plain) == channels(one)
    assert (plainest_ratio(other, inputs) == plain) == (channels(other) == channels(one))
