"""What a long trial leaves beside the ledger, so that whoever begins it again goes on where it was."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from triscale.errors import TriscaleError
from triscale.training.checkpoints import EVERY, Checkpoints, InMemory, Snapshot

CHECKPOINTS = "checkpoints"  # beside the ledger, a folder for each trial


@dataclass
class EpochEnds:
    """Snapshots of a trial: the end of its newest epoch in memory and, once a minute at most, in files.

    Never the middle of an epoch: where a loss is not finite, a trial that was begun again goes back to the same step as
    one that was not, so that its outcome depends on its values alone. A disk that takes nothing stops no trial.
    """

    files: Checkpoints
    memory: InMemory = field(default_factory=InMemory)

    def due(self, *, whole: bool) -> bool:
        """After every epoch."""
        return whole

    def save(self, snapshot: Snapshot) -> None:
        """See `Keeper`."""
        if snapshot.values["batch"]:
            return
        self.memory.save(snapshot)
        if self.files.due(whole=False):
            with suppress(TriscaleError):
                self.files.save(snapshot)

    def newest(self) -> Snapshot | None:
        """What is in memory; in the beginning, what an earlier attempt left in the files."""
        if self.memory.kept is None:
            self.memory.kept = self.files.newest()
        return self.memory.kept


def place_of(ledger: Path, key: str) -> Path:
    """The folder of the trial with that key."""
    return ledger.parent / CHECKPOINTS / key[:16]


def keeper_in(place: Path) -> EpochEnds:
    """For one attempt at a trial."""
    return EpochEnds(Checkpoints(place, EVERY))


def forget(place: Path) -> None:
    """What its trial left, once nobody will go on from it."""
    shutil.rmtree(place, ignore_errors=True)
    with suppress(OSError):  # others are there, or none ever was
        place.parent.rmdir()


def forget_finished(ledger: Path, keys: Iterable[str]) -> None:
    """What trials with these keys left whose driver ended between their outcome and `forget`."""
    folder = ledger.parent / CHECKPOINTS
    left = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    for key in keys:
        if place_of(ledger, key).name in left:
            forget(place_of(ledger, key))
