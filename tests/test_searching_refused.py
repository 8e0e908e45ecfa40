"""What `search` over any discrete space refuses, and what it passes on of what its caller's functions raise."""

import math
import tracemalloc
from collections import Counter
from random import Random
from typing import Any

import numpy as np
import pytest
from choices import LARGE, NAMES, SPACE, Asked, key, worth

from triscale.errors import UserError
from triscale.searching import Codes, Evolution, Known, Space, search


class Upwards:
    """One choice, its values in their order."""

    def propose(self, space: Space, known: Known, rng: Random, turned_down: int) -> Codes:
        return (min(len(known.history), space.counts[0] - 1),)


class BrokenError(Exception):
    """What somebody's own code raises."""


@pytest.mark.parametrize("which", ["evaluate", "feasible", "cost"])
@pytest.mark.parametrize("error", [BrokenError("mine"), KeyboardInterrupt(), UserError("his own")])
def test_what_the_callers_functions_raise_comes_out_unchanged(which: str, error: BaseException) -> None:
    def broken(*given: Any) -> Any:
        raise error

    functions: dict[str, Any] = {"evaluate": worth, which: broken}
    with pytest.raises(type(error)) as caught:
        search(SPACE, **functions, evaluations=5)
    assert caught.value is error


def test_what_evaluate_raises_says_of_which_choice() -> None:
    def broken(choice: Any, seed: int) -> float:
        if seed == 1:
            raise BrokenError
        return 1.0

    with pytest.raises(BrokenError) as caught:
        search({"a": [2]}, broken, evaluations=8)
    assert caught.value.__notes__ == ["evaluation 2 of the search: {'a': 2} with seed 1"]


@pytest.mark.parametrize("which", ["feasible", "cost"])
def test_what_feasible_and_cost_raise_says_of_which_choice_and_how_far_the_search_was(which: str) -> None:
    calls = 0

    def broken(choice: dict[str, Any]) -> float:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise BrokenError(choice.popitem())
        return 1.0

    functions: dict[str, Any] = {which: broken}
    with pytest.raises(BrokenError) as caught:
        search({"a": [2, 3, 4]}, worth, evaluations=8, strategy=Upwards(), **functions)
    assert caught.value.__notes__ == [f"{which} before evaluation 3 of the search: {{'a': 4}}"]


@pytest.mark.parametrize("options", [20_000, 900_000])  # of the first many are drawn, the second is gone through
def test_a_stop_iteration_of_feasible_ends_the_search_and_not_the_looking(options: int) -> None:
    def broken(choice: dict[str, Any]) -> bool:
        if choice["a"] != options - 1:
            return False
        return next(iter([]))

    with pytest.raises(StopIteration) as caught:
        search({"a": range(options)}, worth, evaluations=5, feasible=broken)
    assert caught.value.__notes__ == [f"feasible before evaluation 1 of the search: {{'a': {options - 1}}}"]


def test_an_answer_of_feasible_that_is_no_yes_or_no_says_of_which_choice() -> None:
    with pytest.raises(ValueError, match="truth value") as caught:
        search({"a": [2]}, worth, evaluations=5, feasible=lambda choice: np.array([True, False]))  # type: ignore[arg-type]
    assert caught.value.__notes__ == ["feasible before evaluation 1 of the search: {'a': 2}"]


@pytest.mark.parametrize("nothing", [math.nan, None, "dear"])
def test_a_cost_that_is_none_says_of_which_choice_and_how_far_the_search_was(nothing: Any) -> None:
    asked: list[Any] = []

    def cost(choice: dict[str, Any]) -> Any:
        asked.append(choice["a"])
        return nothing if len(asked) == 3 else 1.0

    with pytest.raises(UserError) as caught:
        search({"a": [2, 3, 4]}, worth, evaluations=8, strategy=Upwards(), cost=cost)
    assert str(caught.value) == f"cost gave {nothing!r} for {{'a': 4}}; it has to give a number"
    assert caught.value.__notes__ == ["cost before evaluation 3 of the search: {'a': 4}"]


@pytest.mark.parametrize("value", ["good", [1.0], np.array([1.0, 2.0]), 1j])
def test_what_cannot_be_a_number_is_named_with_its_choice(value: Any) -> None:
    with pytest.raises(UserError, match=r"^evaluate gave .* for \{'a': 2\}; it has to give a number$"):
        search({"a": [2]}, lambda choice, seed: value, evaluations=1)


