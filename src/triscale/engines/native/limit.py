"""How fast this machine multiplies: what the time of a network is measured by."""

import time
from concurrent.futures import ThreadPoolExecutor

from triscale.engines.native.engine import MOST
from triscale.engines.native.library import library, number_of
from triscale.errors import UserError
from triscale.precision import Precision

LEAST = 0.02  # seconds of a measurement


def measure_limit(precision: Precision = "fp32", threads: int = 1) -> float:
    """Multiply-accumulates a second, of so many threads together, with everything in the first cache.

    No network comes up to it: the engine's own product is what is timed.
    The fastest of three turns: whatever else is at work slows a turn down.
    Raises `UserError` for a precision that is not there, and for a number of threads that no engine takes.
    """
    if type(threads) is not int or not 1 <= threads <= MOST:
        raise UserError(f"threads must be a whole number from 1 to {MOST:,}, not {threads!r}")
    native, number = library(), number_of(precision)
    repeats, start = 1_000, time.perf_counter()
    native.triscale_engine_limit(number, repeats)
    repeats = max(1, round(repeats * LEAST / (time.perf_counter() - start)))
    speeds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(3):
            start = time.perf_counter()
            done = list(pool.map(lambda _: native.triscale_engine_limit(number, repeats), range(threads)))
            speeds.append(float(sum(done)) / (time.perf_counter() - start))
    return max(speeds)
