"""What the doctor hands back: findings, each of a kind, and all of them as one diagnosis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from triscale.data.decoding import Pixels
from triscale.data.pictures import Source

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

ADVICE: Mapping[str, str] = {
    "structure": "",  # the message itself names the way out
    "manifest": "correct these lines of the manifest",
    "spelling": "rename one of each, so that the two differ in more than how an accent is stored",
    "empty_class": "fill these class folders or remove them",
    "unreadable": "repair or remove them, or leave them out with --on-bad skip",
    "bomb": "make them smaller or remove them, or leave them out with --on-bad skip",
    "one_class": "bring at least two classes, or give the folder whose folders are the classes",
    "unlearnable_class": "bring training pictures of these classes, or take them out of val and test",
    "no_split": "bring more pictures, three or more of a class, or a split of your own",
    "conflict": "decide which class is right and remove the other copy",
    "leak": "remove the copies from train and val, or from test",
    "leak_val": "remove one of each: a model is chosen by pictures that it has learned",
    "copies": "keep one of each, or sort them into splits yourself, copies together",
    "near_leak": "look at the pairs and remove one of each from its split",
    "near_conflict": "look at the pairs: one of the two classes may be wrong",
    "near_copies": "look at the pairs; keep one of each, or sort them into splits yourself, pairs together",
    "few": "bring more pictures of these classes, or leave the classes out",
    "imbalance": "weigh classes the same with --balance, or bring more of the small ones",
    "untested": "add test pictures of these classes, or nothing will be known about them",
    "small": "bring larger pictures, or leave these out",
    "blank": "remove them unless a blank picture is a class of its own",
    "unread_format": "convert them to PNG or JPEG",
    "loose": "sort them into class folders",
    "suffix": "nothing, for Triscale: it goes by the content; other programs may stumble",
    "aspect": "nothing, unless what counts lies at their ends: pictures are made to fit one shape",
    "gray": "nothing: they are read as colour pictures without colour; see that no class is told by it",
    "alpha": "nothing: transparency is laid on white; see that what remains is what you mean",
    "cmyk": "nothing: they are turned into RGB without a colour profile; compare their colours with the others",
    "wide": "nothing: 16 bits are scaled to 8; see that the pictures are not nearly black",
    "turned": "nothing: pictures are turned upright as their EXIF says",
    "frames": "nothing: the first picture of each is taken; take others out as files if you need them",
    "ignored": "nothing, if these are no pictures",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures that are one: their names, and the share of the variance of one that the other explains."""

    first: str
    second: str
    likeness: float


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the data that a person should know.

    ``kind``: a key of `ADVICE`. ``count``: how many files (or classes, lines, pairs) it is about. ``files``: their
    names. ``reasons``: beside each file, where each has its own. ``groups``: files that are copies of each other.
    ``pairs``: near-duplicates, the likest first.
    """

    severity: Severity
    kind: str
    message: str
    count: int = 1
    files: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    pairs: tuple[Pair, ...] = ()

    @property
    def advice(self) -> str:
        """What to do about it."""
        return ADVICE[self.kind]

    def values(self) -> dict[str, object]:
        """Plain values for JSON."""
        told: dict[str, object] = {
            "severity": self.severity,
            "kind": self.kind,
            "message": self.message,
            "advice": self.advice,
            "count": self.count,
            "files": list(self.files),
        }
        if self.reasons:
            told["reasons"] = list(self.reasons)
        if self.groups:
            told["groups"] = [list(group) for group in self.groups]
        if self.pairs:
            told["pairs"] = [{"files": [p.first, p.second], "likeness": round(p.likeness, 4)} for p in self.pairs]
        return told


@dataclass(frozen=True, slots=True)
class Sizes:
    """Pictures in pixels, (h, w): the one of fewest pixels, the median of each side, the one of most."""

    least: tuple[int, int]
    median: tuple[int, int]
    most: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the doctor found. ``findings`` stand in order of severity.

    ``kind``: folder, manifest or idx. ``counts``: split → class → readable pictures. ``sizes``: None where nothing can
    be read. ``forms``: how pictures are stored (gray, colour, alpha, …) → how many.
    """

    path: Path
    kind: str
    classes: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    findings: tuple[Finding, ...]
    sizes: Sizes | None
    forms: Mapping[str, int]
    places: Mapping[str, tuple[str, str]] = field(repr=False)
    source: Source = field(repr=False)
    positions: Mapping[str, int] = field(repr=False)

    @property
    def sound(self) -> bool:
        """Whether nothing was found that makes training or its test figures wrong: no finding is an error."""
        return not self.of("error")

    @property
    def pictures(self) -> int:
        """How many pictures can be read."""
        return sum(sum(table.values()) for table in self.counts.values())

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def place(self, name: str) -> tuple[str, str]:
        """(split, class) of a picture. Raises `KeyError` for a name that the data does not list."""
        return self.places[name]

    def picture(self, name: str) -> Pixels:
        """uint8 [h, w, c]. Raises `UserError` when its file has gone, `KeyError` when it could not be read before."""
        return self.source.pixels(self.positions[name])

    def values(self) -> dict[str, object]:
        """Plain values for JSON."""
        sizes = self.sizes
        return {
            "path": str(self.path),
            "kind": self.kind,
            "sound": self.sound,
            "pictures": self.pictures,
            "classes": list(self.classes),
            "counts": {split: dict(table) for split, table in self.counts.items()},
            "sizes": sizes and {"least": list(sizes.least), "median": list(sizes.median), "most": list(sizes.most)},
            "forms": dict(self.forms),
            "findings": [finding.values() for finding in self.findings],
        }


def in_order(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings, then notes; within each as they were found."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def number(count: int, one: str, many: str | None = None) -> str:
    """``1 file``, ``1,200 files``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
