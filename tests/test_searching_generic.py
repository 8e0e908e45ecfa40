"""`search` over any discrete space: how often, with what and in which order it asks; and it finds what there is."""

import math
import random
import sys
import warnings
from collections import Counter
from itertools import pairwise
from random import Random
from statistics import fmean
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from choices import LARGE, NAMES, SPACE, Asked, counts, key, noise, points, seeds, spaces, worth
from hypothesis import assume, given

from triscale.errors import OneLineWarning
from triscale.searching import Codes, Known, Space, search

# --- how often, with what and when ---


@given(space=spaces, n=counts, seed=seeds, data=st.data())
def test_evaluate_is_called_exactly_so_often_and_never_for_what_may_not_be_tried(
    space: Any, n: int, seed: int, data: st.DataObject
) -> None:
    allowed = data.draw(st.sets(st.sampled_from([key(choice) for choice in points(space)]), min_size=1))
    asked = Asked(allows=lambda choice: key(choice) in allowed)
    found = asked.search(space, evaluations=n, seed=seed)
    assert found.evaluations == len(asked.evaluated) == n
    assert sum(len(one.values) for one in found.history) == n
    assert {choice for choice, _ in asked.evaluated} <= allowed
    assert sorted(one.order for one in found.history) == list(range(len(found.history)))
    assert len(found.history) == len({key(one.choice) for one in found.history}) <= len(allowed)


@given(space=spaces, n=counts)
def test_it_is_asked_whether_a_choice_may_be_tried_once_and_before_it_is(space: Any, n: int) -> None:
    asked = Asked(allows=lambda choice: sum(choice.values()) % 2 == 0)
    assume(any(sum(choice.values()) % 2 == 0 for choice in points(space)))
    asked.search(space, evaluations=n)
    for one in {choice for choice, _ in asked.evaluated}:
        said = [what for what, choice, _ in asked.log if key(choice) == one]
        assert said.index("feasible") < said.index("evaluate")
        assert said.count("cost") == 1
    feasible = [key(choice) for what, choice, _ in asked.log if what == "feasible"]
    assert max(Counter(feasible).values()) == 1


