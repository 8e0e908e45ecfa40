"""Names that Unicode spells in several ways: one é is one letter, or an e and an accent."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path


def normal(name: str) -> str:
    """One spelling per name: file systems differ in how they store an é."""
    return unicodedata.normalize("NFC", name)


def alike(paths: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Pairs of paths that differ in their spelling alone, each cut where the two part: two folders rather than all that
    lies below them."""
    first: dict[str, Path] = {}
    pairs: dict[tuple[Path, Path], None] = {}
    for path in paths:
        other = first.setdefault(normal(str(path)), path)
        if other != path:
            pairs[_parting(other, path)] = None
    return list(pairs)


def _parting(one: Path, other: Path) -> tuple[Path, Path]:
    """Both down to the first name that differs."""
    depth = next(i for i, (a, b) in enumerate(zip(one.parts, other.parts, strict=False), 1) if a != b)
    return Path(*one.parts[:depth]), Path(*other.parts[:depth])
