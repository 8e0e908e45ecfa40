"""How many networks a second are grown and costed, on one core.

    python benchmarks/costing.py [--json] [--networks 5000] [--repeats 7] [--seed 0]

cost, distinct: random scalings of the zoo's networks at random input sizes, no two equal, each costed once; what `cost`
keeps of repeated blocks is emptied before each repeat, so the cold start is included. cost, same: one network again and
again. multiply: the same random scalings made. Medians over the repeats, with the lowest and the highest.
"""

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from triscale.arch import ZOO, Architecture, SpecError, adapt, multiply, published
from triscale.costing import cost
from triscale.costing.convolutions import block_sums

Scaling = tuple[Architecture, float, float, float]


@dataclass(frozen=True)
class Speed:
    """Networks a second: median, lowest and highest of the repeats, of n networks each."""

    what: str
    median: float
    lowest: float
    highest: float
    n: int
    repeats: int


def random_scalings(n: int, seed: int) -> tuple[list[Scaling], list[Architecture]]:
    """n ways to scale zoo networks that all end in different networks, and the networks."""
    draw, names = random.Random(seed), tuple(ZOO)
    scalings: list[Scaling] = []
    made: dict[Architecture, None] = {}
    while len(scalings) < n:
        side = draw.randrange(16, 512)
        base = adapt(published(draw.choice(names)), resolution=(side, side), classes=draw.randrange(2, 1000))
        scaling = (base, draw.uniform(0.3, 3), draw.uniform(0.3, 3), draw.uniform(0.7, 2))
        try:
            network = multiply(*scaling)
        except SpecError:
            continue
        if network not in made:
            made[network] = None
            scalings.append(scaling)
    return scalings, list(made)


def speed(what: str, n: int, repeats: int, work: Callable[[], object]) -> Speed:
    """Times `work`, which does something n times, with an empty cache each time."""
    found = []
    for _ in range(repeats):
        block_sums.cache_clear()
        start = time.perf_counter()
        work()
        found.append(n / (time.perf_counter() - start))
    return Speed(what, statistics.median(found), min(found), max(found), n, repeats)


def measure(n: int, repeats: int, seed: int) -> list[Speed]:
    """The three speeds."""
    scalings, networks = random_scalings(n, seed)
    b0 = published("efficientnet_b0")
    return [
        speed("cost, distinct networks", n, repeats, lambda: [cost(network) for network in networks]),
        speed("cost, same network", n, repeats, lambda: [cost(b0) for _ in range(n)]),
        speed("multiply", n, repeats, lambda: [multiply(*scaling) for scaling in scalings]),
    ]


def main() -> None:
    """Prints the table, or one JSON object."""
    parser = argparse.ArgumentParser(description="Networks grown and costed a second, on one core.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--networks", type=int, default=5000, help="networks a repeat")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    results = measure(asked.networks, asked.repeats, asked.seed)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    if asked.json:
        print(json.dumps({"python": python, "seed": asked.seed, "results": [asdict(result) for result in results]}))
        return
    table = Table(title=f"Networks a second, one core, {python}; n = {asked.networks}, {asked.repeats} repeats")
    table.add_column("")
    for heading in ("median", "lowest", "highest"):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(result.what, *(f"{value:,.0f}" for value in (result.median, result.lowest, result.highest)))
    Console().print(table)


if __name__ == "__main__":
    main()
