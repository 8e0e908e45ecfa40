"""When the page of a run of many trials is made anew: it is as dear as some steps of a trial."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

EVERY, SHARE = 60.0, 100  # seconds between two pages; and so many times what one takes


@dataclass
class Paging:
    """When the page was made last, how long that took, and of how many trials."""

    at: float = field(default_factory=monotonic)
    took: float = 0.0
    trials: int = 0

    def due(self, trials: int) -> bool:
        """Whether there is news, and enough time since the last. trials: that have ended."""
        return trials > self.trials and monotonic() - self.at > max(EVERY, SHARE * self.took)

    @contextmanager
    def making(self, trials: int) -> Iterator[None]:
        """While it is made, of so many trials."""
        started = monotonic()
        yield
        self.at, self.trials = monotonic(), trials
        self.took = self.at - started