@given(space=spaces, n=counts, seed=seeds)
def test_no_choice_is_tried_twice_before_all_have_been_but_for_the_repeats_at_the_end(
    space: Any, n: int, seed: int
) -> None:
    asked = Asked()
    asked.search(space, evaluations=n, seed=seed)
    tried = [choice for choice, _ in asked.evaluated]
    first = min(n - min(10, n // 4 // 5 * 5), len(points(space)))
    assert len({*tried[:first]}) == first
    assert {*tried[first:]} <= {*tried[:first]}


@given(space=spaces, n=counts, seed=st.integers(-5, 2**40))
def test_the_seeds_of_a_choice_are_the_seed_and_those_after_it(space: Any, n: int, seed: int) -> None:
    asked = Asked()
    found = asked.search(space, evaluations=n, seed=seed)
    for one in found.history:
        given_seeds = [seed for choice, seed in asked.evaluated if choice == key(one.choice)]
        assert given_seeds == [seed + repeat for repeat in range(len(one.values))]
        assert one.values == tuple(worth(one.choice, seed) for seed in given_seeds)


@pytest.mark.parametrize("name", NAMES)
def test_the_best_five_are_evaluated_with_three_seeds(name: str) -> None:
    found = Asked().search(LARGE, evaluations=60, strategy=name)
    assert [len(one.values) for one in found.history] == [3] * 5 + [1] * 45
    five = sorted(found.history, key=lambda one: -one.values[0])[:5]
    assert {one.order for one in five} == {one.order for one in found.history[:5]}


@pytest.mark.parametrize(("n", "repeats"), [(1, 0), (3, 0), (19, 0), (20, 5), (39, 5), (40, 10), (400, 10)])
def test_at_most_a_quarter_goes_into_repeats(n: int, repeats: int) -> None:
    found = Asked().search(LARGE, evaluations=n)
    assert len(found.history) == n - repeats


def test_a_space_that_is_used_up_is_evaluated_again_from_the_best_on() -> None:
    asked = Asked(allows=lambda choice: choice["kind"] == "plain")
    found = asked.search(evaluations=100)
    assert {key(one.choice) for one in found.history} == {key(one) for one in points(SPACE) if one["kind"] == "plain"}
    # Of the 88 that are left after twelve points: two rounds more for all, five for six of them, the others for five.
    assert [len(one.values) for one in found.history] == [15, 15, 15, 15, 14, 8, *[3] * 6]


def test_of_a_noisy_space_that_is_used_up_the_best_is_found_more_often_the_more_is_evaluated() -> None:
    """Not the luckiest of five that were lucky once: equal repeats of all are a loop that anybody would write."""

    def regret(n: int, repeat: int) -> tuple[float, float]:
        drawn = Random(repeat)
        found = search({"arm": range(20)}, lambda c, _: c["arm"] / 19 + drawn.gauss(), evaluations=n, seed=repeat)
        equally = [fmean(arm / 19 + drawn.gauss() for _ in range(n // 20)) for arm in range(20)]
        return 1 - found.best.choice["arm"] / 19, 1 - equally.index(max(equally)) / 19

    for n, most in ((400, 0.08), (2000, 0.03)):
        ours, equal = (fmean(column) for column in zip(*(regret(n, repeat) for repeat in range(100)), strict=True))
        assert ours < most
        assert ours < equal


# --- what is found ---


@given(space=spaces, n=counts, seed=seeds)
def test_the_history_is_ranked_by_evaluations_then_value_then_cost(space: Any, n: int, seed: int) -> None:
    found = Asked(value=lambda choice, seed: round(noise(choice, seed) * 3)).search(space, evaluations=n, seed=seed)
    for a, b in pairwise(found.history):
        assert len(a.values) >= len(b.values) - 1  # what is left over in the last round goes to the first
        if len(a.values) <= len(b.values):
            assert (-fmean(a.values), a.cost, a.order) < (-fmean(b.values), b.cost, b.order)
    assert found.best is found.history[0]
    assert all(one.value == fmean(one.values) for one in found.history)


@given(space=spaces, n=counts, seed=seeds)
def test_the_front_is_what_none_is_better_than_at_no_more_cost(space: Any, n: int, seed: int) -> None:
    found = Asked(value=lambda choice, seed: round(noise(choice, seed) * 3)).search(space, evaluations=n, seed=seed)
    at = [(one.cost, one.value) for one in found.front]
    best = found.best
    # What stands above the best was evaluated less often.
    every = {(one.cost, one.value) for one in found.history if one.cost < best.cost and one.value < best.value}
    every.add((best.cost, best.value))
    beaten = {
        (cost, value)
        for cost, value in every
        if any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in every)
    }
    assert at == sorted(every - beaten)
    assert all(one in found.history for one in found.front)


@pytest.mark.parametrize("n", [1, 2, 5, 20, 60])
def test_without_costs_the_front_is_the_best_alone(n: int) -> None:
    for seed in range(8):
        found = search(SPACE, noise, evaluations=n, seed=seed)
        assert found.front == (found.best,)
        assert all(one.cost is None for one in found.history)


def test_what_is_not_a_number_is_worst_and_the_best_is_what_was_always_one() -> None:
    def value(choice: Any, seed: int) -> float:
        return math.nan if choice["kernel"] == 3 or seed == 8 else float(choice["width"])

    found = search(SPACE, value, evaluations=40, seed=6)
    assert {one.value for one in found.history if one.choice["kernel"] == 3} == {-math.inf}
    assert {one.value for one in found.history if len(one.values) >= 3} == {-math.inf}  # the third seed of each
    assert not any(math.isnan(number) for one in found.history for number in one.values)
    assert found.best.value == max(one.value for one in found.history) == 1.0


def test_a_finalist_that_comes_to_nothing_is_not_the_best_while_there_are_others() -> None:
    found = search({"x": range(100)}, lambda choice, seed: choice["x"] if seed == 0 else None, evaluations=40)
    first = sorted((one.values[0] for one in found.history), reverse=True)
    assert len(first) == 30
    assert found.best.values == (first[10],)  # ten repeats, of ten points
    assert [one.value for one in found.history[:20]] == first[10:]


def test_the_next_best_takes_the_place_of_a_finalist_that_comes_to_nothing() -> None:
    seen: list[int] = []

    def value(choice: Any, seed: int) -> float | None:
        if seed == 0:
            seen.append(choice["x"])
        return None if seed and choice["x"] == max(seen) else choice["x"]

    found = search({"x": range(1000)}, value, evaluations=60)
    first = sorted(seen, reverse=True)
    assert [one.choice["x"] for one in found.history] == [*first[1:], first[0]]
    assert [len(one.values) for one in found.history] == [3, 3, 3, 3, 2, *[1] * 44, 2]


@given(space=spaces, n=counts, seed=seeds, share=st.sampled_from([0.1, 0.5, 0.9]))
def test_whatever_comes_to_nothing_stands_below_what_never_did(space: Any, n: int, seed: int, share: float) -> None:
    def value(choice: Any, seed: int) -> float | None:
        return None if Random(f"lost {key(choice)} {seed}").random() < share else worth(choice, seed)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", OneLineWarning)
        found = Asked(value=value).search(space, evaluations=n, seed=seed)
    assert found.evaluations == n
    lost = [one.values.count(-math.inf) / len(one.values) for one in found.history]
    assert lost == sorted(lost)
    assert len(said) == (lost[0] == 1)


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_a_search_of_nothing_but_nothing_ends_with_an_answer_and_says_so(nothing: Any) -> None:
    with pytest.warns(OneLineWarning, match=r"^every evaluation came to nothing .*: does evaluate return its value\?$"):
        found = search(SPACE, lambda choice, seed: nothing, evaluations=40)
    assert (found.evaluations, found.best.value) == (40, -math.inf)


@pytest.mark.parametrize("n", [10, 11, 12, 13])
def test_what_is_left_over_for_less_than_a_round_does_not_decide_by_order(n: int) -> None:
    found = search({"x": range(9)}, lambda choice, seed: choice["x"] if seed == 0 else -100, evaluations=n)
    assert (found.best.choice["x"], found.best.value) == (8 - (n - 9), 8 - (n - 9))
    assert [one.value for one in found.history] == sorted((one.value for one in found.history), reverse=True)


def test_a_last_round_of_halving_that_is_not_whole_does_not_decide_by_order() -> None:
    """41 points, 82 evaluations that are left: the last three are too few for the best five."""
    asked = Asked(value=lambda choice, seed: choice["x"] if seed < 5 else -100)
    found = asked.search({"x": range(41)}, evaluations=123)
    assert [len(one.values) for one in found.history[:6]] == [5, 5, 5, 6, 6, 6]
    assert [one.choice["x"] for one in found.history[:3]] == [37, 36, 35]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("space", [{"x": range(4)}, {"x": range(900)}])
def test_values_whose_sum_is_no_float_have_a_mean(sign: int, space: Any) -> None:
    found = search(space, lambda choice, seed: sign * (sys.float_info.max - choice["x"] * 1e300), evaluations=40)
    for one in found.history:
        assert one.value == one.values[0]
    assert found.best.value == max(one.value for one in found.history)


@pytest.mark.parametrize("nothing", [None, 10**400, -math.inf, math.inf])
def test_what_came_to_nothing_is_worst_and_stands_nowhere_on_the_front(nothing: Any) -> None:
    found = search(
        {"a": [1, 2, 3]},
        lambda choice, seed: nothing if choice["a"] == 1 else float(choice["a"]),
        evaluations=3,
        cost=lambda choice: choice["a"],
    )
    assert [(one.cost, one.value) for one in found.front] == [(2, 2.0), (3, 3.0)]
    assert found.history[-1].value == -math.inf


@given(seed=seeds, n=st.integers(20, 40))
def test_of_equals_the_cheapest_that_was_seen_is_the_best(seed: int, n: int) -> None:
    found = search({"a": range(20)}, lambda choice, seed: 1.0, evaluations=n, cost=lambda c: c["a"], seed=seed)
    assert found.best.cost == min(one.cost for one in found.history if one.cost is not None)
    assert found.front == (found.best,)


def test_numbers_of_numpy_are_numbers() -> None:
    found = search(SPACE, lambda choice, seed: np.float32(seed), evaluations=np.int64(9), seed=np.int32(4))
    assert found == search(SPACE, lambda choice, seed: float(seed), evaluations=9, seed=4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, 30, 90])
def test_a_seed_decides_everything(name: str, n: int) -> None:
    logs = []
    for seed in (3, 3, 4):
        asked = Asked()
        found = asked.search(LARGE, evaluations=n, strategy=name, seed=seed)
        logs.append((found, asked.log))
    assert logs[0] == logs[1]
    assert [one.choice for one in logs[0][0].history] != [one.choice for one in logs[2][0].history]


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_below_zero_is_a_seed_of_its_own(name: str) -> None:
    asked = {seed: Asked(value=lambda choice, _: noise(choice, 0)) for seed in (-3, -2, 3)}
    for seed, one in asked.items():
        one.search(LARGE, evaluations=30, strategy=name, seed=seed)
    firsts = [tuple(choice for choice, _ in one.evaluated[:10]) for one in asked.values()]
    assert len(set(firsts)) == 3


def test_nothing_is_drawn_from_anyone_elses_random_numbers() -> None:
    before = random.getstate()
    search(LARGE, worth, evaluations=60, strategy="tpe")
    assert random.getstate() == before


@pytest.mark.parametrize("name", NAMES)
def test_one_evaluation_is_a_search(name: str) -> None:
    found = search({"a": [1]}, lambda choice, seed: 0.25, evaluations=1, strategy=name, seed=9)
    assert (found.evaluations, len(found.history)) == (1, 1)
    assert (dict(found.best.choice), found.best.values, found.best.order) == ({"a": 1}, (0.25,), 0)
    assert found.front == (found.best,)


def test_a_strategy_of_ones_own_is_told_what_was_tried_and_what_it_was_worth() -> None:
    told: list[Known] = []

    class Mine:
        def propose(self, space: Space, known: Known, rng: Random, turned_down: int) -> Codes:
            if turned_down == 0:
                told.append(Known(tuple(known.history), tuple(known.running)))
            return (len(known.history) + turned_down) % 6, 0, 0, 0, 0, 0

    found = search(LARGE, worth, evaluations=6, strategy=Mine(), feasible=lambda choice: choice["choice 0"] != 2)
    assert [len(known.history) for known in told] == [0, 1, 2, 3, 4, 5]
    seen = {scored.codes[0]: scored.value for scored in told[-1].history}
    assert list(seen) == [0, 1, 3, 4, 5]
    assert seen == {code: worth({**dict.fromkeys(LARGE, 0), "choice 0": code}, 0) for code in seen}
    assert len(found.history) == 6
