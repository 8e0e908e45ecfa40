"""What rules, multipliers and the budget solver promise."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given, settings
from hypothesis.strategies import DrawFn

from triscale.arch import ZOO, Architecture, Conv, Stage, Stem, adapt, multiply, published
from triscale.arch.rounding import largest_multipliers
from triscale.costing import cost
from triscale.errors import UserError
from triscale.scaling import (
    RULES,
    Budget,
    Coefficients,
    Exponents,
    Multipliers,
    Power,
    Rule,
    Scaled,
    Step,
    find_rule,
    grow,
    solve,
)

B0 = published("efficientnet_b0")
PAPER = Coefficients(1.2, 1.1, 1.15)
POWERS = tuple(name for name in RULES if name != "tiny")
WIDENING = tuple(name for name, rule in RULES.items() if rule.moves_width)
ANALYTIC = ("macs", "params", "activations", "size")


@st.composite
def shares(draw: DrawFn) -> Exponents:
    parts = [draw(st.floats(0, 1)) for _ in range(3)]
    assume(sum(parts) > 1e-3)
    depth, width = parts[0] / sum(parts), parts[1] / sum(parts)
    return Exponents(depth, width, max(0.0, 1 - depth - width))


def used(scaled: Scaled) -> float:
    assert scaled.limits is not None
    return max(float(getattr(scaled.cost, term)) / limit for term, limit in scaled.limits.items())


def rebuilt(scaled: Scaled) -> Architecture:
    """The official member at the multipliers, with the reported steps made by hand."""
    m = scaled.multipliers
    official = multiply(scaled.baseline, m.depth, m.width, m.resolution)
    for step in scaled.trim:
        assert step.official != step.channels
        if step.place == "stem":
            assert official.stem.channels == step.official
            official = replace(official, stem=replace(official.stem, channels=step.channels))
        elif step.place == "head":
            assert official.head.channels == step.official
            official = replace(official, head=replace(official.head, channels=step.channels))
        else:
            stages, index = list(official.stages), int(step.place.removeprefix("stages."))
            assert stages[index].channels == step.official
            stages[index] = replace(stages[index], channels=step.channels)
            official = replace(official, stages=tuple(stages))
    return official


@given(shares(), st.floats(1e-6, 1e6))
def test_exponents_meet_the_factor_exactly(exponents: Exponents, factor: float) -> None:
    m = exponents.at(factor)
    assert m.factor == pytest.approx(factor, rel=1e-9)
    assert m.depth * m.width**2 * m.resolution**2 == m.factor


@given(shares(), st.floats(1.1, 8))
def test_exponents_and_coefficients_say_the_same(exponents: Exponents, product: float) -> None:
    coefficients = exponents.coefficients(product)
    assert coefficients.product == pytest.approx(product, rel=1e-9)
    back = coefficients.exponents()
    assert back.depth == pytest.approx(exponents.depth, abs=1e-9)
    assert back.width == pytest.approx(exponents.width, abs=1e-9)
    assert back.resolution == pytest.approx(exponents.resolution, abs=1e-9)
    phi = math.log(7) / math.log(product)
    assert coefficients.at(phi).factor == pytest.approx(exponents.at(7).factor, rel=1e-9)


def test_the_papers_coefficients_have_the_product_1_920() -> None:
    assert round(PAPER.product, 3) == 1.920
    rule = RULES["compound"]
    assert isinstance(rule, Power)
    assert rule.coefficients == PAPER


@pytest.mark.parametrize("phi", [-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.5, 7.0])
def test_phi_of_compound_gives_the_papers_powers_exactly(phi: float) -> None:
    grown = grow(B0, RULES["compound"], phi=phi)
    assert grown.multipliers == Multipliers(1.2**phi, 1.1**phi, 1.15**phi)
    assert grown.architecture == multiply(B0, 1.2**phi, 1.1**phi, 1.15**phi)
    assert grown.asked == 2**phi
    assert grown.nominal == pytest.approx(PAPER.product**phi)


def test_one_step_of_phi_is_nominally_1_920_and_really_more() -> None:
    grown = grow(B0, RULES["compound"], phi=1)
    assert grown.architecture.resolution == (258, 258)
    assert [stage.repeats for stage in grown.architecture.stages] == [2, 3, 3, 4, 4, 5, 2]
    assert round(grown.nominal, 3) == 1.920
    assert grown.realised == cost(grown.architecture).macs / 385_814_752
    assert grown.realised > grown.nominal


@pytest.mark.parametrize("name", POWERS)
@pytest.mark.parametrize("factor", [0.1, 0.5, 1.0, 2.0, 10.0])
def test_every_rule_meets_the_nominal_factor(name: str, factor: float) -> None:
    grown = grow(B0, RULES[name], factor=factor)
    assert grown.asked == factor
    assert grown.nominal == pytest.approx(factor, rel=1e-9)
    assert grown.trim == ()


@pytest.mark.parametrize("name", RULES)
def test_a_factor_of_one_is_the_baseline_with_its_name(name: str) -> None:
    grown = grow(B0, RULES[name], factor=1.0)
    assert grown.architecture == B0
    assert grown.architecture.name == "efficientnet_b0"
    assert grown.realised == 1


@pytest.mark.parametrize(
    ("name", "moved"),
    [("depth", (True, False, False)), ("width", (False, True, False)), ("resolution", (False, False, True)),
     ("compound", (True, True, True)), ("uniform", (True, True, True)), ("fast", (True, True, True)),
     ("tiny", (True, True, True))],
)  # fmt: skip
def test_a_rule_moves_the_dimensions_it_names(name: str, moved: tuple[bool, bool, bool]) -> None:
    m = RULES[name].at_factor(0.3)
    assert (m.depth != 1, m.width != 1, m.resolution != 1) == moved
    assert RULES[name].moves_width == moved[1]


@pytest.mark.parametrize("name", POWERS)
@given(zoo=st.sampled_from(tuple(ZOO)), one=st.floats(-6, 6), other=st.floats(-6, 6))
@settings(max_examples=40, deadline=None)
def test_a_larger_factor_never_costs_less(name: str, zoo: str, one: float, other: float) -> None:
    rule, low, high = RULES[name], *(2**phi for phi in sorted((one, other)))
    try:
        small, large = (grow(published(zoo), rule, factor=factor).cost for factor in (low, high))
    except UserError:
        assume(False)
    assert all(getattr(small, term) <= getattr(large, term) for term in ANALYTIC)


@given(st.floats(1e-6, 1.0))
def test_tiny_meets_every_factor_up_to_one(factor: float) -> None:
    assert RULES["tiny"].at_factor(factor).factor == pytest.approx(factor, rel=1e-9)


def test_tiny_goes_through_the_published_networks() -> None:
    for depth, width, pixels in ((0.85, 0.54, 184), (0.695, 0.54, 152), (0.6, 0.51, 106)):
        m = RULES["tiny"].at_factor(depth * width**2 * (pixels / 224) ** 2)
        assert (m.depth, m.width, m.resolution * 224) == pytest.approx((depth, width, pixels), rel=1e-9)


def test_tiny_keeps_more_pixels_than_compound() -> None:
    tiny, compound = (RULES[name].at_factor(0.3) for name in ("tiny", "compound"))
    assert tiny.resolution > compound.resolution


def test_tiny_refuses_growth() -> None:
    with pytest.raises(UserError, match="only shrinks; a factor of 2 grows: take compound"):
        grow(B0, RULES["tiny"], factor=2)
    with pytest.raises(UserError, match="only shrinks"):
        grow(B0, RULES["tiny"], phi=1)
    with pytest.raises(UserError, match="above what efficientnet_b0 itself costs"):
        solve(B0, RULES["tiny"], Budget({"macs": 400e6}))


def test_tiny_gives_the_baseline_for_its_own_budget() -> None:
    assert solve(B0, RULES["tiny"], Budget({"macs": cost(B0).macs})).architecture == B0


@given(st.floats(1e-4, 1.0), st.floats(1e-4, 1.0), st.sampled_from(tuple(ZOO)))
def test_tiny_never_makes_a_network_dearer(one: float, other: float, zoo: str) -> None:
    low, high = (grow(published(zoo), RULES["tiny"], factor=factor) for factor in sorted((one, other)))
    assert low.cost.macs <= high.cost.macs <= cost(published(zoo)).macs


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_that_is_none_is_named(factor: float) -> None:
    with pytest.raises(UserError, match="is not positive"):
        grow(B0, RULES["compound"], factor=factor)


@pytest.mark.parametrize("phi", [64.0, -64.0, float("nan"), float("inf")])
def test_a_phi_out_of_reach_is_named(phi: float) -> None:
    with pytest.raises(UserError, match="out of reach"):
        grow(B0, RULES["compound"], phi=phi)


def test_factor_and_phi_together_or_neither_are_refused() -> None:
    with pytest.raises(UserError, match="either a factor or φ"):
        grow(B0, RULES["compound"])
    with pytest.raises(UserError, match="either a factor or φ"):
        grow(B0, RULES["compound"], factor=2, phi=1)


def check_grown(rule: Rule, **asked: float) -> None:
    """A network, or a short word on why there is none; no other error passes."""
    try:
        grown = grow(B0, rule, **asked)
    except UserError as error:
        message = str(error)
    else:
        assert grown.cost.macs > 0
        return
    assert len(message) < 300


@given(
    st.sampled_from(tuple(RULES)),
    st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    st.floats(-63.9, 63.9),
)
@settings(max_examples=200, deadline=None)
def test_growing_by_anything_is_a_network_or_a_user_error(name: str, factor: float, phi: float) -> None:
    for asked in ({"factor": factor}, {"phi": phi}):
        check_grown(RULES[name], **asked)


@given(*[st.floats(1, 100)] * 3, st.floats(-63, 63))
@settings(max_examples=200, deadline=None)
def test_no_step_of_any_coefficients_overflows(alpha: float, beta: float, gamma: float, phi: float) -> None:
    assume(alpha * beta**2 * gamma**2 > 1)
    check_grown(find_rule(Coefficients(alpha, beta, gamma)), phi=phi)


@pytest.mark.parametrize("values", [(0.9, 1.1, 1.1), (1.0, 1.0, 1.0), (1.2, float("nan"), 1.0), (1.2, 1e200, 1.0)])
def test_coefficients_that_shrink_stand_still_or_overflow_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(UserError, match="coefficients"):
        Coefficients(*values)


@pytest.mark.parametrize("values", [(0.5, 0.5, 0.5), (-0.1, 0.6, 0.5), (float("nan"), 0.5, 0.5), (0.0, 0.0, 0.0)])
def test_shares_that_are_negative_or_do_not_sum_to_one_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(UserError, match="exponents"):
        Exponents(*values)


def test_a_rule_is_found_by_name_shares_file_and_value(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"alpha": 1.3, "beta": 1, "gamma": 1.2, "interval": [1, 2]}), encoding="utf-8")
    assert find_rule("compound") is RULES["compound"]
    assert find_rule("0.2,0.5,0.3").at_factor(4).factor == pytest.approx(4)
    assert find_rule(str(path)).at_phi(1) == Multipliers(1.3, 1.0, 1.2)
    assert find_rule(str(path)).name == "measured"
    assert not find_rule(str(path)).moves_width
    assert find_rule(PAPER).at_phi(2) == PAPER.at(2)
    assert find_rule(Exponents(0.5, 0.5, 0)).at_factor(4).depth == pytest.approx(2)
    assert find_rule(RULES["tiny"]) is RULES["tiny"]


@pytest.mark.parametrize("name", ["compounds", "", "1,2", "a,b,c", "0.5,0.5,0.5", "nan,1,0", "x" * 5000, "rule\0"])
def test_a_rule_that_is_none_is_named(name: str) -> None:
    with pytest.raises(UserError) as caught:
        find_rule(name)
    assert len(str(caught.value).splitlines()) == 1


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not JSON"),
    "cut short": (b'{"alpha": 1.2', "not JSON"),
    "not UTF-8": (b"\xff\xfe\xff", "not JSON"),
    "deep": (b"[" * 100_000, "nested too deep"),
    "a list": (b"[1.2, 1.1, 1.15]", "has the numbers"),
    "one missing": (b'{"alpha": 1.2, "beta": 1.1}', "has the numbers"),
    "text": (b'{"alpha": "1.2", "beta": 1.1, "gamma": 1.1}', "has the numbers"),
    "true": (b'{"alpha": true, "beta": 1.1, "gamma": 1.1}', "has the numbers"),
    "null": (b'{"alpha": null, "beta": 1.1, "gamma": 1.1}', "has the numbers"),
    "below one": (b'{"alpha": 0.9, "beta": 1.1, "gamma": 1.1}', "at least 1"),
    "all one": (b'{"alpha": 1, "beta": 1, "gamma": 1}', "grow nothing"),
    "nan": (b'{"alpha": NaN, "beta": 1.1, "gamma": 1.1}', "at least 1"),
    "1e400": (b'{"alpha": 1e400, "beta": 1.1, "gamma": 1.1}', "at most 100"),
    "400 digits": (b'{"alpha": 1' + b"0" * 400 + b', "beta": 1.1, "gamma": 1.1}', "too large"),
    "5,000 digits": (b'{"alpha": 1' + b"0" * 5000 + b', "beta": 1.1, "gamma": 1.1}', "not JSON"),
}


@pytest.mark.parametrize(("content", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_wrong_coefficients_file_is_named_in_one_line(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        find_rule(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_coefficients_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"measured\.json: No such file"):
        find_rule(str(tmp_path / "measured.json"))


def test_a_budget_of_nothing_unknown_or_not_positive_is_refused() -> None:
    with pytest.raises(UserError, match="no budget; give one of macs"):
        Budget({})
    with pytest.raises(UserError, match="'flops' is not known; there are macs"):
        Budget({"flops": 1e9})
    for limit in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="is not positive"):
            Budget({"macs": limit})
    with pytest.raises(UserError, match="give the function that measures it"):
        Budget({"latency": 0.01})


@st.composite
def solvable(draw: DrawFn, rules: tuple[str, ...] = WIDENING) -> tuple[Architecture, str, dict[str, float]]:
    """A zoo network, as it is or fitted to small images, a rule, and one to three limits around its own cost."""
    base = published(draw(st.sampled_from(tuple(ZOO))))
    if draw(st.booleans()):
        side = draw(st.sampled_from((16, 24, 28, 32, 48, 64, 96)))
        size = (side, side + draw(st.sampled_from((0, 7))))
        base = adapt(base, resolution=size, channels=draw(st.sampled_from((1, 3))), classes=draw(st.integers(2, 1000)))
    rule = draw(st.sampled_from(rules))
    factor = 10 ** draw(st.floats(-1.5, -0.05 if rule == "tiny" else 1.2))
    terms = draw(st.lists(st.sampled_from(ANALYTIC), min_size=1, max_size=3, unique=True))
    own = cost(base)
    return base, rule, {term: getattr(own, term) * factor * draw(st.floats(0.7, 1.05)) for term in terms}


def check_solved(case: tuple[Architecture, str, dict[str, float]]) -> None:
    base, rule, limits = case
    try:
        solved = solve(base, RULES[rule], Budget(limits))
    except UserError as error:
        message = str(error)
    else:
        check_used(solved, base, limits)
        return
    assert "no network that small" in message or "itself costs" in message


def check_used(solved: Scaled, base: Architecture, limits: dict[str, float]) -> None:
    assert 0.99 <= used(solved) <= 1
    assert rebuilt(solved) == solved.architecture
    assert solved.values == {term: getattr(solved.cost, term) for term in limits}
    if "macs" in limits:
        assert solved.asked == limits["macs"] / cost(base).macs


@given(solvable())
@settings(max_examples=120, deadline=None)
def test_rules_that_move_width_use_at_least_99_percent_of_a_budget_and_never_more(
    case: tuple[Architecture, str, dict[str, float]],
) -> None:
    check_solved(case)


@pytest.mark.slow
@given(solvable())
@settings(max_examples=4000, deadline=None)
def test_thousands_of_budgets_are_used_to_99_percent_and_never_more(
    case: tuple[Architecture, str, dict[str, float]],
) -> None:
    check_solved(case)


@pytest.mark.parametrize("rule", WIDENING)
@pytest.mark.parametrize(("term", "limit"), [("macs", 300e6), ("params", 4e6), ("activations", 5e6), ("size", 16e6)])
def test_b0_meets_a_budget_of_every_kind_under_every_rule_that_moves_width(rule: str, term: str, limit: float) -> None:
    solved = solve(B0, RULES[rule], Budget({term: limit}))
    assert 0.99 <= used(solved) <= 1
    assert rebuilt(solved) == solved.architecture


@pytest.mark.parametrize("name", ZOO)
def test_every_zoo_network_doubles_under_compound(name: str) -> None:
    limit = 2 * cost(published(name)).macs
    solved = solve(published(name), RULES["compound"], Budget({"macs": limit}))
    assert 0.99 <= used(solved) <= 1
    assert solved.asked == 2
    assert rebuilt(solved) == solved.architecture


def test_a_head_that_is_never_narrower_takes_no_trim() -> None:
    mobile = published("mobilenet_v2")
    for limit in range(400, 2000, 100):
        solved = solve(mobile, RULES["compound"], Budget({"macs": limit * 1e6}))
        assert rebuilt(solved) == solved.architecture


def test_a_trim_step_says_where_and_from_what_to_what() -> None:
    solved = solve(B0, RULES["compound"], Budget({"macs": 600e6}))
    assert solved.trim
    assert all(isinstance(step, Step) for step in solved.trim)
    assert all(step.place in {"stem", "head", *(f"stages.{i}" for i in range(7))} for step in solved.trim)


def test_several_limits_all_hold_and_the_tightest_is_used_up() -> None:
    solved = solve(B0, RULES["compound"], Budget({"macs": 2e9, "params": 6e6, "activations": 1e9}))
    assert solved.cost.macs <= 2e9
    assert 0.99 * 6e6 <= solved.cost.params <= 6e6


def next_deeper(base: Architecture, member: Architecture) -> Architecture:
    """The depth rule's next member: the smallest depth at which one more stage repeats once more."""
    ratios = [now.repeats / was.repeats for was, now in zip(base.stages, member.stages, strict=True) if was.deepens]
    return multiply(base, depth=min(ratios) + 1e-6)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0", "mobilenet_v2", "resnet50"])
