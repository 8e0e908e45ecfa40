"""A network of one contest beside a network of another, over the test images that both named: what more epochs bring.

    python examples/across.py ONE/contest.json NAME ANOTHER/contest.json NAME

Prints, for every seed that both contests have, the first network's test accuracy less the second's in points, paired
by image, with its 95 % interval and McNemar's p. The contests must have judged on the same test images, which those of
earlier versions do not say; what else sets them apart (epochs, recipe, images) is printed, for the difference is due to
that too.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from triscale.evaluating.pairing import paired
from triscale.stats import PairedDifference
from triscale.trials import unpack

APART = ("images", "epochs", "recipe")
TEST = "test_fingerprint"


def row_of(contest: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contest and its network of that name. Raises `SystemExit` where it has none."""
    found = json.loads(contest.read_text(encoding="utf-8"))
    for row in found["rows"]:
        if row["name"] == name:
            return found, row
    raise SystemExit(f"{contest}: has no {name}; there are {', '.join(row['name'] for row in found['rows'])}")


def compared(first: str, second: str) -> PairedDifference:
    """Of two records of which images were named right. Raises `SystemExit` where they are of other images."""
    a, b = unpack(first), unpack(second)
    if len(a) != len(b):
        raise SystemExit(f"the contests judged on {len(a):,} and {len(b):,} test images, which cannot be paired")
    return paired(a, b)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("name")
    parser.add_argument("second", type=Path)
    parser.add_argument("other")
    asked = parser.parse_args()
    (one, a), (another, b) = row_of(asked.first, asked.name), row_of(asked.second, asked.other)
    if len({contest[TEST] for contest in (one, another) if TEST in contest}) > 1:
        raise SystemExit(f"{asked.first} and {asked.second} judged on other test images, which cannot be paired")
    for key in APART:
        if one[key] != another[key]:
            print(f"{key}: {one[key]} and {another[key]}")
    for seed, (first, second) in enumerate(zip(a["right"], b["right"], strict=False)):
        found = compared(first, second)
        print(f"seed {seed}: {asked.name} less {asked.other} {found}, p {found.p_value():.2g}")


if __name__ == "__main__":
    main()
