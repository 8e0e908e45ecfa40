"""Work spread over threads, handed back in order and never far ahead of what is asked for."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Cores this process may run on: a container's share, not the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
