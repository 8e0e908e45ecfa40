"""What the sittings of a run took. It lies in the ledger while they go on, so that one that is killed counts too."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from triscale.trials.ledger import Ledger, Spent

EVERY = 5.0  # seconds between two times that it is written down: what a killed sitting loses


@dataclass(eq=False)
class Timer:
    """Of one sitting, which begins with it. started: when, where that was before the ledger was there."""

    ledger: Ledger
    slots: int
    started: float = field(default_factory=monotonic)
    busy: float = field(default=0.0, init=False)  # seconds in which trials ran, to the end of the last `working`
    _since: float | None = field(default=None, init=False)
    _kept: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.before = self.ledger.sittings()
        self.ledger.sit(self.slots)
        self.keep()

    @property
    def earlier(self) -> float:
        """Seconds that the sittings before this one took."""
        return sum(one.seconds for one in self.before)

    @property
    def apart(self) -> float:
        """Seconds in which no trial ran, of this sitting and of those before."""
        here = monotonic() - self.started - self.busy
        return here + sum(one.seconds - one.busy for one in self.before)

    @contextmanager
    def working(self) -> Iterator[None]:
        """While trials run; however that ends, it is written down."""
        self._since = monotonic()
        try:
            yield
        finally:
            self.busy += monotonic() - self._since
            self._since = None
            self.keep()

    def tick(self) -> None:
        """Now and then, from whoever goes on."""
        if monotonic() - self._kept > EVERY:
            self.keep()

    def keep(self) -> None:
        """Into the ledger."""
        now = monotonic()
        self._kept = now
        self.ledger.spend(now - self.started, self.busy + (0.0 if self._since is None else now - self._since))


def time_values(spent: Sequence[Spent], trials: int, trained: float) -> dict[str, Any]:
    """Plain values for a result and its page. trials, trained: how many count, and their seconds added up."""
    seconds = sum(one.seconds for one in spent)
    room = sum(one.seconds * one.slots for one in spent)
    return {
        "seconds": seconds,
        "trials": trials,
        "trained": trained,
        "workers": spent[-1].slots,
        "share_of_trials": min(1.0, sum(one.fresh for one in spent) / room),
        "share_without_trials": max(0.0, 1 - sum(one.busy for one in spent) / seconds),
    }
