"""Who is told what a study does."""

from collections.abc import Sequence

from triscale.data import Data
from triscale.runs import RunDirectory
from triscale.studies.conclusions import Conclusions
from triscale.studies.planning import Line
from triscale.studies.setup import Setup
from triscale.trials import Progress


class StudyListener:
    """Told what happens, as it happens; does nothing with it. Whoever wants to show progress overrides a method."""

    def reading(self, done: int, total: int) -> None:
        """So many of the images were checked."""

    def read(self, data: Data) -> None:
        """All images were checked."""

    def measuring(self) -> None:
        """Steps of the arms' networks are timed."""

    def planned(self, setup: Setup, run: RunDirectory) -> None:
        """What all trials share is frozen; trials begin."""

    def ladder(self, lines: Sequence[Line], chosen: int, noise: float) -> None:
        """A line of the ladder was chosen, after the baseline's runs showed so much noise."""

    def progress(self, stage: str, progress: Progress) -> None:
        """Something happened, or a second went by."""

    def so_far(self, found: Conclusions) -> None:
        """What the selection images say so far; now and then."""

    def note(self, text: str) -> None:
        """Something that a person should know."""
