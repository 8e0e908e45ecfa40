"""How many trials an hour one worker does and two, with one thread each or two, and what everything but trials takes.

    python benchmarks/trials.py [--json] [--repeats 3] [--images 4000]

The same trials (a network of 3.5M MACs at 18×18 pixels and its siblings at twice that, noise as images) by each kind of
pool in turns, with a ledger as in a study. Median over the repeats, with the lowest and the highest. Processes are
started and the images shipped before the clock runs; the first trial of each worker warms up.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from triscale.arch import resolve
from triscale.data import Data, Images
from triscale.data.pictures import Memory
from triscale.studies import DESIGNS
from triscale.studies.growing import grow_arm
from triscale.training import named
from triscale.training import resolve as resolve_recipe
from triscale.trials import Entry, How, Ledger, Trial, Workers, run_trials

BASELINE = Path(__file__).parent.parent / "examples" / "baselines" / "efficientnet_mini.json"
POOLS = {"1 worker, 1 thread": (1, 1), "1 worker, 2 threads": (1, 2), "2 workers, 1 thread each": (2, 1)}


@dataclass(frozen=True)
class Measured:
    """Trials an hour, and the share of the workers' time that was not a trial's."""

    per_hour: float
    apart: float


def noise(images: int) -> Data:
    """Noise as pictures of ten classes."""
    draw = np.random.default_rng(0)

    def split(n: int, name: str) -> Images:
        names = tuple(f"{name}/{i}" for i in range(n))
        pixels = Memory(draw.integers(0, 256, (n, 28, 28, 1), np.uint8))
        return Images(np.arange(n) % 10, names, tuple(one.encode() for one in names), pixels)

    train, val, test = split(images, "train"), split(images // 10, "val"), split(images // 10, "test")
    classes = tuple(map(str, range(10)))
    return Data(Path("noise"), "idx", classes, 1, (28, 28), True, train, val, test, fingerprint="noise")


def entries(images: Data, how: How, count: int, first: int) -> list[Entry]:
    """Siblings of the baseline, each with a seed of its own, so that nothing is known before."""
    recipe = resolve_recipe(named("quick").recipe, images, epochs=1)
    baseline, arms = resolve(BASELINE), DESIGNS["five"].arms
    networks = [baseline, *(grow_arm(baseline, arm, 2.0, None).network for arm in arms)]
    trials = [
        Trial(networks[i % len(networks)], recipe, "noise", len(images.train), first + i, how) for i in range(count)
    ]
    return [Entry(trial, f"trial {trial.seed}", {"seed": float(trial.seed)}) for trial in trials]


def measure(pool: Workers, images: Data, how: How, first: int) -> Measured:
    """Six trials for each worker."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db", "benchmark")
        wanted = entries(images, how, 6 * pool.slots, first)
        started = time.perf_counter()
        found = run_trials(
            ledger, pool, wanted, dict.fromkeys((entry.trial.key for entry in wanted), 1.0), lambda _: None
        )
        took = time.perf_counter() - started
    spent = sum(outcome.seconds for outcome in found.values())
    return Measured(3600 * len(wanted) / took, 1 - spent / (took * pool.slots))


def spread(values: list[float]) -> dict[str, float]:
    """Median, lowest, highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def main() -> None:
    """Prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(description="Trials an hour by one worker and two.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=4_000)
    asked = parser.parse_args()
    images, how = noise(asked.images), How("cpu", "bf16", 1, True)
    pools = {name: Workers(images, workers) for name, (workers, _) in POOLS.items()}
    found: dict[str, list[Measured]] = {name: [] for name in POOLS}
    try:
        for turn in range(1 + asked.repeats):
            for place, (name, (_, threads)) in enumerate(POOLS.items()):
                one = measure(pools[name], images, replace(how, threads=threads), 1_000 * (turn * len(POOLS) + place))
                if turn:  # the first warms up
                    found[name].append(one)
    finally:
        for pool in pools.values():
            pool.close()
    results = {
        name: {"trials_per_hour": spread([one.per_hour for one in many]), "apart": spread([one.apart for one in many])}
        for name, many in found.items()
    }
    if asked.json:
        print(json.dumps({"images": asked.images, "repeats": asked.repeats, "pools": results}))
        return
    for name, one in results.items():
        rate, apart = one["trials_per_hour"], one["apart"]
        print(
            f"{name}: {rate['median']:,.0f} trials an hour ({rate['lowest']:,.0f} to {rate['highest']:,.0f}); "
            f"apart from trials {apart['median']:.1%} ({apart['lowest']:.1%} to {apart['highest']:.1%})"
        )


if __name__ == "__main__":
    main()
