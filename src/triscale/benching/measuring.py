"""`bench`: how fast a network is here, by every engine, and why it is not faster."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from triscale.benching.launching import Started, launch
from triscale.benching.machine import machine
from triscale.benching.subjects import Subject, Way, find_subject
from triscale.cores import usable_cores
from triscale.costing import cost
from triscale.engines import turns
from triscale.engines.native import available, measure_limit
from triscale.engines.native.profile import Profile, profile
from triscale.engines.native.program import list_layers
from triscale.engines.table import ENGINES, weights_of
from triscale.errors import UserError
from triscale.stats import Spread
from triscale.training import steady_allocator

Progress = Callable[[str, int, int], None]
WARM_UP = 2  # rounds that are not counted
SHORT = 0.03  # seconds of a turn with short passes
STARTED = 5  # new processes of each engine at most, after one that is not counted


@dataclass(frozen=True, slots=True)
class Timed:
    """An engine on one case.

    milliseconds: per image. of_limit: the time that the network's MACs would take at the speed that `measure_limit`
    finds, over the time it took; None without our engine, and in int8, of which no limit is measured. differs: the
    largest difference of a logit from the first engine's, relative to the largest logit. compared: its time over our
    engine's in the same precision, round by round; None for that engine itself, and where ours is not.
    """

    milliseconds: Spread
    of_limit: float | None
    differs: float
    compared: Spread | None


@dataclass(frozen=True, slots=True)
class Case:
    """One batch size and number of threads. limits: multiply-accumulates a second by precision. engines: by name.
    taken: the seconds of each in each round."""

    batch: int
    threads: int
    limits: Mapping[str, float]
    engines: Mapping[str, Timed]
    taken: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Bench:
    """What `bench` found. missing: engines that are not here, and why. why: where our engine's time goes for a single
    image with one thread; None for a file and where our engine is not."""

    name: str
    machine: Mapping[str, str]
    macs: int
    params: int
    cases: tuple[Case, ...]
    starts: Mapping[str, Started]
    missing: Mapping[str, str]
    why: Profile | None


def bench(
    name: str,
    *,
    peers: bool = False,
    batches: Sequence[int] = (1, 32),
    threads: Sequence[int] | None = None,
    rounds: int = 15,
    slow: bool = True,
    progress: Progress | None = None,
) -> Bench:
    """Times a network on this machine's CPU: all engines in one process, in turns.

    name: a zoo name, a run, a file of weights, or an exported file. peers: all engines that are installed,
    torch.compile among them, which takes minutes, unless `slow` is False; without, ours and PyTorch. threads: by
    default one, and all usable cores. The allocator is made steady for all. Raises `UserError` for what cannot be
    measured.
    """
    told = progress or (lambda what, done, of: None)
    counts = tuple(threads) if threads else tuple(sorted({1, usable_cores()}))
    for word, values in (("--batch", batches), ("--threads", counts), ("--rounds", (rounds,))):
        for value in values:
            if not 1 <= value <= 1024:
                raise UserError(f"{word} {value}: must be from 1 to 1,024")
    subject = find_subject(name)
    ways, missing = subject.ways(peers=peers, slow=slow)
    steady_allocator()
    cases = [_case(subject, ways, batch, count, rounds, told) for count in counts for batch in batches]
    starts = launch(subject, ways, max(counts), min(rounds, STARTED), partial(told, "new processes"))
    total = cost(subject.architecture)
    return Bench(name, machine(), total.macs, total.params, tuple(cases), starts, missing, _why(subject, rounds))


def _case(subject: Subject, ways: tuple[Way, ...], batch: int, threads: int, rounds: int, told: Progress) -> Case:
    architecture = subject.architecture
    shape = (batch, architecture.channels, *architecture.resolution)
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    what = f"batch {batch}, threads {threads}"
    with subject.running(ways, threads, batch) as runners:
        logits = {key: run(x) for key, run in runners.items()}
        found = turns.take_turns(
            [partial(turns.turn, partial(run, x), SHORT) for run in runners.values()],
            turns.Rounds(rounds),
            uncounted=WARM_UP,
            rotating=True,
            progress=lambda done: told(what, done, rounds + WARM_UP),
        )
        taken = dict(zip(runners, found, strict=True))
    first = next(iter(logits.values()))
    largest = max(float(np.abs(first).max()), float(np.finfo(np.float32).tiny))
    macs, limits = cost(architecture).macs * batch, _limits(threads)
    engines = {}
    for way in ways:
        spread, limit = Spread.of(taken[way.name]), None if way.int8 else limits.get(way.precision)
        ours = f"{ENGINES['native'].title} {way.precision}"
        engines[way.name] = Timed(
            milliseconds=spread.times(1e3 / batch),
            of_limit=None if limit is None else macs / spread.median / limit,
            differs=float(np.abs(logits[way.name] - first).max()) / largest,
            compared=None if ours == way.name or ours not in taken else Spread.of_ratios(taken[way.name], taken[ours]),
        )
    return Case(batch, threads, limits, engines, taken)


def _limits(threads: int) -> dict[str, float]:
    return {precision: measure_limit(precision, threads) for precision in available().precisions}


def _why(subject: Subject, rounds: int) -> Profile | None:
    if subject.network is None or available().isa is None:
        return None
    names = list_layers(subject.architecture, weights_of(subject.network)).names
    return profile(subject.plan(), threads=1, rounds=rounds, names=names)
