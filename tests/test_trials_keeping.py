"""A long trial goes on from the end of an epoch, whoever ended it, and comes out as one that was never ended."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from executors import Scripted
from small_trials import LONG, SHORT, a_trial, carry_out, entry, found, trial

from triscale.data import Data
from triscale.errors import TriscaleError
from triscale.training import Checkpoints, Step, StoppedError
from triscale.trials import (
    Cause,
    Failure,
    Ledger,
    Pictures,
    Progress,
    Trial,
    Workers,
    driving,
    run_trial,
    run_trials,
)
from triscale.trials.keeping import CHECKPOINTS, EpochEnds, place_of
from triscale.trials.running import Stopping

EPOCHS, STEPS = 6, 2
RECIPE = replace(SHORT, epochs=EPOCHS)
SLOW = 1000.0  # seconds that an epoch is said to have taken, by which who went on from it is known


def always(place: Path) -> EpochEnds:
    """Keeps every epoch's end, where only one a minute is otherwise."""
    return EpochEnds(Checkpoints(place, every=0.0))


def some_trial(data: Data) -> Trial:
    return trial(data, recipe=RECIPE, images=16 * STEPS)


def attempted(steps: int, wanted: Trial, pictures: Pictures, place: Path) -> list[Step]:
    """An attempt that ends after so many steps, and these."""
    made: list[Step] = []
    with pytest.raises(StoppedError):
        run_trial(wanted, pictures, Stopping(lambda: len(made) >= steps, made.append), always(place))
    return made


def half_done(data: Data, place: Path) -> Trial:
    """A trial with one epoch left to do; the others are said to have taken long."""
    wanted = some_trial(data)
    attempted(STEPS * (EPOCHS - 1) + 1, wanted, Pictures(data), place)
    kept = always(place).newest()
    assert kept is not None
    assert len(kept.values["rows"]) == EPOCHS - 1
    for row in kept.values["rows"]:
        row["seconds"] = SLOW
    always(place).save(kept)
    return wanted


@pytest.mark.parametrize("attempts", [[1], [2], [3], [4], [3, 2], [11, 1], [2, 2, 2]], ids=str)
def test_a_trial_that_was_ended_anywhere_goes_on_from_an_epochs_end_and_comes_out_the_same(
    attempts: list[int], data: Data, tmp_path: Path
) -> None:
    wanted, pictures, begin = some_trial(data), Pictures(data), 0
    for steps in attempts:
        made = attempted(steps, wanted, pictures, tmp_path)
        assert (made[0].step, made[0].steps) == (begin + 1, EPOCHS * STEPS)
        # The step after which it was ended is made before its epoch's end is kept.
        begin += (steps - 1) // STEPS * STEPS
    last: list[Step] = []
    outcome = run_trial(wanted, pictures, Stopping(lambda: False, last.append), always(tmp_path))
    assert last[0].step == begin + 1
    assert found(outcome) == found(run_trial(wanted, pictures))


def test_what_a_trial_goes_back_to_is_never_the_middle_of_an_epoch(data: Data, tmp_path: Path) -> None:
    attempted(STEPS + 1, some_trial(data), Pictures(data), tmp_path)
    kept = always(tmp_path).newest()
    assert kept is not None
    assert (kept.values["epoch"], kept.values["batch"]) == (1, 0)


def test_its_seconds_count_those_of_earlier_attempts(data: Data, tmp_path: Path) -> None:
    wanted = half_done(data, tmp_path)
    outcome = run_trial(wanted, Pictures(data), None, always(tmp_path))
    assert SLOW * (EPOCHS - 1) < outcome.seconds < SLOW * EPOCHS


def test_a_place_that_takes_nothing_stops_no_trial(data: Data, tmp_path: Path) -> None:
    wanted, place = some_trial(data), tmp_path / "file" / "place"
    (tmp_path / "file").write_text("a file, where a folder should be")
    kept = always(tmp_path / "other")
    attempted(STEPS + 1, wanted, Pictures(data), kept.files.folder)
    snapshot = kept.newest()
    assert snapshot is not None
    with pytest.raises(TriscaleError, match="no checkpoint could be kept"):
        always(place).files.save(snapshot)
    outcome = run_trial(wanted, Pictures(data), None, always(place))
    assert found(outcome) == found(run_trial(wanted, Pictures(data)))


@pytest.fixture(scope="module")
def pool(data: Data) -> Iterator[Workers]:
    with closing(Workers(data, 1)) as pool:
        yield pool


def test_a_worker_goes_on_from_what_another_left_and_nothing_of_it_stays(
    data: Data, pool: Workers, ledger: Ledger, tmp_path: Path
) -> None:
    wanted = some_trial(data)
    half_done(data, place_of(ledger.path, wanted.key))
    assert (tmp_path / CHECKPOINTS).is_dir()
    done = carry_out(ledger, pool, [entry(wanted)])[wanted.key]
    assert SLOW * (EPOCHS - 1) < done.seconds < SLOW * EPOCHS
    assert found(done) == found(run_trial(wanted, Pictures(data)))
    assert not (tmp_path / CHECKPOINTS).exists()


def test_trials_of_moments_leave_no_file(data: Data, pool: Workers, ledger: Ledger, tmp_path: Path) -> None:
    seen: list[bool] = []
    carry_out(
        ledger, pool, [entry(trial(data, recipe=LONG))], lambda told: seen.append((tmp_path / CHECKPOINTS).exists())
    )
    assert seen
    assert not any(seen)


def failed(trial: Trial) -> Failure:
    return Failure(Cause.TRIAL, "its loss is not finite")


def test_what_a_failed_trial_left_goes_with_it(ledger: Ledger, tmp_path: Path) -> None:
    pool = Scripted([{}], failed)
    with pytest.raises(TriscaleError, match="its loss is not finite"):
        carry_out(ledger, pool, [entry(a_trial())])
    assert len(pool.places) == 1
    assert not (tmp_path / CHECKPOINTS).exists()


def test_what_a_killed_driver_left_of_a_finished_trial_goes_with_the_next_one(ledger: Ledger, tmp_path: Path) -> None:
    wanted = [entry(replace(a_trial(), seed=seed)) for seed in range(2)]
    carry_out(ledger, Scripted([{}]), wanted[:1])
    finished, other = place_of(ledger.path, wanted[0].trial.key), tmp_path / CHECKPOINTS / "of one that still runs"
    finished.mkdir(parents=True)
    (finished / "000001.safetensors").write_bytes(b"weights")
    other.mkdir()
    carry_out(ledger, Scripted([{}]), wanted[:1])
    assert not finished.exists()
    assert other.exists()


def test_the_time_left_is_known_before_a_first_trial_has_ended(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two trials one goes on from its half: what it did before this driver says nothing of how fast it is."""
    clock = iter(range(0, 10**6, 10))
    monkeypatch.setattr(driving, "monotonic", lambda: float(next(clock)))
    told: list[Progress] = []
    wanted = [entry(replace(a_trial(), seed=seed)) for seed in range(2)]
    shares: list[dict[int, float]] = [{}, {0: 0.5, 1: 0.0}, {0: 0.6, 1: 0.1}, {0: 0.7, 1: 0.2}, {0: 0.9, 1: 0.3}, {}]
    run_trials(ledger, Scripted(shares), wanted, {one.trial.key: 200.0 for one in wanted}, told.append)
    assert [one.left for one in told[:5]] == [
        None,
        None,
        pytest.approx(65.0),
        pytest.approx(55.0),
        pytest.approx(100 / 3),
    ]
    assert told[-1].done == 2
