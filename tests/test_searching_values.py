"""What a search says of its trials: who wins, also after it was extended; how far it was when; what was learned."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from executors import Formula, accuracy
from searches import SETUP, Chosen, StopError, sit
from small_trials import MADE

from triscale.engines import Latency
from triscale.reporting.search_curves import course
from triscale.searching import writing
from triscale.searching.costs import Costs
from triscale.searching.halving import FINAL, FINALISTS, Search
from triscale.searching.objectives import Objective
from triscale.searching.values import curve, explained, full_runs, search_values
from triscale.searching.writing import name_winner
from triscale.trials import Trial

FEW = replace(SETUP, candidates=8)
MORE = 27


def misled(trial: Trial) -> float:
    """Whatever is tried has luck with the seed by which finalists are chosen, and is bad by the others."""
    return accuracy(trial) + (0.2 if trial.seed == 0 else -0.2)


@pytest.fixture
def extended(tmp_path: Path) -> tuple[Search, Search]:
    """A search, and the same after more candidates, which are led into the finals by luck."""
    place = tmp_path / "ledger.db"
    return sit(place, Formula(), FEW), sit(place, Formula(accuracy=misled), SETUP)


def finalists(search: Search) -> list[int]:
    return [one.order for one in search.finalists or []]


def test_a_search_that_is_extended_keeps_a_winner_that_is_better_than_all_new_ones(
    extended: tuple[Search, Search],
) -> None:
    before, after = extended
    winner = name_winner(before, {})
    assert winner.order not in finalists(after)
    assert name_winner(after, {}).order == winner.order
    values = search_values(after, {}, name_winner(after, {}), None)
    judged = {*finalists(before), *finalists(after)}
    assert values["finalists"][:FINALISTS] == finalists(after)
    assert sorted(values["finalists"]) == sorted(judged)
    assert values["judged"] == {"seeds": list(FINAL), "out_of": len(judged)}
    assert values["gain"] is not None
    rows = [one for one in values["candidates"] if one["gain"] is not None]
    assert {one["order"] for one in rows} == judged


def test_an_extended_search_that_is_ended_or_goes_on_once_more_names_the_same_winner(tmp_path: Path) -> None:
    place, chosen = tmp_path / "ledger.db", Chosen()
    sit(place, Formula(), FEW)
    sit(tmp_path / "unbroken.db", Formula(), FEW)
    unbroken = sit(tmp_path / "unbroken.db", Formula(accuracy=misled), SETUP)
    for stop in (9, 23, 5):
        with pytest.raises(StopError):
            sit(place, Formula(accuracy=misled), SETUP, stop, chosen)
    for _ in range(2):
        search = sit(place, pool := Formula(accuracy=misled), SETUP, chosen=chosen)
        assert [one.order for one in search.judged] == [one.order for one in unbroken.judged]
        assert name_winner(search, {}).order == name_winner(unbroken, {}).order
    assert not pool.began


def test_all_that_were_judged_are_timed_however_many_they_are(
    extended: tuple[Search, Search], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "TIMED", 3)
    monkeypatch.setattr(writing, "measure_latency", lambda networks, device: [at_rest(1.0) for _ in networks])
    _, after = extended
    assert writing._latencies(after).keys() == {-1, *(one.order for one in after.judged)}


def test_the_curve_of_an_extended_search_is_that_of_one_that_was_asked_for_all_at_once(tmp_path: Path) -> None:
    place = tmp_path / "ledger.db"
    sit(place, Formula(), FEW)
    search = sit(place, Formula(), SETUP)
    unbroken = sit(tmp_path / "unbroken.db", Formula(), SETUP)
    assert len(search.ends) > len(unbroken.ends)
    assert curve(search) == curve(unbroken)
    first, second = (course(search_values(one, {}, None, None)) for one in (search, unbroken))
    assert first == second


def test_trials_of_the_reference_are_no_work_of_the_curve(tmp_path: Path) -> None:
    search = sit(tmp_path / "ledger.db", Formula(), SETUP)
    before = curve(search), course(search_values(search, {}, None, None))
    run = SETUP.top, 0
    search.reference.outcomes[run] = replace(MADE, selection=0.99, seconds=1000.0)  # as a measurement of w leaves it
    search.ends.insert(0, (search.reference, run))
    assert (curve(search), course(search_values(search, {}, None, None))) == before
    assert before[1] is not None
    assert before[1].end >= before[1].steps[-1][0]


def at_rest(seconds: float) -> Latency:
    return Latency(seconds, seconds, seconds, 9, "cpu", 1)


@pytest.mark.parametrize("kind", ["paper", "abs", "hard"])
def test_worth_is_by_the_latency_at_rest_once_that_is_known(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Costs, "_measure", lambda costs, term, network: 1.0)
    objective = Objective({"latency": 1.0}, kind, -0.5)  # type: ignore[arg-type]
    search = sit(tmp_path / "ledger.db", Formula(), replace(FEW, objective=objective))
    slow = name_winner(search, {})
    latencies = {one.order: at_rest(1.0) for one in (*search.judged, search.reference)} | {slow.order: at_rest(5.0)}
    winner = name_winner(search, latencies)
    assert winner is not slow
    values = search_values(search, latencies, winner, None)
    for one in (*search.judged, search.reference):
        row = next(row for row in (values["reference"], *values["candidates"]) if row["order"] == one.order)
        used = 5.0 if one is slow else 1.0
        runs = [one.outcomes[run].selection for run in full_runs(search, one)]
        assert row["used"] == used
        assert row["value"] == pytest.approx(sum(objective.value(run, {"latency": used}) for run in runs) / len(runs))
    assert values["winner"] == max(values["candidates"], key=lambda row: row["value"] or -math.inf)["order"]


def test_a_reference_that_holds_the_limit_at_rest_is_worth_its_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Costs, "_measure", lambda costs, term, network: 1.0)
    search = sit(tmp_path / "ledger.db", Formula(), replace(FEW, objective=Objective({"latency": 1.0})))
    search.reference.costs = {"latency": 1.1}  # beside trials
    search.reference.outcomes = dict.fromkeys(search.reference.outcomes, replace(MADE, selection=1.0))
    latencies = {one.order: at_rest(0.9) for one in (*search.judged, search.reference)}
    assert name_winner(search, latencies) is search.reference


def test_values_that_one_candidate_had_do_not_make_a_choice_explain_everything() -> None:
    assert explained([[0.1], [0.5], [0.9]]) == 0.0
    assert explained([[0.1], [0.5], [0.9, 0.901]]) == 0.0
    several = [[0.1, 0.2], [0.7, 0.9, 0.8]]
    assert 0.5 < explained(several) < 1
    assert explained([*several, [0.4]]) == explained(several)
