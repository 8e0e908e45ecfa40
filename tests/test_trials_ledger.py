"""The ledger keeps what came out, whatever file lies there and whoever was killed; nothing is trained twice."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from executors import Fake
from small_trials import MADE, SMALL, a_trial, carry_out, entry, unheard

from triscale.errors import TriscaleError, UserError
from triscale.trials import (
    Cause,
    Entry,
    Failure,
    Ledger,
    Outcome,
    Progress,
    Trial,
    run_trials,
)

Opened = Callable[..., Ledger]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Opens the ledger there, and closes all of them at the end."""
    ledgers: list[Ledger] = []

    def opened(place: Path = tmp_path / "ledger.db", name: str = "study") -> Ledger:
        ledgers.append(Ledger(place, name))
        return ledgers[-1]

    yield opened
    for ledger in ledgers:
        ledger.close()


def test_the_ledger_is_in_wal_mode_where_readers_do_not_stop_the_writer(opened: Opened, tmp_path: Path) -> None:
    ledger = opened()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        file.execute("BEGIN")
        assert file.execute("SELECT count(*) FROM trials").fetchone() == (0,)
        wanted = entry(a_trial())
        ledger.want([wanted])
        number, _ = ledger.start({wanted.trial.key: wanted}) or (-1, None)
        ledger.finish(number, MADE)
        assert file.execute("SELECT count(*) FROM trials").fetchone() == (0,), "it still reads what it began with"
    assert ledger.finished() == {wanted.trial.key: MADE}


def test_finished_trials_outlast_the_driver(opened: Opened) -> None:
    wanted = [entry(replace(a_trial(), seed=seed)) for seed in range(3)]
    outcomes = {one.trial.key: replace(MADE, selection=0.1 + place / 3) for place, one in enumerate(wanted)}
    first = opened()
    first.want(wanted)
    for _ in wanted:
        number, one = first.start({one.trial.key: one for one in wanted}) or pytest.fail("all of them wait")
        first.finish(number, outcomes[one.trial.key])
    assert opened().finished() == outcomes
    rows = opened().rows()
    assert [row["state"] for row in rows] == ["COMPLETE"] * 3
    assert [row["label"] for row in rows] == [one.label for one in wanted]


def test_what_was_left_running_is_closed_and_queued_again(opened: Opened) -> None:
    wanted = [entry(replace(a_trial(), seed=seed)) for seed in range(2)]
    by_key = {one.trial.key: one for one in wanted}
    first = opened()
    first.want(wanted)
    first.start(by_key)
    assert first.counts() == {"COMPLETE": 0, "RUNNING": 1, "WAITING": 1, "FAIL": 0, "PRUNED": 0}

    second = opened()
    assert second.requeue() == 1
    assert second.counts()["RUNNING"] == 0
    done = carry_out(second, Fake(), wanted)
    assert done.keys() == by_key.keys()
    assert second.counts() == {"COMPLETE": 2, "RUNNING": 0, "WAITING": 0, "FAIL": 1, "PRUNED": 0}
    assert second.requeue() == 0


def test_what_waits_already_is_not_queued_twice_and_what_nobody_wants_any_more_is_closed(opened: Opened) -> None:
    dropped, kept = (entry(replace(a_trial(), seed=seed)) for seed in range(2))
    first = opened()
    first.want([dropped, kept])
    first.want([kept])
    assert first.counts()["WAITING"] == 2

    pool = Fake()
    done = carry_out(opened(), pool, [kept])
    assert pool.began == [kept.trial]
    assert done.keys() == {kept.trial.key}
    assert opened().counts() == {"COMPLETE": 1, "RUNNING": 0, "WAITING": 0, "FAIL": 1, "PRUNED": 0}


def test_parameters_are_told_as_they_are_whatever_the_seed(opened: Opened, tmp_path: Path) -> None:
    wanted = entry(replace(a_trial(), seed=2**31 - 1))
    carry_out(opened(), Fake(), [wanted])
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as file:
        told = dict(file.execute("SELECT param_name, param_value FROM trial_params").fetchall())
    assert told == wanted.parameters


