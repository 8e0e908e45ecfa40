"""What the doctor found, as one self-contained page."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from triscale.doctoring import Diagnosis, Finding
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


def write_diagnosis(diagnosis: Diagnosis, page: Path) -> None:
    """The page at ``page``: one file, nothing fetched. Raises `TriscaleError` where it cannot be written."""
    write_whole(page, render("diagnosis.html.j2", _values(diagnosis)))


def _values(diagnosis: Diagnosis) -> dict[str, Any]:
    totals = {label: sum(table[label] for table in diagnosis.counts.values()) for label in diagnosis.classes}
    largest = max(totals.values(), default=0)
    return {
        "diagnosis": diagnosis,
        "name": diagnosis.path.resolve().name,
        "numbers": [(severity, len(diagnosis.of(severity))) for severity in ("error", "warning", "note")],
        "findings": [(finding, _examples(diagnosis, finding)) for finding in diagnosis.findings],
        "classes": [
            (label, totals[label], [(split, table[label]) for split, table in diagnosis.counts.items()])
            for label in diagnosis.classes[:MOST_CLASSES]
        ],
        "largest": max(1, largest),
        "version": version("triscale"),
    }


def _examples(diagnosis: Diagnosis, finding: Finding) -> dict[str, Any]:
    """What is shown of a finding: pairs, else groups, else pictures, else names; and how many are not shown."""
    pairs = [(pair, *_all(diagnosis, (pair.first, pair.second))) for pair in finding.pairs[:MOST_PAIRS]]
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
    return {"pairs": pairs, "groups": groups, "pictures": pictures, "names": names, "rest": whole - shown}


def _all(diagnosis: Diagnosis, names: tuple[str, ...] | list[str]) -> list[Shown]:
    return [_shown(diagnosis, name) for name in names]


def _shown(diagnosis: Diagnosis, name: str) -> Shown:
    split, label = diagnosis.place(name)
    try:
        pixels = diagnosis.picture(name)
    except UserError:  # gone since it was looked at
        return Shown(name, split, label, "", "")
    return Shown(name, split, label, f"{pixels.shape[1]}×{pixels.shape[0]}", address(pixels))
