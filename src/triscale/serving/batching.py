"""Items that come one by one, computed several at a time, in a bounded queue and before a deadline."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_REMEMBERED = 0.9  # how much of the pace so far is kept with every batch


class FullError(Exception):
    """No room in the queue. again: seconds until there may be."""

    def __init__(self, again: int) -> None:
        super().__init__(f"the queue is full; ask again in {again} s")
        self.again = again


class LateError(Exception):
    """The deadline passed before there was an answer."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting(Generic[Item, Answer]):
    item: Item
    future: "asyncio.Future[Answer]"
    since: float


class Batcher(Generic[Item, Answer]):
    """Computes batches on a thread of its own, one after the other; for one event loop.

    compute: answers items, in their order; never called by two threads at once. batch: at most so many at once. wait:
    seconds that the first of a batch waits for others while `coming()` says that there are some; not at all otherwise.
    queue: items waiting or being computed, at most. told: hears the size of every batch and how long it took.
    Where a batch fails its items are computed again one by one, so that an item fails for itself only.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Answer]],
        *,
        batch: int,
        wait: float,
        queue: int,
        coming: Callable[[], bool] = lambda: True,
        told: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._compute, self._batch, self._wait, self._queue = compute, batch, wait, queue
        self._coming, self._told = coming, told
        self._waiting: deque[_Waiting[Item, Answer]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="triscale-batch")
        self._full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._open = 0
        self._pace = 0.0

    @property
    def length(self) -> int:
        """Items that somebody waits for."""
        return self._open

    @property
    def pause(self) -> int:
        """Seconds until what is in the queue is done, as fast as it has gone so far; at least one."""
        return max(1, ceil(self._open * self._pace))

    async def __call__(self, items: Sequence[Item], deadline: float) -> list[Answer]:
        """The answers, in the order of the items, before the event loop's clock shows `deadline`.

        Raises `FullError` at once where the queue has no room for all of them, `LateError` at the deadline, and
        whatever computing raises. Items whose caller has given up are not computed.
        """
        loop = asyncio.get_running_loop()
        if self._open + len(items) > self._queue:
            raise FullError(self.pause)
        futures: list[asyncio.Future[Answer]] = [loop.create_future() for _ in items]
        self._open += len(futures)
        self._waiting += [_Waiting(item, future, loop.time()) for item, future in zip(items, futures, strict=True)]
        self.look()
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        try:
            async with asyncio.timeout_at(deadline):
                return list(await asyncio.gather(*futures))
        except TimeoutError:
            raise LateError from None
        finally:
            self._open -= len(futures)
            for future in futures:
                future.cancel()

    def look(self) -> None:
        """Whether the batch that waits need not wait any longer: it is full, or nobody is coming any more."""
        if len(self._waiting) >= self._batch or not self._coming():
            self._full.set()

    def close(self) -> None:
        """Gives the thread back, once the batch that it computes is done."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _work(self) -> None:
        """Batch after batch, until nothing waits."""
        while self._waiting:
            await self._gathered()
            some: list[_Waiting[Item, Answer]] = []
            while self._waiting and len(some) < self._batch:
                one = self._waiting.popleft()
                if not one.future.done():  # its caller has given up, or its deadline is over
                    some.append(one)
            if some:
                await self._answer(some)

    async def _gathered(self) -> None:
        """After this a batch is full, or its first item has waited for as long as it may."""
        if len(self._waiting) >= self._batch or not self._coming():
            return
        self._full.clear()
        try:
            async with asyncio.timeout_at(self._waiting[0].since + self._wait):
                await self._full.wait()
        except TimeoutError:
            pass

    async def _answer(self, some: list[_Waiting[Item, Answer]]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            answers = await loop.run_in_executor(self._thread, self._compute, [one.item for one in some])
            if len(answers) != len(some):
                raise RuntimeError(f"{len(answers)} answers to {len(some)} items")
        except Exception as error:
            if len(some) == 1:
                _fail(some[0].future, error)
            else:
                for one in some:
                    await self._answer([one])
            return
        took = loop.time() - started
        self._pace = _REMEMBERED * self._pace + (1 - _REMEMBERED) * took / len(some) if self._pace else took / len(some)
        self._told(len(some), took)
        for one, answer in zip(some, answers, strict=True):
            if not one.future.done():
                one.future.set_result(answer)


def _fail(future: "asyncio.Future[Answer]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
