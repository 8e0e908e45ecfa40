"""Shows a study as it goes, on standard error."""

from collections.abc import Sequence

from triscale.cli.bars import Bar
from triscale.cli.console import Output
from triscale.cli.study import show_ladder
from triscale.costing import cost
from triscale.data import Data
from triscale.runs import RunDirectory
from triscale.studies import Conclusions, Line, Setup, StudyListener
from triscale.trials import Progress
from triscale.units import format_count, format_seconds


class StudyWatcher(Bar, StudyListener):
    """A listener that prints. begun: there is something to go on with."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._what, self._done = "", -1
        self.begun = False

    def reading(self, done: int, total: int) -> None:
        """See `StudyListener`."""
        self._advance("checking images", done, total)

    def read(self, data: Data) -> None:
        """See `StudyListener`."""
        sizes = ", ".join(f"{len(split):,} {name}" for name, split in data.splits().items())
        self._notes.print(f"{sizes} images of {len(data.classes)} classes, {data.size[0]}×{data.size[1]}")

    def measuring(self) -> None:
        """See `StudyListener`."""
        self._notes.print("timing the arms' networks")

    def planned(self, setup: Setup, run: RunDirectory) -> None:
        """See `StudyListener`."""
        self.begun = True
        height, width = setup.baseline.resolution
        how = setup.how
        own = ", own kernels" if how.kernels else ""
        threads = "one thread" if how.threads == 1 else f"{how.threads} threads"
        self._notes.print(
            f"{setup.baseline.name}: {format_count(cost(setup.baseline).macs)} MACs at {height}×{width} pixels; each "
            f"trial {setup.fidelity}, {how.precision}{own}, {threads}, {setup.workers} at once"
        )

    def ladder(self, lines: Sequence[Line], chosen: int, noise: float) -> None:
        """See `StudyListener`."""
        self._notes.print(f"the baseline's runs lie {100 * noise:.2f} points (sd) apart; so these designs would show:")
        show_ladder(self._notes, lines, chosen)

    def progress(self, stage: str, progress: Progress) -> None:
        """See `StudyListener`."""
        left = "" if progress.left is None else f", {format_seconds(progress.left)} left"
        what = f"{stage}: {progress.done} of {progress.wanted} trials, {progress.running} running{left}"
        finished = progress.done == progress.wanted
        if self._notes.is_terminal:
            self._advance(what, 100.0 if finished else min(99.0, 100 * progress.share), 100.0)
        if (stage, progress.done) != (self._what, self._done):
            self._what, self._done = stage, progress.done
            if progress.last is not None:
                label, outcome = progress.last
                self._notes.print(f"{label}: {outcome.selection:.2%} in {format_seconds(outcome.seconds)} ({what})")

    def so_far(self, found: Conclusions) -> None:
        """See `StudyListener`."""
        for at in found.factors:
            arms = sorted(at.arms, key=lambda arm: -arm.mean.value)
            means = ", ".join(f"{arm.name} {arm.mean.value:.2%}" for arm in arms)
            self._notes.print(f"so far, ×{at.factor:g}: {means}")
        if found.fit is not None:
            d, w, r = (f"{share:.0%}" for share in found.fit.shares)
            self._notes.print(f"so far, the best mix: depth {d}, width {w}, resolution {r}")

    def note(self, text: str) -> None:
        """See `StudyListener`."""
        self._notes.print(text)
