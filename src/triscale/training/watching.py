"""What a training tells whoever watches it, and what it asks them."""

from collections.abc import Sequence
from dataclasses import dataclass

from triscale.errors import HopelessError, TriscaleError
from triscale.models.model import Model


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """What is known after an epoch.

    loss: mean over the epoch's steps. rate: of the head. val_accuracy, val_loss: of the averaged weights. kept: the
    epoch whose weights would be kept if this were the last; 0 where that is always so. Of the clock: seconds of the
    epoch's steps; images a second; waiting: seconds of those in which the steps waited for images; memory: bytes at the
    peak so far, of the CUDA device or else of this process.
    """

    epoch: int
    step: int
    loss: float
    rate: float
    val_accuracy: float
    val_loss: float
    seconds: float
    images_per_second: float
    waiting: float = 0.0
    memory: int = 0
    kept: int = 0


CLOCK = ("seconds", "images_per_second", "waiting", "memory")  # fields that no two runs share


@dataclass(frozen=True, slots=True)
class Validation:
    """What held-out images say of a model: the share named right, the mean of -log(probability of the class), and that
    mean's standard error, by which few images tell two models apart."""

    accuracy: float
    loss: float
    error: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """What a progress bar needs, after each step."""

    step: int
    steps: int
    epoch: int
    epochs: int


class Watch:
    """Told what happens, as it happens; does nothing with it. Whoever wants to know overrides a method."""

    def step(self, step: Step) -> None:
        """A training step was made."""

    def epoch(self, rows: Sequence[EpochMetrics], average: Model) -> None:
        """An epoch ended and was validated; the rows of all epochs so far, this one's last."""

    def note(self, text: str) -> None:
        """Something happened that a person should know, such as a smaller step."""

    def stopping(self) -> bool:
        """Whether the training shall keep what it has and end here."""
        return False


class DivergedError(HopelessError):
    """The loss is not finite however small the steps; going on would end here again."""


class StoppedError(TriscaleError):
    """The training ended before its time because it was asked to; what it had is kept."""
