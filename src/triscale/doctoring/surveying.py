"""What the data lists, and everything that is wrong with how it is laid out.

`triscale.data` stops at the first thing that is wrong; here all of it is noted and the walk goes on. Wherever nothing
is wrong the listing is `triscale.data`'s own, so what trains and what is looked at are the same pictures.
"""

import csv
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from triscale.data.decoding import Pixels
from triscale.data.folders import SPLIT_NAMES, Entry, is_picture_name, list_folder
from triscale.data.idx import IdxSplit, class_names, is_idx, read_splits
from triscale.data.manifests import list_manifest, listed_again
from triscale.data.spelling import alike, normal
from triscale.doctoring.findings import Finding, number
from triscale.errors import UserError, no_text
from triscale.plain import clipped


@dataclass
class Survey:
    """Every labelled picture that can be found, files that are none, and what is wrong with the layout.

    ``pixels``: uint8 [n, h, w, c] where the pictures are no files. ``loose``: pictures outside class folders.
    """

    kind: str
    entries: list[Entry] = field(default_factory=list)
    pixels: Pixels | None = None
    ignored: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)

    def wrong(self, message: str, kind: str = "structure", files: tuple[str, ...] = ()) -> None:
        """Notes an error of the layout."""
        text = message.removeprefix("data: ")
        self.problems.append(Finding("error", kind, text, max(1, len(files)), files))


def survey(root: Path, max_pixels: int) -> Survey:
    """What lies at ``root``. Raises `UserError` where nothing does, or nothing that could be data."""
    try:
        str(root).encode()
        os.fsencode(root)
        is_folder, exists = root.is_dir(), root.exists()
        holds_idx = is_folder and is_idx(root)
    except UnicodeEncodeError:
        wrong = no_text("is a name that is no text; rename the folder, in UTF-8")
        raise UserError(f"data: {str(root)!r} {wrong}") from None
    except OSError as error:
        raise UserError(f"data: '{root}' cannot be read ({error.strerror}); make it readable") from None
    if is_folder:
        return _survey_idx(root, max_pixels) if holds_idx else _survey_folder(root)
    if not exists:
        raise UserError(f"data: '{root}' does not exist; give a folder of class folders, a manifest.csv or IDX files")
    if root.suffix.lower() != ".csv":
        raise UserError(f"data: '{root}' is no folder and no .csv manifest (path,label[,split]); give one of them")
    return _survey_manifest(root)


@dataclass(frozen=True)
class _Inside:
    folders: list[Path]
    files: list[str]


def _look_into(folder: Path, found: Survey) -> _Inside:
    """Visible folders and files, sorted; what cannot be listed is noted."""
    inside = _Inside([], [])
    try:
        with os.scandir(folder) as entries:
            visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        found.wrong(f"the folder '{folder}' cannot be read ({error.strerror}); make it readable or move it elsewhere")
        return inside
    for entry in visible:
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            found.wrong(f"the name {entry.name!r} in '{folder}' {no_text('is not UTF-8; rename it')}")
            continue
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link that points at itself
            is_folder = False
        if is_folder:
            inside.folders.append(folder / entry.name)
        else:
            inside.files.append(entry.name)
    return inside


def _walk(folder: Path, prefix: str, seen: set[str], found: Survey) -> list[tuple[str, Path]]:
    """(name, path) of the pictures below ``folder``, each real folder once; other files go to ``found.ignored``."""
    pictures, waiting = [], [(folder, prefix, "")]  # folders may be nested deeper than calls may
    while waiting:
        here, prefix, real = waiting.pop()
        if real in seen:
            continue
        seen.add(real)
        inside = _look_into(here, found)
        for file in inside.files:
            name = f"{prefix}/{file}"
            if is_picture_name(file):
                pictures.append((normal(name), here / file))
            else:
                found.ignored.append(normal(name))
        waiting += [(below, f"{prefix}/{below.name}", os.path.realpath(below)) for below in reversed(inside.folders)]
    return pictures


def _keep_loose(names: list[str], prefix: str, found: Survey) -> None:
    for name in names:
        (found.loose if is_picture_name(name) else found.ignored).append(normal(prefix + name))


def _survey_folder(root: Path) -> Survey:
    found = Survey("folder")
    inside = _look_into(root, found)
    _keep_loose(inside.files, "", found)
    if not inside.folders and not found.problems:
        found.wrong(f"'{root}' has no class folders; make one folder per class, or give a manifest.csv (path,label)")
    above = {os.path.realpath(root)}
    parts = [("train", "", inside.folders)]
    if _has_split_layout(inside.folders):
        parts = _splits(root, inside.folders, found, above)
    empty: list[str] = []
    for split, prefix, classes in parts:
        fences = above | {os.path.realpath(folder) for folder in classes}
        for folder in classes:
            pictures = _walk(folder, f"{prefix}{folder.name}", set(fences), found)
            found.entries += [Entry(name, path, normal(folder.name), split) for name, path in pictures]
            if not pictures:
                empty.append(f"{prefix}{folder.name}")
    if empty:
        found.wrong(f"{number(len(empty), 'class folder')} without a picture", "empty_class", tuple(empty))
    _tell_alike(root, [folder for _, _, classes in parts for folder in classes], found)
    found.entries.sort(key=lambda entry: entry.name)
    if not found.problems:
        try:
            found.entries = list(list_folder(root).entries)
        except UserError as refused:
            found.wrong(str(refused))
    return found


