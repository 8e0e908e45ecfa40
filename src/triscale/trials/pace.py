"""How trials compute on this machine (precision, kernels, threads for each, by measurement), and what they are planned
with."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from heapq import heapreplace
from statistics import fmean

import torch

from triscale.arch import Architecture
from triscale.kernels import status
from triscale.training.machine import cpu_precisions, cuda_precision
from triscale.trials.executors import Executor
from triscale.trials.running import Probe
from triscale.trials.trial import How

PART = 8_000  # training images of a trial where nobody has said how many: fewer are all taken
TRIAL_OVERHEAD = 1.25  # a real step of a trial with optimizer, average and batches, over the measured one
JUDGING = 0.6  # an image that is judged, in trained ones
KEPT_BACK = 0.05  # of the time: what is measured is never exact
WORTH = 1.1  # fewer, wider trials have to be so much faster: many small ones lose less when one is interrupted


def usable(seconds: float) -> float:
    """Of a time limit, what is planned with."""
    return seconds * (1 - KEPT_BACK)


def makespan(seconds: Iterable[float], slots: int) -> float:
    """Seconds until trials of so many seconds each have all ended, of which the next begins wherever a slot is free. No
    trial is cut: many slots do not make it shorter than the longest."""
    ends = [0.0] * slots
    for each in seconds:
        heapreplace(ends, ends[0] + each)
    return max(ends)


@dataclass(frozen=True, slots=True)
class Way:
    """How trials compute, how many at once, and seconds an image of all of them together."""

    how: How
    workers: int
    pace: float


def fastest_way(
    pool: Executor, baseline: Architecture, batch: int, device: torch.device, workers: int | None = None
) -> Way:
    """The precision and kernels that train the baseline fastest while every worker is busy with one thread, then the
    threads for each. pool: has a worker for every core; on CUDA, where bf16 is taken if the device has it, one.
    workers: where somebody has said how many trials run at once; then that many do, whatever threads each takes."""
    if device.type == "cuda":
        how = How(str(device), cuda_precision(), 1)
        pace = pool.measure([Probe(baseline, batch, how)])[0]
        return Way(how, pool.slots, pace)
    kernels = (False,) if status().isa is None else (False, True)
    tried = [How("cpu", precision, 1, own) for precision in cpu_precisions() for own in kernels]
    ways = [_measured(pool, baseline, batch, how, pool.slots) for how in tried]
    best = min(ways, key=lambda way: way.pace)
    threads, slots = 2, pool.slots
    widest = min(slots, pool.widest) if workers is None else pool.widest // slots
    while threads <= widest:
        count = slots // threads if workers is None else slots
        wide = _measured(pool, baseline, batch, replace(best.how, threads=threads), count)
        if wide.pace * WORTH < best.pace:
            best = wide
        threads *= 2
    return best


def _measured(pool: Executor, baseline: Architecture, batch: int, how: How, workers: int) -> Way:
    paces = pool.measure([Probe(baseline, batch, how)] * workers)
    return Way(how, workers, fmean(paces) / workers)
