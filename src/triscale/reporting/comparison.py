"""The page of a comparison: two models, and the pictures that only one of them named right."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from markupsafe import Markup

from triscale.data import read
from triscale.data.decoding import BadPictureError, decode, read_bytes
from triscale.data.idx import is_idx
from triscale.data.spelling import Spelled
from triscale.errors import UserError
from triscale.evaluating import Comparison
from triscale.evaluating.comparison import ClassDifference, Flip
from triscale.reporting.mistakes import SIDE
from triscale.reporting.plots import reliability
from triscale.reporting.templating import render
from triscale.reporting.thumbnails import address
from triscale.runs import write_whole

MOST = 36  # pictures in each direction
MOST_CLASSES = 40


@dataclass(frozen=True, slots=True)
class Shown:
    """A flipped image and its picture, a data address; None where the picture is not there any more."""

    flip: Flip
    picture: str | None


@dataclass(frozen=True, slots=True)
class Side:
    """The images that only one of the models named right, total in number, of which not endlessly many are shown."""

    shown: list[Shown]
    total: int


@dataclass(frozen=True, slots=True)
class ComparisonPage:
    """names: of the models, short. pictured: whether any picture was found, of those looked for. plots: how sure each
    may be. classes: those with images, that differ most first. version: Triscale's."""

    comparison: Comparison
    names: tuple[str, str]
    sides: list[Side]
    pictured: bool
    plots: list[Markup]
    classes: list[ClassDifference]
    most_classes: int
    version: str


def write_comparison(out: Path, comparison: Comparison) -> None:
    """One self-contained page, whole. Pictures are taken from the comparison's data, where their content is still that
    which the models saw. Raises `TriscaleError` where the disk refuses."""
    sides = [[flip for flip in comparison.flips if flip.right == side] for side in (0, 1)]
    shown = [flip for side in sides for flip in side[:MOST]]
    pictures = find_pictures(comparison.data, shown)
    page = ComparisonPage(
        comparison=comparison,
        names=_short(comparison.names),
        sides=[Side([Shown(flip, pictures.get(flip.digest)) for flip in side[:MOST]], len(side)) for side in sides],
        pictured=bool(pictures) or not shown,
        plots=[
            Markup(reliability(measures.calibration.bins, f"{letter}: right, by confidence"))
            for letter, measures in zip("AB", comparison.measures, strict=True)
        ],
        classes=_classes(comparison),
        most_classes=MOST_CLASSES,
        version=version("triscale"),
    )
    write_whole(out, render("comparison.html.j2", page))


def find_pictures(data: Path | None, flips: Iterable[Flip]) -> dict[bytes, str]:
    """Content digest → data address of the picture, for those whose content is still there, unchanged."""
    known = {flip.digest: flip for flip in flips if flip.digest}
    if data is None or not known or not data.exists():
        return {}
    if is_idx(data):
        return _from_idx(data, set(known))
    files, found = Spelled(data if data.is_dir() else data.parent), {}
    for digest, flip in known.items():
        for place in filter(None, map(files.find, dict.fromkeys(flip.names))):
            try:
                content = read_bytes(place)
                if hashlib.sha256(content).digest() == digest:
                    found[digest] = address(decode(content), SIDE)
                    break
            except BadPictureError:
                continue
    return found


def _from_idx(data: Path, wanted: set[bytes]) -> dict[bytes, str]:
    try:
        splits = read(data, seed=None).splits().values()
    except UserError:
        return {}
    return {
        digest: address(split.pixels(i), SIDE)
        for split in splits
        for i, digest in enumerate(split.digests)
        if digest in wanted
    }


def _classes(comparison: Comparison) -> list[ClassDifference]:
    """The classes with images, those that differ most first."""
    there = [one for one in comparison.classes if one.difference is not None]
    return sorted(there, key=lambda one: -abs(one.difference.value if one.difference else 0.0))


def _short(names: tuple[str, str]) -> tuple[str, str]:
    """The last parts of two paths, where these tell them apart."""
    short = (Path(names[0]).name or names[0], Path(names[1]).name or names[1])
    return short if short[0] != short[1] else names