@given(st.floats(1.0, 30))
@settings(max_examples=30, deadline=None)
def test_no_deeper_member_fits(name: str, share: float) -> None:
    base = published(name)
    limit = cost(base).macs * share
    solved = solve(base, RULES["depth"], Budget({"macs": limit}))
    assert solved.cost.macs <= limit < cost(next_deeper(base, solved.architecture)).macs
    assert solved.trim == ()
    assert solved.architecture == rebuilt(solved)
    assert solved.architecture.resolution == base.resolution
    assert [stage.channels for stage in solved.architecture.stages] == [stage.channels for stage in base.stages]


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v2", "resnet50"])
@pytest.mark.parametrize("term", ["macs", "activations"])
@given(st.floats(0.05, 60))
@settings(max_examples=30, deadline=None)
def test_no_member_with_one_more_pixel_fits(name: str, term: str, share: float) -> None:
    base = published(name)
    limit = getattr(cost(base), term) * share
    solved = solve(base, RULES["resolution"], Budget({term: limit}))
    side = solved.architecture.resolution[0]
    assert solved.architecture == replace(base, resolution=(side, side))
    assert solved.trim == ()
    above = replace(base, resolution=(side + 1, side + 1))
    assert getattr(solved.cost, term) <= limit < getattr(cost(above), term)


