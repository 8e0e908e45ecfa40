"""Which trial a search asks for next, and that it goes on as it would have. Trials are a formula here, no trainings."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch
from executors import Clocked, Formula, accuracy
from searches import REFERENCE, SETUP, Chosen, StopError, sit
from small_trials import unheard

from triscale.arch import Architecture, Conv, Head, Stage, Stem
from triscale.costing import cost
from triscale.errors import HopelessError, TriscaleError, UserError
from triscale.searching.calibrating import calibrate, family
from triscale.searching.costs import Costs
from triscale.searching.halving import ETA, FEWEST, FINAL, FINALISTS, LOOKS, Search
from triscale.searching.networks import around
from triscale.searching.objectives import Objective
from triscale.searching.setup import Setup
from triscale.searching.strategies import STRATEGIES, find_strategy
from triscale.searching.values import curve, learned, search_values
from triscale.searching.writing import name_winner
from triscale.trials import Cause, Failure, Ledger, Trial, run_asked


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Search, Formula]:
    """A search that nobody ended."""
    pool = Formula()
    return sit(tmp_path_factory.mktemp("whole") / "ledger.db", pool), pool


def test_of_what_ended_a_rung_a_third_goes_on_and_only_the_best(whole: tuple[Search, Formula]) -> None:
    search, _ = whole
    low, middle, top = (
        {one.order for one in search.candidates.values() if (epochs, 0) in one.outcomes} for epochs in (1, 3, 9)
    )
    assert len(low) == 27
    assert top <= middle <= low
    assert len(middle) >= 27 // ETA
    best = sorted(search.candidates.values(), key=lambda one: -search.value(one, (1, 0)))
    assert {one.order for one in best[: 27 // ETA]} <= middle  # at the end; an early one may have gone on by luck


def test_the_best_five_and_the_reference_are_judged_by_three_seeds_that_chose_none(
    whole: tuple[Search, Formula],
) -> None:
    search, _ = whole
    assert search.finalists is not None
    assert len(search.finalists) == FINALISTS
    for one in (*search.finalists, search.reference):
        assert {run for run in one.outcomes if run[0] == 9} - {(9, 0)} == {(9, 1), (9, 2), (9, 3)}
    assert search_values(search, {}, name_winner(search, {}), None)["judged"] == {"seeds": [1, 2, 3], "out_of": 5}


def test_the_run_by_which_a_finalist_was_chosen_does_not_count_when_it_is_judged(tmp_path: Path) -> None:
    def luck(trial: Trial) -> float:
        """One candidate has it, with the seed that everything is chosen by."""
        lucky = trial.architecture.stages == pool.began[min(4, len(pool.began) - 1)].architecture.stages
        return accuracy(trial) + (0.3 if lucky and trial.seed == 0 else 0.0)

    pool = Formula(accuracy=luck)
    search = sit(tmp_path / "ledger.db", pool)
    assert search.finalists is not None
    lucky = next(one for one in search.finalists if one.network.stages == pool.began[4].architecture.stages)
    values = search_values(search, {}, lucky, None)
    row = next(one for one in values["candidates"] if one["order"] == lucky.order)
    runs = {run["seed"]: run for run in row["runs"] if run["epochs"] == 9}
    assert runs[0]["accuracy"] > 0.2 + runs[1]["accuracy"]
    assert [seed for seed, run in runs.items() if run["final"]] == [1, 2, 3]
    assert row["accuracy"][0] == pytest.approx(fmean(runs[seed]["accuracy"] for seed in (1, 2, 3)))
    assert row["value"] == pytest.approx(row["accuracy"][0])


def test_no_trial_is_asked_for_twice_and_no_network_is_two_candidates(whole: tuple[Search, Formula]) -> None:
    search, pool = whole
    assert max(Counter(trial.key for trial in pool.began).values()) == 1
    networks = [one.network for one in search.candidates.values()]
    assert len(set(networks)) == len(networks)
    assert search.reference.network not in networks


def test_every_candidate_is_in_the_band_before_anything_is_trained(whole: tuple[Search, Formula]) -> None:
    _, pool = whole
    low, high = SETUP.objective.band
    limit = SETUP.objective.limits["macs"]
    assert all(low * limit <= cost(trial.architecture).macs <= high * limit for trial in pool.began)


# Not TPE: Optuna's own random numbers are not in the ledger, so it goes on, but not the same way.
@pytest.mark.parametrize(
    ("strategy", "stops"), [("evolution", (1,)), ("evolution", (20, 21, 40)), ("random", (34, 51))]
)
def test_a_search_that_is_ended_goes_on_as_if_it_never_was(
    strategy: str, stops: tuple[int, ...], tmp_path: Path
) -> None:
    setup, chosen = replace(SETUP, strategy=strategy), Chosen()
    unbroken = Formula()
    sit(tmp_path / "unbroken.db", unbroken, setup)
    pool, done = Formula(), 0
    for stop in stops:
        with pytest.raises(StopError):
            sit(tmp_path / "broken.db", pool, setup, stop - done, chosen)
        done = stop
        pool.running.clear()
    sit(tmp_path / "broken.db", pool, setup, chosen=chosen)
    assert [trial.key for trial in pool.began] == [trial.key for trial in unbroken.began]


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_with_several_slots_a_trial_that_ran_at_the_end_is_done_again_and_no_finished_one(
    strategy: str, tmp_path: Path
) -> None:
    setup, chosen, pool = replace(SETUP, strategy=strategy), Chosen(), Formula(slots=3)
    finished: list[str] = []
    for stop in (7, 12, None):
        begun = len(pool.began)
        try:
            search = sit(tmp_path / "ledger.db", pool, setup, stop, chosen)
        except StopError:
            left = {trial.key for _, trial in pool.running}
            finished += [trial.key for trial in pool.began[begun:] if trial.key not in left]
            pool.running.clear()
    repeated = Counter(trial.key for trial in pool.began)
    assert all(repeated[key] == 1 for key in finished)
    assert search.standing.tried == 27
    assert search.finalists is not None
    assert all(len([run for run in one.outcomes if run[0] == 9 and run[1] in FINAL]) == 3 for one in search.finalists)


def test_the_asked_time_holds_with_the_final_runs(tmp_path: Path) -> None:
    setup = replace(SETUP, time=400.0, candidates=None, pace=1 / (30 * cost(REFERENCE).macs))
    pool = Formula()
    search = sit(tmp_path / "ledger.db", pool, setup)
    took = sum(trial.recipe.epochs for trial in pool.began)
    assert 300 < took <= 400
    assert search.finalists is not None
    assert all((9, seed) in one.outcomes for one in search.finalists for seed in FINAL)


HOUR = 3600.0


def clocked(place: Path, planned: int, slots: int, full: float) -> tuple[Search, float]:
    """A search of an hour by chance, and the seconds that it took. planned: the workers that it was begun with; full:
    seconds of a full training of the reference."""
    setup = replace(SETUP, time=HOUR, workers=planned, strategy="random", candidates=None)
    setup = replace(setup, pace=full / (9 * 30 * cost(REFERENCE).macs))
    pool = Clocked(slots, lambda trial: setup.seconds(trial.architecture, trial.recipe.epochs))
    with closing(Ledger(place, "search")) as ledger:
        costs = Costs(setup.objective, setup.reference, torch.device("cpu"))
        left = lambda: 0.95 * HOUR - pool.now  # noqa: E731
        search = Search(setup, find_strategy("random"), costs, left, lambda: pool.slots, Chosen())
        run_asked(ledger, pool, search, unheard)
    return search, pool.now


@pytest.mark.parametrize(("planned", "slots", "full"), [(16, 16, 1150.0), (16, 2, 300.0)])
def test_the_asked_time_holds_where_final_runs_are_more_than_the_slots(
    planned: int, slots: int, full: float, tmp_path: Path
) -> None:
    """Eighteen of them in sixteen slots take as long as two, not as nine eighths of one; and in the two that a later
    sitting has as long as nine."""
    search, took = clocked(tmp_path / "ledger.db", planned, slots, full)
    assert search.finalists
    assert all((9, seed) in one.outcomes for one in (*search.finalists, search.reference) for seed in FINAL)
    assert took <= HOUR


def test_a_later_sitting_with_more_slots_tries_what_these_have_time_for(tmp_path: Path) -> None:
    search, took = clocked(tmp_path / "ledger.db", planned=1, slots=8, full=600.0)
    assert len(search.candidates) > 2 * FEWEST
    assert took <= HOUR


def test_a_time_that_is_far_too_short_still_tries_the_fewest(tmp_path: Path) -> None:
    setup = replace(SETUP, time=1.0, candidates=None, pace=1 / (30 * cost(REFERENCE).macs))
    search = sit(tmp_path / "ledger.db", Formula(), setup)
    assert search.standing.tried == FEWEST
    assert not search.used_up


def test_an_exhausted_space_ends_the_search(tmp_path: Path) -> None:
    one = SETUP.space.stages[0]
    assert one is not None
    few = replace(one, kind=("mbconv",), squeeze_excite=(0.25,), skip=("identity",), channels=(1.0,), repeats=(0,))
    space = replace(SETUP.space, stages=(few, *[None] * (len(REFERENCE.stages) - 1)))
    objective = Objective({"macs": 3.0 * cost(REFERENCE).macs}, "paper")
    search = sit(tmp_path / "ledger.db", Formula(), replace(SETUP, space=space, objective=objective))
    assert 0 < len(search.candidates) <= 12
    assert search.finalists
    assert search.used_up


@pytest.mark.slow
def test_a_space_without_a_network_at_the_limit_says_so(tmp_path: Path) -> None:
    objective = Objective({"macs": 1000 * cost(REFERENCE).macs})
    with pytest.raises(HopelessError, match="no network of the space was found that uses 85% to 100% of the limits"):
        sit(tmp_path / "ledger.db", Formula(), replace(SETUP, objective=objective))


def test_what_is_dear_to_measure_is_not_measured_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Architecture] = []

    def slow(costs: Costs, term: str, network: Architecture) -> float:
        measured.append(network)
        return 1.0

    monkeypatch.setattr(Costs, "_measure", slow)
    objective = Objective({"latency": 10.0})
    with pytest.raises(HopelessError, match="no network of the space was found that uses 85% to 100% of the limits"):
        sit(tmp_path / "ledger.db", Formula(), replace(SETUP, objective=objective))
    assert len(measured) <= LOOKS + 1  # and the reference


def test_the_reference_wins_where_nothing_is_better(whole: tuple[Search, Formula], tmp_path: Path) -> None:
    def conservative(trial: Trial) -> float:
        return 1.0 if trial.architecture == SETUP.reference else accuracy(trial)

    assert name_winner(whole[0], {}) is not whole[0].reference  # the formula likes large kernels
    search = sit(tmp_path / "ledger.db", Formula(accuracy=conservative))
    assert name_winner(search, {}) is search.reference


def test_the_values_are_json_and_say_what_was_found(whole: tuple[Search, Formula]) -> None:
    search, pool = whole
    winner = name_winner(search, {})
    values = json.loads(json.dumps(search_values(search, {}, winner, None)))
    one = next(one for one in values["candidates"] if one["order"] == values["winner"])
    assert one["macs"] == cost(winner.network).macs
    assert one["accuracy"][1] <= one["accuracy"][0] <= one["accuracy"][2]
    assert values["gain"][0] > 0
    assert sum(len(c["runs"]) for c in (values["reference"], *values["candidates"])) == len(pool.began)
    rising = [accuracy for _, _, accuracy in curve(search)]
    assert rising == sorted(rising)


def test_what_was_learned_names_the_choices_that_matter_first(whole: tuple[Search, Formula]) -> None:
    search, _ = whole
    first = learned(search)[0]
    assert first["choice"].rpartition(".")[2] in ("kernel", "expansion", "kind")  # the formula knows no other
    assert sum(row["n"] for row in first["values"]) == len(search.candidates)


def test_w_is_the_slope_of_accuracy_over_cost(tmp_path: Path) -> None:
    def law(trial: Trial) -> float:
        return 0.1 * cost(trial.architecture).macs ** 0.11

    setup = replace(SETUP, objective=Objective(dict(SETUP.objective.limits), "paper"))
    with closing(Ledger(tmp_path / "ledger.db", "search")) as ledger:
        found = calibrate(setup, ledger, Formula(accuracy=law), lambda progress: None)
    assert found.exponent == pytest.approx(-0.11, abs=1e-6)
    assert found.low <= found.exponent <= found.high
    assert len(found.points) == 3


def test_setup_comes_back_from_json() -> None:
    values = json.loads(json.dumps(SETUP.to_json()))
    assert Setup.from_json(values, "run.json") == SETUP
    with pytest.raises(UserError, match="not a search that this version can go on with"):
        Setup.from_json({key: values[key] for key in values if key != "rungs"}, "run.json")


def test_a_trial_of_the_ledger_says_which_candidate_it_was_of(whole: tuple[Search, Formula]) -> None:
    for codes, one in whole[0].candidates.items():
        assert SETUP.codes(SETUP.entry(codes, 3, 0, one.label).parameters) == codes
    assert SETUP.codes(SETUP.entry(None, 9, 1, "reference").parameters) is None


def untrainable(trial: Trial) -> Failure | None:
    """Some networks cannot be trained, however often that is tried."""
    if trial.architecture != SETUP.reference and int(trial.key[0], 16) < 4:
        return Failure(Cause.TRIAL, "its loss is not finite")
    return None


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_a_candidate_that_cannot_be_trained_is_left_out_and_not_tried_again(strategy: str, tmp_path: Path) -> None:
    pool, chosen, setup = Formula(failing=untrainable), Chosen(), replace(SETUP, strategy=strategy)
    with pytest.raises(StopError):
        sit(tmp_path / "ledger.db", pool, setup, stop=12, chosen=chosen)
    pool.running.clear()
    search = sit(tmp_path / "ledger.db", pool, setup, chosen=chosen)
    failed = [one for one in search.candidates.values() if one.failed]
    assert failed
    assert len(search.candidates) == 27
    assert max(Counter(trial.key for trial in pool.began).values()) == 1
    assert search.finalists is not None
    winner = name_winner(search, {})
    assert winner not in failed
    values = search_values(search, {}, winner, None)  # as search.json and the page have them
    trained = [one for one in search.candidates.values() if one.outcomes]
    assert sum(row["n"] for row in values["learned"][0]["values"]) == len(trained) < len(search.candidates)
    assert "Infinity" not in json.dumps(values)


class Lethal(Formula):
    """Some trials end their worker, whenever they are begun."""

    def __init__(self, deadly: Callable[[Trial], bool], cause: Cause = Cause.WORKER) -> None:
        super().__init__(failing=lambda trial: Failure(cause, "not enough memory") if deadly(trial) else None)
        self.deadly = deadly


def test_a_candidate_that_ends_three_workers_is_left_out_as_one_that_cannot_be_trained(tmp_path: Path) -> None:
    pool = Lethal(lambda trial: trial.architecture.stages[0].block.kernel == 7)
    search = sit(tmp_path / "ledger.db", pool)
    failed = [one for one in search.candidates.values() if one.failed]
    assert failed
    assert len(search.candidates) == 27
    assert Counter(pool.began.count(trial) for trial in pool.began if pool.deadly(trial)) == {3: 3 * len(failed)}
    assert not name_winner(search, {}).failed


@pytest.mark.parametrize("cause", [Cause.TRIAL, Cause.WORKER])
def test_where_nothing_can_be_trained_the_search_ends_and_says_why(cause: Cause, tmp_path: Path) -> None:
    with pytest.raises(TriscaleError, match=r"8 trials in a row .* candidate 7, 1 epoch, seed 0: not enough memory"):
        sit(tmp_path / "ledger.db", Lethal(lambda _: True, cause))


def test_what_the_surroundings_do_to_a_trial_is_never_held_against_it(tmp_path: Path) -> None:
    pool = Lethal(lambda trial: len(pool.began) > 5, cause=Cause.SURROUNDINGS)
    with pytest.raises(TriscaleError, match="candidate 4, 1 epoch, seed 0: not enough memory") as caught:
        sit(tmp_path / "ledger.db", pool)
    assert not isinstance(caught.value, HopelessError), "once it is mended the search goes on"
    assert len(pool.began) == 5 + 3
    pool = Formula()
    search = sit(tmp_path / "ledger.db", pool)
    assert pool.began[0].architecture == search.candidates[list(search.candidates)[4]].network
    assert not any(one.failed for one in search.candidates.values())


def test_why_a_candidate_failed_is_known_in_later_sittings(tmp_path: Path) -> None:
    pool, chosen = Formula(failing=untrainable), Chosen()
    with pytest.raises(StopError):
        sit(tmp_path / "ledger.db", pool, stop=12, chosen=chosen)
    search = sit(tmp_path / "ledger.db", Formula(), chosen=chosen)
    assert {one.failed for one in search.candidates.values()} == {"", "its loss is not finite"}


def test_finalists_are_judged_without_a_reference_that_cannot_be_trained(tmp_path: Path) -> None:
    pool = Lethal(lambda trial: trial.architecture.stages == REFERENCE.stages and trial.seed == 1, cause=Cause.TRIAL)
    search = sit(tmp_path / "ledger.db", pool)
    assert search.reference.failed
    winner = name_winner(search, {})
    assert winner in (search.finalists or [])
    assert search_values(search, {}, winner, None)["gain"] is None


def test_a_search_without_a_reference_that_can_be_trained_is_extended_as_any_other(tmp_path: Path) -> None:
    pool = Lethal(lambda trial: trial.architecture.stages == REFERENCE.stages, cause=Cause.TRIAL)
    sit(tmp_path / "ledger.db", pool, replace(SETUP, candidates=8))
    search = sit(tmp_path / "ledger.db", pool, replace(SETUP, candidates=10))
    assert len(search.candidates) == 10
    assert name_winner(search, {}) in (search.finalists or [])


def test_where_neither_a_finalist_nor_the_reference_can_be_trained_the_search_ends_and_says_why(tmp_path: Path) -> None:
    pool = Lethal(lambda trial: trial.seed > 0, cause=Cause.TRIAL)
    pool.slots = 2  # the reference comes to nothing while a finalist still runs
    with pytest.raises(HopelessError, match="9 epochs, seed 2: not enough memory"):
        sit(tmp_path / "ledger.db", pool, replace(SETUP, candidates=8))


def test_with_more_slots_than_there_is_time_for_finalists_are_waited_for(tmp_path: Path) -> None:
    setup = replace(SETUP, time=5.0, candidates=None, workers=16, pace=1 / (30 * cost(REFERENCE).macs))
    search = sit(tmp_path / "ledger.db", Formula(slots=16), setup)
    assert search.finalists is not None
    assert len(search.finalists) == FINALISTS


def test_costs_that_were_measured_lie_with_the_trial_and_are_not_measured_again() -> None:
    codes = (0,) * len(SETUP.space.space.names)
    entry = SETUP.entry(codes, 1, 0, "candidate 0", {"latency": 0.25, "macs": 5.0})
    assert SETUP.measured(entry.parameters) == {"latency": 0.25}
    assert SETUP.codes(entry.parameters) == codes


def test_a_reference_that_cannot_be_halved_is_no_ground_to_measure_w_on() -> None:
    least = Architecture((Stage(Conv(), 8, 2),), stem=Stem(8), head=Head(2, None), resolution=(2, 2))
    limits = {"macs": float(cost(least).macs)}
    setup = replace(SETUP, space=around(least), objective=Objective(limits, "paper"))
    with pytest.raises(UserError, match=r"^--calibrate trains the reference at half .*; choose another --reference"):
        family(setup)
