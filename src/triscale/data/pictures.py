"""A split of labelled pictures as one value, whether its pixels lie in files or in memory."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from triscale.data.decoding import MAX_PIXELS, BadPictureError, BoxOf, Pixels, cut_out, decode, decode_part, read_bytes
from triscale.errors import UserError

Indices = npt.NDArray[np.int64]


class Source(Protocol):
    """Where pixels come from, by position."""

    def pixels(self, i: int) -> Pixels:
        """uint8 [h, w, c]."""

    def part(self, i: int, box_of: BoxOf, least: tuple[int, int]) -> Pixels:
        """uint8 [h, w, c], a part of the picture; coarser where that is faster and leaves it ``least`` (h, w)."""

    def array(self) -> Pixels | None:
        """uint8 [n, h, w, c] when all of it lies in memory, else None."""

    def select(self, indices: Indices) -> "Source":
        """The pictures at ``indices``, in that order."""


@dataclass(frozen=True, eq=False)
class Files:
    """Pictures in files, decoded when asked for."""

    paths: tuple[Path, ...]
    channels: int
    max_pixels: int = MAX_PIXELS

    def pixels(self, i: int) -> Pixels:
        """uint8 [h, w, channels]. Raises `UserError` when the file has gone or changed to bad."""
        with self._as_read(i) as content:
            return decode(content, self.channels, self.max_pixels)

    def part(self, i: int, box_of: BoxOf, least: tuple[int, int]) -> Pixels:
        """uint8 [h, w, channels], see `decode_part`. Raises `UserError` as `pixels` does."""
        with self._as_read(i) as content:
            return decode_part(content, box_of, least, self.channels, self.max_pixels)

    @contextmanager
    def _as_read(self, i: int) -> Iterator[bytes]:
        try:
            yield read_bytes(self.paths[i], self.max_pixels)
        except BadPictureError as error:
            raise UserError(
                f"data: '{self.paths[i]}' cannot be read any more: {error}; put the file back as it was, or read again"
            ) from None

    def array(self) -> None:
        """Files are never held."""
        return

    def select(self, indices: Indices) -> "Files":
        """The pictures at ``indices``, in that order."""
        return Files(tuple(self.paths[i] for i in indices), self.channels, self.max_pixels)


@dataclass(frozen=True, eq=False)
class Memory:
    """Pictures of one size in one uint8 array [n, h, w, c]."""

    values: Pixels

    def pixels(self, i: int) -> Pixels:
        """uint8 [h, w, c], a view."""
        picture: Pixels = self.values[i]
        return picture

    def part(self, i: int, box_of: BoxOf, least: tuple[int, int]) -> Pixels:
        """uint8 [h, w, c], a view, never coarser."""
        return cut_out(self.values[i], box_of)

    def array(self) -> Pixels:
        """All of it, uint8 [n, h, w, c], not a copy."""
        return self.values

    def select(self, indices: Indices) -> "Memory":
        """A copy of the pictures at ``indices``, in that order."""
        return Memory(self.values[indices])


@dataclass(frozen=True, eq=False)
class Images:
    """One split.

    ``labels``: int64 [n], positions in the data's classes. ``names``: n ids, paths relative to the data for files,
    ``train/00012`` for IDX. ``digests``: n SHA-256 digests of the content (file bytes, or IDX pixels).
    """

    labels: Indices
    names: tuple[str, ...]
    digests: tuple[bytes, ...]
    source: Source

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, i: int) -> Pixels:
        """Picture ``i`` as uint8 [h, w, c], upright. Raises `UserError` when its file has gone or changed to bad."""
        return self.source.pixels(i)

    def part(self, i: int, box_of: BoxOf, least: tuple[int, int]) -> Pixels:
        """The box of picture ``i`` that ``box_of`` answers to its (h, w), as uint8 [h', w', c], upright.

        From a file it may be coarser than the picture where that is faster, but for ``least`` (h, w) pixels: for
        training, see `decode_part`. Raises `UserError` as `pixels` does.
        """
        return self.source.part(i, box_of, least)

    def array(self) -> Pixels | None:
        """All pictures as uint8 [n, h, w, c] when they lie in memory already, else None. Not to be written to."""
        return self.source.array()

    def select(self, indices: Sequence[int] | Indices) -> "Images":
        """The pictures at ``indices``, in that order."""
        chosen = np.asarray(indices, np.int64)
        return Images(
            self.labels[chosen],
            tuple(self.names[i] for i in chosen),
            tuple(self.digests[i] for i in chosen),
            self.source.select(chosen),
        )


@dataclass(frozen=True)
class BadFile:
    """A file left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Data:
    """Labelled pictures in three splits, as `read` found them.

    ``kind``: folder, manifest or idx. ``channels``: 1 when every picture is gray, else 3. ``size``: median (h, w) in
    pixels; ``uniform``: all pictures have that size. ``fingerprint``: SHA-256 (hex) over classes and sorted
    (name, split, label, bytes, content digest): the same after copying, other when a pixel, label or split is.
    ``skipped``: bad files left out. ``ignored``: visible files that are no pictures. ``leaks``: test pictures whose
    exact content is also in train or val, or was learned from before; ``duplicates``: val pictures whose exact content
    is also in train.
    """

    path: Path
    kind: str
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    uniform: bool
    train: Images
    val: Images
    test: Images
    fingerprint: str
    skipped: tuple[BadFile, ...] = ()
    ignored: int = 0
    leaks: int = 0
    duplicates: int = 0

    def test_fingerprint(self) -> str:
        """SHA-256 (hex) over the test pictures' contents and classes alone: accuracies on the same can be compared."""
        rows = zip(self.test.digests, self.test.labels.tolist(), strict=True)
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for content, label in sorted(rows):
            digest.update(content + self.classes[label].encode() + b"\0")
        return digest.hexdigest()

    def knowing(self, before: Iterable[bytes]) -> "Data":
        """The same, with `leaks` also of test pictures that the weights to start from were learned from: digests."""
        known = {*self.train.digests, *self.val.digests, *before}
        return replace(self, leaks=sum(digest in known for digest in self.test.digests))

    def splits(self) -> Mapping[str, Images]:
        """train, val and test by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """(name, split, hex digest) of every picture: which image went where, as `RunDirectory.write_splits` keeps."""
        for split, pictures in self.splits().items():
            for name, digest in zip(pictures.names, pictures.digests, strict=True):
                yield name, split, digest.hex()

    def counts(self) -> dict[str, dict[str, int]]:
        """split → class → number of pictures; every class is listed in every split."""
        tables = {name: np.bincount(split.labels, minlength=len(self.classes)) for name, split in self.splits().items()}
        return {name: {label: int(table[i]) for i, label in enumerate(self.classes)} for name, table in tables.items()}

    def imbalance(self) -> tuple[float, str, str]:
        """How many times more training pictures the largest class has than the smallest, and both classes' names."""
        counts = self.counts()["train"]
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        return counts[most] / max(1, counts[least]), most, least