def test_b0_under_resolution_stays_at_224_pixels_for_400m() -> None:
    solved = solve(B0, RULES["resolution"], Budget({"macs": 400e6}))
    assert solved.architecture == B0
    assert solved.architecture.name == "efficientnet_b0"
    assert solved.cost.macs == 385_814_752
    assert round(cost(replace(B0, resolution=(225, 225))).macs / 1e6, 1) == 449.5


@given(solvable(), st.floats(1.011, 3))
@settings(max_examples=40, deadline=None)
def test_a_larger_budget_never_buys_a_cheaper_network(
    case: tuple[Architecture, str, dict[str, float]], more: float
) -> None:
    base, rule, limits = case
    term = next(iter(limits))
    try:
        small, large = (solve(base, RULES[rule], Budget({term: limits[term] * times})) for times in (1, more))
    except UserError:
        assume(False)
    assert getattr(small.cost, term) < getattr(large.cost, term)


class Stopwatch:
    """A measured term that follows the MACs and keeps what it was asked."""

    def __init__(self, measure: Callable[[Architecture], float]) -> None:
        self.measure, self.calls = measure, list[Architecture]()

    def __call__(self, architecture: Architecture) -> float:
        self.calls.append(architecture)
        return self.measure(architecture)


@pytest.mark.parametrize("rule", POWERS)
def test_a_measured_limit_holds_and_no_network_is_measured_twice(rule: str) -> None:
    watch = Stopwatch(lambda architecture: cost(architecture).macs * 1e-11)
    solved = solve(B0, RULES[rule], Budget({"latency": 0.010}, {"latency": watch}))
    assert solved.values is not None
    assert solved.values["latency"] == watch.measure(solved.architecture) <= 0.010
    assert solved.values["latency"] > 0.007
    assert len(watch.calls) == len(set(watch.calls))
    assert solved.architecture in watch.calls
    assert rebuilt(solved) == solved.architecture


