"""Power before promises: what fits the time, what it shows, and what is refused."""

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from triscale.errors import UserError
from triscale.studies.designs import DESIGNS, FIVE, TEN
from triscale.studies.planning import (
    BEST,
    Effort,
    Fidelity,
    check_least,
    choose,
    fidelity_for,
    ladder,
    least,
    lines,
    reaching,
)
from triscale.trials.pace import usable

EFFORT = Effort(1e-3, (2e-3,) * 10, (4e-3,) * 3, 1.25, 1_000.0)


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
        timed = rung.work(replace(EFFORT, again=(4e-3,)), fidelity)
        assert rung.work(replace(EFFORT, arms=(2e-3,) * 5, again=()), fidelity) == pytest.approx(timed)


def test_every_rung_is_more_work_than_the_one_before() -> None:
    taken = [rung.work(EFFORT, Fidelity(10_000, 6)) for rung in ladder(None)]
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
    takes = rungs[0].work(EFFORT, fewest) / 2 / (usable(1.0))
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
    assert full.work(effort, fidelity) == pytest.approx(expected)


def test_more_seeds_show_smaller_differences() -> None:
    rungs = [rung for rung in ladder(TEN) if not rung.twice]
    shown = [rung.detects(0.003) for rung in rungs]
    assert shown == sorted(shown, reverse=True)


def test_fewer_than_five_arms_or_three_seeds_are_refused() -> None:
    with pytest.raises(UserError, match="--seeds 2: a study takes at least 3"):
        check_least(FIVE, 2)
    with pytest.raises(UserError, match="4 arms are no study"):
        check_least(replace(FIVE, arms=FIVE.arms[:4]), 3)
