"""Strategies: what they propose follows from what is known, and is admissible and new; evolution, chance, TPE."""

import math
from collections import Counter
from collections.abc import Callable
from random import Random
from statistics import fmean

import hypothesis.strategies as st
import numpy as np
import pytest
from choices import differing
from hypothesis import given, settings
from optuna.trial import TrialState
from scipy.stats import chisquare

from triscale.errors import UserError
from triscale.searching import STRATEGIES, Codes, Evolution, Known, RandomChoice, Scored, Space, Strategy, TreeParzen
from triscale.searching import strategies as module
from triscale.searching.strategies import find_strategy, fresh

EIGHT = Space.of({f"choice {place}": range(4) for place in range(8)})
WANTED = (3, 1, 0, 2, 2, 0, 1, 3)
NAMES = sorted(STRATEGIES)

some_values = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)
small_spaces = st.lists(some_values, min_size=1, max_size=4).map(
    lambda many: Space.of({f"choice {place}": values for place, values in enumerate(many)})
)


class Early(TreeParzen):
    """Asks its model as soon as there is one."""

    begin = 2


class Stubborn:
    """Proposes one and the same point, whatever is known."""

    def __init__(self, codes: Codes) -> None:
        self.codes = codes

    def propose(self, space: Space, known: Known, rng: Random, turned_down: int) -> Codes:
        return self.codes


MADE: dict[str, Callable[[], Strategy]] = {
    "evolution": lambda: Evolution(population=4, drawn=2, children=0.3),
    "random": RandomChoice,
    "tpe": Early,
}


def worth(codes: Codes) -> float:
    """So many choices of eight are right: what is best of each does not depend on the others."""
    return float(len(codes) - differing(codes, WANTED))


def tried(n: int, seed: int = 0, space: Space = EIGHT, value: Callable[[Codes], float] = worth) -> list[Scored]:
    """A history of n different points at random."""
    rng, found = Random(seed), dict[Codes, None]()
    while len(found) < n:
        found[space.sample(rng)] = None
    return [Scored(codes, value(codes)) for codes in found]


def searched(strategy: Strategy, evaluations: int, seed: int) -> list[Scored]:
    """One point after another, each by its own random numbers."""
    history: list[Scored] = []
    for _ in range(evaluations):
        seen = {scored.codes for scored in history}
        rng = Random(f"{seed}:{len(history)}")
        codes = fresh(strategy, EIGHT, Known(history), rng, lambda one, seen=seen: one not in seen)
        assert codes is not None
        history.append(Scored(codes, worth(codes)))
    return history


# --- a proposal that may be tried and is new ---


@pytest.mark.parametrize("name", NAMES)
@given(space=small_spaces, seed=st.integers(0, 999), data=st.data())
@settings(max_examples=15)
def test_every_admissible_point_is_proposed_once_and_then_none(
    name: str, space: Space, seed: int, data: st.DataObject
) -> None:
    admissible = data.draw(st.sets(st.sampled_from(list(space.all()))))
    history: list[Scored] = []
    strategy, patch = MADE[name](), pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(module, "DRAWS", 300)  # as many as the space has points, or more: all of them are looked at
        for _ in range(len(admissible)):
            left = admissible - {scored.codes for scored in history}
            codes = fresh(strategy, space, Known(history), Random(seed + len(history)), left.__contains__)
            assert codes in left
            history.append(Scored(codes, float(sum(codes))))
        assert fresh(strategy, space, Known(history), Random(seed), lambda _: False) is None


@pytest.mark.parametrize("name", NAMES)
def test_the_only_admissible_point_of_a_small_space_is_found(name: str) -> None:
    space = Space.of({"a": range(20), "b": range(20), "c": range(20)})
    history = tried(30, space=space, value=lambda codes: float(sum(codes)))
    found = fresh(STRATEGIES[name](), space, Known(history), Random(0), lambda codes: codes == (7, 0, 19))
    assert found == (7, 0, 19)


def test_where_a_strategy_proposes_nothing_new_any_admissible_point_is_taken() -> None:
    start = EIGHT.sample(Random(1))
    found = [fresh(Stubborn(start), EIGHT, Known([]), Random(seed), lambda codes: codes[0] == 2) for seed in range(20)]
    assert all(codes is not None and codes[0] == 2 for codes in found)
    assert len({*found}) == 20
    assert fresh(Stubborn(start), EIGHT, Known([]), Random(0), lambda _: False) is None