@pytest.mark.parametrize("limits", [{"macs": 5e8}, {"macs": 2e9}, {"macs": 1e9, "params": 7e6}], ids=str)
@pytest.mark.parametrize("rule", POWERS)
def test_measuring_happens_only_where_the_analytic_limits_hold(rule: str, limits: dict[str, float]) -> None:
    limits = {term: limit for term, limit in limits.items() if term == "macs" or rule != "resolution"}
    latency = Stopwatch(lambda architecture: cost(architecture).activations * 1e-9)
    memory = Stopwatch(lambda architecture: float(cost(architecture).memory.inference))
    measured = {"latency": latency, "memory": memory}
    solved = solve(B0, RULES[rule], Budget({**limits, "latency": 0.012, "memory": 80e6}, measured))
    assert solved.values is not None
    assert solved.limits is not None
    assert all(solved.values[term] <= solved.limits[term] for term in solved.limits)
    for watch in (latency, memory):
        assert watch.calls
        assert len(watch.calls) == len(set(watch.calls))
        for architecture in watch.calls:
            assert all(getattr(cost(architecture), term) <= limit for term, limit in limits.items())


def test_a_measured_limit_below_the_smallest_network_is_named_and_measured_once() -> None:
    watch = Stopwatch(lambda _: 0.5)
    with pytest.raises(UserError, match=r"no network that small: a budget of 10 ms latency .* 500 ms latency"):
        solve(B0, RULES["compound"], Budget({"latency": 0.010}, {"latency": watch}))
    assert len(watch.calls) == 1


