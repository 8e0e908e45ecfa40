"""Batches: every item its own answer, in a bounded queue and before its deadline."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triscale.serving import Batcher
from triscale.serving.batching import FullError, LateError

LATER = 60.0


class Squares:
    """Squares of numbers, computed while `go` is set. batches: those that were begun."""

    def __init__(self) -> None:
        self.go, self.entered = threading.Event(), threading.Event()
        self.go.set()
        self.batches: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.entered.set()
        assert self.go.wait(LATER)
        if 13 in items:
            raise ValueError("13")
        return [item * item for item in items]


@contextmanager
def batcher(squares: Callable[[Sequence[int]], list[int]], **how: Any) -> Iterator[Batcher[int, int]]:
    made: Batcher[int, int] = Batcher(squares, **{"batch": 4, "wait": 0.0, "queue": 100, **how})
    try:
        yield made
    finally:
        if isinstance(squares, Squares):
            squares.go.set()
        made.close()


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def soon() -> float:
    return asyncio.get_running_loop().time() + LATER


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LATER):
        while not condition():
            await asyncio.sleep(0.001)


@given(st.lists(st.lists(st.integers(14, 999), max_size=5), max_size=12), st.integers(1, 7))
def test_everybody_gets_the_answers_to_their_own_items_in_their_order(asked: list[list[int]], batch: int) -> None:
    async def work() -> None:
        squares = Squares()
        with batcher(squares, batch=batch) as ask:
            found = await asyncio.gather(*(ask(items, soon()) for items in asked))
        assert found == [[item * item for item in items] for items in asked]
        assert all(1 <= len(one) <= batch for one in squares.batches)
        assert sorted(chain(*squares.batches)) == sorted(chain(*asked))

    run(work)


def test_what_comes_while_a_batch_is_computed_is_computed_together() -> None:
    async def work() -> None:
        squares = Squares()
        squares.go.clear()
        with batcher(squares) as ask:
            first = asyncio.create_task(ask([1], soon()))
            await until(squares.entered.is_set)
            others = [asyncio.create_task(ask([item], soon())) for item in range(2, 8)]
            await until(lambda: ask.length == 7)
            squares.go.set()
            await asyncio.gather(first, *others)
        assert squares.batches == [[1], [2, 3, 4, 5], [6, 7]]

    run(work)


def test_a_batch_waits_for_others_while_some_are_coming() -> None:
    async def work() -> None:
        squares = Squares()
        with batcher(squares, batch=2, wait=LATER) as ask:
            first = asyncio.create_task(ask([1], soon()))
            for _ in range(100):
                await asyncio.sleep(0)
            assert squares.batches == []
            assert await ask([2], soon()) == [4]
            assert await first == [1]
        assert squares.batches == [[1, 2]]

    run(work)


def test_a_batch_waits_for_nobody_where_nobody_comes() -> None:
    async def work() -> None:
        squares = Squares()
        with batcher(squares, batch=2, wait=LATER, coming=lambda: False) as ask:
            async with asyncio.timeout(LATER / 2):
                assert await ask([3], soon()) == [9]

    run(work)


def test_a_batch_goes_once_who_was_coming_does_not_come() -> None:
    async def work() -> None:
        squares, coming = Squares(), [True]
        with batcher(squares, batch=2, wait=LATER, coming=lambda: coming[0]) as ask:
            first = asyncio.create_task(ask([3], soon()))
            for _ in range(100):
                await asyncio.sleep(0)
            assert squares.batches == []
            coming[0] = False
            ask.look()
            async with asyncio.timeout(LATER / 2):
                assert await first == [9]

    run(work)


def test_a_batch_goes_without_others_once_it_has_waited() -> None:
    async def work() -> None:
        with batcher(Squares(), batch=2, wait=0.01) as ask:
            assert await ask([3], soon()) == [9]

    run(work)


def test_a_full_queue_refuses_at_once_and_takes_again_when_there_is_room() -> None:
    async def work() -> None:
        squares = Squares()
        squares.go.clear()
        with batcher(squares, queue=3) as ask:
            begun = [asyncio.create_task(ask([item], soon())) for item in (1, 2)]
            await until(lambda: ask.length == 2)
            with pytest.raises(FullError) as refused:
                await ask([3, 4], soon())
            assert refused.value.again >= 1
            begun.append(asyncio.create_task(ask([5], soon())))
            await until(lambda: ask.length == 3)
            squares.go.set()
            assert await asyncio.gather(*begun) == [[1], [4], [25]]
            assert ask.length == 0
            assert await ask([3, 4], soon()) == [9, 16]

    run(work)


def test_an_item_past_its_deadline_is_answered_so_and_never_computed() -> None:
    async def work() -> None:
        squares = Squares()
        squares.go.clear()
        with batcher(squares) as ask:
            first = asyncio.create_task(ask([1], soon()))
            await until(squares.entered.is_set)
            with pytest.raises(LateError):
                await ask([2], asyncio.get_running_loop().time() + 0.01)
            third = asyncio.create_task(ask([3], soon()))
            squares.go.set()
            assert await asyncio.gather(first, third) == [[1], [9]]
        assert squares.batches == [[1], [3]]

    run(work)


def test_the_deadline_holds_while_computing_too_and_others_are_not_held_up() -> None:
    async def work() -> None:
        squares = Squares()
        squares.go.clear()
        with batcher(squares) as ask:
            with pytest.raises(LateError):
                await ask([1], asyncio.get_running_loop().time() + 0.01)
            squares.go.set()
            assert await ask([2], soon()) == [4]

    run(work)


def test_whoever_gives_up_is_not_computed_for() -> None:
    async def work() -> None:
        squares = Squares()
        squares.go.clear()
        with batcher(squares) as ask:
            first, second, third = (asyncio.create_task(ask([item], soon())) for item in (1, 2, 3))
            await until(squares.entered.is_set)
            await until(lambda: ask.length == 3)
            squares.batches.clear()
            fourth = asyncio.create_task(ask([4], soon()))
            await until(lambda: ask.length == 4)
            fourth.cancel()
            await until(lambda: ask.length == 3)
            squares.go.set()
            assert await asyncio.gather(first, second, third) == [[1], [4], [9]]
        assert 4 not in chain(*squares.batches)

    run(work)


def test_an_item_that_fails_fails_for_itself_only() -> None:
    async def work() -> None:
        squares = Squares()
        with batcher(squares, wait=LATER) as ask:
            found = await asyncio.gather(*(ask([item], soon()) for item in (2, 13, 4, 5)), return_exceptions=True)
            assert [found[0], found[2], found[3]] == [[4], [16], [25]]
            assert isinstance(found[1], ValueError)
            assert squares.batches[0] == [2, 13, 4, 5]
            assert await ask([6, 7, 8, 9], soon()) == [36, 49, 64, 81]

    run(work)


def test_too_few_answers_are_a_failure_and_not_somebody_elses_answer() -> None:
    async def work() -> None:
        ask: Batcher[int, int] = Batcher(lambda items: [1], batch=2, wait=LATER, queue=9)
        found = await asyncio.gather(ask([1], soon()), ask([2], soon()))
        assert found == [[1], [1]]  # one by one, where each has its answer
        ask.close()

    run(work)


def test_every_batch_is_told_of_with_the_time_that_it_took() -> None:
    computed: list[float] = []

    def squares(items: Sequence[int]) -> list[int]:
        began = time.monotonic()
        found = Squares()(items)
        computed.append(time.monotonic() - began)
        return found

    async def work() -> None:
        heard: list[tuple[int, float]] = []
        with batcher(squares, told=lambda size, seconds: heard.append((size, seconds))) as ask:
            await ask([1, 2, 3, 4, 5], soon())
        assert [size for size, _ in heard] == [4, 1]
        assert all(seconds >= least for (_, seconds), least in zip(heard, computed, strict=True))

    run(work)
