"""What weights were worth: the same network from scratch, on the same split, tested on the same images."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from triscale.evaluating import Predictions, predict_images
from triscale.fitting.frozen import Frozen
from triscale.fitting.judging import judge
from triscale.fitting.listening import Listener
from triscale.fitting.ready import Ready
from triscale.models.model import Model, new
from triscale.stats import PairedDifference
from triscale.training import EpochMetrics, Keeper, Step, Watch, rows_of, train


@dataclass(frozen=True, eq=False)
class Scratch:
    """The training from scratch. test: of the same images as the other's. steps: as made."""

    test: Predictions
    metrics: tuple[EpochMetrics, ...]
    steps: int
    seconds: float


def train_scratch(plan: Frozen, ready: Ready, keeper: Keeper, listener: Listener, spent: float) -> Scratch:
    """The planned network with random weights, by the recipe for such, for as many epochs as were planned with weights;
    its last epoch is tested. spent: seconds that the training with weights took."""
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
    return Scratch(test, rows, rows[-1].step, seconds)


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


def gain(fitted: Predictions, scratch: Predictions) -> PairedDifference:
    """By how much one is better than the other on the images that both were tested on."""
    first, second = fitted.predicted == fitted.labels, scratch.predicted == scratch.labels
    return PairedDifference(int((first & ~second).sum()), int((second & ~first).sum()), len(fitted.labels))


def scratch_values(scratch: Scratch, fitted: Predictions) -> dict[str, Any]:
    """The comparison as plain values; differences in points of a hundred."""
    top, difference = scratch.test.top(), gain(fitted, scratch.test)
    return {
        "test_accuracy": top.value,
        "test_accuracy_interval_95": list(top.interval()),
        "epochs": len(scratch.metrics),
        "steps": scratch.steps,
        "seconds": round(scratch.seconds, 2),
        "gain": {
            "points": 100 * difference.value,
            "interval_95": [100 * bound for bound in difference.interval()],
            "only_with_weights": difference.first,
            "only_from_scratch": difference.second,
            "images": difference.n,
            "p_value": difference.p_value(),
        },
    }
