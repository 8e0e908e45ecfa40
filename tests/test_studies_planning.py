"""Power before promises: what fits the time, what it shows, and what is refused."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from executors import Clocked
from hypothesis import given, settings
from small_trials import a_trial, entry, unheard

from triscale.errors import TooShortError, UserError
from triscale.studies.designs import DESIGNS, FIVE, TEN
from triscale.studies.planning import (
    BEST,
    Effort,
    Fidelity,
    Rung,
    check_least,
    choose,
    fidelity_for,
    ladder,
    least,
    lines,
    reaching,
)
from triscale.trials import Ledger, run_trials
from triscale.trials.pace import usable

EFFORT = Effort(1e-3, (2e-3,) * 10, (4e-3,) * 3, 1.25, 1_000.0)


SLOTS = (1, 2, 8, 32, 64, 96)


def stages(rung: Rung, effort: Effort, again: Sequence[float]) -> list[list[float]]:
    """What each trial of a study takes to train an image, a stage after the other. again: of the arms that turn out to
    be the best."""
    extra = (rung.seeds - 3) * [effort.baseline]
    arms = [pace for pace in effort.arms[: len(rung.design.arms)] for _ in range(rung.seeds)]
    return [3 * [effort.baseline], arms, extra, [pace for pace in again for _ in range(rung.seeds)] * rung.twice]


def carried_out(jobs: Sequence[float], slots: int) -> float:
    """The oracle: seconds by the clock, the longest first, each as soon as another one has ended."""
    waiting, running, now = sorted(jobs), list[float](), 0.0
    while waiting or running:
        while waiting and len(running) < slots:
            running.append(now + waiting.pop())
        now = min(running)
        running.remove(now)
    return now


def plan(seconds: float, images: int = 50_000, slots: int = 2) -> tuple[int, list[float], Fidelity]:
    rungs = ladder(None)
    fidelity = fidelity_for(rungs, EFFORT, seconds, slots, images, 128)
    found = lines(rungs, EFFORT, fidelity, slots, 0.003)
    return choose(found, seconds), [line.seconds for line in found], fidelity


def test_no_rung_is_below_five_arms_and_three_seeds() -> None:
    for design in (None, *DESIGNS.values()):
        for rung in ladder(design):
            assert len(rung.design.arms) >= 5
            assert rung.seeds >= 3
            check_least(rung.design, rung.seeds)


def test_work_is_told_of_arms_that_were_not_timed() -> None:
    """Those of a design that has grown since, and those at the squared factor where nobody wanted any."""
    fidelity = Fidelity(10_000, 6)
    for rung in ladder(None):
        timed = rung.wall(replace(EFFORT, again=(4e-3,)), fidelity, 1)
        assert rung.wall(replace(EFFORT, arms=(2e-3,) * 5, again=()), fidelity, 1) == pytest.approx(timed)


def test_every_rung_is_more_work_than_the_one_before() -> None:
    taken = [rung.wall(EFFORT, Fidelity(10_000, 6), 1) for rung in ladder(None)]
    assert taken == sorted(taken)


@given(st.floats(3_000, 300_000), st.sampled_from((1, 2, 16)), st.sampled_from((1_500, 12_000, 60_000)))
@settings(max_examples=40)
def test_what_is_chosen_fits_the_time(seconds: float, slots: int, images: int) -> None:
    try:
        chosen, taken, fidelity = plan(seconds, images, slots)
    except UserError:  # there is a test of its own for that
        return
    assert taken[chosen] <= usable(seconds)
    assert all(more > usable(seconds) for more in taken[chosen + 1 :])
    assert fidelity.images <= images
    assert fidelity.passes >= least(images, 128).passes


PACES = st.floats(1e-4, 1e-2)


@given(
    st.sampled_from(ladder(None)),
    st.builds(Effort, PACES, st.tuples(*[PACES] * 10), st.tuples(*[PACES] * 3), st.floats(1, 2), st.floats(0, 1e4)),
    st.tuples(*[st.floats(0, 1)] * BEST),
    st.integers(1, 128),
)
def test_a_study_takes_no_longer_than_its_plan_says_for_no_trial_is_cut(
    rung: Rung, effort: Effort, shares: tuple[float, ...], slots: int
) -> None:
    fidelity = Fidelity(10_000, 6)
    again = [share * max(effort.again) for share in shares]  # none is slower than the slowest that was timed
    jobs = [[effort.trial(pace, fidelity) for pace in stage] for stage in stages(rung, effort, again)]
    planned = rung.wall(effort, fidelity, slots)
    assert planned >= sum(carried_out(stage, slots) for stage in jobs) * (1 - 1e-9)
    assert planned >= rung.wall(effort, fidelity, 1) / slots * (1 - 1e-9)


@pytest.mark.parametrize("slots", [2, 32])
def test_the_driver_carries_stages_out_in_the_time_that_is_planned(slots: int, tmp_path: Path) -> None:
    effort, fidelity = Effort(1e-3, tuple(2e-3 + 1e-4 * arm for arm in range(10)), (4e-3,), 1.25, 0.0), Fidelity(100, 1)
    rung, took = ladder(None)[1], 0.0
    for place, stage in enumerate(stages(rung, effort, ())):
        seconds = {replace(a_trial(), seed=seed): effort.trial(pace, fidelity) for seed, pace in enumerate(stage)}
        pool, expected = Clocked(slots, seconds.__getitem__), {one.key: each for one, each in seconds.items()}
        with closing(Ledger(tmp_path / f"{place}.db", "study")) as ledger:
            run_trials(ledger, pool, [entry(trial) for trial in seconds], expected, unheard)
        took += pool.now
    assert rung.wall(effort, fidelity, slots) == pytest.approx(took)


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("images", [12_000, 50_000])
def test_the_asked_time_holds_on_machines_of_many_slots(images: int, slots: int) -> None:
    chosen, _, fidelity = plan(9_000, images, slots)
    jobs = stages(ladder(None)[chosen], EFFORT, BEST * EFFORT.again[:1])
    assert sum(carried_out([EFFORT.trial(pace, fidelity) for pace in stage], slots) for stage in jobs) <= 9_000


@pytest.mark.parametrize("slots", SLOTS)
def test_the_time_that_a_refusal_names_suffices(slots: int) -> None:
    with pytest.raises(TooShortError) as error:
        plan(60, slots=slots)
    needed = error.value.least * 1.001
    chosen, _, fidelity = plan(needed, slots=slots)
    jobs = stages(ladder(None)[chosen], EFFORT, BEST * EFFORT.again[:1])
    assert sum(carried_out([EFFORT.trial(pace, fidelity) for pace in stage], slots) for stage in jobs) <= needed


@given(st.floats(4_000, 100_000), st.floats(1, 5))
@settings(max_examples=30)
def test_more_time_never_trains_less(seconds: float, more: float) -> None:
    short, long = plan(seconds), plan(seconds * more)
    assert long[0] >= short[0]
    assert long[2].passes >= short[2].passes


def test_too_little_time_is_refused_with_what_it_would_take_and_that_is_enough() -> None:
    with pytest.raises(UserError, match="the least study, 5 arms × 3 seeds of") as error:
        plan(600)
    needed = str(error.value)
    assert "takes about" in needed
    rungs = ladder(None)
    fewest = least(50_000, 128)
    takes = rungs[0].wall(EFFORT, fewest, 2) / (usable(1.0))
    assert plan(takes * 1.001)[0] == 0


@given(st.floats(0, 1e8), st.integers(100, 100_000))
def test_a_part_is_seen_six_times_before_more_images_are_taken(passes: float, images: int) -> None:
    found = reaching(passes, images, 128)
    assert found.images <= images
    if least(images, 128).passes < passes < images * 6 and found != least(images, 128):
        assert found.epochs == 6
    if found.epochs > max(20, least(images, 128).epochs):
        raise AssertionError(found)


def test_the_full_design_trains_all_arms_then_the_best_again() -> None:
    full = ladder(None)[3]
    assert (full.design, full.seeds, full.twice) == (TEN, 3, True)
    assert full.trials == (10 + BEST + 1) * 3
    effort, fidelity = replace(EFFORT, judging=0.0), Fidelity(1_000, 1)
    expected = 1.25 * 1_000 * 3 * (1e-3 + 10 * 2e-3 + BEST * 4e-3)
    assert full.wall(effort, fidelity, 1) == pytest.approx(expected)


def test_more_seeds_show_smaller_differences() -> None:
    rungs = [rung for rung in ladder(TEN) if not rung.twice]
    shown = [rung.detects(0.003) for rung in rungs]
    assert shown == sorted(shown, reverse=True)


def test_fewer_than_five_arms_or_three_seeds_are_refused() -> None:
    with pytest.raises(UserError, match="--seeds 2: a study takes at least 3"):
        check_least(FIVE, 2)
    with pytest.raises(UserError, match="4 arms are no study"):
        check_least(replace(FIVE, arms=FIVE.arms[:4]), 3)
