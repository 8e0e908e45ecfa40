"""How a network is scaled where nobody names a rule: pixels are given up last, and as few as that takes."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from triscale.arch import Architecture, adapt, resolve
from triscale.arch.rounding import multiply
from triscale.costing import cost
from triscale.scaling import Budget, TooSmallError, scale_to

NAMES = ("efficientnet_b0", "efficientnet_lite0", "mobilenet_v2", "resnet18")


@given(st.sampled_from(NAMES), st.integers(16, 48), st.integers(0, 16), st.floats(5, 7))
def test_pixels_are_only_given_up_where_even_the_slimmest_network_of_more_is_too_large(
    name: str, height: int, wider: int, power: float
) -> None:
    baseline = adapt(resolve(name), resolution=(height, height + wider), channels=1, classes=10)
    limit = 10**power
    try:
        scaled = scale_to(baseline, None, Budget({"macs": limit}))
    except TooSmallError:
        assume(False)
    assert scaled.cost.macs <= limit
    pixels = scaled.architecture.resolution[0]
    if pixels < height:
        assert scaled.rule == "slim with fewer pixels"
        assert scaled.multipliers.resolution == pytest.approx(pixels / height)
        assert cost(multiply(baseline, 1e-9, 1e-9, (pixels + 1) / height)).macs > limit


@given(st.sampled_from(NAMES), st.floats(5.5, 7))
def test_the_budget_is_used_up_whatever_it_takes(name: str, power: float) -> None:
    baseline = adapt(resolve(name), resolution=(28, 28), channels=1, classes=10)
    assert scale_to(baseline, None, Budget({"macs": 10**power})).cost.macs > 0.95 * 10**power


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_below_the_slimmest_of_the_fewest_pixels_is_named(name: str) -> None:
    baseline = adapt(resolve(name), resolution=(28, 28), channels=1, classes=10)
    with pytest.raises(TooSmallError, match=r"a budget of 1k MACs is below the smallest .*×\d+ pixels"):
        scale_to(baseline, None, Budget({"macs": 1e3}))


def test_networks_that_other_limits_rule_out_are_not_measured_and_none_is_twice() -> None:
    measured: list[Architecture] = []

    def latency(network: Architecture) -> float:
        measured.append(network)
        return cost(network).macs / 1e6

    baseline = adapt(resolve("resnet18"), resolution=(224, 224), channels=3, classes=10)
    scaled = scale_to(baseline, None, Budget({"macs": 1e6, "latency": 0.9}, {"latency": latency}))
    assert scaled.cost.macs <= 0.9e6
    assert len(measured) == len(set(measured))
    assert all(cost(network).macs <= 1e6 for network in measured)


def test_a_measured_limit_gives_up_as_few_pixels() -> None:
    baseline = adapt(resolve("resnet18"), resolution=(28, 28), channels=1, classes=10)
    budget = Budget({"latency": 1.0}, {"latency": lambda network: cost(network).macs / 1e6})
    scaled = scale_to(baseline, None, budget)
    assert 0.8 < (scaled.values or {})["latency"] <= 1
    analytic = scale_to(baseline, None, Budget({"macs": 1e6}))
    assert scaled.architecture.resolution == analytic.architecture.resolution
