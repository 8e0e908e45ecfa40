"""What a training can go on from: written whole or not at all, checked when read, two generations kept."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
from torch import Tensor

from triscale.errors import TriscaleError
from triscale.runs import write_whole
from triscale.training.watching import EpochMetrics

FORMAT = "1"
GENERATIONS = 2
EVERY = 60.0  # seconds between checkpoints within an epoch
SHARE = 20  # a checkpoint is not begun before so many times the last one's seconds went by: it takes 5 % at most
_NAME = re.compile(r"(\d{6,})-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Everything that the next step depends on: tensors by name, and plain JSON values."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


class Keeper(Protocol):
    """Where snapshots are kept."""

    def due(self, *, whole: bool) -> bool:
        """Whether it is time for one; whole: an epoch has ended, which is the better moment."""

    def save(self, snapshot: Snapshot) -> None:
        """Keeps it as the newest. Raises `TriscaleError` where it cannot; the newest before is then still there."""

    def newest(self) -> Snapshot | None:
        """The last one that is whole, or none."""


@dataclass
class InMemory:
    """One snapshot, for trainings that leave nothing behind: enough to go back to."""

    kept: Snapshot | None = None

    def due(self, *, whole: bool) -> bool:
        """After every epoch."""
        return whole

    def save(self, snapshot: Snapshot) -> None:
        """A copy of it."""
        tensors = {name: tensor.detach().clone() for name, tensor in snapshot.tensors.items()}
        self.kept = Snapshot(tensors, json.loads(json.dumps(snapshot.values)))

    def newest(self) -> Snapshot | None:
        """The one that is kept."""
        return self.kept


@dataclass
class Checkpoints:
    """Snapshots as files of one folder: `<number>-<SHA-256 of its bytes>.safetensors`.

    A file is forced to disk under another name, then renamed, and the folder is forced to disk; only then the
    generation before the last is removed. What is read is compared with the checksum in its name, so a file that is
    torn, cut or altered is passed over for the one before. every: seconds between two within an epoch. told: what is
    said of a file that was passed over.
    """

    folder: Path
    every: float = EVERY
    told: Callable[[str], None] = lambda text: None
    _last: float = field(default_factory=time.monotonic, init=False)
    _took: float = field(default=0.0, init=False)
    _damaged: set[Path] = field(default_factory=set, init=False)

    def due(self, *, whole: bool) -> bool:
        """Within an epoch after `every` seconds; after an epoch as soon as the writing does not weigh."""
        passed = time.monotonic() - self._last
        return passed >= (SHARE * self._took if whole else max(self.every, SHARE * self._took if self.every else 0.0))

    def save(self, snapshot: Snapshot) -> None:
        """See `Keeper`."""
        started = time.monotonic()
        content = to_bytes(snapshot)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = self._files()
            number = 1 + (_number(kept[-1]) if kept else 0)
            write_whole(self.folder / f"{number:06d}-{hashlib.sha256(content).hexdigest()}.safetensors", content)
            whole = [path for path in kept if path not in self._damaged]
            for old in [*self._damaged, *whole[: max(0, len(whole) - GENERATIONS + 1)]]:
                old.unlink(missing_ok=True)
            self._damaged.clear()
        except OSError as error:
            raise TriscaleError(
                f"{self.folder}: {error.strerror or error}; no checkpoint could be kept there"
            ) from None
        self._last = time.monotonic()
        self._took = self._last - started

    def newest(self) -> Snapshot | None:
        """See `Keeper`."""
        for path in self._leftovers():  # of a writer that was killed
            path.unlink(missing_ok=True)
        for path in reversed(self._files()):
            try:
                content = path.read_bytes()
            except OSError as error:
                self.told(
                    f"{path.name} cannot be read ({error.strerror or error}); going on from the checkpoint before"
                )
                continue
            if hashlib.sha256(content).hexdigest() in path.name:
                return read_snapshot(content)
            self.told(f"{path.name} is damaged; going on from the checkpoint before")
            self._damaged.add(path)
        if self._damaged:
            self.told("no checkpoint is whole: the training begins again")
        return None

    def _files(self) -> list[Path]:
        """Oldest first."""
        return sorted((path for path in self._entries() if _NAME.fullmatch(path.name)), key=_number)

    def _leftovers(self) -> list[Path]:
        return [path for path in self._entries() if path.name.startswith(".") and ".safetensors." in path.name]

    def _entries(self) -> Iterator[Path]:
        return self.folder.iterdir() if self.folder.is_dir() else iter(())


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


def rows_of(keeper: Keeper) -> tuple[EpochMetrics, ...]:
    """The metrics of the epochs that lie behind the newest snapshot."""
    kept = keeper.newest()
    return () if kept is None else tuple(EpochMetrics(**row) for row in kept.values["rows"])


def to_bytes(snapshot: Snapshot) -> bytes:
    """A safetensors file, the values in its metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in snapshot.tensors.items()}
    return safetensors.torch.save(tensors, {"format": FORMAT, "values": json.dumps(snapshot.values)})


def read_snapshot(content: bytes) -> Snapshot:
    """The snapshot in a checkpoint's bytes. Raises `TriscaleError` for one that another version wrote."""
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        if metadata["format"] != FORMAT:
            raise TriscaleError(
                f"a checkpoint of format {metadata['format']}; this version reads {FORMAT}: go on with the version of "
                "Triscale that run.json names"
            )
        return Snapshot(safetensors.torch.load(content), json.loads(metadata["values"]))
    except (KeyError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise TriscaleError(f"a checkpoint that is not one of Triscale's ({error})") from None
