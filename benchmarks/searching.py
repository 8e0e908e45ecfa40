"""How many candidates of a space of networks are handled a second, on one core.

    python benchmarks/searching.py [--json] [--candidates 20000] [--repeats 7] [--seed 0]

The space lies around EfficientNet-B0 for 28×28 pixels at 5M MACs. sample, check, encode: a point is drawn, a search is
asked whether it may be a candidate (its network is made and costed, and the cost held against the limit; one that is
within it is regularised, and held against those that are known), and its integers become values by name, and integers
again; what is kept of stages and blocks is emptied before each repeat, so the cold start is included. propose, check:
the same of evolution's children, without the integers. decode and encode: these alone. Medians over the repeats, with
the lowest and the highest.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from random import Random

import torch
from rich.console import Console
from rich.table import Table

from triscale.arch import Architecture, adapt, published
from triscale.costing.convolutions import block_sums
from triscale.scaling import RULES, Budget, solve
from triscale.searching import Evolution, Known, Objective, Scored, around
from triscale.searching.costs import Costs
from triscale.searching.halving import Search
from triscale.searching.networks import block_of
from triscale.searching.setup import Setup
from triscale.training import find_recipe, regularised
from triscale.trials import How

LIMIT = 5e6
CLASSES = 10


@dataclass(frozen=True)
class Speed:
    """Candidates a second: median, lowest and highest of the repeats, of n candidates each."""

    what: str
    median: float
    lowest: float
    highest: float
    n: int
    repeats: int


class Handled:
    """One repeat: a space that has made no network yet."""

    def __init__(self, reference: Architecture, seed: int) -> None:
        block_sums.cache_clear()
        block_of.cache_clear()
        self.search = search(reference, seed)
        self.space = self.search.setup.space.space
        self.rng = Random(seed)

    def sample(self, n: int) -> int:
        """Returns how many may be candidates."""
        found, space = 0, self.space
        for _ in range(n):
            codes = space.sample(self.rng)
            found += self.search.admissible(codes)
            space.encode(space.decode(codes))
        return found

    def propose(self, n: int) -> int:
        evolution, space, rng = Evolution(), self.space, self.rng
        known = Known([Scored(space.sample(rng), rng.random()) for _ in range(evolution.population)])
        return sum(self.search.admissible(evolution.propose(space, known, rng, 0)) for _ in range(n))

    def code(self, n: int) -> None:
        space, points = self.space, [self.space.sample(self.rng) for _ in range(100)]
        for place in range(n):
            space.encode(space.decode(points[place % 100]))


def speed(what: str, n: int, repeats: int, work: Callable[[int], object]) -> Speed:
    """Times `work`, which is told which repeat it is and handles n candidates."""
    found = []
    for repeat in range(repeats):
        start = time.perf_counter()
        work(repeat)
        found.append(n / (time.perf_counter() - start))
    return Speed(what, statistics.median(found), min(found), max(found), n, repeats)


def search(reference: Architecture, seed: int) -> Search:
    """One that has tried nothing; what it says of images and time plays no part here."""
    objective = Objective({"macs": LIMIT})
    setup = Setup(
        space=around(reference),
        objective=objective,
        strategy="evolution",
        recipe=find_recipe("quick").recipe,
        images=1,
        rungs=(1, 3, 9),
        how=How(),
        workers=1,
        seed=seed,
        data="",
        pace=1.0,
        judged=0.0,
        selection=1,
        time=None,
        candidates=None,
    )
    costs = Costs(objective, reference, torch.device("cpu"))
    return Search(setup, Evolution(), costs, left=lambda: math.inf, slots=lambda: 1, choose=lambda _: None)


def reference() -> Architecture:
    """EfficientNet-B0 for small images, at the limit, as `triscale search` makes it."""
    small = adapt(published("efficientnet_b0"), resolution=(28, 28), channels=1, classes=CLASSES)
    return regularised(solve(small, RULES["slim"], Budget({"macs": LIMIT})).architecture, small)


def measure(n: int, repeats: int, seed: int) -> tuple[list[Speed], float]:
    """The speeds, and the share of points that may be candidates."""
    network = reference()

    def repeat(turn: int) -> Handled:
        return Handled(network, seed + turn)

    results = [
        speed("sample, check, encode", n, repeats, lambda turn: repeat(turn).sample(n)),
        speed("propose, check", n, repeats, lambda turn: repeat(turn).propose(n)),
        speed("decode and encode", n, repeats, lambda turn: repeat(turn).code(n)),
    ]
    return results, repeat(0).sample(n) / n


def main() -> None:
    """Prints the table, or one JSON object."""
    parser = argparse.ArgumentParser(description="Candidates of a space handled a second, on one core.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--candidates", type=int, default=20_000, help="candidates a repeat")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    results, share = measure(asked.candidates, asked.repeats, asked.seed)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    if asked.json:
        values = {"python": python, "seed": asked.seed, "in_band": share}
        print(json.dumps(values | {"results": [asdict(result) for result in results]}))
        return
    title = f"Candidates a second, one core, {python}; n = {asked.candidates}, {asked.repeats} repeats"
    table = Table(title=title, caption=f"{share:.1%} of all points are in the band")
    table.add_column("")
    for heading in ("median", "lowest", "highest"):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(result.what, *(f"{value:,.0f}" for value in (result.median, result.lowest, result.highest)))
    Console().print(table)


if __name__ == "__main__":
    main()
