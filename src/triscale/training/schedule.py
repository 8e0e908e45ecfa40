"""How far a training has come, and how many steps are still to come."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

TRUST = 0.1  # share of the steps whose time as planned weighs as much as what is measured: a hiccup is no trend
FEWEST_EPOCHS, FEWEST_STEPS = 5, 300  # below them a training says nothing
SETTLED = 8  # steps before the clock is believed at all: the first ones build the library's kernels


@dataclass(frozen=True, slots=True)
class Deadline:
    """When the last step must be made, and what the plan expects until then.

    seconds: from the first step on, of `clock`. step, epoch_end: expected seconds of a step, and of what follows an
    epoch's last one.
    """

    seconds: float
    step: float
    epoch_end: float = 0.0
    clock: Callable[[], float] = time.monotonic


@dataclass
class Schedule:
    """Counts steps. With a deadline, as many of the planned ones are made as the time turns out to allow.

    planned: all steps. progress: the share of the training that lies behind, which decides the learning rate: where
    steps are left out, it grows faster, so that the rate still comes down to its end.
    """

    planned: int
    per_epoch: int
    deadline: Deadline | None = None
    done: int = 0
    progress: float = 0.0
    steps: int = field(init=False)
    _started: float = field(init=False, default=0.0)
    _between: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.steps = self.planned
        if self.deadline is not None:
            self._started = self.deadline.clock()

    @property
    def finished(self) -> bool:
        """Whether the last step was made."""
        return self.done >= self.steps

    @property
    def middle(self) -> float:
        """The progress at the middle of the next step, above 0 and below 1."""
        return self.progress + (1 - self.progress) / (self.steps - self.done) / 2

    def advance(self) -> None:
        """A step was made."""
        self.progress += (1 - self.progress) / (self.steps - self.done)
        self.done += 1
        settled = min(SETTLED, max(1, self.planned // 10))
        if self.deadline is not None and self.done >= settled and not self.finished:
            self.steps = min(self.planned, self.done + max(0, self._affordable(self.deadline)))

    def values(self) -> dict[str, float]:
        """Where it stands, for a checkpoint; the clock counts as spent what was spent until then."""
        spent = 0.0 if self.deadline is None else self.deadline.clock() - self._started
        return {
            "done": self.done,
            "steps": self.steps,
            "progress": self.progress,
            "between": self._between,
            "spent": spent,
        }

    def restore(self, values: Mapping[str, float]) -> None:
        """Back to what `values` said."""
        self.done, self.steps = int(values["done"]), int(values["steps"])
        self.progress, self._between = values["progress"], values["between"]
        if self.deadline is not None:
            self._started = self.deadline.clock() - values["spent"]

    def epoch_ended(self, seconds: float) -> None:
        """Validation and what else follows an epoch took so many seconds."""
        self._between += seconds

    def _affordable(self, deadline: Deadline) -> int:
        """The steps that the time left has room for, by what was planned and what is measured."""
        now = deadline.clock()
        trust = TRUST * self.planned
        spent = now - self._started - self._between
        step = (spent + trust * deadline.step) / (self.done + trust)
        epochs = self.done // self.per_epoch
        between = (self._between + deadline.epoch_end) / (epochs + 1)
        # A last epoch that is not whole is validated too.
        return int((self._started + deadline.seconds - now - between) / (step + between / self.per_epoch))
