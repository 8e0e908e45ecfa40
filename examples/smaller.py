"""At how many times fewer multiply-adds and parameters does a family reach the accuracy of another network?

    python examples/contest.py IMAGES --out DIR --macs 456M resnet18 small=A.json middle=B.json large=C.json
    python examples/smaller.py DIR/contest.json --reference resnet18

All networks of the contest but the reference are the family. For every seed the family's test accuracies, smoothed so
that they do not fall as its networks grow (isotonic regression), are a curve over the logarithm of MACs; where that
first reaches the reference's accuracy with the same seed lies the size that is asked for, and the parameters are those
on the straight line between its neighbours, both as logarithms. Ratios are means of logarithms over the seeds with
Student's 95 % interval: what further seeds would say of these test images. Of a single seed the interval is what other
test images would say of these trainings, drawn anew 2,000 times (bootstrap, percentiles). A family that starts above
the reference is at least so many times smaller, and one that never reaches it has no ratio; both are said, and counted
by seeds.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, stats

from triscale.trials import unpack

DRAWN = 2000
Values = Mapping[str, Any]


def reached(accuracies: Sequence[float], wanted: float) -> float | None:
    """Where the smoothed curve of a family, from its smallest network on, first has that height: 1.5 is half way from
    the second to the third. 0 where it starts there or above; None where it ends below."""
    curve = optimize.isotonic_regression(np.asarray(accuracies, dtype=np.float64)).x
    if curve[-1] < wanted:
        return None
    after = int(np.argmax(curve >= wanted))
    if after == 0:
        return 0.0
    low, high = float(curve[after - 1]), float(curve[after])
    return after - 1 + (wanted - low) / (high - low)


def at(position: float, values: Sequence[float]) -> float:
    """The value at a position between two of them, by logarithm."""
    places = np.arange(len(values))
    return math.exp(float(np.interp(position, places, np.log(values))))


def drawn(family: Sequence[Values], other: Values) -> list[float | None]:
    """Positions with other test images, in order; the last are those where the family ends below the reference."""
    right = np.array([unpack(row["right"][0]) for row in (*family, other)], dtype=np.float64)
    chance, n = np.random.default_rng(0), right.shape[1]
    found = []
    for _ in range(DRAWN):
        *accuracies, wanted = right @ chance.multinomial(n, np.full(n, 1 / n)) / n
        found.append(reached(accuracies, float(wanted)))
    return sorted(found, key=lambda position: math.inf if position is None else position)


def of_images(wanted: float, sizes: Sequence[float], positions: Sequence[float | None]) -> str:
    """The 95 % interval of a ratio. sizes: of the family; positions: as of `drawn`."""
    bounds = []
    for place in (round(0.975 * (len(positions) - 1)), round(0.025 * (len(positions) - 1))):
        position = positions[place]
        end = {0.0: "more than ", None: "less than "}.get(position, "")
        bounds.append(f"{end}{wanted / at(math.inf if position is None else position, sizes):.2f}")
    return f"95 % interval {' to '.join(bounds)}, one seed, other test images"


def ratio(logarithms: Sequence[float], otherwise: str) -> str:
    """Their mean as a ratio, with the bounds of its interval where there are two or more; `otherwise`, where not."""
    mean, n = float(np.mean(logarithms)), len(logarithms)
    if n < 2:
        return f"{math.exp(mean):.2f} ({otherwise})"
    half = float(stats.t.isf(0.025, n - 1)) * float(np.std(logarithms, ddof=1)) / math.sqrt(n)
    return f"{math.exp(mean):.2f} (95 % interval {math.exp(mean - half):.2f} to {math.exp(mean + half):.2f}, n = {n})"


def compared(found: Values, reference: str) -> list[str]:
    """What is printed. Raises `SystemExit` where there is nothing to compare."""
    rows = {row["name"]: row for row in found["rows"]}
    if reference not in rows or len(rows) < 3:
        raise SystemExit(f"the contest has {', '.join(rows)}; it takes {reference} and two networks of a family")
    other = rows.pop(reference)
    family = sorted(rows.values(), key=lambda row: float(row["macs"]))
    sizes = {what: [float(row[what]) for row in family] for what in ("macs", "params")}
    positions = [
        reached([row["by_seed"][seed] for row in family], wanted) for seed, wanted in enumerate(other["by_seed"])
    ]
    inside = [position for position in positions if position is not None]
    n = len(positions)
    lines = [f"{reference}: {100 * np.mean(other['by_seed']):.2f} % of the test images, mean of {n} seeds"]
    if 0.0 in inside:
        starts = f"{inside.count(0.0)} of {n} seeds"
        lines.append(f"{family[0]['name']}, the smallest, is not below it with {starts}: ratios are at least")
    if len(inside) < n:
        lines.append(f"{family[-1]['name']}, the largest, is below it with {n - len(inside)} of {n} seeds: no ratio")
    else:
        by_images = drawn(family, other) if n == 1 and all("right" in row for row in (*family, other)) else None
        for what, words in (("macs", "fewer multiply-adds"), ("params", "fewer parameters")):
            wanted = float(other[what])
            times = [math.log(wanted / at(position, sizes[what])) for position in inside]
            single = "one seed: no interval" if by_images is None else of_images(wanted, sizes[what], by_images)
            lines.append(f"{ratio(times, single)} times {words}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contest", type=Path)
    parser.add_argument("--reference", default="resnet18")
    asked = parser.parse_args()
    print("\n".join(compared(json.loads(asked.contest.read_text("utf-8")), asked.reference)))


if __name__ == "__main__":
    main()