@pytest.mark.parametrize("name", ["plain", "with space", "what?", "100%41", "#1", "ü", "a=b&c", "it's"])
def test_the_ledger_lies_where_it_was_put_whatever_the_directory_is_called(
    name: str, tmp_path: Path, opened: Opened
) -> None:
    (tmp_path / name).mkdir()
    place = tmp_path / name / "ledger.db"
    carry_out(opened(place), Fake(), [entry(a_trial())])
    assert len(opened(place).finished()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def no_database(place: Path) -> None:
    place.write_text("these are notes, no database\n" * 40)


def another_database(place: Path) -> None:
    with closing(sqlite3.connect(place)) as file:
        file.execute("CREATE TABLE photos (name TEXT)")
        file.execute("INSERT INTO photos VALUES ('a.jpg')")
        file.commit()


def another_study(place: Path) -> None:
    Ledger(place, "somebody's").close()


def half_a_ledger(place: Path) -> None:
    another_study(place)
    content = place.read_bytes()
    place.write_bytes(content[: len(content) // 2])


def a_later_version(place: Path) -> None:
    Ledger(place, "study").close()
    with closing(sqlite3.connect(place)) as file:
        file.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")
        file.commit()


@pytest.mark.parametrize("made", [no_database, another_database, another_study, half_a_ledger, a_later_version])
def test_a_file_that_is_no_ledger_is_named_and_stays_as_it_was(
    made: Callable[[Path], None], tmp_path: Path, opened: Opened
) -> None:
    place = tmp_path / "ledger.db"
    made(place)
    before = place.read_bytes()
    with pytest.raises(UserError, match=r"ledger\.db: not a ledger") as caught:
        opened(place)
    assert "\n" not in str(caught.value)
    assert place.read_bytes() == before


def test_a_directory_in_the_ledgers_place_is_named(tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(UserError, match=r"ledger\.db: not a ledger"):
        opened()


def test_a_ledger_whose_first_driver_was_killed_as_it_began_is_gone_on_with(tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "ledger.db").touch()
    carry_out(opened(), Fake(), [entry(a_trial())])
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as file:
        for table in ("trial_params", "trial_user_attributes", "trial_system_attributes", "trial_values", "trials"):
            file.execute(f"DELETE FROM {table}")  # made, but no study in them yet
        file.execute("DELETE FROM study_directions")
        file.execute("DELETE FROM studies")
        file.commit()
    assert carry_out(opened(), Fake(), [entry(a_trial())]).keys() == {entry(a_trial()).trial.key}


def some_entries(count: int) -> list[Entry]:
    return [entry(replace(a_trial(), seed=seed)) for seed in range(count)]


def test_nothing_is_trained_twice(opened: Opened) -> None:
    wanted = some_entries(5)
    pool = Fake()
    first = carry_out(opened(), pool, wanted)
    assert len(pool.began) == 5
    again = Fake()
    assert carry_out(opened(), again, wanted) == first
    assert again.began == []
    assert opened().counts()["COMPLETE"] == 5


def test_entries_of_one_trial_under_two_labels_are_trained_once(opened: Opened) -> None:
    one = entry(a_trial())
    other = entry(a_trial(replace(SMALL, name="other")))
    pool = Fake()
    assert carry_out(opened(), pool, [one, other]).keys() == {one.trial.key}
    assert len(pool.began) == 1


def test_a_set_that_grows_trains_only_what_is_new(opened: Opened) -> None:
    carry_out(opened(), Fake(), some_entries(3))
    pool = Fake()
    done = carry_out(opened(), pool, some_entries(5))
    assert [one.seed for one in pool.began] == [3, 4]
    assert len(done) == 5


def test_the_longest_begin_first_and_only_as_many_as_there_are_slots(opened: Opened) -> None:
    wanted = some_entries(4)
    expected = {one.trial.key: float(one.trial.seed) for one in wanted}
    pool = Fake(slots=3)
    run_trials(opened(), pool, wanted, expected, unheard)
    assert [one.seed for one in pool.began] == [3, 2, 1, 0]


def test_progress_rises_to_everything(opened: Opened) -> None:
    told: list[Progress] = []
    wanted = some_entries(4)
    expected = {one.trial.key: 1.0 for one in wanted}
    run_trials(opened(), Fake(slots=1), wanted, expected, told.append)
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert [one.share for one in told] == sorted(one.share for one in told)
    assert told[0].share == 0
    assert told[-1].share == 1
    assert (told[-1].done, told[-1].running, told[-1].wanted) == (4, 0, 4)
    assert told[0].left is None
    assert [one.left for one in told[1:]] == [6.0, 4.0, 2.0, 0.0], "two real seconds for an expected one"


def test_a_trial_whose_worker_dies_is_begun_again_twice(opened: Opened) -> None:
    deaths = iter([True, True, False])

    def ends(trial: Trial) -> Outcome | Failure:
        return Failure(Cause.WORKER, "its worker died") if next(deaths) else MADE

    pool = Fake(ends=ends)
    done = carry_out(opened(), pool, some_entries(1))
    assert len(done) == 1
    assert len(pool.began) == 3
    assert [row["why"] for row in opened().rows()] == ["its worker died", "its worker died", None]


@pytest.mark.parametrize(("cause", "times"), [(Cause.WORKER, 3), (Cause.SURROUNDINGS, 3), (Cause.TRIAL, 1)])
def test_a_trial_that_cannot_be_done_is_named_and_what_is_finished_is_kept(
    cause: Cause, times: int, opened: Opened
) -> None:
    def ends(trial: Trial) -> Outcome | Failure:
        return Failure(cause, "no luck") if trial.seed == 1 else MADE

    pool = Fake(slots=3, ends=ends)
    with pytest.raises(TriscaleError, match="trial small, seed 1: no luck"):
        carry_out(opened(), pool, some_entries(3))
    assert sum(trial.seed == 1 for trial in pool.began) == times
    kept = opened().finished()
    assert kept.keys() == {one.trial.key for one in some_entries(3) if one.trial.seed != 1}, "also what ended with it"
