"""Train, validation and test: stratified, decided by the seed and the names alone.

Each class is ordered by a hash of (seed, purpose, name), so neither the order of listing nor another class nor another
machine moves a picture. Exact copies of one picture within a class stay together, so that a split made here leaks none
of them.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SPLITS = ("train", "val", "test")
TEST_SHARE = 0.20
VAL_SHARE = 0.10


def _groups(members: Sequence[int], names: Sequence[str], digests: Sequence[bytes]) -> list[list[int]]:
    by_content: defaultdict[bytes, list[int]] = defaultdict(list)
    for i in sorted(members, key=lambda i: names[i]):
        by_content[digests[i]].append(i)
    return list(by_content.values())


def _take(members: Sequence[int], wanted: int, key: str, names: Sequence[str], digests: Sequence[bytes]) -> list[int]:
    def rank(group: list[int]) -> bytes:
        return hashlib.sha256(f"{key}\0{names[group[0]]}".encode("utf-8", "surrogateescape")).digest()

    taken: list[int] = []
    for group in sorted(_groups(members, names, digests), key=rank):
        if len(taken) + len(group) <= wanted:
            taken += group
    return taken


def carve(
    splits: Sequence[str], labels: npt.NDArray[np.int64], names: Sequence[str], digests: Sequence[bytes], seed: int
) -> list[str]:
    """The split of each picture, with a missing test or val carved from train.

    Test takes 20 % of each class, val 10 % of what is left in train; at least one picture each of a class that has
    three or more in train, none of a smaller class, whose pictures all stay in train. (When a class is mostly copies
    of one picture it may give fewer.) Splits that the data brings are kept as they are.
    """
    result = list(splits)
    present = set(splits)
    by_class: defaultdict[int, list[int]] = defaultdict(list)
    for i, label in enumerate(labels.tolist()):
        if result[i] == "train":
            by_class[label].append(i)
    for members in by_class.values():
        if len(members) < 3:
            continue
        for split, share in (("test", TEST_SHARE), ("val", VAL_SHARE)):
            if split in present:
                continue
            rest = [i for i in members if result[i] == "train"]
            wanted = max(1, int(len(rest) * share + 0.5))
            for i in _take(rest, wanted, f"{seed}\0{split}", names, digests):
                result[i] = split
    return result
