"""IDX files, as MNIST and its kin come: big-endian header, then raw bytes; plain or gzipped.

Format: http://yann.lecun.com/exdb/mnist ("FILE FORMATS FOR THE MNIST DATABASE"). Magic 0x0000 08 0N: unsigned bytes in
N dimensions; N = 1 labels, 3 gray pictures (n, h, w), 4 pictures with channels (n, h, w, c).
"""

import gzip
import struct
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from triscale.data.spelling import normal
from triscale.errors import UserError

MAX_BYTES = 16 * 2**30
# Deflate turns at most 1032 bytes into one, so a gzipped file bounds what its header may honestly claim.
_DEFLATE_RATIO = 1032
_CHUNK = 2**24


@dataclass(frozen=True)
class IdxSplit:
    """uint8 pictures [n, h, w, c] and int64 raw labels [n]."""

    pictures: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def _find(folder: Path, part: str, kind: str, dimensions: tuple[int, ...]) -> Path | None:
    for dimension in dimensions:
        for joint in ("-", "."):
            for suffix in ("", ".gz"):
                path = folder / f"{part}-{kind}{joint}idx{dimension}-ubyte{suffix}"
                if path.is_file():
                    return path
    return None


def is_idx(folder: Path) -> bool:
    """Whether the folder holds IDX files under MNIST's names."""
    return any(_lies_in(folder, part) for part in ("train", "t10k"))


def _lies_in(folder: Path, part: str) -> bool:
    """Whether there is a file of that part, also where the other one is missing."""
    return any(_find(folder, part, kind, n) is not None for kind, n in (("images", (3, 4)), ("labels", (1,))))


def _header(file: BinaryIO, path: Path, dimensions: tuple[int, ...]) -> tuple[int, ...]:
    head = file.read(4)
    if len(head) < 4 or head[:3] != b"\0\0\x08" or head[3] not in dimensions:
        wanted = " or ".join(f"0000080{n}" for n in dimensions)
        raise UserError(f"data: '{path}' begins with {head.hex()!r}, not {wanted}; fetch the IDX file again")
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise UserError(f"data: '{path}' ends inside its header; fetch the IDX file again")
    return struct.unpack(f">{head[3]}I", sizes)


def _check_size(path: Path, shape: tuple[int, ...]) -> int:
    """The number of bytes the header claims, checked against the file before anything is allocated."""
    claimed, header = prod(shape), 4 + 4 * len(shape)
    on_disk = path.stat().st_size
    zipped = path.suffix == ".gz"
    if (zipped and claimed > on_disk * _DEFLATE_RATIO) or (not zipped and claimed + header != on_disk):
        raise UserError(
            f"data: '{path}' claims {'×'.join(map(str, shape))} = {claimed:,} bytes but is {on_disk:,} bytes long; "
            "fetch the IDX file again"
        )
    if claimed > MAX_BYTES:
        raise UserError(f"data: '{path}' holds {claimed:,} bytes, over {MAX_BYTES:,}; write the pictures to folders")
    return claimed


def _fill(file: BinaryIO, path: Path, claimed: int) -> npt.NDArray[np.uint8]:
    values = np.empty(claimed, np.uint8)
    at = 0
    while at < claimed:
        chunk = file.read(min(_CHUNK, claimed - at))
        if not chunk:
            raise UserError(f"data: '{path}' ends after {at:,} of {claimed:,} bytes; fetch the IDX file again")
        values[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
        at += len(chunk)
    if file.read(1):
        raise UserError(f"data: '{path}' goes on after the {claimed:,} bytes it claims; fetch the IDX file again")
    return values


def read_idx(path: Path, dimensions: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The file's bytes in the shape its header says. Raises `UserError` naming the file for whatever is wrong in it."""
    try:
        with path.open("rb") as raw:
            file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
            shape = _header(file, path, dimensions)
            return _fill(file, path, _check_size(path, shape)).reshape(shape)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"data: '{path}' is damaged ({error}); fetch the IDX file again") from None
    except OSError as error:
        raise UserError(f"data: '{path}' cannot be read ({error.strerror}); make it readable") from None


def _read_split(folder: Path, part: str, max_pixels: int) -> IdxSplit:
    found = {kind: _find(folder, part, kind, n) for kind, n in (("images", (3, 4)), ("labels", (1,)))}
    pictures_at, labels_at = found["images"], found["labels"]
    if pictures_at is None or labels_at is None:
        missing = f"{part}-{'images-idx3' if pictures_at is None else 'labels-idx1'}-ubyte[.gz]"
        raise UserError(f"data: '{folder}' lacks '{missing}'; add it beside the other IDX files")
    labels = read_idx(labels_at, (1,))
    pictures = read_idx(pictures_at, (3, 4))
    if len(pictures) != len(labels):
        raise UserError(
            f"data: '{pictures_at}' holds {len(pictures):,} pictures but '{labels_at}' {len(labels):,} labels; "
            "fetch both again"
        )
    if pictures.ndim == 3:
        pictures = pictures[:, :, :, None]
    n, h, w, c = pictures.shape
    if c not in (1, 3) or not 1 <= h * w <= max_pixels or not n:
        raise UserError(
            f"data: '{pictures_at}' holds {n} pictures of {h}×{w} in {c} channels; there must be some, "
            f"of 1 to {max_pixels:,} pixels (max_pixels), in 1 or 3 channels"
        )
    return IdxSplit(pictures, labels.astype(np.int64))


def read_splits(folder: Path, max_pixels: int, *, to_learn: bool = True) -> dict[str, IdxSplit]:
    """train, and test where t10k files lie beside; those alone will do where there is nothing ``to_learn``.

    Raises `UserError` when a file lacks, or sizes do not agree.
    """
    splits = {}
    if to_learn or _lies_in(folder, "train"):
        splits["train"] = _read_split(folder, "train", max_pixels)
    if _lies_in(folder, "t10k"):
        splits["test"] = _read_split(folder, "t10k", max_pixels)
    if len(splits) == 2:
        shapes = {name: split.pictures.shape[1:] for name, split in splits.items()}
        if shapes["train"] != shapes["test"]:
            raise UserError(
                f"data: '{folder}': train pictures are {shapes['train']} but test pictures {shapes['test']} "
                "(h, w, channels); bring files that belong together"
            )
    return splits


def class_names(folder: Path, labels: npt.NDArray[np.int64], *, to_learn: bool = True) -> dict[int, str]:
    """raw label → class, in the order of the labels, for the ``labels`` that train holds.

    From ``classes.txt`` where it lies beside (line k names label k; a blank line names none), else the label's digits.
    Where there is nothing ``to_learn``, for those of all pictures, and the file may name more.
    Raises `UserError` when the file and the labels do not agree.
    """
    present = [int(label) for label in np.unique(labels)]
    listed = folder / "classes.txt"
    if not listed.is_file():
        return {label: str(label) for label in present}
    try:
        lines = [normal(line.strip()) for line in listed.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"data: '{listed}' cannot be read ({error}); save it as UTF-8 text") from None
    names = {label: name for label, name in enumerate(lines) if name}
    if len(set(names.values())) != len(names):
        twice = next(name for name in names.values() if list(names.values()).count(name) > 1)
        raise UserError(f"data: '{listed}' names {twice!r} twice; give every class its own name")
    for label in present:
        if label not in names:
            raise UserError(f"data: '{listed}' has no name for label {label}; write it in line {label + 1}")
    for label, name in names.items():
        if to_learn and label not in present:
            raise UserError(f"data: '{listed}' names {name!r}, but no train picture has label {label}; blank that line")
    return {label: names[label] for label in present}
