"""What the sittings of a run took is known, whoever was killed, and is counted from one place."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from small_trials import MADE, a_trial, entry

from triscale.trials import Cause, Failure, Ledger, Spent, Timer, sittings, time_values


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands until the test moves it."""
    time = [100.0]
    monkeypatch.setattr(sittings, "monotonic", lambda: time[0])
    return time


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def carry_out(ledger: Ledger, seed: int, seconds: float) -> None:
    one = entry(replace(a_trial(), seed=seed))
    ledger.want([one])
    number, _ = ledger.start({one.trial.key: one}) or pytest.fail("it waits")
    ledger.finish(number, replace(MADE, seconds=seconds))


def test_a_sitting_that_is_killed_is_known_until_shortly_before(place: Path, clock: list[float]) -> None:
    with closing(Ledger(place, "search")) as ledger:
        timer = Timer(ledger, 2, started=90.0)
        with timer.working():
            carry_out(ledger, 0, 3.0)
            clock[0] = 120.0
            timer.tick()
            clock[0] = 124.0
            timer.tick()
            assert ledger.sittings() == (Spent(30.0, 20.0, 1, 3.0, 2),), "what one finds that is killed here"


def test_a_sitting_that_is_interrupted_is_known_to_its_end(place: Path, clock: list[float]) -> None:
    def interrupted(timer: Timer) -> None:
        with timer.working():
            carry_out(timer.ledger, 0, 3.0)
            clock[0] = 104.0
            raise KeyboardInterrupt

    with closing(Ledger(place, "search")) as ledger:
        with pytest.raises(KeyboardInterrupt):
            interrupted(Timer(ledger, 1, started=100.0))
        assert ledger.sittings() == (Spent(4.0, 4.0, 1, 3.0, 1),)


def test_seconds_without_trials_are_those_of_all_sittings(place: Path, clock: list[float]) -> None:
    for seed in range(2):
        with closing(Ledger(place, "study")) as ledger:
            timer = Timer(ledger, 1, started=clock[0])
            clock[0] += 7.0  # reading
            with timer.working():
                carry_out(ledger, seed, 3.0)
                clock[0] += 4.0
            clock[0] += 1.0
            timer.keep()
            assert timer.apart == 8.0 * (seed + 1)


def test_every_sitting_counts_its_own_trials_and_the_next_one_knows_what_was_before(
    place: Path, clock: list[float]
) -> None:
    for n, slots in enumerate((2, 1, 4)):
        with closing(Ledger(place, "search")) as ledger:
            timer = Timer(ledger, slots, started=clock[0])
            assert timer.earlier == 10.0 * n
            with timer.working():
                for seed in range(n):
                    carry_out(ledger, 10 * n + seed, 5.0)
                clock[0] += 8.0
            clock[0] += 2.0
            timer.keep()
    with closing(Ledger(place, "search")) as ledger:
        spent = ledger.sittings()
    assert spent == (Spent(10.0, 8.0, 0, 0.0, 2), Spent(10.0, 8.0, 1, 5.0, 1), Spent(10.0, 8.0, 2, 10.0, 4))
    values = time_values(spent, 3, 15.0)
    assert values == {
        "seconds": 30.0,
        "trials": 3,
        "trained": 15.0,
        "workers": 4,
        "share_of_trials": 15 / 70,
        "share_without_trials": pytest.approx(0.2),
    }


def test_an_outcome_that_its_driver_could_not_tell_any_more_is_of_its_sitting(place: Path) -> None:
    with closing(Ledger(place, "search")) as ledger:
        Timer(ledger, 1)
        one = entry(a_trial())
        ledger.want([one])
        number, _ = ledger.start({one.trial.key: one}) or pytest.fail("it waits")
        ledger._study._storage.set_trial_user_attr(ledger._id(number), "outcome", MADE.to_json())  # and is killed
    with closing(Ledger(place, "search")) as ledger:
        ledger.requeue()
        Timer(ledger, 1)
        assert [one.trials for one in ledger.sittings()] == [1, 0]


def test_trials_that_came_to_nothing_count_for_no_sitting(place: Path) -> None:
    with closing(Ledger(place, "search")) as ledger:
        Timer(ledger, 1)
        one = entry(a_trial())
        ledger.want([one])
        number, _ = ledger.start({one.trial.key: one}) or pytest.fail("it waits")
        ledger.fail(number, Failure(Cause.SURROUNDINGS, "no disk"))
        assert [one.trials for one in ledger.sittings()] == [0]
        assert [row.came for row in ledger.ended()] == [Failure(Cause.SURROUNDINGS, "no disk")]