def test_nothing_is_measured_where_even_the_smallest_network_is_over_an_analytic_limit() -> None:
    watch = Stopwatch(lambda _: 0.5)
    with pytest.raises(UserError, match="a budget of 100 MACs"):
        solve(B0, RULES["compound"], Budget({"macs": 100, "latency": 0.010}, {"latency": watch}))
    assert watch.calls == []


def test_a_measured_term_that_nothing_moves_ends_in_an_error() -> None:
    with pytest.raises(UserError, match="beyond the largest network"):
        solve(B0, RULES["width"], Budget({"latency": 1.0}, {"latency": lambda _: 0.5}))


@pytest.mark.parametrize("rule", RULES)
def test_an_impossible_budget_names_the_smallest_network(rule: str) -> None:
    with pytest.raises(UserError) as caught:
        solve(B0, RULES[rule], Budget({"macs": 1000}))
    message = str(caught.value)
    for words in ("no network that small", "1k MACs", "efficientnet_b0", f"rule {rule}", "blocks", "pixels", "raise"):
        assert words in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("rule", "term"), [("resolution", "params"), ("resolution", "size")])
def test_a_budget_that_the_rule_cannot_move_is_an_error(rule: str, term: str) -> None:
    for limit in (1e3, 1e12):
        with pytest.raises(UserError, match=f"rule {rule} does not move {term}: efficientnet_b0 has"):
            solve(B0, RULES[rule], Budget({"macs": 1e9, term: limit}))


def test_depth_moves_nothing_in_a_network_whose_stages_may_not_deepen() -> None:
    flat = Architecture((Stage(Conv(), 16, deepens=False),), stem=Stem(8))
    with pytest.raises(UserError, match="rule depth does not move MACs"):
        solve(flat, RULES["depth"], Budget({"macs": 1e12}))


@pytest.mark.parametrize("rule", POWERS)
def test_a_budget_beyond_what_a_network_can_be_is_an_error(rule: str) -> None:
    with pytest.raises(UserError, match=f"beyond the largest network that rule {rule} can describe"):
        solve(B0, RULES[rule], Budget({"macs": 1e30}))


@pytest.mark.parametrize("name", ZOO)
def test_the_largest_multipliers_are_still_networks(name: str) -> None:
    base = published(name)
    depth, width, resolution = largest_multipliers(base)
    assert max(stage.repeats for stage in multiply(base, depth=depth).stages) <= 1024
    multiply(base, width=width)
    assert max(multiply(base, resolution=resolution).resolution) == 8192
    with pytest.raises(UserError):
        multiply(base, depth=depth * 1.01)
    with pytest.raises(UserError):
        multiply(base, resolution=resolution * 1.01)
