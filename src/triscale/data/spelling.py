"""Names that Unicode spells in several ways: one é is one letter, or an e and an accent."""

import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath


def normal(name: str) -> str:
    """One spelling per name: file systems differ in how they store an é."""
    return unicodedata.normalize("NFC", name)


@dataclass
class Spelled:
    """Finds files below `root` by the names that tables give them, however the disk spells these."""

    root: Path
    _listed: dict[Path, dict[str, list[Path]]] = field(default_factory=dict)

    def find(self, name: str) -> Path | None:
        """The file, by the path that opens it; None where there is none."""
        # Unlike `Path.is_file` this says no, too, where a folder on the way may not be entered.
        return next(filter(os.path.isfile, self._places(name)), None)

    def _places(self, name: str) -> Iterator[Path]:
        yield self.root / name
        places = [self.root]
        for part in PurePath(name).parts:  # a folder may be there in both spellings, with other files in each
            places = [entry for place in places for entry in self._called(place, part)]
        yield from places

    def _called(self, folder: Path, part: str) -> list[Path]:
        """What lies in a folder by a name in any spelling; ``..`` and a root lie in none and are taken as they are."""
        if folder not in self._listed:  # once: a table may name thousands of files that are gone
            found = self._listed[folder] = {}
            try:
                for entry in sorted(folder.iterdir()):
                    found.setdefault(normal(entry.name), []).append(entry)
            except (OSError, ValueError):  # no folder, none that may be listed, or no name of one
                pass
        return self._listed[folder].get(normal(part), [folder / part])


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