@pytest.mark.parametrize("proposed", [None, list(WANTED), "31022013", tuple(map(float, WANTED)), 3])
def test_what_a_strategy_proposes_that_is_no_point_is_named_with_the_strategy(proposed: object) -> None:
    strategy = Stubborn(proposed)  # type: ignore[arg-type]
    said = f"strategy Stubborn proposed {proposed!r}; a point is a tuple of integers, one for each choice"
    for admissible in (lambda _: True, lambda _: False):
        with pytest.raises(UserError) as caught:
            fresh(strategy, EIGHT, Known([]), Random(0), admissible)
        assert str(caught.value) == said


def test_integers_of_numpy_are_a_point() -> None:
    proposed = tuple(np.array(WANTED))
    assert fresh(Stubborn(proposed), EIGHT, Known([]), Random(0), lambda _: True) == WANTED


def test_a_proposal_that_is_admissible_is_taken_as_it_is() -> None:
    assert fresh(Stubborn(WANTED), EIGHT, Known([]), Random(0), lambda _: True) == WANTED


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 999), slots=st.integers(1, 6))
@settings(max_examples=8)
def test_points_that_run_are_not_proposed_again_in_whatever_order_they_end(name: str, seed: int, slots: int) -> None:
    space = Space.of({"a": range(4), "b": range(4), "c": range(4)})
    chance, strategy = Random(seed), MADE[name]()
    history: list[Scored] = []
    running: list[Codes] = []
    begun: list[Codes] = []
    while len(begun) < 24:
        allowed = {codes for codes in space.all() if sum(codes) > 1 and codes not in begun}
        known = Known(tuple(history), tuple(running))
        codes = fresh(strategy, space, known, Random(f"{seed}:{len(begun)}"), allowed.__contains__)
        assert codes in allowed
        begun.append(codes)
        running.append(codes)
        while running and (len(running) >= slots or chance.random() < 0.3):
            ended = running.pop(chance.randrange(len(running)))
            history.append(Scored(ended, chance.choice([sum(ended), chance.random(), -math.inf, math.nan])))
    assert len({*begun}) == 24


# --- a space so fine that draws find nothing ---

FINE = Space.of({f"choice {place}": range(4) for place in range(40)})
CENTRE = tuple([place % 4 for place in range(40)])


def near_centre(codes: Codes) -> bool:
    """Of the space's points one in 10¹⁴."""
    return 0 < differing(codes, CENTRE) <= 8


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAWS", 500)
    monkeypatch.setattr(module, "SCARCE", 1)


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("name", NAMES)
def test_where_draws_find_nothing_points_near_those_that_are_known_are_drawn(name: str) -> None:
    strategy, history = STRATEGIES[name](), list[Scored]()
    for place in range(25):
        seen = {scored.codes for scored in history}

        def new(codes: Codes, seen: set[Codes] = seen) -> bool:
            return near_centre(codes) and codes not in seen

        codes = fresh(strategy, FINE, Known(history), Random(place), new, start=lambda: CENTRE)
        assert codes is not None
        history.append(Scored(codes, worth(codes[:8])))
    far = [differing(scored.codes, CENTRE) for scored in history]
    assert far[0] <= module.STEPS  # nothing but the start was known
    assert max(far) > module.STEPS  # it goes on from what was found


@pytest.mark.usefixtures("few_draws")
def test_points_near_what_was_tried_and_what_runs_are_drawn_without_a_start() -> None:
    for known in (Known([Scored(CENTRE, 0.0)]), Known([], [CENTRE])):
        found = [fresh(RandomChoice(), FINE, known, Random(seed), near_centre) for seed in range(20)]
        assert {differing(codes, CENTRE) for codes in found if codes} == {1, 2, 3}
    assert fresh(RandomChoice(), FINE, Known([]), Random(0), near_centre) is None


@pytest.mark.usefixtures("few_draws")
def test_where_nothing_near_may_be_tried_any_point_is_taken_in_the_end() -> None:
    looked: list[Codes] = []

    def late(codes: Codes) -> bool:
        looked.append(codes)
        return len(looked) > 1000

    codes = fresh(RandomChoice(), FINE, Known([]), Random(0), late, start=lambda: CENTRE)
    assert codes == looked[1000]
    assert {differing(codes, CENTRE) for codes in looked[500:1000]} == {1, 2, 3}
    assert differing(looked[1000], CENTRE) > 3


