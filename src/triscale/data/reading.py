"""`read`: a folder, a manifest or IDX files → `Data`, every picture decoded once and hashed."""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from triscale.data.decoding import MAX_PIXELS, BadPictureError, check, read_bytes
from triscale.data.folders import Entry, Listing, list_folder
from triscale.data.idx import class_names, is_idx, read_splits
from triscale.data.manifests import list_manifest
from triscale.data.pictures import BadFile, Data, Files, Images, Memory, Source
from triscale.data.splitting import SPLITS, carve
from triscale.data.threads import ordered_map
from triscale.errors import UserError, no_text

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Checked:
    """What one full decode left: height, width, whether gray, length in bytes, content digest."""

    h: int
    w: int
    gray: bool
    length: int
    digest: bytes


@dataclass(frozen=True, eq=False)
class _Table:
    """All pictures of a data set, column by column."""

    names: Sequence[str]
    splits: Sequence[str]
    labels: npt.NDArray[np.int64]
    lengths: Sequence[int]
    digests: Sequence[bytes]
    sizes: npt.NDArray[np.int64]
    source: Source


def read(
    path: str | Path,
    *,
    seed: int | None = 0,
    on_bad: Literal["error", "skip"] = "error",
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Data:
    """Labelled pictures from class folders, a manifest or IDX files, in three splits. Nothing is written.

    Where there is no test split, a stratified 20 % of train becomes it; where there is no val split, a stratified 10 %
    of train: see `splitting.carve`. ``seed`` decides which; None carves nothing, and the splits are those that the data
    brings, one class or an empty val and test included (pictures to evaluate, not to learn from). Every picture is
    decoded once, on ``threads`` threads (default: all usable cores); ``progress`` is told (done, total).

    ``on_bad``: what to do with a file that cannot be decoded, or whose header claims more than ``max_pixels`` pixels:
    stop with a `UserError`, or leave it out and list it in `Data.skipped`. Raises `UserError` also for data in no known
    form, an empty class, data of which nothing can be read, and, with a seed, for fewer than two classes and a class in
    val or test that train lacks.
    """
    if on_bad not in ("error", "skip"):
        raise UserError(f"on_bad: {on_bad!r} is neither 'error' nor 'skip'; choose one")
    root = Path(path)
    kind = _kind(root)
    if kind == "idx":
        return _read_idx(root, seed, max_pixels)
    to_learn = seed is not None
    listing = list_folder(root, to_learn=to_learn) if kind == "folder" else list_manifest(root, to_learn=to_learn)
    if to_learn:
        _check_classes(root, listing.entries)
    checked, bad = _check_files(listing.entries, max_pixels, threads, progress)
    skipped = tuple(BadFile(entry.name, reason) for entry, reason in bad)
    if skipped and on_bad == "error":
        raise UserError(
            f"data: {len(skipped):,} of {len(listing.entries):,} files in '{root}' cannot be read, first "
            f"{skipped[0].name!r} ({skipped[0].reason}); repair or remove them, or leave them out with --on-bad skip"
        )
    if not checked:
        raise UserError(
            f"data: none of the {len(skipped):,} files in '{root}' can be read, first {skipped[0].name!r} "
            f"({skipped[0].reason}); repair them, or give another folder"
        )
    return _from_files(root, listing, checked, skipped, seed, max_pixels)


def _kind(root: Path) -> Literal["idx", "folder", "manifest"]:
    try:
        str(root).encode()
        os.fsencode(root)
    except UnicodeEncodeError:
        wrong = no_text("is a name that is no text; rename the folder, in UTF-8")
        raise UserError(f"data: {str(root)!r} {wrong}") from None
    try:
        if root.is_dir():
            return "idx" if is_idx(root) else "folder"
        exists = root.exists()
    except OSError as error:
        raise UserError(f"data: '{root}' cannot be read ({error.strerror}); make it readable") from None
    if not exists:
        raise UserError(f"data: '{root}' does not exist; give a folder of class folders, a manifest.csv or IDX files")
    if root.suffix.lower() != ".csv":
        raise UserError(
            f"data: '{root}' is no folder and no .csv manifest (path,label[,split]); give one of them, or the folder "
            "of IDX files"
        )
    return "manifest"


def _check_classes(root: Path, entries: Sequence[Entry]) -> None:
    known = {entry.label for entry in entries if entry.split == "train"}
    for entry in entries:
        if entry.label not in known:
            raise UserError(
                f"data: the class {entry.label!r} of {entry.split} (first {entry.name!r}) is not in train; "
                "add it to train or take it out"
            )
    if len(known) < 2:
        raise UserError(
            f"data: '{root}' has one class only, {next(iter(known))!r}, and there is nothing to tell apart; "
            "bring at least two, or give the folder whose folders are the classes"
        )


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """A warning about odd metadata says nothing that the decode does not; a million of them drown what matters."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _check_files(
    entries: Sequence[Entry], max_pixels: int, threads: int | None, progress: Progress | None
) -> tuple[dict[int, _Checked], list[tuple[Entry, str]]]:
    def one(entry: Entry) -> _Checked | str:
        try:
            content = read_bytes(entry.path, max_pixels)
            return _Checked(*check(content, max_pixels), len(content), hashlib.sha256(content).digest())
        except BadPictureError as error:
            return str(error)

    good: dict[int, _Checked] = {}
    bad: list[tuple[Entry, str]] = []
    with _quiet_pillow():
        for i, result in enumerate(ordered_map(one, entries, threads)):
            if isinstance(result, str):
                bad.append((entries[i], result))
            else:
                good[i] = result
            if progress is not None:
                progress(i + 1, len(entries))
    return good, bad


def _from_files(
    root: Path,
    listing: Listing,
    checked: Mapping[int, _Checked],
    skipped: tuple[BadFile, ...],
    seed: int | None,
    cap: int,
) -> Data:
    entries = [listing.entries[i] for i in checked]
    facts = list(checked.values())
    classes = tuple(sorted({entry.label for entry in listing.entries}))
    lost = set(classes) - {entry.label for entry in entries if entry.split == "train"} if seed is not None else ()
    for label in lost:
        raise UserError(f"data: no train picture of the class {label!r} can be read; repair them or remove the class")
    channels = 1 if all(fact.gray for fact in facts) else 3
    position = {label: i for i, label in enumerate(classes)}
    table = _Table(
        names=[entry.name for entry in entries],
        splits=[entry.split for entry in entries],
        labels=np.array([position[entry.label] for entry in entries], np.int64),
        lengths=[fact.length for fact in facts],
        digests=[fact.digest for fact in facts],
        sizes=np.array([(fact.h, fact.w) for fact in facts], np.int64),
        source=Files(tuple(entry.path for entry in entries), channels, cap),
    )
    return _assemble(root, listing.kind, classes, channels, table, seed, skipped, listing.ignored)


def _read_idx(root: Path, seed: int | None, max_pixels: int) -> Data:
    to_learn = seed is not None
    splits = read_splits(root, max_pixels, to_learn=to_learn)
    everywhere = np.concatenate([split.labels for split in splits.values()])
    named = class_names(root, splits["train"].labels if to_learn else everywhere, to_learn=to_learn)
    position = {raw: i for i, raw in enumerate(named)}
    for raw in np.unique(everywhere).tolist():
        if raw not in position:
            raise UserError(f"data: label {raw} of test in '{root}' is not in train; bring files that belong together")
    if to_learn and len(named) < 2:
        raise UserError(f"data: '{root}' has one class only, {next(iter(named.values()))!r}; bring at least two")
    pictures = np.concatenate([split.pictures for split in splits.values()])
    n, h, w, channels = pictures.shape
    table = _Table(
        names=[f"{name}/{i:05d}" for name, split in splits.items() for i in range(len(split.labels))],
        splits=[name for name, split in splits.items() for _ in split.labels],
        labels=np.array([position[raw] for split in splits.values() for raw in split.labels.tolist()], np.int64),
        lengths=[h * w * channels] * n,
        digests=[hashlib.sha256(picture).digest() for picture in pictures],
        sizes=np.array([(h, w)], np.int64),
        source=Memory(pictures),
    )
    return _assemble(root, "idx", tuple(named.values()), channels, table, seed, (), 0)


def _assemble(
    root: Path,
    kind: str,
    classes: tuple[str, ...],
    channels: int,
    table: _Table,
    seed: int | None,
    skipped: tuple[BadFile, ...],
    ignored: int,
) -> Data:
    splits = table.splits
    if seed is not None:
        splits = carve(table.splits, table.labels, table.names, table.digests, seed)
    of = np.array([SPLITS.index(split) for split in splits])
    everything = Images(table.labels, tuple(table.names), tuple(table.digests), table.source)
    train, val, test = (everything.select(np.flatnonzero(of == i)) for i in range(len(SPLITS)))
    for name, split in (("val", val), ("test", test)):
        if seed is not None and not len(split):
            raise UserError(
                f"data: '{root}' has no {name} picture and no class with three pictures to carve one from; bring more"
            )
    learned = set(train.digests)
    chosen = learned | set(val.digests)
    return Data(
        path=root,
        kind=kind,
        classes=classes,
        channels=channels,
        size=(int(np.median(table.sizes[:, 0])), int(np.median(table.sizes[:, 1]))),
        uniform=bool((table.sizes == table.sizes[0]).all()),
        train=train,
        val=val,
        test=test,
        fingerprint=_fingerprint(classes, table, splits),
        skipped=skipped,
        ignored=ignored,
        leaks=sum(digest in chosen for digest in test.digests),
        duplicates=sum(digest in learned for digest in val.digests),
    )


def _fingerprint(classes: tuple[str, ...], table: _Table, splits: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps(classes).encode())
    rows = zip(table.names, splits, table.labels.tolist(), table.lengths, table.digests, strict=True)
    for name, split, label, size, content in sorted(rows):
        digest.update(json.dumps([name, split, classes[label], size, content.hex()]).encode())
    return digest.hexdigest()
