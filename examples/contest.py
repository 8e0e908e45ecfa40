"""Networks against each other: each trained from scratch by one recipe with several seeds, judged on the test images.

    python examples/contest.py IMAGES --out DIR --macs 5M --seeds 5 --images 54000 --epochs 6 \\
        searched=SEARCH/network.json efficientnet_b0 mobilenet_v2 resnet18

A name of the zoo is adapted to the images and scaled to --macs; what a file or a directory holds is taken as it is.
Seeds are shared by all. Prints a table in Markdown: mean test accuracy with its 95 % interval over seeds, and every
difference to the first network, paired by seed, with p after Holm's correction over all pairs; of a single seed, both
over the test images (Wilson's interval, paired by image with McNemar's test). Trials lie in
DIR/ledger.db: what is finished is not trained again, and more --seeds extend it; what was ended in its middle goes on
from the end of an epoch. DIR/contest.json holds all of it.
"""

import argparse
import json
import sys
from contextlib import closing
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from triscale.arch import ZOO, Architecture, adapt, resolve, to_dict
from triscale.cores import usable_cores
from triscale.costing import cost
from triscale.data import Data, image_resolution, read
from triscale.evaluating.pairing import paired
from triscale.scaling import Budget, scale_to
from triscale.stats import Estimate, Proportion
from triscale.studies.comparing import compare_arms, holm
from triscale.training import find_recipe, regularised
from triscale.training import resolve as resolve_recipe
from triscale.training.machine import find_device
from triscale.trials import LEDGER, Entry, How, Ledger, Progress, Trial, Workers, run_trials, unpack
from triscale.trials.pace import fastest_way
from triscale.units import format_count, format_seconds, parse_count

Bits = npt.NDArray[np.bool_]
MINUTE = 60.0


def entrant(word: str, images: Data, macs: float) -> Architecture:
    """NAME=WHAT or WHAT: the network for these images."""
    name, _, what = word.rpartition("=")
    channels, classes = images.channels, len(images.classes)
    if what not in ZOO:
        network = adapt(resolve(what), channels=channels, classes=classes)
        return replace(network, name=name or network.name)
    fitted = adapt(resolve(what), resolution=image_resolution(images), channels=channels, classes=classes)
    scaled = scale_to(fitted, None, Budget({"macs": macs})).architecture
    return replace(regularised(scaled, fitted), name=name or what)


class Told:
    """A line for every trial that ended, and one a minute; progress comes more often than that."""

    def __init__(self) -> None:
        self.done, self.last = 0, monotonic()

    def __call__(self, progress: Progress) -> None:
        if progress.done != self.done and progress.last is not None:
            self.done = progress.done
            label, outcome = progress.last
            print(f"{label}: {outcome.selection:.2%} ({progress.done} of {progress.wanted})", file=sys.stderr)
        if monotonic() - self.last > MINUTE:
            self.last = monotonic()
            left = "" if progress.left is None else f", {format_seconds(progress.left)} left"
            print(f"{progress.share:.0%}{left}", file=sys.stderr)


