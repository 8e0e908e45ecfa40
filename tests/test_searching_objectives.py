"""What a candidate is worth: each objective against its formula, and what is refused."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given
from small_trials import MADE

from triscale.errors import HopelessError, UserError
from triscale.searching import ABOUT, BAND, EXPONENT, KINDS, Objective
from triscale.searching.calibrating import slope

accuracies = st.floats(0, 1)
used = st.floats(0.01, 20)
limits = st.floats(1e-3, 1e12)
exponents = st.floats(-3, 0)
kinds = st.sampled_from(KINDS)


def test_constraint_is_what_is_meant_unless_another_is_named() -> None:
    plain = Objective({"macs": 5e6})
    assert (plain.kind, plain.exponent, plain.band) == ("constraint", -0.07, (0.85, 1.0))
    assert (EXPONENT, BAND) == (-0.07, (0.85, 1.0))
    assert set(ABOUT) == set(KINDS)


@given(accuracies, limits, limits, used, used)
def test_constraint_is_the_accuracy_and_nothing_above_any_limit(
    accuracy: float, macs: float, params: float, one: float, other: float
) -> None:
    objective = Objective({"macs": macs, "params": params})
    costs = {"macs": one * macs, "params": other * params}
    above = costs["macs"] / macs > 1 or costs["params"] / params > 1
    assert objective.value(accuracy, costs) == (0.0 if above else accuracy)
    assert objective.used(costs) == pytest.approx(max(one, other))
    assert objective.value(accuracy, {"macs": macs, "params": params}) == accuracy


@given(accuracies, limits, used, exponents)
def test_each_objective_is_its_formula(accuracy: float, limit: float, share: float, w: float) -> None:
    costs = {"latency": share * limit}
    hard, absolute, paper = (Objective({"latency": limit}, kind, w) for kind in ("hard", "abs", "paper"))
    ratio = costs["latency"] / limit
    # MnasNet (arXiv 1807.11626), equations 1 and 2: ACC·[LAT/T]^w, w = α within the limit and β above it.
    assert paper.value(accuracy, costs) == pytest.approx(accuracy * ratio**w)
    assert hard.value(accuracy, costs) == pytest.approx(accuracy * ratio ** (0 if ratio <= 1 else -1))
    # TuNAS (arXiv 2008.06120), equation 1: Q + β·|T/T₀ - 1|, β below 0.
    assert absolute.value(accuracy, costs) == pytest.approx(accuracy - abs(w) * abs(ratio - 1), abs=1e-12)


def test_the_papers_exponent_gives_five_percent_of_the_accuracy_for_twice_the_cost() -> None:
    paper = Objective({"macs": 400e6}, "paper")
    one, twice = paper.value(0.76, {"macs": 400e6}), paper.value(0.76 * 1.05, {"macs": 800e6})
    assert one == 0.76
    assert twice == pytest.approx(one, rel=1e-3)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(1e6, 1e8)), min_size=2, max_size=8), limits, limits, exponents)
def test_of_the_papers_objective_the_limit_cancels_out_of_the_ranking(
    rows: list[tuple[float, float]], one: float, other: float, w: float
) -> None:
    first, second = (
        [Objective({"macs": limit}, "paper", w).value(accuracy, {"macs": macs}) for accuracy, macs in rows]
        for limit in (one, other)
    )
    assert [value / first[0] for value in first] == pytest.approx([value / second[0] for value in second])
    order = sorted(range(len(rows)), key=first.__getitem__)
    assert all(second[low] <= second[high] * (1 + 1e-9) for low, high in pairwise(order))


@given(kinds, accuracies, accuracies, limits, used, exponents)
def test_of_two_that_cost_the_same_the_more_accurate_is_worth_no_less(
    kind: Any, one: float, other: float, limit: float, share: float, w: float
) -> None:
    objective, costs = Objective({"macs": limit}, kind, w), {"macs": share * limit}
    low, high = (objective.value(accuracy, costs) for accuracy in sorted((one, other)))
    assert low <= high


@given(st.sampled_from(["constraint", "hard", "paper"]), accuracies, limits, used, used, exponents)
def test_of_two_that_are_as_accurate_the_dearer_is_worth_no_more(
    kind: Any, accuracy: float, limit: float, one: float, other: float, w: float
) -> None:
    objective = Objective({"size": limit}, kind, w)
    cheap, dear = (objective.value(accuracy, {"size": share * limit}) for share in sorted((one, other)))
    assert dear <= cheap


@given(kinds, limits, used)
def test_the_band_is_narrow_under_limits_and_wide_where_cost_is_weighed(kind: Any, limit: float, share: float) -> None:
    objective, costs = Objective({"params": limit}, kind), {"params": share * limit}
    assume(all(abs(share - edge) > 1e-9 for edge in (0.5, 0.85, 1.0, 2.0)))
    low, high = (0.85, 1.0) if kind == "constraint" else (0.5, 2.0)
    assert objective.band == (low, high)
    assert objective.admits(costs) == (low <= share <= high)


def test_of_several_limits_the_one_that_is_used_most_decides() -> None:
    objective = Objective({"macs": 100.0, "params": 10.0})
    assert objective.admits({"macs": 1.0, "params": 9.0})
    assert not objective.admits({"macs": 100.5, "params": 9.0})
    assert not objective.admits({"macs": 84.0, "params": 8.4})
    assert objective.admits({"macs": 100.0, "params": 10.0})


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no limit": ({"limits": {}}, "no budget; give one of macs"),
    "an unknown term": ({"limits": {"flops": 1.0}}, "budget 'flops' is not known; there are macs"),
    "no number": ({"limits": {"macs": "5M"}}, "budget macs of '5M' is no number"),
    "nothing allowed": ({"limits": {"macs": 0}}, "budget macs of 0 is not positive"),
    "not a number": ({"limits": {"macs": math.nan}}, "budget macs of nan is not positive"),
    "an unknown kind": ({"kind": "soft"}, "--objective 'soft': is none; take constraint, hard, abs, paper"),
    "two weighed": ({"kind": "paper", "limits": {"macs": 1.0, "params": 1.0}}, "weighs one cost, not macs and params"),
    "a reward": ({"kind": "paper", "exponent": 0.07}, "--exponent 0.07: from -10 to 0; the paper's is -0.07"),
    "too much": ({"kind": "abs", "exponent": -11}, "--exponent -11: from -10 to 0"),
    "no exponent": ({"kind": "abs", "exponent": math.nan}, "--exponent nan: from -10 to 0"),
}


@pytest.mark.parametrize(("given", "said"), MISTAKES.values(), ids=MISTAKES)
def test_an_objective_that_is_none_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        Objective(**{"limits": {"macs": 5e6}, **given})
    assert said in str(caught.value)


def test_a_calibration_that_learned_nothing_cannot_be_gone_on_with() -> None:
    runs = [(cost, replace(MADE, selection=right)) for cost, right in ((1e6, 0.5), (2e6, 0.0), (4e6, 0.7))]
    with pytest.raises(HopelessError, match=r"learned nothing; begin another search, in another --out, with more"):
        slope(runs)
