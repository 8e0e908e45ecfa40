"""Two models on the same images: what follows from their two tables, image by image."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from triscale.evaluating.calibration import calibration_difference
from triscale.evaluating.measures import BALANCED, CALIBRATION, F1, LOSS, Measures, by_class, from_resamples, sampled
from triscale.evaluating.pairing import paired
from triscale.evaluating.resampling import Values, bootstrap, percentile
from triscale.evaluating.table import Table
from triscale.stats import Estimate, PairedDifference


@dataclass(frozen=True, slots=True)
class Flip:
    """An image that only one of the two models named right. right: which one, 0 or 1. answers: what each called it,
    with its confidence. names: what the image is called in each table."""

    names: tuple[str, str]
    label: str
    answers: tuple[tuple[str, float], tuple[str, float]]
    right: int
    digest: bytes

    @property
    def surety(self) -> float:
        """How sure the model was that was wrong."""
        return self.answers[1 - self.right][1]


@dataclass(frozen=True, slots=True)
class ClassDifference:
    """One class: images, how many of them each model named right, and the difference of the recalls (None without
    images)."""

    name: str
    images: int
    right: tuple[int, int]
    difference: PairedDifference | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two models on the same images: tables in the same order, their measures, and the differences, first less second.

    names: of the two models. data: where the images lie, if that is known. which: as in `Evaluation`. learned: of each
    model, how many of the images it had learned from (None: nobody says). The intervals of differences are those of
    pairs: both models saw the same images, also in every resample.
    """

    names: tuple[str, str]
    tables: tuple[Table, Table]
    measures: tuple[Measures, Measures]
    calibration: Estimate
    balanced: Estimate
    macro_f1: Estimate
    log_loss: Estimate | None
    data: Path | None
    which: str
    learned: tuple[int | None, int | None]

    @property
    def by_content(self) -> bool:
        """Whether the images were matched by their content, or by name alone."""
        return all(table.digests for table in self.tables)

    @cached_property
    def difference(self) -> PairedDifference:
        """Of the accuracies; with McNemar's test."""
        first, second = (table.right for table in self.tables)
        return paired(first, second)

    @property
    def both(self) -> int:
        """How many images both models named right."""
        return int((self.tables[0].right & self.tables[1].right).sum())

    @property
    def neither(self) -> int:
        """How many images neither named right."""
        return self.difference.n - self.both - self.difference.first - self.difference.second

    @cached_property
    def flips(self) -> tuple[Flip, ...]:
        """The images that only one named right: first those that the other was surest of."""
        first, second = self.tables
        found = [_flip(first, second, int(i)) for i in np.flatnonzero(first.right != second.right)]
        return tuple(sorted(found, key=lambda flip: (-flip.surety, flip.names)))

    @cached_property
    def classes(self) -> tuple[ClassDifference, ...]:
        """Class by class, in the order of the models' classes."""
        first, second = self.tables
        k, labels = len(first.classes), first.labels
        order, ends = np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=k))[:-1]
        rights = (np.split(table.right[order], ends) for table in self.tables)  # by class
        found = []
        for one, other, *right in zip(by_class(first), by_class(second), *rights, strict=True):
            apart = paired(*right) if one.images else None
            found.append(ClassDifference(one.name, one.images, (one.right, other.right), apart))
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; differences are a's less b's, those of shares in points of a hundred."""
        difference = self.difference
        return {
            "a": _side(self, 0),
            "b": _side(self, 1),
            "images": difference.n,
            "evaluated": self.which,
            "data": None if self.data is None else str(self.data),
            "matched_by": "content" if self.by_content else "name",
            "difference": {
                "points": 100 * difference.value,
                "interval_95": [100 * bound for bound in difference.interval()],
                "p_value": difference.p_value(),
                "both": self.both,
                "only_a": difference.first,
                "only_b": difference.second,
                "neither": self.neither,
            },
            "calibration_error_difference": _points(self.calibration),
            "balanced_accuracy_difference": _points(self.balanced),
            "macro_f1_difference": _points(self.macro_f1),
            "log_loss_difference": None
            if self.log_loss is None
            else {"value": self.log_loss.value, "interval_95": list(self.log_loss.interval())},
            "flipped": [_flip_values(flip) for flip in self.flips],
            "classes": {one.name: _class_values(one) for one in self.classes},
        }


def compared(
    names: tuple[str, str],
    tables: tuple[Table, Table],
    data: Path | None,
    which: str,
    learned: tuple[int | None, int | None],
) -> Comparison:
    """The comparison of two tables of the same images in the same order, their classes numbered alike."""
    # The same seed and number of images draw the same images for both: the resampled differences are paired.
    (own, drawn), (other, others) = (bootstrap(sampled(table), len(table)) for table in tables)
    value, apart = own - other, drawn - others
    measures = from_resamples(tables[0], own, drawn), from_resamples(tables[1], other, others)
    calibrations = (measures[0].calibration, measures[1].calibration)
    return Comparison(
        names=names,
        tables=tables,
        measures=measures,
        calibration=calibration_difference(*calibrations, value[CALIBRATION], apart[:, CALIBRATION]),
        balanced=percentile(value[BALANCED], apart[:, BALANCED]),
        macro_f1=percentile(value[F1], apart[:, F1]),
        log_loss=_loss(tables, value, apart),
        data=data,
        which=which,
        learned=learned,
    )


def _loss(tables: tuple[Table, Table], value: Values, apart: Values) -> Estimate | None:
    if any(table.probability is None for table in tables):
        return None
    return percentile(value[LOSS], apart[:, LOSS])


def _flip(first: Table, second: Table, i: int) -> Flip:
    answers = [(table.classes[table.predicted[i]], float(table.confidence[i])) for table in (first, second)]
    return Flip(
        names=(first.names[i], second.names[i]),
        label=first.classes[first.labels[i]],
        answers=(answers[0], answers[1]),
        right=0 if first.right[i] else 1,
        digest=first.digests[i] if first.digests else b"",
    )


def _side(comparison: Comparison, which: Literal[0, 1]) -> dict[str, Any]:
    values = comparison.measures[which].to_dict()
    return {"name": comparison.names[which], "learned": comparison.learned[which], **values}


def _points(apart: Estimate) -> dict[str, Any]:
    return {"points": 100 * apart.value, "interval_95": [100 * bound for bound in apart.interval()]}


def _flip_values(flip: Flip) -> dict[str, Any]:
    (a, a_sure), (b, b_sure) = flip.answers
    return {
        "name": flip.names[0],
        "label": flip.label,
        "a": a,
        "b": b,
        "a_confidence": a_sure,
        "b_confidence": b_sure,
        "right": "ab"[flip.right],
    }


def _class_values(one: ClassDifference) -> dict[str, Any]:
    points = None if one.difference is None else 100 * one.difference.value
    bounds = None if one.difference is None else [100 * bound for bound in one.difference.interval()]
    right = {"a_right": one.right[0], "b_right": one.right[1]}
    return {"images": one.images, **right, "points": points, "interval_95": bounds}
