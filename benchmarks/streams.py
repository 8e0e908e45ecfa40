"""Threads of one stream against streams of one thread: images a second, and milliseconds of a call, on all cores.

    python benchmarks/streams.py [NETWORK…] [--macs 5M] [--precision fp32] [--rounds 15] [--seconds 0.2]

Images come one by one, from one caller or from as many as there are cores, each of which asks again as soon as it is
answered. One stream: its threads share every layer; where there are more callers, they take turns. Streams of one
thread: each caller has its own. pinned: the engine's own threads are kept on cores. batches: one caller with sixteen
images at a time, of which each thread takes some for itself. All take turns, each round in another order, after a round
that is not counted. Medians over the rounds with the 10th and the 90th percentile; ratios of images a second are to one
stream and one caller, round by round.

--macs: EfficientNet-B0 for 32 pixels and 10 classes, scaled to that, comes last; 0 leaves it out.
"""

import argparse
import json
import statistics
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import numpy as np

from triscale.arch import Architecture, adapt, published, resolve
from triscale.benching.machine import machine
from triscale.benching.subjects import lively
from triscale.cores import usable_cores
from triscale.costing import cost
from triscale.engines.native import Engine, Precision, compile_plan
from triscale.engines.runner import Array
from triscale.nn import build
from triscale.scaling import RULES, Budget, solve
from triscale.stats import Spread
from triscale.units import format_count, parse_count

TOGETHER = 16


@dataclass(frozen=True)
class Case:
    """Who asks, and who computes. images: of a call."""

    name: str
    callers: int
    threads: int
    streams: int
    pin: bool = False
    images: int = 1


def cases(cores: int) -> tuple[Case, ...]:
    return (
        Case("1 stream, 1 caller", 1, cores, 1),
        Case("1 stream pinned, 1 caller", 1, cores, 1, pin=True),
        Case(f"1 stream, {cores} callers", cores, cores, 1),
        Case(f"{cores} streams, {cores} callers", cores, 1, cores),
        Case("1 stream, batches", 1, cores, 1, images=TOGETHER),
        Case("1 stream pinned, batches", 1, cores, 1, pin=True, images=TOGETHER),
    )


def turn(engine: Engine, x: Array, callers: int, seconds: float) -> tuple[float, float]:
    """Images a second of all callers together, and the median of a call in milliseconds."""
    together, taken = threading.Barrier(callers), [[0.0] for _ in range(callers)]

    def ask(own: list[float]) -> None:
        own.clear()
        together.wait()
        ends = time.perf_counter() + seconds
        while (start := time.perf_counter()) < ends:
            engine(x)
            own.append(time.perf_counter() - start)

    others = [threading.Thread(target=ask, args=(own,)) for own in taken[1:]]
    for other in others:
        other.start()
    ask(taken[0])
    for other in others:
        other.join()
    speed = sum(len(own) * len(x) / sum(own) for own in taken)
    return speed, statistics.median(one for own in taken for one in own) * 1e3


def measure(
    architecture: Architecture, precision: Precision, rounds: int, seconds: float
) -> dict[str, dict[str, Spread]]:
    """One network, in every case."""
    network = lively(build(architecture))
    plan = compile_plan(architecture, {name: value.numpy() for name, value in network.state_dict().items()})
    shape = architecture.channels, *architecture.resolution
    x = np.random.default_rng(0).standard_normal((TOGETHER, *shape), np.float32)
    wanted = cases(usable_cores())
    found: dict[str, list[tuple[float, float]]] = {case.name: [] for case in wanted}
    with ExitStack() as running:
        engines = [
            running.enter_context(
                Engine(plan, precision=precision, threads=case.threads, streams=case.streams, pin=case.pin)
            )
            for case in wanted
        ]
        for number in range(rounds + 1):
            for place in range(len(wanted)):
                at = (number + place) % len(wanted)
                case = wanted[at]
                found[case.name].append(turn(engines[at], x[: case.images], case.callers, seconds))
    first = [speed for speed, _ in found[wanted[0].name][1:]]
    return {
        name: {
            "images_per_second": Spread.of([speed for speed, _ in each[1:]]),
            "call_ms": Spread.of([call for _, call in each[1:]]),
            "ratio": Spread.of([speed / base for (speed, _), base in zip(each[1:], first, strict=True)]),
        }
        for name, each in found.items()
    }


def small(macs: int) -> Architecture:
    base = adapt(published("efficientnet_b0"), resolution=(32, 32), classes=10)
    return solve(base, RULES["slim"], Budget({"macs": macs})).architecture


def between(found: Spread, digits: int) -> str:
    return f"{found.median:.{digits}f} ({found.p10:.{digits}f} to {found.p90:.{digits}f})"


def show(architecture: Architecture, found: dict[str, dict[str, Spread]]) -> None:
    height, width = architecture.resolution
    print(f"\n{architecture.name} at {height}×{width}, {format_count(cost(architecture).macs)} MACs")
    for name, one in found.items():
        speed, call, ratio = (between(one[key], digits) for key, digits in
                              (("images_per_second", 0), ("call_ms", 2), ("ratio", 2)))  # fmt: skip
        print(f"  {name:26} {speed:24} images/s, a call {call:22} ms, ratio {ratio}")
    sys.stdout.flush()


def main() -> None:
    """Prints a table as it goes, or one JSON object."""
    parser = argparse.ArgumentParser(description="Threads of one stream against streams of one thread.")
    parser.add_argument("networks", nargs="*", default=["efficientnet_b0"], metavar="NETWORK")
    parser.add_argument("--macs", type=parse_count, default=5_000_000, help="of a small network; 0 for none (5M)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a turn (0.2)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    asked = parser.parse_args()
    networks = [resolve(name) for name in asked.networks] + ([small(asked.macs)] if asked.macs else [])
    results = {}
    for architecture in networks:
        name = f"{architecture.name}, {cost(architecture).macs:,} MACs"
        results[name] = measure(architecture, asked.precision, asked.rounds, asked.seconds)
        if not asked.json:
            show(architecture, results[name])
    if asked.json:
        plain = {
            name: {case: {key: asdict(one) for key, one in row.items()} for case, row in found.items()}
            for name, found in results.items()
        }
        print(json.dumps({"machine": machine(), "rounds": asked.rounds, "networks": plain}))


if __name__ == "__main__":
    main()
