"""A manifest: a CSV file with the header ``path,label`` or ``path,label,split``."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from triscale.data.folders import SPLIT_NAMES, Entry, Listing
from triscale.data.spelling import normal
from triscale.errors import UserError
from triscale.plain import clipped

_HEADERS = (["path", "label"], ["path", "label", "split"])


def _rows(manifest: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every non-empty line; the header first. Raises `UserError` for what is no CSV."""
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except UnicodeDecodeError:
        raise UserError(f"data: '{manifest}' is not UTF-8 text; save it as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"data: '{manifest}' is not a CSV file ({error}); write one path,label per line") from None
    except OSError as error:
        raise UserError(f"data: '{manifest}' cannot be read ({error.strerror}); make it readable") from None


def _entry(where: str, folder: Path, header: list[str], row: list[str]) -> Entry:
    if len(row) != len(header):
        raise UserError(f"data: {where}: {len(row)} cells instead of {','.join(header)}; quote cells with commas")
    path, label = row[0], row[1]
    if not path.strip() or "\0" in path:
        raise UserError(f"data: {where}: the path {clipped(path)!r} is no path; fill it or remove the line")
    if not label or label != label.strip():
        wrong = f"the label {clipped(label)!r} is empty or has spaces around it"
        raise UserError(f"data: {where}: {wrong}; write the bare label")
    split = row[2] if len(row) == 3 else "train"
    if split not in SPLIT_NAMES:
        raise UserError(f"data: {where}: unknown split {clipped(split)!r}; write train, val or test")
    # ./a.png and a.png are one picture.
    return Entry(normal(os.path.normpath(path)), folder / path, normal(label), SPLIT_NAMES[split])


def listed_again(path: str, before: str, where: str) -> str:
    """What is wrong with a path of which another line says ``before``, and the way out."""
    one, other = os.path.normpath(path), os.path.normpath(before)
    if one == other:
        return f"{normal(one)!r} is {where} already; keep one"
    # Escaped: on a screen the two are the same.
    return f"{one!a} is {where} as {other!a}, one name in two spellings of Unicode; rename one of the files"


def list_manifest(manifest: Path, *, to_learn: bool = True) -> Listing:
    """The pictures a manifest lists; paths are relative to the manifest's folder. Whether they exist is seen later.

    Raises `UserError`, naming the line, for another header, a row of another length, an empty or padded label, an
    unknown split, a path listed twice, in whatever spelling of Unicode, and where there is no train split ``to_learn``
    from.
    """
    rows = _rows(manifest)
    _, header = next(rows, (1, []))
    if header not in _HEADERS:
        found = clipped(",".join(header))
        raise UserError(f"data: '{manifest}' begins with {found!r}; begin it with path,label[,split]")
    before: dict[str, tuple[int, str]] = {}
    entries = []
    for line, row in rows:
        where = f"'{manifest}' line {line}"
        entry = _entry(where, manifest.parent, header, row)
        if entry.name in before:
            earlier, path = before[entry.name]
            raise UserError(f"data: {where}: {listed_again(row[0], path, f'in line {earlier}')}")
        before[entry.name] = line, row[0]
        entries.append(entry)
    if not entries:
        raise UserError(f"data: '{manifest}' lists no picture; write one path,label per line")
    if to_learn and not any(entry.split == "train" for entry in entries):
        raise UserError(f"data: '{manifest}' has no line in the split train; mark some lines as train")
    return Listing("manifest", tuple(sorted(entries, key=lambda entry: entry.name)))
