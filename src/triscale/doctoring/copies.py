"""Pictures that the data holds more than once: which of them make training unsound."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from triscale.data.folders import Entry
from triscale.doctoring.examining import Examined
from triscale.doctoring.findings import Finding, Pair, Severity, number
from triscale.doctoring.likeness import near_pairs

TOLERATED = 0.01  # of the test pictures; what near-duplicates can add to an accuracy stays below its interval

Group = list[int]


@dataclass
class _Sorted:
    """Groups of exact copies by what they mean; ``leaked``: positions of test pictures that are learned from."""

    conflict: list[Group] = field(default_factory=list)
    leak: list[Group] = field(default_factory=list)
    leak_val: list[Group] = field(default_factory=list)
    copies: list[Group] = field(default_factory=list)
    leaked: set[int] = field(default_factory=set)


def find_copies(
    entries: Sequence[Entry], facts: Sequence[Examined], progress: Callable[[int, int], None] | None = None
) -> list[Finding]:
    """Exact copies (the same pixels, in whatever format), then near-duplicates among what is left."""
    by_pixels: defaultdict[bytes, Group] = defaultdict(list)
    for i, fact in enumerate(facts):
        by_pixels[fact.pixels].append(i)
    groups = list(by_pixels.values())
    exact = _sort(groups, entries)
    pairs = near_pairs([facts[group[0]].sketch for group in groups], progress)
    return [*_exact(exact, entries, facts), *_near(groups, pairs, entries, exact.leaked)]


def _sort(groups: Sequence[Group], entries: Sequence[Entry]) -> _Sorted:
    found = _Sorted()
    for group in groups:
        if len(group) < 2:
            continue
        splits = {entries[i].split for i in group}
        if len({entries[i].label for i in group}) > 1:
            found.conflict.append(group)
        if "test" in splits and len(splits) > 1:
            found.leak.append(group)
            found.leaked |= {i for i in group if entries[i].split == "test"}
        elif len(splits) > 1:
            found.leak_val.append(group)
        elif group not in found.conflict[-1:]:
            found.copies.append(group)
    return found


def _exact(found: _Sorted, entries: Sequence[Entry], facts: Sequence[Examined]) -> list[Finding]:
    of_test = sum(entry.split == "test" for entry in entries)
    findings = []

    def add(severity: Severity, kind: str, count: int, message: str, groups: Sequence[Group]) -> None:
        if groups:
            names = tuple(tuple(entries[i].name for i in group) for group in groups)
            files = tuple(name for group in names for name in group)
            findings.append(Finding(severity, kind, message, count, files, groups=names))

    several = number(len(found.conflict), "picture")
    add("error", "conflict", len(found.conflict), f"{several} under more than one class", found.conflict)
    n = len(found.leaked)
    told = f"{n:,} of {of_test:,} test pictures {'is a copy' if n == 1 else 'are copies'} of pictures in train or val"
    add("error", "leak", n, told, found.leak)
    n = sum(entries[i].split == "val" for group in found.leak_val for i in group)
    told = f"{number(n, 'val picture is a copy', 'val pictures are copies')} of pictures in train"
    add("warning", "leak_val", n, told, found.leak_val)
    n = sum(len(group) - 1 for group in found.copies)
    told = f"{number(n, 'picture that is a copy', 'pictures that are copies')} of another of its class and split"
    parted = sum(len({facts[i].file for i in group}) > 1 for group in found.copies)
    if parted and not _brought(entries):
        told += (
            f"; {number(parted, 'group')} saved anew: a split that is carved keeps only files together that are the "
            "same byte by byte"
        )
    add("warning", "copies", n, told, found.copies)
    return findings


def _brought(entries: Sequence[Entry]) -> bool:
    """Whether the data brings val and test, so that nothing is carved."""
    return {"val", "test"} <= {entry.split for entry in entries}


def _near(
    groups: Sequence[Group], pairs: Sequence[tuple[int, int, float]], entries: Sequence[Entry], leaked: set[int]
) -> list[Finding]:
    """Near-duplicates between groups of exact copies; each pair is shown by the two members that say most."""
    sorted_pairs: dict[str, list[Pair]] = {"near_leak": [], "near_conflict": [], "near_copies": []}
    also: set[int] = set()
    for first, second, likeness in pairs:
        here, there = groups[first], groups[second]
        for own, other in ((here, there), (there, here)):
            if any(entries[i].split != "test" for i in other):
                also |= {i for i in own if entries[i].split == "test"}
        i, j = max(((i, j) for i in here[:50] for j in there[:50]), key=lambda pair: _weight(entries, *pair))
        kind = ("near_copies", "near_conflict", "near_leak")[_weight(entries, i, j)]
        sorted_pairs[kind].append(Pair(entries[i].name, entries[j].name, likeness))
    also -= leaked
    of_test = sum(entry.split == "test" for entry in entries)
    share = len(also) / max(1, of_test)
    findings = []
    for kind, found in sorted_pairs.items():
        if not found:
            continue
        files = tuple(dict.fromkeys(name for pair in found for name in (pair.first, pair.second)))
        told, count, severity = f"{number(len(found), 'pair')} of near-duplicates", len(found), "warning"
        if kind == "near_leak":
            # Test pictures that are exact copies are counted as such already.
            told = f"{len(also):,} of {of_test:,} test pictures ({share:.2%}) with a near-duplicate in train or val"
            count, severity = len(also), "error" if share > TOLERATED else "warning"
            if not also:
                continue
        elif kind == "near_conflict":
            told += " under two classes"
        elif not _brought(entries):
            told += " of one class; a split that is carved may part those in train"
        findings.append(Finding(_severity(severity), kind, told, count, files, pairs=tuple(found)))
    return findings


def _severity(text: str) -> Severity:
    return "error" if text == "error" else "warning"


def _weight(entries: Sequence[Entry], i: int, j: int) -> int:
    """2: between test and the rest, 1: under two classes, 0: neither."""
    if (entries[i].split == "test") != (entries[j].split == "test"):
        return 2
    return int(entries[i].label != entries[j].label)
