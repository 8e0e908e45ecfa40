"""Folders of class folders, with or without train, val and test above them."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePath

from triscale.data.decoding import SUFFIXES
from triscale.data.spelling import alike, normal
from triscale.errors import UserError, no_text

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Entry:
    """One labelled file: its name relative to the data, where it is, its class and its split as the data says."""

    name: str
    path: Path
    label: str
    split: str


@dataclass(frozen=True)
class Listing:
    """What a folder or a manifest lists, sorted by name."""

    kind: str
    entries: tuple[Entry, ...]
    ignored: int = 0


@dataclass
class _Walk:
    """One pass over one class folder."""

    seen: set[str]
    ignored: int = 0
    found: list[tuple[str, Path]] = field(default_factory=list)


def is_picture_name(name: str) -> bool:
    """Whether the suffix, in either case, is one of `SUFFIXES`."""
    return PurePath(name).suffix.lower() in SUFFIXES


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points at itself
        return False


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """Visible entries, sorted. Raises `UserError` for a folder that cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise UserError(
            f"data: the folder '{folder}' cannot be read ({error.strerror}); make it readable or move it elsewhere"
        ) from None
    for entry in found:
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            wrong = no_text("is not UTF-8; rename it")
            raise UserError(f"data: the name {entry.name!r} in '{folder}' {wrong}") from None
    return found


def _subfolders(folder: Path) -> list[Path]:
    return [folder / entry.name for entry in _scan(folder) if _is_folder(entry)]


def _loose(folder: Path) -> list[str]:
    return [entry.name for entry in _scan(folder) if not _is_folder(entry)]


def _walk(folder: Path, prefix: str, walk: _Walk) -> None:
    """Collect pictures below ``folder``; each real folder once, so links in a circle come to an end."""
    path = [(folder, prefix, iter(_scan(folder)))]  # folders may be nested deeper than calls may
    while path:
        here, above, entries = path[-1]
        entry = next(entries, None)
        if entry is None:
            path.pop()
            continue
        name = f"{above}/{entry.name}"
        if _is_folder(entry):
            real = os.path.realpath(entry.path)
            if real not in walk.seen:
                walk.seen.add(real)
                path.append((here / entry.name, name, iter(_scan(here / entry.name))))
        elif is_picture_name(entry.name):
            walk.found.append((normal(name), here / entry.name))
        else:
            walk.ignored += 1


def _class_entries(folders: list[Path], prefix: str, split: str, above: set[str]) -> Iterator[tuple[list[Entry], int]]:
    # A link from inside one class to the root, or to a sister class, must not relabel the sister's pictures.
    fences = above | {os.path.realpath(folder) for folder in folders}
    for folder in folders:
        walk = _Walk(set(fences))
        _walk(folder, f"{prefix}{folder.name}", walk)
        if not walk.found:
            raise UserError(f"data: the class folder '{folder}' holds no picture ({_suffixes()}); fill it or remove it")
        label = normal(folder.name)
        yield [Entry(name, path, label, split) for name, path in walk.found], walk.ignored


def _check_spelling(paths: Iterator[Path]) -> None:
    """Raises `UserError` for two files or class folders that would be one name in every table."""
    for first, second in alike(paths):
        # Escaped: on a screen the two are the same.
        raise UserError(
            f"data: {str(first)!a} and {str(second)!a} are one name in two spellings of Unicode; "
            "rename one of them (`triscale doctor` lists all such names)"
        )


def _suffixes() -> str:
    return " ".join(sorted(suffix[1:] for suffix in SUFFIXES))


def _has_split_layout(folders: list[Path]) -> bool:
    """Whether class folders lie below train/val/test. A class may itself be called "train": it holds pictures."""
    return any(
        folder.name.lower() in SPLIT_NAMES
        and _subfolders(folder)
        and not any(is_picture_name(name) for name in _loose(folder))
        for folder in folders
    )


def _split_folders(root: Path, folders: list[Path], to_learn: bool) -> dict[str, Path]:
    """split → folder. Raises `UserError` for two folders of one split, for no train, and for an unknown split."""
    found: dict[str, Path] = {}
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None:
            if _holds_pictures(folder):
                raise UserError(
                    f"data: '{folder}' holds pictures but is none of train, val and test; "
                    "rename it, move it elsewhere, or list what counts in a manifest (path,label,split)"
                )
        elif split in found:
            raise UserError(f"data: '{found[split]}' and '{folder}' are both the {split} split; keep one of them")
        else:
            found[split] = folder
    if to_learn and "train" not in found:
        raise UserError(
            f"data: '{root}' has {' and '.join(f.name for f in found.values())} but no train folder; add it"
        )
    return found


def _holds_pictures(folder: Path) -> bool:
    walk = _Walk({os.path.realpath(folder)})
    _walk(folder, "", walk)
    return bool(walk.found)


def list_folder(root: Path, *, to_learn: bool = True) -> Listing:
    """The pictures below ``root``, with their classes and splits.

    Class folders may hold folders; links are followed; hidden files and folders are passed over; visible files that
    are no pictures are counted. Raises `UserError` for an empty class folder, one that cannot be read, pictures
    outside class folders where splits are expected, splits that cannot be told apart, names that only the spelling of
    Unicode tells apart, and where there is no train split ``to_learn`` from.
    """
    folders = _subfolders(root)
    ignored = len(_loose(root))
    if not folders:
        raise UserError(
            f"data: '{root}' has no class folders; make one folder per class, or give a manifest.csv (path,label)"
        )
    entries: list[Entry] = []
    above = {os.path.realpath(root)}
    if not _has_split_layout(folders):
        parts = [("train", "", folders)]
    else:
        splits = _split_folders(root, folders, to_learn)
        above |= {os.path.realpath(folder) for folder in splits.values()}
        parts = []
        for split, folder in splits.items():
            classes = _subfolders(folder)
            loose = _loose(folder)
            if not classes or any(is_picture_name(name) for name in loose):
                raise UserError(
                    f"data: '{folder}' must hold one folder per class and no loose pictures; "
                    "sort them into class folders, or move it elsewhere"
                )
            ignored += len(loose)
            parts.append((split, f"{folder.name}/", classes))
    for split, prefix, classes in parts:
        for found, passed in _class_entries(classes, prefix, split, above):
            entries += found
            ignored += passed
    _check_spelling(chain((folder for _, _, classes in parts for folder in classes), (e.path for e in entries)))
    return Listing("folder", tuple(sorted(entries, key=lambda entry: entry.name)), ignored)


def find_pictures(place: Path) -> list[Path]:
    """The picture itself, or every picture below a folder in the order of names.

    Raises `UserError` where nothing lies there, or a folder holds no picture.
    """
    try:
        kind = place.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"'{place}' cannot be read ({reason}); name a picture or a folder of pictures") from None
    if not stat.S_ISDIR(kind):
        return [place]
    walk = _Walk({os.path.realpath(place)})
    _walk(place, "", walk)
    if not walk.found:
        raise UserError(f"'{place}' holds no picture ({_suffixes()}); name a picture or a folder of pictures")
    return [path for _, path in sorted(walk.found)]
