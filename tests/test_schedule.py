import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triscale.training import Deadline, Schedule
from triscale.training.recipe import Cosine


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(
    planned: int, per_epoch: int, seconds: float, step: float, slowness: "itertools.repeat[float] | list[float]"
) -> tuple[Schedule, Clock]:
    """A training whose n-th step takes `step` times the n-th slowness; each epoch's end takes two steps."""
    clock = Clock()
    schedule = Schedule(planned, per_epoch, Deadline(seconds, step, 2 * step, clock))
    for factor in slowness:
        if schedule.finished:
            break
        clock.now += step * factor
        schedule.advance()
        if schedule.done % per_epoch == 0 or schedule.finished:
            clock.now += 2 * step * factor
            schedule.epoch_ended(2 * step * factor)
    return schedule, clock


def needed(planned: int, per_epoch: int, step: float) -> float:
    return planned * step + -(-planned // per_epoch) * 2 * step


@given(st.integers(1, 3000))
def test_without_a_deadline_every_planned_step_is_made_and_counts_the_same(planned: int) -> None:
    schedule = Schedule(planned, 10)
    middles = []
    while not schedule.finished:
        middles.append(schedule.middle)
        schedule.advance()
    assert schedule.done == planned
    assert schedule.progress == pytest.approx(1)
    assert middles == pytest.approx([(step + 0.5) / planned for step in range(planned)])


@given(st.integers(10, 2000), st.integers(5, 100), st.floats(0.9, 1.02))
def test_a_machine_that_keeps_the_pace_makes_every_planned_step(planned: int, per_epoch: int, pace: float) -> None:
    seconds = 1.05 * needed(planned, per_epoch, 0.1) + 0.1
    schedule, _ = run(planned, per_epoch, seconds, 0.1, itertools.repeat(pace))
    assert schedule.done == planned


@given(st.integers(200, 2000), st.integers(20, 100), st.floats(1.3, 3.0))
def test_a_slow_machine_ends_in_time_with_the_rate_at_its_end(planned: int, per_epoch: int, slow: float) -> None:
    seconds = 1.05 * needed(planned, per_epoch, 0.1)
    schedule, clock = run(planned, per_epoch, seconds, 0.1, itertools.repeat(slow))
    assert schedule.done < planned
    assert clock.now <= seconds + 4 * slow * 0.1  # a last step and its end
    rate = Cosine()
    assert rate.at(schedule.progress) < 0.1 * rate.peak


def test_a_hiccup_costs_no_step() -> None:
    seconds = 1.05 * needed(1000, 100, 0.1)
    slowness = [4.0 if 40 <= step < 45 else 1.0 for step in range(1000)]
    schedule, _ = run(1000, 100, seconds, 0.1, slowness)
    assert schedule.done == 1000


def test_slow_at_first_is_made_up_for_later() -> None:
    seconds = 1.05 * needed(1000, 100, 0.1)
    slowness = [3.0] * 60 + [0.85] * 2000
    schedule, clock = run(1000, 100, seconds, 0.1, slowness)
    assert schedule.done > 950
    assert clock.now <= seconds + 1


def test_no_time_at_all_ends_after_the_first_steps() -> None:
    schedule, _ = run(1000, 100, 0.0, 0.1, itertools.repeat(1.0))
    assert schedule.done <= 10


def test_a_training_of_few_long_steps_is_held_to_its_time_too() -> None:
    schedule, clock = run(8, 4, 3.0, 1.0, itertools.repeat(1.0))
    assert schedule.done <= 4
    assert clock.now <= 3.0 + 3.0


@given(st.integers(1, 400), st.floats(0.5, 2.0), st.integers(0, 399))
def test_a_schedule_that_was_put_away_goes_on_as_if_no_time_had_passed(planned: int, slow: float, at: int) -> None:
    def go(schedule: Schedule, clock: Clock, until: int) -> None:
        while not schedule.finished and schedule.done < until:
            clock.now += 0.1 * slow
            schedule.advance()
            if schedule.done % 10 == 0:
                clock.now += 0.2 * slow
                schedule.epoch_ended(0.2 * slow)

    def started() -> tuple[Schedule, Clock]:
        clock = Clock()
        return Schedule(planned, 10, Deadline(needed(planned, 10, 0.1), 0.1, 0.2, clock)), clock

    whole, clock = started()
    go(whole, clock, planned)
    first, clock = started()
    go(first, clock, at)
    values = json.loads(json.dumps(first.values()))
    second, clock = started()
    clock.now = 1e6  # a week later
    second.restore(values)
    go(second, clock, planned)
    assert abs(second.steps - whole.steps) <= 1  # the clock's own rounding may be worth a step
    assert second.progress == pytest.approx(whole.progress)
