"""Shows a fit as it goes, on standard error: a bar where a person watches, a line an epoch where a file does."""

from triscale.cli.bars import Bar
from triscale.cli.console import Output
from triscale.cli.plans import show_plan, show_training
from triscale.cli.stopping import Signalled
from triscale.data import Data
from triscale.fitting import Frozen, Listener, Plan
from triscale.runs import RunDirectory
from triscale.training import EpochMetrics, Step
from triscale.units import format_count, format_epochs

UNEVEN = 3  # times more images in the largest class than in the smallest: from here on it is worth a word


class Watcher(Bar, Listener):
    """A listener that prints. may_balance: whether --balance would still change something."""

    def __init__(self, output: Output, signalled: Signalled | None = None, *, may_balance: bool = True) -> None:
        super().__init__(output)
        self._signalled, self._may_balance = signalled or Signalled(), may_balance
        self._duplicates = self._images = 0

    def reading(self, done: int, total: int) -> None:
        """See `Listener`."""
        self._advance("checking images", done, total)

    def read(self, data: Data) -> None:
        """See `Listener`."""
        sizes = ", ".join(f"{len(split):,} {name}" for name, split in data.splits().items())
        kind = "gray" if data.channels == 1 else "colour"
        self._notes.print(f"{sizes} images of {len(data.classes)} classes, {data.size[0]}×{data.size[1]}, {kind}")
        for bad in data.skipped[:5]:
            self._notes.print(f"left out: {bad.name} ({bad.reason})")
        if data.skipped:
            self._notes.print(f"unreadable images left out: {len(data.skipped):,}; all are listed in run.json")
        self._duplicates, self._images = data.duplicates, len(data.train)
        if data.leaks:
            self._notes.print(f"test images that are exact copies of training or validation images: {data.leaks:,}")
        ratio, most, least = data.imbalance()
        if ratio >= UNEVEN:
            counts = data.counts()["train"]
            advice = "; --balance weighs every class the same" if self._may_balance else ""
            self._notes.print(
                f"classes are uneven: {most} has {counts[most]:,} training images, {least} {counts[least]:,}{advice}"
            )

    def preparing(self, done: int, total: int) -> None:
        """See `Listener`."""
        self._advance("decoding images", done, total)

    def measuring(self, done: int, total: int) -> None:
        """See `Listener`."""
        self._advance("timing candidates", done, total)

    def planned(self, plan: Plan, run: RunDirectory) -> None:
        """See `Listener`."""
        named = plan.scaled.rule == "none" and plan.weights is None
        (show_training if named else show_plan)(self._notes, plan, self._images)
        self._signalled.begun = True

    def resumed(self, run: RunDirectory, plan: Frozen) -> None:
        """See `Listener`."""
        network, epochs = plan.architecture, format_epochs(plan.recipe.epochs)
        self._notes.print(f"going on with {run.path}: {network.name}, {epochs}, seed {plan.seed}")
        self._signalled.begun = True

    def note(self, text: str) -> None:
        """See `Listener`."""
        self._notes.print(text)

    def stopping(self) -> bool:
        """See `Listener`."""
        return self._signalled.number != 0

    def step(self, step: Step) -> None:
        """See `Listener`."""
        # After the last step nobody asks any more.
        self._signalled.begun, self._signalled.gentle = True, step.step < step.steps
        self._advance(f"epoch {step.epoch} of {step.epochs}", step.step, step.steps)

    def scratch(self) -> None:
        """See `Listener`."""
        self._notes.print("now the same network from scratch, to compare")

    def epoch(self, metrics: EpochMetrics) -> None:
        """See `Listener`."""
        self._signalled.gentle = False  # this may have been the last one
        copies = f" ({self._duplicates:,} copies of training images among it)" if self._duplicates else ""
        self._notes.print(
            f"epoch {metrics.epoch}: loss {metrics.loss:.4f}, validation {metrics.val_accuracy:.2%}{copies}, "
            f"{format_count(metrics.images_per_second)} images/s"
        )
