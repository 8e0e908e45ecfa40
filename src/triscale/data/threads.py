"""Work spread over threads, handed back in order and never far ahead of what is asked for."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from triscale.cores import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None, ahead: int | None = None
) -> Iterator[Result]:
    """``map`` on ``threads`` threads (default: all usable cores), results in the order of ``items``.

    At most ``ahead`` items (default: eight per thread) are started before their result is asked for, so a million
    files make no million waiting futures. An exception of ``function`` is raised at its place in the order.
    """
    threads = threads or usable_cores()
    ahead = ahead or 8 * threads
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="triscale-data")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
