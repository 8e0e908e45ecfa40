"""Who is told what a search does."""

from triscale.data import Data
from triscale.runs import RunDirectory
from triscale.searching.calibrating import Calibrated
from triscale.searching.halving import Standing
from triscale.searching.setup import Setup
from triscale.trials import Progress


class SearchListener:
    """Told what happens, as it happens; does nothing with it. Whoever wants to show progress overrides a method."""

    def reading(self, done: int, total: int) -> None:
        """So many of the images were checked."""

    def read(self, data: Data) -> None:
        """All images were checked."""

    def measuring(self) -> None:
        """Steps of the reference are timed."""

    def planned(self, setup: Setup, run: RunDirectory) -> None:
        """What all trials share is frozen; trials begin."""

    def calibrating(self, progress: Progress) -> None:
        """Something happened while w is measured, or a second went by."""

    def calibrated(self, found: Calibrated) -> None:
        """w is known, and frozen."""

    def progress(self, progress: Progress, standing: Standing) -> None:
        """Something happened, or a second went by."""

    def note(self, text: str) -> None:
        """Something that a person should know."""
