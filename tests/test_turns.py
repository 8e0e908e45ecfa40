"""What measuring in turns promises: who comes after whom, when it ends, and what a turn's seconds are."""

import time
from collections.abc import Callable
from itertools import cycle

import hypothesis.strategies as st
import pytest
from hypothesis import given

from triscale.engines.latency import Latency
from triscale.engines.turns import MOST_PASSES, Rounds, Until, take_turns, turn, warm_up


class Clock:
    """A clock that goes on only by passes, each of which takes the next of these seconds."""

    def __init__(self, *seconds: float) -> None:
        self.now, self.passes, self._next = 0.0, 0, cycle(seconds)

    def run(self) -> None:
        self.now += next(self._next)
        self.passes += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clock]:
    def make(*seconds: float) -> Clock:
        made = Clock(*seconds)
        monkeypatch.setattr(time, "perf_counter", lambda: made.now)
        return made

    return make


def test_each_comes_after_the_same_one_and_what_it_tells_is_kept_by_round() -> None:
    book: list[str] = []

    def told(name: str) -> str:
        book.append(name)
        return f"{name}{book.count(name)}"

    taken = take_turns([lambda name=name: told(name) for name in "ab"], Rounds(2), uncounted=1)
    assert book == list("ababab")
    assert taken == [["a2", "a3"], ["b2", "b3"]]


def test_another_begins_each_round_where_that_is_asked_and_who_waits_is_told() -> None:
    book: list[str] = []
    done: list[int] = []
    calls = [lambda name=name: book.append(name) for name in "abc"]
    taken = take_turns(calls, Rounds(3), uncounted=2, rotating=True, progress=done.append)
    assert book == list("abcbcacababcbca")
    assert [len(one) for one in taken] == [3, 3, 3]
    assert done == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("each", "until", "rounds"),
    [
        ((0.001, 0.001), Until(11, 200, 0.2), 200),  # as many as fit into the seconds, and no more than the most
        ((0.003, 0.001), Until(11, 200, 0.2), 100),  # 2 ms each, on average
        ((0.1, 0.1), Until(11, 200, 0.2), 11),  # the fewest, whatever they take
        ((2.0, 2.0), Until(11, 200, 0.2), 11),
        ((2.0, 2.0), Until(11, 200, 0.2, longest=3.0), 3),  # of what is slow, three
        ((0.5, 0.5), Until(11, 200, 0.2, longest=3.0), 6),
    ],
)
def test_turns_end_by_the_fewest_the_most_and_the_seconds(each: tuple[float, float], until: Until, rounds: int) -> None:
    first, second = take_turns([lambda one=one: one for one in each], until)
    assert len(first) == len(second) == rounds


@pytest.mark.parametrize("place", [0, 1])
def test_what_is_quick_has_its_turns_beside_what_is_slow_which_sits_them_out(place: int) -> None:
    each = [0.001, 0.001]
    each[place] = 2.0
    taken = take_turns([lambda one=one: one for one in each], Until(11, 200, 0.2, longest=3.0))
    assert len(taken[place]) == 3
    assert len(taken[1 - place]) == 11


def test_what_is_compared_turn_by_turn_has_as_many_turns_however_slow_one_of_them_is() -> None:
    slow, quick = take_turns([lambda: 2.0, lambda: 0.001], Until(21, 200, 2.0))
    assert len(slow) == len(quick) == 21


def test_a_turn_is_one_pass_where_that_takes_long(clock: Callable[..., Clock]) -> None:
    passes = clock(0.5)
    assert turn(passes.run, 0.03) == 0.5
    assert passes.passes == 1


def test_a_turn_of_short_passes_is_their_median_but_for_the_first(clock: Callable[..., Clock]) -> None:
    passes = clock(0.02, 0.007, 0.011, 0.013)  # the last three make the 0.03 seconds full
    assert turn(passes.run, 0.03) == pytest.approx(0.011)
    assert passes.passes == 4
    passes = clock(1e-6)
    assert turn(passes.run, 0.03) == pytest.approx(1e-6)
    assert passes.passes == 1 + MOST_PASSES


def test_what_is_slow_is_warmed_up_by_fewer_passes(clock: Callable[..., Clock]) -> None:
    quick, slow = clock(0.1), None
    warm_up(quick.run, 3, 1.0)
    assert quick.passes == 3
    slow = clock(2.0)
    warm_up(slow.run, 3, 1.0)
    assert slow.passes == 1
    warm_up(slow.run, 3)
    assert slow.passes == 4


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=5))
def test_what_most_images_are_said_to_take_lies_within_what_was_measured(times: list[float]) -> None:
    found = Latency.of(times, device="cpu", threads=1, engine="native", precision="fp32")
    assert min(times) <= found.low <= found.median <= found.high <= max(times)
    assert found.n == len(times)


def test_a_latency_is_the_median_and_the_outer_tenths() -> None:
    found = Latency.of([4.5, 3.0, 3.1], device="cpu", threads=2, engine="torch", precision="bf16")
    assert (found.median, found.low, found.high) == (3.1, pytest.approx(3.02), pytest.approx(4.22))
    assert (found.n, found.device, found.threads, found.engine, found.precision) == (3, "cpu", 2, "torch", "bf16")
