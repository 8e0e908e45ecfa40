"""Shows a search as it goes, on standard error."""

from triscale.cli.bars import Bar
from triscale.cli.console import Output
from triscale.costing import cost
from triscale.data import Data
from triscale.runs import RunDirectory
from triscale.searching import Calibrated, SearchListener, Setup, Standing
from triscale.trials import Progress
from triscale.units import format_count, format_epochs, format_seconds


class SearchWatcher(Bar, SearchListener):
    """A listener that prints. begun: there is something to go on with."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._done, self._best = -1, ("", 0.0, 0)
        self.begun = self._weighs = False

    def reading(self, done: int, total: int) -> None:
        """See `SearchListener`."""
        self._advance("checking images", done, total)

    def read(self, data: Data) -> None:
        """See `SearchListener`."""
        self._notes.print(
            f"{len(data.train):,} train, {len(data.val):,} val images of {len(data.classes)} classes, "
            f"{data.size[0]}×{data.size[1]}; the test images are left out"
        )

    def measuring(self) -> None:
        """See `SearchListener`."""
        self._notes.print("timing the reference")

    def planned(self, setup: Setup, run: RunDirectory) -> None:
        """See `SearchListener`."""
        self.begun, self._weighs = True, setup.objective.kind != "constraint"
        how, space = setup.how, setup.space
        own = ", own kernels" if how.kernels else ""
        threads = "one thread" if how.threads == 1 else f"{how.threads} threads"
        macs = format_count(cost(setup.reference).macs)
        self._notes.print(f"{space.name} ({macs} MACs): {space.networks:.2g} networks")
        rungs = ", ".join(map(str, setup.rungs))
        self._notes.print(
            f"each trial {setup.images:,} images × {rungs} epochs, {how.precision}{own}, {threads}, {setup.workers} at "
            "once"
        )

    def calibrating(self, progress: Progress) -> None:
        """See `SearchListener`."""
        left = "" if progress.left is None else f", {format_seconds(progress.left)} left"
        self._advance(f"measuring w: {progress.done} of {progress.wanted} trials{left}", 100 * progress.share, 100.0)

    def calibrated(self, found: Calibrated) -> None:
        """See `SearchListener`."""
        self._notes.print(
            f"w = {found.exponent:.3f} (95 % interval {found.low:.3f} to {found.high:.3f}): twice the cost brings "
            f"{2**-found.exponent - 1:+.1%} accuracy here"
            + ("; more cost brought none, so that w = 0 is used" if found.exponent > 0 else "")
        )

    def progress(self, progress: Progress, standing: Standing) -> None:
        """See `SearchListener`."""
        tried, _, full = standing.rungs[0], standing.rungs[1:-1], standing.rungs[-1]
        stage = "final runs" if standing.last else f"{tried} tried, {full} in full"
        left = "" if standing.left is None else f", {format_seconds(standing.left)} left"
        what = f"search: {stage}, {progress.running} running{left}"
        if self._notes.is_terminal:
            over = not progress.running and standing.last
            self._advance(what, 100.0 if over else min(99.0, 100 * standing.share), 100.0)
        if progress.done != self._done:
            self._done = progress.done
            best = standing.best
            if best is not None and best != self._best:
                self._best = best
                label, worth, epochs = best
                said = f"a worth of {worth:.4f}" if self._weighs else f"{worth:.2%}"
                self._notes.print(f"{label} leads: {said} after {format_epochs(epochs)} ({what})")

    def note(self, text: str) -> None:
        """See `SearchListener`."""
        self._notes.print(text)