@pytest.mark.parametrize("name", NAMES)
def test_where_draws_find_a_point_none_is_looked_for_near_known_ones(name: str) -> None:
    def start() -> Codes:
        raise AssertionError("asked for")

    for seed in range(5):
        found = [
            fresh(STRATEGIES[name](), EIGHT, Known([]), Random(seed), lambda codes: codes[0] == codes[1] == 2, **more)
            for more in ({}, {"start": start})
        ]
        assert found[0] is not None
        assert found[0] == found[1]


# --- a strategy is a function of what is known ---


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [0, 3, 19, 25, 60])
def test_the_same_history_and_random_numbers_give_the_same_proposal(name: str, n: int) -> None:
    history, running = tried(n), [scored.codes for scored in tried(3, seed=9)]
    used = STRATEGIES[name]()
    proposals = {STRATEGIES[name]().propose(EIGHT, Known(history, running), Random(4), 0) for _ in range(3)}
    if name != "tpe":  # whose model holds random numbers of its own
        for seed in range(5):
            used.propose(EIGHT, Known(history[: n // 2]), Random(seed), 0)
        proposals.add(used.propose(EIGHT, Known(history, running), Random(4), 0))
    assert len(proposals) == 1
    others = {STRATEGIES[name]().propose(EIGHT, Known(history, running), Random(seed), 0) for seed in range(5, 15)}
    assert len(others | proposals) > 1


def test_tpe_made_anew_and_told_the_same_goes_on_where_the_first_one_was() -> None:
    first = searched(TreeParzen(), 60, seed=0)
    for told in (first, tried(60)):
        again = TreeParzen()
        history = list(told)
        for place in range(12):
            known = {scored.codes for scored in history}
            rng = Random(place)
            codes = fresh(again, EIGHT, Known(history), rng, lambda one, known=known: one not in known)
            assert codes is not None
            history.append(Scored(codes, worth(codes)))
        assert fmean(scored.value for scored in history[60:]) > fmean(scored.value for scored in tried(60)) + 1.5


# --- evolution ---


@given(seed=st.integers(0, 10_000), n=st.integers(20, 40))
def test_a_child_differs_from_a_living_parent_in_one_choice(seed: int, n: int) -> None:
    history = tried(n, seed)
    alive = [scored.codes for scored in history[-20:]]
    child = Evolution().propose(EIGHT, Known(history), Random(seed), 0)
    assert 1 in {differing(child, codes) for codes in alive}


@given(seed=st.integers(0, 10_000), drawn=st.integers(1, 12))
def test_the_parent_is_the_best_of_as_many_as_are_drawn(seed: int, drawn: int) -> None:
    history = tried(12, seed, value=lambda codes: Random(str(codes)).random())
    child = Evolution(population=12, drawn=drawn).propose(EIGHT, Known(history), Random(seed), 0)
    ranked = sorted(history, key=lambda scored: -scored.value)
    # At least drawn - 1 of the twelve are worse than the best of those that are drawn.
    assert 1 in {differing(child, scored.codes) for scored in ranked[: 12 - drawn + 1]}


def test_points_die_of_age_however_good_they_are() -> None:
    history = [Scored(WANTED, 8.0), *(Scored(codes, 0.0) for codes in [(0,) * 8, (1,) * 8, (2,) * 8])]
    evolution = Evolution(population=3, drawn=3)
    children = [evolution.propose(EIGHT, Known(history), Random(seed), 0) for seed in range(50)]
    assert min(differing(child, WANTED) for child in children) > 1
    children = [evolution.propose(EIGHT, Known(history[:3]), Random(seed), 0) for seed in range(50)]
    assert {differing(child, WANTED) for child in children} == {1}


def test_before_there_is_a_population_any_point_is_taken() -> None:
    history = tried(19)
    for known in (Known(history), Known([], [scored.codes for scored in tried(25)])):
        for seed in range(20):
            assert Evolution().propose(EIGHT, known, Random(seed), 0) == EIGHT.sample(Random(seed))


def test_points_that_run_count_towards_the_population() -> None:
    history, running = tried(12), [scored.codes for scored in tried(8, seed=5)]
    alive = [scored.codes for scored in history]
    for seed in range(20):
        child = Evolution().propose(EIGHT, Known(history, running), Random(seed), 0)
        assert 1 in {differing(child, codes) for codes in alive}


def test_where_all_near_a_parent_are_known_it_looks_farther() -> None:
    history = [Scored(WANTED, 1.0)]
    evolution = Evolution(population=1, drawn=1)
    far = [
        {differing(evolution.propose(EIGHT, Known(history), Random(seed), turned_down), WANTED) for seed in range(9)}
        for turned_down in (0, module.NEAR - 1, module.NEAR, 2 * module.NEAR, 3 * module.NEAR, 1000 * module.NEAR)
    ]
    assert far == [{1}, {1}, {2}, {3}, {4}, {4}]


def test_a_child_of_two_has_every_choice_but_one_from_a_parent() -> None:
    history = [Scored((0,) * 8, 1.0), Scored((1,) * 8, 1.0)]
    evolution = Evolution(population=2, drawn=1, children=1.0)
    children = [evolution.propose(EIGHT, Known(history), Random(seed), 0) for seed in range(200)]
    assert all(sum(code > 1 for code in child) <= 1 for child in children)
    assert sum(2 < sum(child) < 6 for child in children) > 50


# --- chance ---


def test_chance_draws_every_point_of_the_band_equally_often() -> None:
    space = Space.of({"a": range(4), "b": range(4), "c": range(3)})
    band = [codes for codes in space.all() if 3 <= sum(codes) <= 5]
    rng, history = Random(0), tried(30, space=space, value=lambda codes: float(sum(codes)))
    drawn = [fresh(RandomChoice(), space, Known(history), rng, lambda codes: 3 <= sum(codes) <= 5) for _ in range(9000)]
    counts = [drawn.count(codes) for codes in band]
    assert sum(counts) == 9000
    assert chisquare(counts).pvalue > 0.01


# --- what beats chance ---


@pytest.mark.parametrize("name", ["evolution", "tpe"])
def test_evolution_and_tpe_beat_chance_where_choices_add_up(name: str) -> None:
    leads = []
    for seed in range(5):
        best, control = (
            max(scored.value for scored in searched(STRATEGIES[one](), 100, seed)) for one in (name, "random")
        )
        leads.append(best - control)
    assert min(leads) >= 0
    assert fmean(leads) >= 1


def test_tpe_leaves_alone_what_came_to_nothing() -> None:
    def value(codes: Codes) -> float:
        return -math.inf if codes[0] == 3 else worth(codes)

    history = tried(60, value=value)
    strategy = TreeParzen()
    proposals = [strategy.propose(EIGHT, Known(history), Random(seed), 0) for seed in range(30)]
    assert sum(codes[0] == 3 for codes in proposals) < 30 / 4
    assert fmean(map(worth, proposals)) > fmean(scored.value for scored in history if math.isfinite(scored.value))


@given(seed=st.integers(0, 999), slots=st.integers(1, 4))
@settings(max_examples=8)
def test_tpes_model_knows_what_ended_and_what_runs_and_nothing_that_was_turned_down(seed: int, slots: int) -> None:
    chance, strategy = Random(seed), Early()
    history = tried(2, seed, value=lambda codes: float(sum(codes)))
    running = [scored.codes for scored in tried(4, seed)[2:]]  # that another process had begun
    for turn in range(15):
        begun = {*running, *(scored.codes for scored in history)}
        codes = fresh(
            strategy, EIGHT, Known(history, running), Random(f"{seed}:{turn}"),
            lambda one, begun=begun: sum(one) % 2 == 0 and one not in begun,
        )  # fmt: skip
        assert codes is not None
        study = strategy._study
        assert study is not None
        told = {state: Counter[Codes]() for state in TrialState}
        for trial in study.get_trials(deepcopy=False):
            told[trial.state][tuple(trial.params.values())] += 1
        assert told[TrialState.COMPLETE] == Counter(scored.codes for scored in history)
        assert told[TrialState.RUNNING] == Counter([*running, codes])
        running.append(codes)
        while len(running) >= slots:
            ended = running.pop(chance.randrange(len(running)))
            history.append(Scored(ended, float(sum(ended))))


# --- by name ---


def test_a_strategy_is_found_by_name_and_made_anew_each_time() -> None:
    assert {type(find_strategy(name)) for name in NAMES} == {Evolution, RandomChoice, TreeParzen}
    assert find_strategy("tpe") is not find_strategy("tpe")
    mine = Stubborn(WANTED)
    assert find_strategy(mine) is mine


def test_a_strategy_that_is_none_is_told_the_names() -> None:
    with pytest.raises(UserError, match="strategy 'tpes': is none; take evolution, random, tpe, or a Strategy"):
        find_strategy("tpes")
