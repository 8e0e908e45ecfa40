"""Who is told what a run does, and asked whether it shall go on."""

from triscale.data import Data
from triscale.fitting.frozen import Frozen
from triscale.fitting.plan import Plan, PlanListener
from triscale.runs import RunDirectory
from triscale.training import EpochMetrics, Step


class Listener(PlanListener):
    """Told what happens, as it happens; does nothing with it. Whoever wants to show progress overrides a method."""

    def reading(self, done: int, total: int) -> None:
        """So many of the images were checked."""

    def read(self, data: Data) -> None:
        """All images were checked."""

    def planned(self, plan: Plan, run: RunDirectory) -> None:
        """The plan is frozen; training starts."""

    def resumed(self, run: RunDirectory, plan: Frozen) -> None:
        """A run that was begun before goes on."""

    def step(self, step: Step) -> None:
        """A training step was made."""

    def epoch(self, metrics: EpochMetrics) -> None:
        """An epoch ended and was validated."""

    def scratch(self) -> None:
        """The training from scratch begins, which the first one is compared with."""

    def note(self, text: str) -> None:
        """Something happened that a person should know."""

    def stopping(self) -> bool:
        """Whether the run shall keep what it has and end here."""
        return False
