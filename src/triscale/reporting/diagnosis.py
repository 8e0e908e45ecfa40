"""What the doctor found, as one self-contained page."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from triscale.doctoring import Diagnosis, Finding, Pair
from triscale.errors import UserError
from triscale.reporting.templating import render
from triscale.reporting.thumbnails import address
from triscale.runs import write_whole

MOST_CLASSES = 200
MOST_PAIRS, MOST_PICTURES, MOST_NAMES = 24, 24, 40
OF_A_GROUP = 4


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of the page: name, split, class, width × height, data address (none where it cannot be read)."""

    name: str
    split: str
    label: str
    size: str
    picture: str


@dataclass(frozen=True, slots=True)
class Examples:
    """Of a finding: pairs with both pictures, else groups with how many more are in each, else pictures, else names
    with reasons. rest: how many of them are not shown."""

    pairs: list[tuple[Pair, Shown, Shown]]
    groups: list[tuple[list[Shown], int]]
    pictures: list[Shown]
    names: list[tuple[str, str]]
    rest: int


@dataclass(frozen=True, slots=True)
class DiagnosisPage:
    """name: of the data. numbers: findings of each severity. classes: name and pictures in each split, not of endlessly
    many. largest: pictures of the largest class, at least 1. version: Triscale's."""

    diagnosis: Diagnosis
    name: str
    numbers: list[tuple[str, int]]
    findings: list[tuple[Finding, Examples]]
    classes: list[tuple[str, list[tuple[str, int]]]]
    largest: int
    version: str


def write_diagnosis(diagnosis: Diagnosis, page: Path) -> None:
    """The page at ``page``: one file, nothing fetched. Raises `TriscaleError` where it cannot be written."""
    write_whole(page, render("diagnosis.html.j2", _page(diagnosis)))


def _page(diagnosis: Diagnosis) -> DiagnosisPage:
    splits = diagnosis.counts.items()
    return DiagnosisPage(
        diagnosis=diagnosis,
        name=diagnosis.path.resolve().name,
        numbers=[(severity, len(diagnosis.of(severity))) for severity in ("error", "warning", "note")],
        findings=[(finding, _examples(diagnosis, finding)) for finding in diagnosis.findings],
        classes=[
            (label, [(split, table[label]) for split, table in splits]) for label in diagnosis.classes[:MOST_CLASSES]
        ],
        largest=max([1, *(sum(table[label] for _, table in splits) for label in diagnosis.classes)]),
        version=version("triscale"),
    )


def _examples(diagnosis: Diagnosis, finding: Finding) -> Examples:
    pairs = [
        (pair, _shown(diagnosis, pair.first), _shown(diagnosis, pair.second)) for pair in finding.pairs[:MOST_PAIRS]
    ]
    groups = [(_all(diagnosis, group[:OF_A_GROUP]), len(group) - OF_A_GROUP) for group in finding.groups[:MOST_PAIRS]]
    pictures, names = [], []
    if not pairs and not groups:
        readable = [name for name in finding.files if name in diagnosis.positions]
        pictures = _all(diagnosis, readable[:MOST_PICTURES])
        if not pictures:
            reasons = finding.reasons or ("",) * len(finding.files)
            names = list(zip(finding.files, reasons, strict=True))[:MOST_NAMES]
    whole = len(finding.pairs) or len(finding.groups) or len(finding.files)
    shown = len(pairs) or len(groups) or len(pictures) or len(names)
    return Examples(pairs, groups, pictures, names, whole - shown)


def _all(diagnosis: Diagnosis, names: tuple[str, ...] | list[str]) -> list[Shown]:
    return [_shown(diagnosis, name) for name in names]


def _shown(diagnosis: Diagnosis, name: str) -> Shown:
    split, label = diagnosis.place(name)
    try:
        pixels = diagnosis.picture(name)
    except UserError:  # gone since it was looked at
        return Shown(name, split, label, "", "")
    return Shown(name, split, label, f"{pixels.shape[1]}×{pixels.shape[0]}", address(pixels))