def trials(networks: list[Architecture], images: Data, asked: argparse.Namespace) -> tuple[list[list[Entry]], int]:
    """For every network its trials by seed, and how many run at once. How they compute is decided once, then kept in
    DIR."""
    recipe = resolve_recipe(find_recipe(asked.recipe).recipe, images, epochs=asked.epochs)
    kept = asked.out / "how.json"
    if kept.is_file():
        how = How(**json.loads(kept.read_text("utf-8")))
    else:
        pool = Workers(images, asked.workers or usable_cores())
        how = fastest_way(pool, networks[0], recipe.batch, find_device("cpu"), asked.workers).how
        pool.close()
        kept.write_text(json.dumps({field: getattr(how, field) for field in How.__slots__}), encoding="utf-8")
    entries = []
    for place, network in enumerate(networks):
        row = []
        for seed in range(asked.seeds):
            trial = Trial(network, recipe, images.fingerprint, min(asked.images, len(images.train)), seed, how)
            row.append(Entry(trial, f"{network.name}, seed {seed}", {"network": float(place), "seed": float(seed)}))
        entries.append(row)
    return entries, asked.workers or max(1, usable_cores() // how.threads)


def over_seeds(right: list[list[Bits]]) -> tuple[list[list[float]], dict[int, dict[str, float]]]:
    """Of every network its mean with bounds, and what the first has more than each other one. right: which images were
    named right, by network and seed."""
    found = compare_arms(np.array([[one.mean() for one in row] for row in right]))
    means = [[mean.value, mean.low, mean.high] for mean in found.means]
    apart = {pair.second: {**plain(pair.difference), "p": pair.corrected} for pair in found.pairs if pair.first == 0}
    return means, apart


def over_images(right: list[Bits]) -> tuple[list[list[float]], dict[int, dict[str, float]]]:
    """The same of a single seed: the bounds are what other test images would say of these trainings."""
    means = [Proportion(int(one.sum()), len(one)) for one in right]
    pairs = list(combinations(range(len(right)), 2))
    found = [paired(right[i], right[j]) for i, j in pairs]
    corrected = holm(np.array([one.p_value() for one in found])) if found else []
    apart = {
        second: {**plain(Estimate(one.value, *one.interval())), "p": float(p)}
        for (first, second), one, p in zip(pairs, found, corrected, strict=True)
        if first == 0
    }
    return [[mean.value, *mean.interval()] for mean in means], apart


def plain(found: Estimate) -> dict[str, float]:
    """Its three numbers by name."""
    return {"value": found.value, "low": found.low, "high": found.high}


def values(
    networks: list[Architecture], tests: list[list[str]], images: Data, asked: argparse.Namespace
) -> dict[str, Any]:
    """Plain values. tests: which test images were named right, by network and seed, packed."""
    right = [[unpack(test) for test in row] for row in tests]
    means, apart = over_seeds(right) if asked.seeds > 1 else over_images([row[0] for row in right])
    rows = []
    for place, network in enumerate(networks):
        total = cost(network)
        rows.append(
            {
                "name": network.name,
                "macs": total.macs,
                "params": total.params,
                "test": means[place],
                "by_seed": [float(one.mean()) for one in right[place]],
                "right": tests[place],
                "first_less_it": apart.get(place),
                "network": to_dict(network),
            }
        )
    return {
        "test_fingerprint": images.test_fingerprint(),
        "images": min(asked.images, len(images.train)),
        "epochs": asked.epochs,
        "recipe": asked.recipe,
        "seeds": asked.seeds,
        "rows": rows,
    }


def markdown(found: dict[str, Any]) -> str:
    """The table."""
    first = found["rows"][0]["name"]
    lines = [
        f"|  | MACs | parameters | test accuracy, % | {first} less it | p (Holm) |",
        "| --- " + "| ---: " * 5 + "|",
    ]
    for row in found["rows"]:
        mean, low, high = (100 * value for value in row["test"])
        apart, words = row["first_less_it"], ("", "")
        if apart is not None:
            value, lowest, highest = (100 * apart[key] for key in ("value", "low", "high"))
            words = f"{value:+.2f} ({lowest:+.2f} to {highest:+.2f})", f"{apart['p']:.2g}"
        costs = f"{format_count(row['macs'])} | {format_count(row['params'])}"
        lines.append(f"| {row['name']} | {costs} | {mean:.2f} ({low:.2f} to {high:.2f}) | {words[0]} | {words[1]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("networks", nargs="+", help="NAME=FILE, a directory, or a name of the zoo")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--macs", type=lambda text: parse_count(text, "--macs"), required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=10**9)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--workers", type=int, help="trainings at once; 1 shares all cores")
    asked = parser.parse_args()
    if asked.seeds < 1 or (asked.seeds > 1 and len(asked.networks) < 2):
        parser.error(f"--seeds {asked.seeds}: at least 1; and several take two networks, whose noise is one")
    images = read(asked.data, seed=0)
    networks = [entrant(word, images, asked.macs) for word in asked.networks]
    names = [network.name for network in networks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        parser.error(f"{len(names)} networks, of which several are called {twice[0]}; name each: one=FILE another=FILE")
    asked.out.mkdir(parents=True, exist_ok=True)
    entries, workers = trials(networks, images, asked)
    every = [entry for row in entries for entry in row]
    pool = Workers(images, workers)
    try:
        with closing(Ledger(asked.out / LEDGER, "contest")) as ledger:
            ledger.requeue()
            expected = {entry.trial.key: float(cost(entry.trial.architecture).macs) for entry in every}
            outcomes = run_trials(ledger, pool, every, expected, Told())
    finally:
        pool.close()
    tests = [[outcomes[entry.trial.key].test for entry in row] for row in entries]
    found = values(networks, tests, images, asked)
    (asked.out / "contest.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(markdown(found))


if __name__ == "__main__":
    main()