@pytest.mark.parametrize("seed", [None, "x", 0.5, True])
def test_a_seed_that_is_none_is_named(seed: Any) -> None:
    with pytest.raises(UserError, match=f"seed must be a whole number, not {seed!r}"):
        search(SPACE, worth, evaluations=1, seed=seed)


@pytest.mark.parametrize("n", [0, -1, 2.5, True, None, "10", math.inf])
def test_a_number_of_evaluations_that_is_none_is_named(n: Any) -> None:
    with pytest.raises(UserError, match=f"evaluations must be a whole number, at least 1, not {n!r}"):
        search(SPACE, worth, evaluations=n)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no choices": ({"space": {}}, "the space has no choices"),
    "no values": ({"space": {"a": []}}, "choice 'a' has no values"),
    "a value twice": ({"space": {"a": [1, 1]}}, "choice 'a' has the value 1 twice"),
    "equal values": ({"space": {"a": [False, 0]}}, "choice 'a' has the value 0 twice: False is equal to it"),
    "lists": ({"space": {"a": [1], "b": [[1], [2]]}}, "choice 'b': its values must be texts, numbers or tuples"),
    "arrays": ({"space": {"a": [np.ones(2)]}}, "choice 'a': .*unhashable type: 'numpy.ndarray'.*name anything else by"),
    "no mapping": ({"space": [1, 2]}, "a mapping of choice name to values, not list"),
    "a strategy that is none": ({"strategy": "annealing"}, "take evolution, random, tpe"),
    "no strategy": (
        {"strategy": None},
        "strategy None: is none; take evolution, random, tpe, or a Strategy of your own",
    ),
    "a number of a strategy": ({"strategy": 3}, "strategy 3: is none; take evolution"),
    "a class of strategies": ({"strategy": Evolution}, "must be an object, not the class Evolution; give Evolution"),
    "nothing feasible": ({"feasible": lambda choice: False}, "no choice of the space is feasible"),
}


@pytest.mark.parametrize(("given", "said"), MISTAKES.values(), ids=MISTAKES)
def test_what_is_no_search_is_named_before_anything_is_evaluated(given: dict[str, Any], said: str) -> None:
    asked = Asked()
    with pytest.raises(UserError, match=said):
        search(**{"space": SPACE, "evaluate": asked.evaluate, "evaluations": 5, **given})
    assert asked.log == []


@pytest.mark.parametrize("name", NAMES)
def test_a_choice_that_hardly_any_condition_lets_through_is_found(name: str) -> None:
    space = {f"choice {place}": range(10) for place in range(4)}
    wanted = dict.fromkeys(space, 7)
    found = search(space, worth, evaluations=6, feasible=lambda choice: choice == wanted, strategy=name)
    assert [dict(one.choice) for one in found.history] == [wanted]
    assert len(found.best.values) == 6


@pytest.mark.parametrize("name", ["evolution", "random"])
def test_of_a_space_that_can_be_gone_through_every_feasible_choice_is_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draws with replacement miss one of 6^6 points in one of three searches; here in nearly all, and sooner."""
    monkeypatch.setattr("triscale.searching.strategies.DRAWS", 40)
    wanted = [dict.fromkeys(LARGE, 4), dict.fromkeys(LARGE, 1)]
    logs = []
    for seed in (0, 1, 1):
        asked = Asked(allows=lambda choice: choice in wanted)
        found = asked.search(LARGE, evaluations=6, strategy=name, seed=seed)
        assert {key(one.choice) for one in found.history} == {key(one) for one in wanted}
        assert max(Counter(key(choice) for what, choice, _ in asked.log if what == "feasible").values()) == 1
        logs.append(asked.log)
    assert logs[0] != logs[1] == logs[2]


def test_that_no_choice_of_a_space_is_feasible_is_said_of_all_or_of_those_that_were_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("triscale.searching.strategies.DRAWS", 40)
    with pytest.raises(UserError, match=r"none of its 46,656; loosen"):
        search(LARGE, worth, evaluations=1, feasible=lambda choice: False)
    with pytest.raises(UserError, match=r"none of those that were drawn; loosen"):
        search(
            LARGE | {f"more {place}": range(6) for place in range(3)}, worth, evaluations=1, feasible=lambda _: False
        )


def test_what_was_not_feasible_is_not_remembered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triscale.searching.strategies.DRAWS", 200)
    monkeypatch.setattr("triscale.searching.generic.LOOKED", 1000, raising=False)
    space = {f"choice {place}": range(10) for place in range(40)}
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="no choice of the space is feasible"):
            search(space, worth, evaluations=1, strategy="random", feasible=lambda choice: False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2e6  # 0.4 KB for each of 10,200 draws were more than twice as much
