"""How good the answers of a prediction table are: every measure that Triscale reports, with its interval."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from triscale.evaluating.calibration import Calibration, bin_of, calibration, errors, gaps
from triscale.evaluating.resampling import RESAMPLES, Indices, Values, bootstrap, count, percentile
from triscale.evaluating.table import Table
from triscale.stats import Estimate, Proportion

FEW = 5  # among so many classes top-5 says nothing
BALANCED, PRECISION, F1, CALIBRATION, LOSS = range(5)  # the columns of `sampled`


@dataclass(frozen=True, slots=True)
class ClassMeasures:
    """One class: how many images it has, how many of them were named right, how many images were called it."""

    name: str
    images: int
    right: int
    called: int

    @property
    def recall(self) -> Proportion | None:
        """Of its images, those named right; None without images."""
        return Proportion(self.right, self.images) if self.images else None

    @property
    def precision(self) -> Proportion | None:
        """Of the images called it, those that are; None where none was."""
        return Proportion(self.right, self.called) if self.called else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of recall and precision; None where there is neither."""
        both = self.images + self.called
        return 2 * self.right / both if both else None


@dataclass(frozen=True, slots=True)
class Measures:
    """What follows from a table.

    Proportions carry Wilson's interval; estimates the bootstrap's. balanced, macro_precision and macro_f1: means over
    the classes that have images, each counting the same; one that nothing was called has a precision of 0. top5: None
    where there are five classes or fewer. top5 and log_loss are None too where an older table does not say.
    """

    top1: Proportion
    top5: Proportion | None
    balanced: Estimate
    macro_precision: float
    macro_f1: Estimate
    log_loss: Estimate | None
    calibration: Calibration
    classes: tuple[ClassMeasures, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; the keys of a class hold those that `triscale eval --json` always had."""
        top5, loss = self.top5, self.log_loss
        return {
            "accuracy": self.top1.value,
            "accuracy_interval_95": list(self.top1.interval()),
            "top5": None if top5 is None else top5.value,
            "top5_interval_95": None if top5 is None else list(top5.interval()),
            "balanced_accuracy": self.balanced.value,
            "balanced_accuracy_interval_95": list(self.balanced.interval()),
            "macro_precision": self.macro_precision,
            "macro_f1": self.macro_f1.value,
            "macro_f1_interval_95": list(self.macro_f1.interval()),
            "log_loss": None if loss is None else loss.value,
            "log_loss_interval_95": None if loss is None else list(loss.interval()),
            "calibration_error": self.calibration.error.value,
            "calibration_error_interval_95": list(self.calibration.error.interval()),
            "calibration_error_by_chance": self.calibration.by_chance,
            "reliability": [asdict(one) for one in self.calibration.bins],
            "classes": {one.name: _class_values(one) for one in self.classes},
        }


def measure(table: Table, *, resamples: int = RESAMPLES, seed: int = 0) -> Measures:
    """Every measure of a table of at least one image. The same table, resamples and seed give the same figures."""
    return from_resamples(table, *bootstrap(sampled(table), len(table), resamples, seed), seed)


def from_resamples(table: Table, own: Values, resampled: Values, seed: int = 0) -> Measures:
    """The same, once the statistics of `sampled` are there: own float64 [5], resampled float64 [resamples, 5]."""
    several = len(table.classes) > FEW or (table.ranks is not None and int(table.ranks.max()) > FEW)
    return Measures(
        top1=table.top(),
        top5=table.top(FEW) if several and table.ranks is not None else None,
        balanced=percentile(own[BALANCED], resampled[:, BALANCED]),
        macro_precision=float(own[PRECISION]),
        macro_f1=percentile(own[F1], resampled[:, F1]),
        log_loss=percentile(own[LOSS], resampled[:, LOSS]) if table.probability is not None else None,
        calibration=calibration(table, resampled[:, CALIBRATION], seed),
        classes=by_class(table),
    )


def by_class(table: Table) -> tuple[ClassMeasures, ...]:
    """Every class of the table, in its order."""
    k = len(table.classes)
    images, called = np.bincount(table.labels, minlength=k), np.bincount(table.predicted, minlength=k)
    right = np.bincount(table.labels[table.right], minlength=k)
    rows = zip(table.classes, images.tolist(), right.tolist(), called.tolist(), strict=True)
    return tuple(ClassMeasures(*row) for row in rows)


def balanced_accuracy(table: Table) -> float:
    """The mean of the recalls of the classes that have images."""
    return float(sampled(table)(np.arange(len(table), dtype=np.int64)[None])[0, BALANCED])


def sampled(table: Table) -> Callable[[Indices], Values]:
    """positions of images [rows, n] → float64 [rows, 5]: balanced accuracy, macro precision, macro F1, expected
    calibration error, mean log loss (0 where the table does not say).

    Classes without images in a row do not count in it. The sums run over the classes by name, so that a table gives
    the same bits in whatever order its classes are numbered.
    """
    present = sorted(set(table.labels.tolist()), key=table.classes.__getitem__)
    k = len(present)
    number = np.full(len(table.classes), k, np.int64)
    number[present] = np.arange(k)
    labels, predicted = number[table.labels], number[table.predicted]
    hit = np.where(table.right, labels, k)
    bins, gap = bin_of(table.confidence), gaps(table)
    losses = np.zeros(len(table)) if table.probability is None else table.losses()

    def statistics(at: Indices) -> Values:
        images, called, right = count(labels[at], k), count(predicted[at], k), count(hit[at], k)
        there = images > 0
        recall, precision = right / np.maximum(images, 1), right / np.maximum(called, 1)
        f1 = 2 * right / np.maximum(images + called, 1)
        means = [np.where(there, each, 0).sum(1) / there.sum(1) for each in (recall, precision, f1)]
        return np.stack([*means, errors(bins[at], gap[at]), losses[at].mean(1)], 1)

    return statistics


def _class_values(one: ClassMeasures) -> dict[str, Any]:
    recall, precision = one.recall, one.precision
    return {
        "images": one.images,
        "right": one.right,
        "called": one.called,
        "recall": None if recall is None else recall.value,
        "recall_interval_95": None if recall is None else list(recall.interval()),
        "precision": None if precision is None else precision.value,
        "precision_interval_95": None if precision is None else list(precision.interval()),
        "f1": one.f1,
    }
