"""How fast this machine multiplies: what the time of a network is measured by."""

import time
from concurrent.futures import ThreadPoolExecutor

from triscale.engines.native.library import library

LEAST = 0.02  # seconds of a measurement


def measure_limit(precision: str = "fp32", threads: int = 1) -> float:
    """Multiply-accumulates a second, of so many threads together, with everything in the first cache.

    No network comes up to it: the engine's own product is what is timed. precision: fp32, or bf16 where it is there.
    """
    native, bf16 = library(), int(precision == "bf16")
    repeats, start = 1_000, time.perf_counter()
    native.triscale_engine_limit(bf16, repeats)
    repeats = max(1, round(repeats * LEAST / (time.perf_counter() - start)))
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        done = list(pool.map(lambda _: native.triscale_engine_limit(bf16, repeats), range(threads)))
        return float(sum(done)) / (time.perf_counter() - start)
