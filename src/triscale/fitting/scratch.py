"""What weights were worth: the same network from scratch, on the same split, tested on the same images."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from triscale.evaluating import Predictions, predict_images
from triscale.evaluating.pairing import paired
from triscale.fitting.frozen import Frozen
from triscale.fitting.judging import judge
from triscale.fitting.listening import Listener
from triscale.fitting.ready import Ready
from triscale.models.model import Model, new
from triscale.stats import PairedDifference, Proportion
from triscale.training import EpochMetrics, Keeper, Step, Watch, rows_of, train


@dataclass(frozen=True)
class Scratch:
    """The training from scratch. top: test accuracy, on the same images as the other's. gain: by how much the weights
    are better than it on these. steps: as made."""

    top: Proportion
    gain: PairedDifference
    metrics: tuple[EpochMetrics, ...]
    steps: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain values; differences in points of a hundred."""
        return {
            "test_accuracy": self.top.value,
            "test_accuracy_interval_95": list(self.top.interval()),
            "epochs": len(self.metrics),
            "steps": self.steps,
            "seconds": round(self.seconds, 2),
            "metrics": [asdict(row) for row in self.metrics],
            "gain": {
                "points": 100 * self.gain.value,
                "interval_95": [100 * bound for bound in self.gain.interval()],
                "only_with_weights": self.gain.first,
                "only_from_scratch": self.gain.second,
                "images": self.gain.n,
                "p_value": self.gain.p_value(),
            },
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any] | None) -> "Scratch | None":
        """As `to_json` wrote it; None where there was none."""
        if kept is None:
            return None
        found = kept["gain"]
        return cls(
            top=Proportion(round(kept["test_accuracy"] * found["images"]), found["images"]),
            gain=PairedDifference(found["only_with_weights"], found["only_from_scratch"], found["images"]),
            metrics=tuple(EpochMetrics(**row) for row in kept["metrics"]),
            steps=kept["steps"],
            seconds=kept["seconds"],
        )


def train_scratch(
    plan: Frozen, ready: Ready, keeper: Keeper, listener: Listener, spent: float, fitted: Predictions
) -> tuple[Scratch, Predictions]:
    """The planned network with random weights, by the recipe for such, for as many epochs as were planned with weights;
    its last epoch is tested. spent: seconds that the training with weights took. fitted: what that network says of the
    test images."""
    assert plan.scratch is not None
    begun, watch = time.monotonic(), _Watch(listener)
    model = train(
        new(plan.architecture, ready.images.classes, plan.preprocess, seed=plan.seed),
        ready.training,
        plan.scratch,
        plan.machine,
        seed=plan.seed,
        validate=lambda average: judge(average, ready.held_out, plan.machine),
        deadline=plan.scratch_deadline(spent),
        keeper=keeper,
        watch=watch,
    )
    rows = watch.rows or rows_of(keeper)
    test = predict_images(model, ready.test)
    # What earlier sittings trained counts, too.
    seconds = max(time.monotonic() - begun, sum(row.seconds for row in rows))
    return Scratch(test.top(), _gain(fitted, test), rows, rows[-1].step, seconds), test


@dataclass
class _Watch(Watch):
    """Passes on what the training says, and keeps its rows."""

    listener: Listener
    rows: tuple[EpochMetrics, ...] = ()

    def step(self, step: Step) -> None:
        self.listener.step(step)

    def epoch(self, rows: Sequence[EpochMetrics], average: Model) -> None:
        self.rows = tuple(rows)
        self.listener.epoch(rows[-1])

    def note(self, text: str) -> None:
        self.listener.note(text)

    def stopping(self) -> bool:
        return self.listener.stopping()


def _gain(fitted: Predictions, scratch: Predictions) -> PairedDifference:
    """By how much one is better than the other on the images that both were tested on."""
    return paired(fitted.predicted == fitted.labels, scratch.predicted == scratch.labels)
