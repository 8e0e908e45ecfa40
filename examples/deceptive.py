"""Where `triscale.search` finds less than chance does, and what its three seeds cannot tell.

    python examples/deceptive.py [--repeats 200] [--evaluations 200 1000]

First a deceptive table: nine choices of three values, in blocks of three. A block is worth 0.6 less 0.25 for each of
its choices that is 0, but 1 where all three are: the best hides behind the worst. A point is worth the mean of its
blocks, without noise. What evolution and random choice found by the same number of evaluations (the best is worth 1),
and the difference, paired by repeat, with its 95 % interval (Student's t).

Then luck: of 2,000 points half are worth exactly 1 each time, and half N(0, 1), which is 0 in the mean. In how many
searches the point that is named is one of the noisy ones.
"""

import argparse
from collections.abc import Mapping, Sequence
from random import Random
from statistics import fmean, stdev

from scipy.stats import t as student

from triscale.searching import search

TABLE = {f"choice {place}": range(3) for place in range(9)}
LUCK = {"point": range(2000)}


def worth(choice: Mapping[str, int]) -> float:
    """By the deceptive table."""
    codes = list(choice.values())
    zeros = [codes[place : place + 3].count(0) for place in range(0, len(codes), 3)]
    return fmean(1.0 if count == 3 else 0.6 - 0.25 * count for count in zeros)


def found(strategy: str, evaluations: int, repeat: int) -> float:
    """What the point is worth that a search of the deceptive table finds. repeat: its seed."""
    return search(
        TABLE, lambda choice, _: worth(choice), evaluations=evaluations, strategy=strategy, seed=repeat
    ).best.value


def lucky(evaluations: int, repeat: int) -> bool:
    """Whether the point that is named is a noisy one. repeat: the seed of the search and of the noise."""
    noise = Random(f"luck {repeat}")
    best = search(
        LUCK, lambda choice, _: noise.gauss() if choice["point"] % 2 else 1.0, evaluations=evaluations, seed=repeat
    ).best
    return bool(best.choice["point"] % 2)


def interval(values: Sequence[float]) -> str:
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return f"{fmean(values):+.3f} ({fmean(values) - half:+.3f} to {fmean(values) + half:+.3f})"


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description="Where evolution finds less than chance does.")
    parser.add_argument("--repeats", type=int, default=200, help="searches of each kind; at least 2")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[200, 1000], help="of each search")
    asked = parser.parse_args()
    if asked.repeats < 2:
        parser.error("--repeats: an interval needs at least 2")
    print(f"A deceptive table, n = {asked.repeats} repeats, 95 % intervals")
    print(f"{'evaluations':>11}  {'evolution':>9}  {'random':>6}  evolution less random")
    for evaluations in asked.evaluations:
        ours, chance = (
            [found(strategy, evaluations, repeat) for repeat in range(asked.repeats)]
            for strategy in ("evolution", "random")
        )
        apart = [one - other for one, other in zip(ours, chance, strict=True)]
        print(f"{evaluations:>11}  {fmean(ours):>9.3f}  {fmean(chance):>6.3f}  {interval(apart)}")
    print("\nLuck: a noisy point (0 in the mean) is named instead of a steady one (1)")
    for evaluations in asked.evaluations:
        named = sum(lucky(evaluations, repeat) for repeat in range(asked.repeats))
        print(f"{evaluations:>11} evaluations: in {named} of {asked.repeats} searches")


if __name__ == "__main__":
    main()