def _tell_alike(root: Path, classes: list[Path], found: Survey) -> None:
    """Notes pictures and class folders that would be one name in every table; here such pictures keep their own."""
    pairs = alike([*classes, *(entry.path for entry in found.entries)])
    if not pairs:
        return
    message = f"{number(len(pairs), 'pair')} of files or folders whose names only the spelling of Unicode tells apart"
    first, second = ([ascii(str(path.relative_to(root))) for path in side] for side in zip(*pairs, strict=True))
    beside = tuple(f"beside {name}" for name in second)
    found.problems.append(Finding("error", "spelling", message, len(pairs), tuple(first), beside))
    times = Counter(entry.name for entry in found.entries)
    found.entries = [
        replace(entry, name=entry.path.relative_to(root).as_posix()) if times[entry.name] > 1 else entry
        for entry in found.entries
    ]


def _has_split_layout(folders: list[Path]) -> bool:
    """Whether class folders lie below train/val/test, by the rule of `triscale.data.folders`."""
    unheard = Survey("folder")
    for folder in folders:
        if folder.name.lower() in SPLIT_NAMES:
            inside = _look_into(folder, unheard)
            if inside.folders and not any(is_picture_name(name) for name in inside.files):
                return True
    return False


def _splits(root: Path, folders: list[Path], found: Survey, above: set[str]) -> list[tuple[str, str, list[Path]]]:
    """(split, prefix, class folders) of every split that can be told."""
    taken: dict[str, Path] = {}
    for folder in folders:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None:
            if _walk(folder, folder.name, {os.path.realpath(folder)}, Survey("folder")):
                found.wrong(
                    f"'{folder}' holds pictures but is none of train, val and test; "
                    "rename it, move it elsewhere, or list what counts in a manifest (path,label,split)"
                )
        elif split in taken:
            found.wrong(f"'{taken[split]}' and '{folder}' are both the {split} split; keep one of them")
        else:
            taken[split] = folder
    if "train" not in taken:
        found.wrong(f"'{root}' has {' and '.join(f.name for f in taken.values())} but no train folder; add it")
    above |= {os.path.realpath(folder) for folder in taken.values()}
    parts = []
    for split, folder in taken.items():
        inside = _look_into(folder, found)
        if not inside.folders or any(is_picture_name(name) for name in inside.files):
            found.wrong(
                f"'{folder}' must hold one folder per class and no loose pictures; "
                "sort them into class folders, or move it elsewhere"
            )
        found.ignored += [f"{folder.name}/{name}" for name in inside.files if not is_picture_name(name)]
        parts.append((split, f"{folder.name}/", inside.folders))
    return parts


def _survey_manifest(manifest: Path) -> Survey:
    found = Survey("manifest")
    try:
        found.entries = list(list_manifest(manifest).entries)
    except UserError as refused:
        found.entries, wrong = _rows_that_hold(manifest)
        if wrong:
            lines = number(len(wrong), "line")
            finding = Finding("error", "manifest", f"{lines} of '{manifest}' cannot be used", len(wrong), tuple(wrong))
            found.problems.append(finding)
        if not wrong or not found.entries:
            found.wrong(str(refused))
    return found


def _rows_that_hold(manifest: Path) -> tuple[list[Entry], list[str]]:
    """The rows that can be used, and what is wrong with each of the others. Nothing where the file is no manifest."""
    entries: dict[str, Entry] = {}
    paths: dict[str, str] = {}
    wrong: list[str] = []
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next((row for row in reader if row), [])
            if header not in (["path", "label"], ["path", "label", "split"]):
                return [], []
            for row in filter(None, reader):
                fault = _fault(row, header)
                name = normal(os.path.normpath(row[0]))
                if fault is None and name in entries:
                    fault = listed_again(row[0], paths[name], "listed")
                if fault is not None:
                    wrong.append(f"line {reader.line_num}: {fault}")
                    continue
                split = SPLIT_NAMES[row[2]] if len(row) == 3 else "train"
                paths[name] = row[0]
                entries[name] = Entry(name, manifest.parent / row[0], normal(row[1]), split)
    except (UnicodeDecodeError, csv.Error, OSError):
        return [], []
    return sorted(entries.values(), key=lambda entry: entry.name), wrong


def _fault(row: list[str], header: list[str]) -> str | None:
    if len(row) != len(header):
        return f"{len(row)} cells instead of {','.join(header)}"
    if not row[0].strip() or "\0" in row[0]:
        return f"the path {clipped(row[0])!r} is no path"
    if not row[1] or row[1] != row[1].strip():
        return f"the label {clipped(row[1])!r} is empty or has spaces around it"
    if len(row) == 3 and row[2] not in SPLIT_NAMES:
        return f"unknown split {clipped(row[2])!r}; write train, val or test"
    return None


def _survey_idx(root: Path, max_pixels: int) -> Survey:
    found = Survey("idx")
    try:
        splits = read_splits(root, max_pixels)
    except UserError as refused:
        found.wrong(str(refused))
        return found
    names = _idx_names(root, splits, found)
    for split, part in splits.items():
        for i, label in enumerate(part.labels.tolist()):
            found.entries.append(Entry(f"{split}/{i:05d}", root, names.get(label, str(label)), split))
    found.pixels = np.concatenate([part.pictures for part in splits.values()])
    return found


def _idx_names(root: Path, splits: dict[str, IdxSplit], found: Survey) -> dict[int, str]:
    try:
        return class_names(root, splits["train"].labels)
    except UserError as refused:
        found.wrong(str(refused))
        return {}
