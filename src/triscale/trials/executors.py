"""Who carries trials out: one interface for the processes of this machine and for a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from triscale.trials.failing import Failure
from triscale.trials.running import Probe
from triscale.trials.trial import Outcome, Trial


@dataclass(frozen=True, slots=True)
class Done:
    """A submitted trial that ended, and what came of it."""

    ticket: int
    came: Outcome | Failure


class Executor(Protocol):
    """Takes trials and gives them back in the order in which they end."""

    @property
    def slots(self) -> int:
        """How many it carries out at once."""

    @property
    def widest(self) -> int:
        """Threads that one trial may take at most."""

    def submit(self, ticket: int, trial: Trial, place: Path) -> None:
        """Begins a trial; no more at once than there are slots. place: a folder of this machine, for what an attempt
        after this one may go on from."""

    def wait(self, seconds: float) -> list[Done]:
        """What ended since the last time, after at most so many seconds."""

    def progress(self) -> dict[int, float]:
        """Ticket → share that is done, of those that run and say so."""

    def measure(self, probes: Sequence[Probe]) -> list[float]:
        """Seconds an image of each; as many at once as there are slots, so that they compete as trials do. Infinite
        where nobody has room for it."""

    def close(self) -> None:
        """Ends everything that still runs."""
