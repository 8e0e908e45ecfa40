"""What rules, multipliers, coefficients and exponents promise."""

import json
import math
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given, settings
from hypothesis.strategies import DrawFn

from triscale.arch import ZOO, multiply, published
from triscale.costing import cost
from triscale.errors import UserError
from triscale.scaling import (
    RULES,
    Budget,
    Capped,
    Coefficients,
    Exponents,
    Multipliers,
    Power,
    Rule,
    find_rule,
    grow,
    solve,
)

B0 = published("efficientnet_b0")
PAPER = Coefficients(1.2, 1.1, 1.15)
POWERS = tuple(name for name in RULES if name != "tiny")
ANALYTIC = ("macs", "params", "activations", "size")


@st.composite
def shares(draw: DrawFn) -> Exponents:
    parts = [draw(st.floats(0, 1)) for _ in range(3)]
    assume(sum(parts) > 1e-3)
    depth, width = parts[0] / sum(parts), parts[1] / sum(parts)
    return Exponents(depth, width, max(0.0, 1 - depth - width))


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


@given(shares(), st.floats(1, 8), st.floats(1e-3, 1e3))
def test_a_capped_rule_meets_the_factor_and_never_passes_its_most(
    exponents: Exponents, most: float, factor: float
) -> None:
    rule = Power("given", exponents.coefficients())
    free, capped = rule.at_factor(factor), Capped(rule, most).at_factor(factor)
    assert capped.factor == pytest.approx(factor, rel=1e-9)
    assert capped.resolution <= most
    if free.resolution <= most:
        assert capped == free
    else:
        assert capped.resolution == most
        assert capped.depth >= free.depth * (1 - 1e-9)
        assert capped.width >= free.width * (1 - 1e-9)


def test_resolution_alone_goes_on_by_depth_and_width_where_the_pixels_end() -> None:
    alone = RULES["resolution"]
    assert isinstance(alone, Power)
    grown = solve(published("efficientnet_b0"), Capped(alone, 1.5), Budget({"macs": 2e9}))
    assert grown.architecture.resolution == (336, 336)
    assert 0.99 * 2e9 <= grown.cost.macs <= 2e9
    assert grown.architecture.blocks > published("efficientnet_b0").blocks


@pytest.mark.parametrize("most", [0.99, 0.0, math.nan])
def test_a_cap_below_the_baseline_is_named(most: float) -> None:
    with pytest.raises(UserError, match=f"at most {most:g} times"):
        Capped(Power("given", PAPER), most)


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
    with pytest.raises(UserError, match=r"is not positive|out of reach"):
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
    "twice": (b'{"alpha": 1.2, "beta": 1.1, "gamma": 1.15, "alpha": 3}', "'alpha' is given twice"),
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
