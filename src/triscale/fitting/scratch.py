"""What weights were worth: the same network from scratch, on the same split, tested on the same images."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from triscale.evaluating import Predictions, predict_images
from triscale.fitting.plan import Draft, judge
from triscale.models.model import Model, new
from triscale.stats import PairedDifference
from triscale.training import EpochMetrics, Step, train


@dataclass(frozen=True, eq=False)
class Scratch:
    """The training from scratch. test: of the same images as the other's. steps: as made."""

    test: Predictions
    metrics: tuple[EpochMetrics, ...]
    steps: int
    seconds: float


def train_scratch(
    drafted: Draft, started: float, on_epoch: Callable[[EpochMetrics], None], on_step: Callable[[Step], None]
) -> Scratch:
    """The planned network with random weights, by the recipe for such, for as many epochs as were planned with weights;
    its last epoch is tested. started: `time.monotonic()` when the run began."""
    plan, begun = drafted.plan, time.monotonic()
    assert plan.scratch is not None
    seen: list[EpochMetrics] = []

    def told(metrics: EpochMetrics, _: Model) -> None:
        seen.append(metrics)
        on_epoch(metrics)

    model = train(
        new(plan.architecture, drafted.images.classes, plan.preprocess, seed=plan.seed),
        drafted.training,
        plan.scratch,
        plan.machine,
        seed=plan.seed,
        validate=lambda average: judge(average, drafted.held_out, plan.machine),
        deadline=plan.scratch_deadline(started),
        on_epoch=told,
        on_step=on_step,
    )
    return Scratch(predict_images(model, drafted.test), tuple(seen), seen[-1].step, time.monotonic() - begun)


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
