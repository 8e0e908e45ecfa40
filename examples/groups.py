"""Kinds of networks against each other, from a contest's file: searches against their controls, say.

    python examples/contest.py IMAGES --out DIR --macs 5M search0=A.json search1=B.json random0=C.json random1=D.json \\
        efficientnet_b0
    python examples/groups.py DIR/contest.json search random

A group is the networks of its name and a number: others like them could have been found. Two groups with the same
numbers are compared number by number, a group and a single network member by member: means of test accuracies over the
contest's seeds, their mean difference with Student's 95 % interval over the members. Groups with other numbers are not
compared, and neither are two single networks: the contest itself says how far those are apart.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

Members = Mapping[str, float]
ALONE = ""  # the number of a network in no group


def members_of(found: Mapping[str, Any], named: Sequence[str]) -> dict[str, Members]:
    """Of every group that is named, and of every network in none: mean accuracies by number; a single network has one.

    Raises `SystemExit` for a group of fewer than two.
    """
    members: dict[str, dict[str, float]] = {name: {} for name in named}
    for row in found["rows"]:
        stem = row["name"].rstrip("0123456789")
        name, number = (stem, row["name"][len(stem) :]) if stem in named else (row["name"], ALONE)
        members.setdefault(name, {})[number] = float(np.mean(row["by_seed"]))
    for name in named:
        if len(members[name]) < 2:
            have = ", ".join(row["name"] for row in found["rows"])
            raise SystemExit(
                f"{name}: a group is two networks or more, {name}0 and {name}1 for instance; there are {have}"
            )
    return members


def difference(first: Members, second: Members) -> str | None:
    """The mean of first less second in points, with its interval; None where they are not to be compared."""
    if ALONE in first and ALONE in second:
        return None
    numbers = second.keys() if ALONE in first else first.keys()
    if ALONE not in first and ALONE not in second and first.keys() != second.keys():
        return None
    apart = [
        100 * (first.get(number, first.get(ALONE, 0)) - second.get(number, second.get(ALONE, 0))) for number in numbers
    ]
    mean, n = float(np.mean(apart)), len(apart)
    half = float(stats.t.isf(0.025, n - 1)) * float(np.std(apart, ddof=1)) / math.sqrt(n)
    return f"{mean:+.2f} points (95 % interval {mean - half:+.2f} to {mean + half:+.2f}, n = {n})"


def compared(found: Mapping[str, Any], named: Sequence[str]) -> list[str]:
    """What is printed."""
    lines = []
    for (name, own), (other, theirs) in combinations(members_of(found, named).items(), 2):
        words = difference(own, theirs)
        if words is not None:
            lines.append(f"{name} less {other}: {words}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contest", type=Path, help="contest.json, as examples/contest.py writes it")
    parser.add_argument("groups", nargs="+", help="search, for search0, search1 and so on")
    asked = parser.parse_args()
    print("\n".join(compared(json.loads(asked.contest.read_text("utf-8")), asked.groups)))


if __name__ == "__main__":
    main()
